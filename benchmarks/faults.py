"""A campaign of faults: programs of a pipeline are killed and stopped, clients reset, and every byte is compared.

    python benchmarks/faults.py --faults 10000 --seed 1

Several pipelines run at once, each with transports drawn anew, and have clients that ask for files all the time. A
fault is done at a random moment; what died is started again, and files have to come within the timeouts of the
programs. When a pipeline has had its faults, its programs end, `harness clean` runs, and nothing may be left. The same
seed draws the same faults; what they meet differs from run to run.

It prints counts by role and transport, and ends with 1 where a byte was wrong, a client hung or something was left.
"""

import argparse
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

from harness import registry
from harness.api.sockets import reset_on_close
from harness.measure.program import children
from harness.protocol import getfile

TIMEOUT = 1.0  # seconds, of the programs
_HANGS = 15.0  # seconds after which a request counts as one that hangs
_BACK = 2 * TIMEOUT + 3.0  # seconds for files to come again: two waits, and a start
_A_PIPELINE = 10  # faults
_SIZES = (0, 1, 700, 60_000, 1_500_000)  # bytes of the files
_FAULTS = (
    ("kill", "cache"),
    ("kill", "cache-worker"),
    ("kill", "proxy"),
    ("kill", "proxy-worker"),
    ("kill", "client"),
    ("stop", "cache"),
    ("stop", "cache-worker"),
    ("stop", "proxy"),
    ("stop", "proxy-worker"),
    ("reset", "client"),
)


class Wrong(Exception):
    """What must not be."""


class Pipeline:
    """A cache and a proxy over these transports, below a base directory of their own."""

    def __init__(self, base: str, command: str, data: str) -> None:
        self._environment = {**os.environ, "TRANSPORT_HARNESS_DIR": base}
        self._lines = {
            "cache": ["simplecached", "-c", f"{base}/files", "--processes", "2", "-t", "1", "--command", command],
            "proxy": ["webproxy", "-p", "0", "--processes", "2", "-t", "1", "-n", "2", "--data", data],
        }
        self._log = open(f"{base}/log", "ab")  # noqa: SIM115  until close()
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.port = 0
        try:
            for role in self._lines:
                self.start(role)
        except BaseException:
            self.close()
            raise

    def start(self, role: str) -> None:
        """Start a program, again where it has ended: the proxy at its port."""
        line = [*self._lines[role], "--timeout", str(TIMEOUT), "--json"]
        if role == "proxy" and self.port:
            line[line.index("-p") + 1] = str(self.port)
        command = [sys.executable, "-m", "harness", *line]
        program = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=self._log)
        assert program.stdout is not None
        self.programs[role] = program
        line_came = select.select([program.stdout], [], [], 35)[0]
        if not (greeting := json.loads((program.stdout.readline() if line_came else b"") or b"{}")):
            raise Wrong(f"the {role} did not start")
        if role == "proxy":
            self.port = greeting["port"]

    def pids(self, role: str) -> list[int]:
        """Of a program: its first process, then its workers."""
        pid = self.programs[role].pid
        return [pid, *children(pid)]

    def await_end(self, role: str) -> None:
        try:
            self.programs[role].wait(8)
        except subprocess.TimeoutExpired:
            raise Wrong(f"the {role} goes on although a process of it was killed") from None
        self._close(role)

    def close(self) -> None:
        """End the programs, and clean. Raises Wrong where one does not end, or something is left."""
        for program in self.programs.values():
            program.terminate()
        for role in self.programs:
            try:
                self.programs[role].wait(8)
            except subprocess.TimeoutExpired:
                self.programs[role].kill()
                raise Wrong(f"the {role} did not end") from None
            finally:
                self._close(role)
        self._log.close()
        clean = [sys.executable, "-m", "harness", "clean"]
        cleaned = subprocess.run(clean, env=self._environment, capture_output=True, text=True, check=False)
        if cleaned.returncode:
            raise Wrong(f"harness clean: {cleaned.stderr}")
        ours = f"{self._environment['TRANSPORT_HARNESS_DIR']}/transport-harness-{os.getuid()}"
        if os.path.exists(ours):
            raise Wrong(f"left: {os.listdir(ours)}")

    def _close(self, role: str) -> None:
        program = self.programs[role]
        assert program.stdout is not None
        program.stdout.close()


class Clients:
    """Threads that ask for files all the time, and compare what comes. counts: what came. wrong: what must not come."""

    def __init__(self, port: int, contents: dict[str, bytes], count: int) -> None:
        self._port, self.contents = port, contents
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        paths = list(self.contents)
        while not self._stopping.is_set():
            for path in paths[number:] + paths[:number]:
                came = ask(self._port, path, self.contents[path])
                self.counts[came.split(":")[0]] += 1
                if came.startswith(("wrong", "hang")):
                    self.wrong.append(f"{path}: {came}")
            time.sleep(0.001)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def ask(port: int, path: str, content: bytes, resets: bool = False) -> str:
    """What came of a request: `OK`, a refusal, `cut`, `nothing`, `hang`, or `wrong:` and why. resets: in its middle."""
    reply = bytearray()
    try:
        with socket.create_connection(("127.0.0.1", port), _HANGS) as connection:
            connection.sendall(getfile.encode_request(path))
            while piece := connection.recv(1 << 18):
                reply += piece
                if resets:
                    reset_on_close(connection)
                    return "reset"
    except TimeoutError:
        return "hang"
    except OSError:
        pass
    whole = getfile.OK_HEADER % len(content) + content
    if reply == whole:
        return "OK"
    for refusal in (getfile.ERROR, getfile.FILE_NOT_FOUND, getfile.INVALID):
        if reply == getfile.refusal_header(refusal):
            return refusal if refusal == getfile.ERROR else f"wrong: {refusal}"
    if whole.startswith(reply):
        return "cut" if reply else "nothing"
    return f"wrong: {bytes(reply[:80])!r}"


def suffer(pipeline: Pipeline, clients: Clients, action: str, target: str, chosen: random.Random) -> float:
    """Do one fault, and return after how many seconds a file came again. Raises Wrong where none does in time."""
    role, _, worker = target.partition("-")
    lasts = chosen.choice((0.02, 0.3, 1.3 * TIMEOUT))
    begun = time.monotonic()
    if role == "client":
        path, content = chosen.choice(list(clients.contents.items()))
        if action == "reset":
            ask(pipeline.port, path, content, resets=True)
        else:
            _kill_a_client(pipeline.port, path, chosen.random() * 0.01)
    elif action == "stop":
        pids = pipeline.pids(role)
        some = [chosen.choice(pids[1:])] if worker else pids
        for pid in some:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(lasts)
        for pid in some:
            os.kill(pid, signal.SIGCONT)
    else:
        pids = pipeline.pids(role)
        os.kill(chosen.choice(pids[1:]) if worker else pids[0], signal.SIGKILL)
        pipeline.await_end(role)
        pipeline.start(role)
        begun = time.monotonic()
    path, content = "/700", clients.contents["/700"]
    while (came := ask(pipeline.port, path, content)) != "OK":
        if came.startswith(("wrong", "hang")):
            raise Wrong(came)
        if time.monotonic() - begun > _BACK:
            raise Wrong(f"no file came for {_BACK:g} s")
        time.sleep(0.002)
    return time.monotonic() - begun


def _kill_a_client(port: int, path: str, after: float) -> None:
    """A process that asks for a file and is killed."""
    pid = os.fork()
    if not pid:
        try:
            with socket.create_connection(("127.0.0.1", port), _HANGS) as connection:
                connection.sendall(getfile.encode_request(path))
                while connection.recv(1000):
                    pass
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def fill(directory: str, zeros: bool) -> dict[str, bytes]:
    """Make files of all sizes. Returns what is in them, by path."""
    os.mkdir(directory)
    contents = {f"/{size}": bytes(size) if zeros else os.urandom(size) for size in _SIZES}
    for path, content in contents.items():
        with open(directory + path, "wb") as file:
            file.write(content)
    return contents


def one_pipeline(seed: int, only: list[str], faults: int) -> dict[str, Any]:
    """What came of one pipeline and its faults."""
    chosen = random.Random(seed)
    command = chosen.choice(sorted(registry.installed().command))
    data = chosen.choice([name for name in sorted(registry.installed().data) if not only or name in only])
    zeros = not registry.data_transport(data).moves_content
    found: Counter[tuple[str, str]] = Counter()
    result: dict[str, Any] = {"faults": found, "counts": Counter(), "bad": [], "slowest": 0.0}
    done = ""
    with tempfile.TemporaryDirectory(prefix="th-f", dir="/tmp") as base:
        contents = fill(f"{base}/files", zeros)
        try:
            pipeline = Pipeline(base, command, data)
        except Wrong as problem:
            return {**result, "bad": [f"seed {seed}, {command} + {data}: {problem}"]}
        clients = Clients(pipeline.port, contents, 3)
        try:
            for _ in range(faults):
                time.sleep(chosen.random() * 0.1)
                action, target = chosen.choice(_FAULTS)
                done = f"{action} {target}"
                result["slowest"] = max(result["slowest"], suffer(pipeline, clients, action, target, chosen))
                found[f"{command} + {data}", done] += 1
        except Wrong as problem:
            result["bad"].append(f"seed {seed}, {command} + {data}, {done}: {problem}")
        finally:
            clients.stop()
        try:
            pipeline.close()
        except Wrong as problem:
            result["bad"].append(f"seed {seed}, {command} + {data}, at the end: {problem}")
        result["counts"] = clients.counts
        result["bad"] += [f"seed {seed}, {command} + {data}: {text}" for text in clients.wrong]
        if result["bad"]:
            with suppress(OSError), open(f"{base}/log", errors="replace") as log:
                result["bad"] += [f"    {line.rstrip()}" for line in log.readlines()[-8:]]
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], metavar="DATA", help="data transports (default: all)")
    parser.add_argument("--at-once", type=int, default=4, metavar="N", help="pipelines (%(default)s)")
    args = parser.parse_args()
    pipelines = -(-args.faults // _A_PIPELINE)
    seeds = [args.seed * 1_000_003 + number for number in range(pipelines)]
    faults: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    bad: list[str] = []
    slowest, begun = 0.0, time.monotonic()
    with ProcessPoolExecutor(args.at_once) as pool:
        for one in pool.map(one_pipeline, seeds, [args.only] * pipelines, [_A_PIPELINE] * pipelines):
            faults += one["faults"]
            counts += one["counts"]
            slowest = max(slowest, one["slowest"])
            for line in one["bad"]:
                print(line, flush=True)
            bad += one["bad"]
    print(f"{sum(faults.values())} faults in {time.monotonic() - begun:.0f} s, replies {dict(counts.most_common())}")
    print(f"the longest time until a file came again, after the new start where one was killed: {slowest:.2f} s")
    for title, key in (("data", 1), ("command", 0)):
        by = Counter[str]()
        for (pair, _), count in faults.items():
            by[pair.split(" + ")[key]] += count
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in by.most_common()))
    kinds = Counter[str]()
    for (_, fault), count in faults.items():
        kinds[fault] += count
    print("faults: " + ", ".join(f"{name} {count}" for name, count in kinds.most_common()))
    print(f"{len(bad)} lines of what must not be" if bad else "no wrong byte, no hang, nothing left")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
