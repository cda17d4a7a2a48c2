"""The probes that run in every trial: they read the counters of its processes in /proc, proc(5).

They read at the go-ahead and after the last reply, outside the measured time, and cost nothing in between. Where
threads are counted one by one (switches, run_queue_wait_s), a thread that ended before the last reply is missing.
"""

import errno
import os
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from harness import machine
from harness.api import Probe, Reading, hookimpl

# (what is counted, pid or thread id) to the count.
Counts = dict[tuple[str, int], int]


class Counting(Probe):
    """Reports how much the counters of each role's processes have grown."""

    def begin(self, processes: Mapping[str, Sequence[int]], directory: str) -> None:
        self._processes = processes
        self._before = {role: self._counts(role) for role in processes}

    def end(self) -> list[Reading]:
        return [Reading(role, *one) for role in self._processes for one in self._readings(role, self._used(role))]

    def _used(self, role: str) -> Counter[str]:
        used: Counter[str] = Counter()
        for key, count in self._counts(role).items():
            used[key[0]] += count - self._before[role].get(key, 0)
        return used

    def _counts(self, role: str) -> Counts:
        return {key: count for pid in self._processes[role] for key, count in self._read(pid).items()}

    @abstractmethod
    def _read(self, pid: int) -> Counts:
        """The counters of a process and of its threads, as they are now."""

    def _readings(self, role: str, used: Counter[str]) -> list[tuple[str, float, str]]:
        """(metric, value, unit) for each figure of a role. used: how much its counters have grown."""
        raise NotImplementedError


class Cpu(Counting):
    """user_s and kernel_s of each role.

    Their sum comes from the processes' CPU clocks, which count ns. The ticks of /proc/<pid>/stat divide it into the
    two. On most kernels ticks are samples: in short trials the two parts are less certain than their sum.
    """

    name = "cpu"

    def _read(self, pid: int) -> Counts:
        with open(f"/proc/{pid}/stat") as stat:
            user, kernel = map(int, stat.read().rpartition(")")[2].split()[11:13])
        return {("total", pid): cpu_clock(pid), ("user", pid): user, ("kernel", pid): kernel}

    def _readings(self, role: str, used: Counter[str]) -> list[tuple[str, float, str]]:
        total = used["total"] / 1e9
        user = total * used["user"] / max(1, used["user"] + used["kernel"])
        return [("user_s", user, "s"), ("kernel_s", total - user, "s")]


def state(pid: int) -> str:
    """The state of a process as one letter, proc_pid_stat(5): `T` stopped by a signal, `Z` ended; empty: it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]
    return ""


def resident(pid: int) -> int:
    """Resident memory of a process in bytes, /proc/<pid>/statm."""
    with open(f"/proc/{pid}/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def read_from_disks(pid: int) -> int:
    """Bytes that the kernel has read from disks for a process, /proc/<pid>/io."""
    with open(f"/proc/{pid}/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


class Used(NamedTuple):
    """What a process has used since it began. cpu, run_queue_wait: ns. user, kernel: CPU time in ticks, which are
    samples. switches: how often a CPU took up one of its threads."""

    cpu: int
    user: int
    kernel: int
    faults: int
    run_queue_wait: int
    switches: int


def used(pid: int) -> Used:
    """What a process has used, with all threads that have not ended: stat and task/<tid>/schedstat in /proc/<pid>.

    It takes some 10 us a thread, so that it can be read before and after a slice of some milliseconds.
    """
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    threads = [times.split() for _, times in _of_threads(pid, "schedstat")]
    return Used(
        cpu_clock(pid),
        int(fields[11]),
        int(fields[12]),
        int(fields[7]) + int(fields[9]),
        sum(int(times[1]) for times in threads),
        sum(int(times[2]) for times in threads),
    )


def cpu_clock(pid: int) -> int:
    """CPU time of another process in ns. The clock's id is built from the pid, as clock_getcpuclockid(3) builds it."""
    return time.clock_gettime_ns(~pid << 3 | 2)


class Switches(Counting):
    """switches of each role: voluntary and other context switches of all threads, /proc/<pid>/task/<tid>/status."""

    name = "switches"

    def _read(self, pid: int) -> Counts:
        return {
            ("all", task): sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
            for task, status in _of_threads(pid, "status")
        }

    def _readings(self, role: str, used: Counter[str]) -> list[tuple[str, float, str]]:
        return [("switches", used["all"], "1")]


class Faults(Counting):
    """faults of each role: page faults, minor and major, /proc/<pid>/stat."""

    name = "faults"

    def _read(self, pid: int) -> Counts:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return {("all", pid): int(fields[7]) + int(fields[9])}

    def _readings(self, role: str, used: Counter[str]) -> list[tuple[str, float, str]]:
        return [("faults", used["all"], "1")]


class Memory(Counting):
    """peak_rss_bytes of each role, and of servers rss_growth_bytes and fds_growth: /proc/<pid>/status, /proc/<pid>/fd.

    The peak is that of the process's whole life. The kernel counts resident pages on each CPU and adds them up from
    time to time, so growth can be wrong by some 100 KiB a process. A client's growth is not reported: it keeps the
    latency of each request.
    """

    name = "memory"

    def _read(self, pid: int) -> Counts:
        with open(f"/proc/{pid}/status") as lines:
            status = dict(line.split(":", 1) for line in lines)
        if (
            "VmRSS" not in status
        ):  # proc_pid_status(5): a process that has ended has no memory, though it is still listed
            raise ProcessLookupError(errno.ESRCH, "has ended", f"/proc/{pid}")
        rss, peak = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return {("rss", pid): rss, ("peak", pid): peak, ("fds", pid): len(os.listdir(f"/proc/{pid}/fd"))}

    def _readings(self, role: str, used: Counter[str]) -> list[tuple[str, float, str]]:
        peak = used["peak"] + sum(count for (what, _), count in self._before[role].items() if what == "peak")
        readings: list[tuple[str, float, str]] = [("peak_rss_bytes", peak, "B")]
        if role != "client":
            readings += [("rss_growth_bytes", used["rss"], "B"), ("fds_growth", used["fds"], "1")]
        return readings


class Steal(Counting):
    """What other programs did on the CPUs that this run may use: steal_s, foreign_cpu_s, run_queue_wait_s.

    steal_s: time that the hypervisor took, /proc/stat.
    foreign_cpu_s: time in which the CPUs were neither idle nor stolen, less that of the trial's processes. The latter
    is exact, the former has steps of 10 ms a CPU. Where the kernel counts interrupts apart from processes
    (CONFIG_IRQ_TIME_ACCOUNTING), or does not say whether it does, interrupts are left out.
    run_queue_wait_s: time in which the trial's threads were ready to run and had no CPU,
    /proc/<pid>/task/<tid>/schedstat; 0 where the kernel does not count it (CONFIG_SCHED_INFO).
    """

    name = "steal"

    def begin(self, processes: Mapping[str, Sequence[int]], directory: str) -> None:
        super().begin(processes, directory)
        self._cpus = os.sched_getaffinity(0)
        self._machine = machine.cpu_times(self._cpus)

    def end(self) -> list[Reading]:
        machine_s = machine.cpu_times(self._cpus).since(self._machine)
        used = sum((self._used(role) for role in self._processes), Counter[str]())
        return [
            Reading("", "steal_s", max(0.0, machine_s.steal), "s"),
            Reading("", "foreign_cpu_s", max(0.0, machine_s.foreign(used["cpu"] / 1e9)), "s"),
            Reading("", "run_queue_wait_s", used["wait"] / 1e9, "s"),
        ]

    def _read(self, pid: int) -> Counts:
        waits = {("wait", task): int(times.split()[1]) for task, times in _of_threads(pid, "schedstat")}
        return {("cpu", pid): cpu_clock(pid), **waits}


def _of_threads(pid: int, file: str) -> list[tuple[int, str]]:
    """(thread id, text of a file in /proc/<pid>/task/<tid>) for each thread that has not ended."""
    texts = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/task/{task}/{file}") as text:
            texts.append((int(task), text.read()))
    return texts


# `steal` is last: it begins last and ends first, so the time that the other probes take is not counted as foreign.
ALWAYS: tuple[type[Probe], ...] = (Memory, Faults, Switches, Cpu, Steal)


@hookimpl
def probes() -> list[type[Probe]]:
    return list(ALWAYS)
