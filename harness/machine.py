"""What this machine is, allows and does at present: facts for result files and for `harness doctor`, proc(5), sysfs(5).

A fact that cannot be read is None, not a guess: many containers and virtual machines hide some.
"""

import glob
import gzip
import os
import platform
import resource
import subprocess
import time
from collections.abc import Set
from functools import cache
from typing import Any, NamedTuple

import harness
from harness import rendezvous

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds: the unit of the counters in /proc
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK = 0.06  # seconds for which the load is looked at: 12 ticks on 2 CPUs
_CPU = "/sys/devices/system/cpu"
_CGROUP = "/sys/fs/cgroup"


def facts() -> dict[str, Any]:
    """What does not change from one trial to the next, ready for JSON. Sizes are in bytes."""
    from importlib.metadata import distributions  # noqa: PLC0415  the probes load this module in every program

    base = rendezvous.base_directory()
    return {
        "host": platform.node(),
        "user": os.getuid(),
        "cpu": _cpu(),
        "kernel": {
            "release": platform.release(),
            "boot_id": _text("/proc/sys/kernel/random/boot_id"),
            "version": platform.version(),
            "clock_source": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            "huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
            "huge_pages_shm": _chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        },
        "memory": {"total": os.sysconf("SC_PHYS_PAGES") * _PAGE, "shm": _space("/dev/shm")},  # noqa: S108
        "limits": {
            "open_files": _limit(resource.RLIMIT_NOFILE),
            "mq_bytes": _limit(resource.RLIMIT_MSGQUEUE),
            **_settings("fs/mqueue", "msg_max", "msgsize_max", "queues_max"),
            **_settings("kernel", "msgmax", "msgmnb", "msgmni", "shmmax", "shmall", "shmmni"),
            "sem": dict(zip(("semmsl", "semmns", "semopm", "semmni"), _numbers("/proc/sys/kernel/sem"), strict=False)),
            **_settings("fs", "pipe-max-size", "pipe-user-pages-soft"),
        },
        "tcp": {
            "congestion": _text("/proc/sys/net/ipv4/tcp_congestion_control"),
            "congestion_allowed": (_text("/proc/sys/net/ipv4/tcp_allowed_congestion_control") or "").split() or None,
            "ports": _numbers("/proc/sys/net/ipv4/ip_local_port_range") or None,
            **_settings("net/ipv4", "tcp_tw_reuse", "tcp_max_tw_buckets"),
        },
        "tracing": {
            **_settings("kernel", "perf_event_paranoid", "kptr_restrict"),
            **_settings("kernel/yama", "ptrace_scope"),
        },
        "rendezvous": {"directory": base, "file_system": _file_system(base)},
        "software": {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "harness": harness.__version__,
            "commit": commit(),
            "packages": dict(sorted((one.name, one.version) for one in distributions())),
        },
    }


def _cpu() -> dict[str, Any]:
    governors = {_text(path) for path in glob.glob(f"{_CPU}/cpufreq/policy*/scaling_governor")}
    vulnerabilities = sorted(glob.glob(f"{_CPU}/vulnerabilities/*"))
    return {
        "model": cpu_model(),
        "online": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)),
        "quota": _cpu_quota(),
        "virtual": _is_virtual(),
        "smt": _switch(f"{_CPU}/smt/active"),
        "governors": sorted(filter(None, governors)) or None,
        "turbo": _turbo(),
        "mitigations": {os.path.basename(path): _text(path) for path in vulnerabilities} or None,
    }


@cache
def cpu_model() -> str:
    """The name of the processor in /proc/cpuinfo; `unknown` where that has no name, as on ARM."""
    with open("/proc/cpuinfo") as info:
        return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")


def commit() -> str:
    """The commit of the checkout that this package lies in; empty if it lies in none."""
    return commit_of(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@cache
def commit_of(root: str) -> str:
    """The commit of the checkout in a directory, `+dirty` where files differ; empty if there is none."""
    if not os.path.exists(f"{root}/.git"):
        return ""
    try:
        command = ["git", "-C", root, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


@cache
def kernel_option(name: str) -> bool | None:
    """Whether the kernel was built with the option; None if its configuration cannot be found."""
    for path, opener in (("/proc/config.gz", gzip.open), (f"/boot/config-{platform.release()}", open)):
        try:
            with opener(path, "rt") as lines:
                return f"{name}=y\n" in lines
        except OSError:
            continue
    return None


class CpuTimes(NamedTuple):
    """Seconds, summed over some CPUs: all that passed, and of these the idle, the stolen and those of interrupts."""

    passed: float
    idle: float
    steal: float
    interrupts: float

    def since(self, before: "CpuTimes") -> "CpuTimes":
        return CpuTimes(*(now - then for now, then in zip(self, before, strict=True)))

    def foreign(self, own: float) -> float:
        """What is neither idle nor stolen nor `own`. It can be a little under 0, as all but `own` has steps of 10 ms.

        Where the kernel counts interrupts apart from processes, or does not say whether it does, they are left out.
        """
        apart = kernel_option("CONFIG_IRQ_TIME_ACCOUNTING") is not False
        return self.passed - self.idle - self.steal - own - (self.interrupts if apart else 0.0)


def cpu_times(cpus: Set[int]) -> CpuTimes:
    """What /proc/stat has counted for `cpus` until now, in steps of 10 ms a CPU. Waiting for disks counts as idle."""
    now = time.monotonic()
    idle = steal = interrupts = 0
    with open("/proc/stat") as stat:
        next(stat)
        for line in stat:
            name, *ticks = line.split(None, 10)
            if not name.startswith("cpu"):
                break
            if int(name[3:]) in cpus:
                idle += int(ticks[3]) + int(ticks[4])
                interrupts += int(ticks[5]) + int(ticks[6])
                steal += int(ticks[7])
    return CpuTimes(now * len(cpus), idle * _TICK, steal * _TICK, interrupts * _TICK)


def busy_and_stolen(seconds: float) -> tuple[float, float]:
    """The shares (0 to 1) of the next `seconds` for which the CPUs that this process may use are busy, and stolen."""
    cpus = os.sched_getaffinity(0)
    before = cpu_times(cpus)
    time.sleep(seconds)
    seen = cpu_times(cpus).since(before)
    return max(0.0, 1 - (seen.idle + seen.steal) / seen.passed), seen.steal / seen.passed


def quiet(limit: float, bound: float) -> float:
    """Wait until the CPUs that this process may use are busy or stolen for at most a share of `limit`.

    Looks for 0.06 s at a time, and for at most `bound` seconds in all. Returns the seconds that this took. The column
    `disturbed` of the trial that follows says whether it was quiet then.
    """
    begun = time.monotonic()
    while time.monotonic() + _LOOK <= begun + bound and sum(busy_and_stolen(_LOOK)) > limit:
        pass
    return time.monotonic() - begun


def _text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _numbers(path: str) -> list[int]:
    return [int(word) for word in (_text(path) or "").split() if word.lstrip("-").isdecimal()]


def _number(path: str) -> int | None:
    return next(iter(_numbers(path)), None)


def _settings(directory: str, *names: str) -> dict[str, int | None]:
    return {name: _number(f"/proc/sys/{directory}/{name}") for name in names}


def _switch(path: str) -> bool | None:
    value = _number(path)
    return None if value is None else bool(value)


def _chosen(path: str) -> str | None:
    """The word in brackets: the chosen one of the values that a file of sysfs(5) lists."""
    return (_text(path) or "").partition("[")[2].partition("]")[0] or None


def _limit(which: int) -> dict[str, int | None]:
    """A limit of this process, getrlimit(2); None means unlimited."""
    soft, hard = (None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(which))
    return {"soft": soft, "hard": hard}


def _turbo() -> bool | None:
    off = _switch(f"{_CPU}/intel_pstate/no_turbo")
    return _switch(f"{_CPU}/cpufreq/boost") if off is None else not off


def _is_virtual() -> bool | None:
    """Whether the processor has the flag of a hypervisor; None where no flags are listed, as on ARM."""
    with open("/proc/cpuinfo") as info:
        return next(("hypervisor" in line.split() for line in info if line.startswith("flags")), None)


def _cpu_quota() -> float | None:
    """The CPUs' worth of time that the control groups of this process allow, cgroups(7); None if no quota is known."""
    quotas = []
    for line in (_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if not {"", "cpu"} & set(controllers.split(",")):
            continue
        while True:
            group = f"{_CGROUP}/{controllers}{path}"
            words = (_text(f"{group}/cpu.max") or "").split()  # version 2: `max 100000`
            words = words or [_text(f"{group}/cpu.cfs_{what}_us") or "" for what in ("quota", "period")]
            if all(word.isdecimal() for word in words):
                quotas.append(int(words[0]) / int(words[1]))
            if path == "/":
                break
            path = os.path.dirname(path)
    return min(quotas, default=None)


def _space(directory: str) -> dict[str, Any] | None:
    try:
        room = os.statvfs(directory)
    except OSError:
        return None
    return {
        "file_system": _file_system(directory),
        "size": room.f_blocks * room.f_frsize,
        "free": room.f_bavail * room.f_frsize,
    }


def _file_system(path: str) -> str | None:
    """The type of the file system that a path is on, or would be on if it existed; see /proc/self/mounts."""
    path = os.path.realpath(path)
    found: tuple[int, str | None] = (0, None)
    for line in (_text("/proc/self/mounts") or "").splitlines():
        _, mount, kind, *_ = line.split(" ")
        if f"{path}/".startswith(mount if mount == "/" else f"{mount}/") and len(mount) >= found[0]:
            found = len(mount), kind  # of several mounts at one place the last one counts
    return found[1]
