"""What this machine is, allows and does at present: facts for result files and for `harness doctor`, proc(5), sysfs(5).

Nothing is guessed: a fact that cannot be read here, as in many containers and virtual machines, is None.
"""

import gzip
import os
import platform
import time
from collections.abc import Set
from functools import cache
from typing import NamedTuple

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds, of the counters in /proc


class CpuTimes(NamedTuple):
    """Seconds, summed over some CPUs: those that passed, and of them the idle, the stolen and those of interrupts."""

    passed: float
    idle: float
    steal: float
    interrupts: float

    def since(self, before: "CpuTimes") -> "CpuTimes":
        return CpuTimes(*(now - then for now, then in zip(self, before, strict=True)))


def cpu_times(cpus: Set[int]) -> CpuTimes:
    """What /proc/stat has counted of `cpus` until now, waiting for disks as idle; steps of 10 ms a CPU."""
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


@cache
def kernel_option(name: str) -> bool | None:
    """Whether the kernel was built with an option; None where its configuration is nowhere to be read."""
    for path, opener in (("/proc/config.gz", gzip.open), (f"/boot/config-{platform.release()}", open)):
        try:
            with opener(path, "rt") as lines:
                return f"{name}=y\n" in lines
        except OSError:
            continue
    return None
