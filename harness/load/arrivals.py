"""When requests are sent in an open loop, and when a load ends."""

import random
import sys
import time
from collections.abc import Iterator


def arrivals(rate: float, fixed: bool, seed: int, index: int, processes: int) -> Iterator[int]:
    """When the requests of process `index` out of `processes` are due, in ns from the go-ahead; without end.

    rate: requests/s of all processes together. fixed: at equal distances, the processes in turn. Otherwise the times
    are random: a Poisson process for each process, independent of the others, so that together they are one, too.
    """
    pause = processes / rate * 1e9
    if fixed:
        due = pause * index / processes
        while True:
            yield int(due)
            due += pause
    distance = random.Random(f"{seed}.{index}").expovariate
    due = 0.0
    while True:
        due += distance(1 / pause)
        yield int(due)


def deadline(seconds: float | None) -> int:
    """The time `seconds` from now, ns on the clock of time.monotonic_ns(); never where that is None."""
    return sys.maxsize if seconds is None else time.monotonic_ns() + int(seconds * 1e9)
