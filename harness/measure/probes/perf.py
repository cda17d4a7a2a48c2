"""Where each role spends its CPU time, sampled by perf(1)."""

import socket
import subprocess
from collections import Counter
from collections.abc import Sequence

from harness.api import Probe, hookimpl
from harness.measure.probes.tools import ATTACH, ENVIRONMENT, Attached, Tool, missing

_HZ = 999  # not a round number, so that samples do not coincide with the kernel's ticks
_MOST = 50  # symbols that are reported of a role
_PATIENCE = 60.0  # seconds for perf to print a report
_MODES = {"[k]": "kernel", "[.]": "user"}


class Perf(Attached):
    """`kernel SYMBOL` and `user SYMBOL` of each role: the symbol's share of the role's samples, for the largest 50.

    perf record samples at 999 Hz: by CPU cycles where there is a hardware counter, by the CPU clock where there is
    none, as in most virtual machines. `samples` is the number of samples. A file without symbols counts under its name.
    """

    name = "perf"
    table = "symbols"

    def unusable(self) -> str:
        if problem := missing("perf", "linux-perf (Ubuntu: linux-tools-generic)"):
            return problem
        try:
            _perf("stat", "-e", "cpu-clock:k", "true")
        except OSError as error:
            return f"{error}; sysctl -w kernel.perf_event_paranoid=1"
        with open("/proc/kallsyms") as symbols:
            if not int(next(symbols, "0").split()[0], 16):
                return "the kernel hides its symbols from this user; sysctl -w kernel.kptr_restrict=0"
        return ""

    def _start(self, role: str, pids: Sequence[int]) -> Tool:
        return Record(pids, f"{self._directory}/{role}")

    def _seen(self, role: str) -> list[tuple[str, float, str]]:
        samples: Counter[str] = Counter()
        data = f"{self._directory}/{role}.data"
        report = _perf("report", "-i", data, "--stdio", "-q", "-n", "-t", "|", "-s", "dso,sym")
        for line in filter(None, report.splitlines()):
            _, count, file, symbol = (column.strip() for column in line.split("|", 3))
            mode, _, name = symbol.partition(" ")
            samples[f"{_MODES.get(mode, mode)} {f'[{file}]' if name.startswith('0x') else name}"] += int(count)
        total = samples.total()
        shares = [(name, count / total, "share") for name, count in samples.most_common(_MOST)]
        return [("samples", total, "1"), *shares]


class Record(Tool):
    """Writes its samples to `<path>.data`. ready() has it begin, with all processes at once."""

    def __init__(self, pids: Sequence[int], path: str) -> None:
        self._control, perfs = socket.socketpair()
        self._control.settimeout(ATTACH)
        command = ["perf", "record", "-q", "-F", str(_HZ), "-N", "-B", "-o", f"{path}.data", "-D", "-1"]
        command += ["--control", f"fd:{perfs.fileno()},{perfs.fileno()}", "-p", ",".join(map(str, pids))]
        with perfs:
            super().__init__(command, f"{path}.log", [perfs.fileno()])

    def ready(self) -> None:
        try:
            self._control.sendall(b"enable\n")
            if self._control.recv(16).startswith(b"ack"):
                return
        except OSError:
            pass
        raise self.failure("did not begin to sample")

    def close(self) -> None:
        self._control.close()
        super().close()


def _perf(*arguments: str) -> str:
    """Run perf and return what it prints. Raises OSError where it fails."""
    try:
        done = subprocess.run(
            ["perf", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=ENVIRONMENT,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"perf {arguments[0]} took over {_PATIENCE:g} s") from None
    if done.returncode:
        raise OSError(f"perf {arguments[0]}: {' '.join(done.stderr.splitlines()[:2])}")
    return done.stdout


@hookimpl
def probes() -> list[type[Probe]]:
    return [Perf]
