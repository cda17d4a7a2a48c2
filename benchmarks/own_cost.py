"""What one request costs the harness itself, by role: instructions, calls, allocations, system calls, switches.

    python benchmarks/own_cost.py --data posix_shm --size 1KiB
    python benchmarks/own_cost.py --lane --size 64 --functions 15

The programs run three times: under callgrind, which counts instructions in user mode and repeats within a hundredth,
under strace, and as they are. Each serves requests one at a time, first a few and then more; what the difference took,
divided by its requests, is a request's own. So starts and ends are not in it. Needs valgrind and strace.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from harness import console
from harness.measure.probes import proc
from harness.measure.program import children

_HARNESS = [sys.executable, "-m", "harness"]
# valgrind has no pidfd_open(2): these stand in for it.
_WITHOUT_PIDFDS = """
import os, signal, sys, threading
pids = {}
def ended(pid, fd):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(fd)
def pidfd_open(pid, flags=0):
    fd, other = os.pipe()
    pids[fd] = pid
    if pid != os.getppid():
        threading.Thread(target=ended, args=(pid, other), daemon=True).start()
    return fd
os.pidfd_open = pidfd_open
signal.pidfd_send_signal = lambda fd, number: os.kill(pids[fd], number)
from harness.cli import main
sys.exit(main())
"""
_TICK_US = 10**6 // os.sysconf("SC_CLK_TCK")
_INTERPRETER, _ALLOCATES = "_PyEval_EvalFrameDefault", re.compile(r"_?PyObject_(Malloc|Calloc|GC_New.*)|_PyObject_New")

Counts = Counter[str]


class Pipeline:
    """The programs of one pipeline, each under `tool` (what precedes its arguments), and a load that asks for one
    file again and again."""

    def __init__(self, args: argparse.Namespace, directory: Path, tool: Callable[[str], list[str]]) -> None:
        self._environment = {**os.environ, "TRANSPORT_HARNESS_DIR": str(directory / "base"), "PYTHONHASHSEED": "0"}
        files = directory / "files"
        files.mkdir()
        (files / "one").write_bytes(os.urandom(args.size))
        self._workload = directory / "workload"
        self._workload.write_text("/one\n")
        self._args, self._tool = args, tool
        self._port = 0
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._start("cache", ["simplecached", "-c", str(files), "-t", "1", "--command", args.command])
            if not args.lane:
                line = self._start("proxy", ["webproxy", "-p", "0", "-t", "1", "--data", args.data])
                self._port = json.loads(line)["port"]
        except BaseException:
            self.close()
            raise

    def _start(self, role: str, command: list[str]) -> bytes:
        program = subprocess.Popen(
            [*self._tool(role), *command, "--json"], stdout=subprocess.PIPE, env=self._environment
        )
        self.programs[role] = program
        assert program.stdout is not None
        if not (line := program.stdout.readline()):
            raise OSError(f"{role}: it ended before it was ready")
        return line

    def load(self, requests: int) -> None:
        """Make so many requests, one at a time. A load over lanes is a role itself, and runs under the tool."""
        common = ["-t", "1", "--processes", "1", "-w", str(self._workload), "-r", str(requests), "--timeout", "120"]
        command = ["lane", "--data", self._args.data] if self._args.lane else ["gfclient", "-p", str(self._port)]
        tool = self._tool("lane") if self._args.lane else _HARNESS
        line = [*tool, *command, *common, "--json"]
        if not self._args.lane:
            line.append("--discard")
        subprocess.run(line, check=True, env=self._environment, stdout=subprocess.DEVNULL, timeout=600)

    def close(self) -> None:
        for program in reversed(self.programs.values()):
            program.send_signal(signal.SIGTERM)
            program.wait(60)


def of_callgrind(files: Iterable[Path]) -> Counts:
    """Instructions of each function itself ("self NAME"), and calls to it ("calls NAME"); callgrind's own format."""
    found: Counts = Counter()
    names: dict[str, str] = {}

    def name(text: str) -> str:
        number, _, rest = text.partition(" ")
        return names.setdefault(number, rest.partition("'")[0]) if rest else names[number]  # 'N: its Nth recursion

    for file in files:
        names.clear()
        function, called, inclusive = "", "", False
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith("fn="):
                function = name(line[3:])
            elif line.startswith("cfn="):
                called = name(line[4:])
            elif line.startswith("calls="):
                found[f"calls {called}"] += int(line[6:].split()[0])
                inclusive = True
            elif line[:1] in "0123456789+-*" and line:
                if not inclusive:
                    found[f"self {function}"] += int(line.split()[1])
                inclusive = False
    return found


def under_callgrind(args: argparse.Namespace, requests: int) -> dict[str, Counts]:
    """What the programs take in all, by role, while they make so many requests."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def tool(role: str) -> list[str]:
            out = f"--callgrind-out-file={directory}/{role}.%p"
            return ["valgrind", "-q", "--tool=callgrind", out, sys.executable, "-c", _WITHOUT_PIDFDS]

        pipeline = Pipeline(args, directory, tool)
        try:
            pipeline.load(requests)
        finally:
            pipeline.close()
        return {role: of_callgrind(directory.glob(f"{role}.*")) for role in roles(args)}


def under_strace(args: argparse.Namespace, requests: int) -> dict[str, Counts]:
    """System calls in all by role, and by name."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = [directory / f"{role}.calls" for role in roles(args)]

        def tool(role: str) -> list[str]:
            return ["strace", "-D", "-f", "-c", "-o", f"{directory}/{role}.calls", *_HARNESS]

        pipeline = Pipeline(args, directory, tool)
        try:
            pipeline.load(requests)
        finally:
            pipeline.close()
        until = time.monotonic() + 10
        while not all(file.exists() and file.stat().st_size for file in files):
            if time.monotonic() > until:
                raise OSError("strace wrote no counts")
            time.sleep(0.05)  # strace -D writes them once the programs have ended
        rows = {role: file.read_text().splitlines()[2:] for role, file in zip(roles(args), files, strict=True)}
    return {
        role: Counter(
            {fields[-1]: int(fields[3]) for line in lines if (fields := line.split())[3:4] and fields[3].isdigit()}
        )
        for role, lines in rows.items()
    }


def as_they_are(args: argparse.Namespace, requests: int) -> dict[str, Counts]:
    """CPU time in user mode and in the kernel (ticks), and context switches, of the servers: of these requests only."""
    with tempfile.TemporaryDirectory() as name:
        pipeline = Pipeline(args, Path(name), lambda role: _HARNESS)
        try:
            pipeline.load(requests // 10 + 1)
            before = {role: _usage(program.pid) for role, program in pipeline.programs.items()}
            pipeline.load(requests)
            after = {role: _usage(program.pid) for role, program in pipeline.programs.items()}
            return {role: Counter({key: after[role][key] - before[role][key] for key in after[role]}) for role in after}
        finally:
            pipeline.close()


def _usage(pid: int) -> Counts:
    found: Counts = Counter()
    for process in (pid, *children(pid)):
        times = proc.used(process)
        found["user us"] += times.user * _TICK_US
        found["kernel us"] += times.kernel * _TICK_US
        for task in Path(f"/proc/{process}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            found["waits"] += int(status["voluntary_ctxt_switches"])
            found["pushed aside"] += int(status["nonvoluntary_ctxt_switches"])
    return found


def roles(args: argparse.Namespace) -> list[str]:
    return ["cache", "lane" if args.lane else "proxy"]


def of_one(take: Callable[[argparse.Namespace, int], dict[str, Counts]], args: argparse.Namespace) -> dict[str, Counts]:
    """By role, a thousand times what one request takes."""
    few, many = take(args, args.requests), take(args, 3 * args.requests)
    found = {}
    for role in many:
        difference = Counter(many[role])
        difference.subtract(few[role])
        found[role] = Counter({key: round(1000 * count / (2 * args.requests)) for key, count in difference.items()})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="posix_shm")
    parser.add_argument("--command", default="posix_mq")
    parser.add_argument("--size", type=console.size, default=1024, help="bytes of the file (1KiB)")
    parser.add_argument("--lane", action="store_true", help="the two channels alone, without TCP")
    parser.add_argument("--requests", type=int, default=300, help="of the smaller load (%(default)s)")
    parser.add_argument("--functions", type=int, default=0, help="how many functions to list, the costliest first")
    args = parser.parse_args()
    what = "over the channels alone" if args.lane else "over TCP"
    print(f"A request for {args.size} bytes {what}, commands by {args.command}, content by {args.data}")
    counts, calls = of_one(under_callgrind, args), of_one(under_strace, args)
    times = {} if args.lane else as_they_are(args, 20 * args.requests)
    for role in roles(args):
        own = Counter({key[5:]: count for key, count in counts[role].items() if key.startswith("self ")})
        called = {key[6:]: count for key, count in counts[role].items() if key.startswith("calls ")}
        frames = called.get(_INTERPRETER, 0)
        allocations = sum(count for key, count in called.items() if _ALLOCATES.fullmatch(key))
        print(
            f"\n{role}: {own.total() / 1000:,.0f} instructions in user mode, {sum(called.values()) / 1000:,.0f} calls"
        )
        print(f"  of these {frames / 1000:.1f} enter the interpreter, {allocations / 1000:.1f} allocate")
        system = {key: count for key, count in calls[role].most_common() if count > 20 and key != "total"}
        print("  system calls: " + ", ".join(f"{key} {count / 1000:.2f}" for key, count in system.items()))
        if role in times:
            print("  " + ", ".join(f"{key} {count / args.requests / 20:.2f}" for key, count in times[role].items()))
        for key, count in own.most_common(args.functions):
            print(f"  {count / 1000:10,.0f} instructions of {key}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
