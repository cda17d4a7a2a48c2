"""How waits of the floors end in time, although none of them has a timeout of its own.

A wait with a timeout has the kernel set a timer and clear it again, which is an eighth of what it takes to wake a
process and be woken by it (docs/decisions/0024-floors-that-are-floors.md). So a floor waits in a call without a
timeout, and a thread of its process wakes each end TICKS times in its timeout, whether it waits or not. Who is woken
for nothing waits on like that, with a timeout only for the last part. So a wait lasts no shorter than its timeout, and
longer by a tick at most.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

TICKS = 20  # in a timeout


class Ticked:
    """Calls `tick` so often from start() until stop(). The tick may not block; it is not under way after stop()."""

    def __init__(self, tick: Callable[[], None], timeout: float) -> None:
        self.tick, self.period = tick, timeout / TICKS
        self.started = False

    def start(self) -> None:
        _ticker.add(self)
        self.started = True

    def stop(self) -> None:
        _ticker.remove(self)

    def will_tick(self, left: float) -> bool:
        """Whether a wait that has so many seconds left is sure to be woken in them."""
        return left > 2 * self.period


class _Ticker:
    """The thread that ticks, while there is an end to wake."""

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)  # the thread is not there, and may have held the lock

    def _forget(self) -> None:
        self._lock = threading.Lock()  # of what follows
        self._ends: set[Ticked] = set()
        self._thread: threading.Thread | None = None

    def add(self, end: Ticked) -> None:
        with self._lock:
            self._ends.add(end)
            if self._thread is None:
                thread = threading.Thread(target=self._run, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no more threads: nothing would wake this end
                    self._ends.discard(end)
                    raise
                self._thread = thread

    def remove(self, end: Ticked) -> None:
        with self._lock:
            self._ends.discard(end)

    def _run(self) -> None:
        """Ticks one end after the other, so that those which wait at one FIFO are woken in turn."""
        while True:
            with self._lock:
                ends = list(self._ends)
                if not ends:
                    self._thread = None
                    return
            pause = min(end.period for end in ends) / len(ends)
            for end in ends:
                time.sleep(pause)
                with self._lock:
                    if end in self._ends:
                        with suppress(OSError):  # the others are woken all the same
                            end.tick()


_ticker = _Ticker()
