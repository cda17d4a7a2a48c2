"""How waits of the floors end in time, although none of them has a timeout of its own.

A wait with a timeout has the kernel set a timer and clear it again, which is an eighth of what it takes to wake a
process and be woken by it (docs/decisions/0024-floors-that-are-floors.md). So a floor waits in a call without a
timeout, and a thread of its process wakes each end TICKS times in its timeout, whether it waits or not. Who is woken
for nothing looks at the clock.
"""

import itertools
import threading
import time
from collections.abc import Callable

TICKS = 20  # in a timeout

_tokens = itertools.count()
_lock = threading.Lock()  # of the two that follow
_ends: dict[int, "Ticked"] = {}
_thread: threading.Thread | None = None


class Ticked:
    """Calls `tick` so often from start() until stop(). The tick may not block; it is not under way after stop().

    From its first tick on, a wait asks expired(). It has then lasted for up to a tick more than that says.
    """

    def __init__(self, tick: Callable[[], None], timeout: float) -> None:
        self.tick, self.period = tick, timeout / TICKS
        self.started = False
        self._token = next(_tokens)

    def start(self) -> None:
        global _thread
        self.started = True
        with _lock:
            _ends[self._token] = self
            if _thread is None or not _thread.is_alive():  # in a fork it is not
                _thread = threading.Thread(target=_run, daemon=True)
                _thread.start()

    def stop(self) -> None:
        with _lock:
            _ends.pop(self._token, None)

    def expired(self, first: float) -> bool:
        """Whether a wait whose first tick came at `first`, time.monotonic(), has lasted for its timeout, or nearly."""
        return time.monotonic() - first > self.period * (TICKS - 2)


def _run() -> None:
    """Ticks one end after the other, so that those which wait at one FIFO are woken in turn."""
    global _thread
    while True:
        with _lock:
            ends = dict(_ends)
            if not ends:
                _thread = None
                return
        pause = min(end.period for end in ends.values()) / len(ends)
        for token, end in ends.items():
            time.sleep(pause)
            with _lock:
                if token in _ends:
                    end.tick()
