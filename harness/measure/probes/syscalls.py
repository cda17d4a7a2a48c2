"""The system calls of each role, counted by strace(1)."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence

from harness.api import Probe, hookimpl
from harness.measure.probes.tools import ATTACH, Attached, Tool, missing

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


class Syscalls(Attached):
    """`calls NAME` and `seconds NAME` of each role and system call: strace -c -f.

    They are totals of the measured time: divide by the trial's `requests`. The seconds are CPU time in the kernel and
    include the cost of tracing: compare calls with each other, not trials. A thread that waits when tracing begins
    starts its call again, in some cases as restart_syscall.
    """

    name = "syscalls"

    def unusable(self) -> str:
        if problem := missing("strace", "strace"):
            return problem
        sleeper = subprocess.Popen(["sleep", "60"])
        try:
            with tempfile.TemporaryDirectory() as directory:
                self.begin({"": [sleeper.pid]}, directory)
                self.end()
        except OSError as error:
            return f"{error}; {_mend()}"
        finally:
            sleeper.kill()
            sleeper.wait()
        return ""

    def _start(self, role: str, pids: Sequence[int]) -> Tool:
        return Strace(pids, f"{self._directory}/{role}")

    def _seen(self, role: str) -> list[tuple[str, float, str]]:
        readings: list[tuple[str, float, str]] = []
        with open(f"{self._directory}/{role}.txt") as summary:
            for line in summary:
                # The columns: % time, seconds, usecs/call, calls, errors (may be absent), name.
                share, *figures, name = line.split()
                if share[0].isdecimal() and name != "total":
                    readings += [(f"calls {name}", int(figures[2]), "1"), (f"seconds {name}", float(figures[0]), "s")]
        return readings


class Strace(Tool):
    """Writes its summary to `<path>.txt`."""

    def __init__(self, pids: Sequence[int], path: str) -> None:
        self._pids = pids
        super().__init__(
            ["strace", "-c", "-f", "-qq", "-o", f"{path}.txt", *(f"-p{pid}" for pid in pids)], f"{path}.log"
        )

    def ready(self) -> None:
        deadline = time.monotonic() + ATTACH
        while not all(map(_traced, self._pids)):
            self.check()
            if time.monotonic() > deadline:
                raise self.failure(f"did not attach within {ATTACH:g} s")
            time.sleep(0.01)


def _traced(pid: int) -> bool:
    """Whether all threads of a process have a tracer, proc(5)."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as status:
            if "\nTracerPid:\t0\n" in status.read():
                return False
    return True


def _mend() -> str:
    try:
        with open(_YAMA) as scope:
            restricted = scope.read().strip() != "0"
    except FileNotFoundError:
        restricted = False
    if restricted:
        return "sysctl -w kernel.yama.ptrace_scope=0"
    return "run as root, or give the container the right: docker run --cap-add=SYS_PTRACE"


@hookimpl
def probes() -> list[type[Probe]]:
    return [Syscalls]
