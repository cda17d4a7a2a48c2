"""Two FIFOs in the place of the ring's semaphores, fifo(7): a byte for each slot that may be filled or taken.

What a semaphore cannot tell, a FIFO does: that nobody can ring any more. Whoever waits for the proxy, or rings it, is
told at once when it has gone. The proxy is told when the last process of the cache that has the lane open has gone,
but within a reply only: between replies nobody need have it open, as the next one may come from another process.
"""

import os
import time

from harness.api import HEAD_BYTES, Scope, content_length
from transports.common.pipe_end import PipeEnd
from transports.common.ring import Parts, Ring, RingReceiver, late


def bell(scope: Scope, part: str, receives: bool) -> "Bell":
    """The receiver's or the sender's end of `free` or `full`."""
    if part == "free":  # its receiver reads it, too: what is in it stays when a sender closes
        return Bell(scope, part, os.O_RDWR if receives else os.O_RDONLY)
    return FullBell(scope, part, os.O_RDONLY) if receives else Bell(scope, part, os.O_WRONLY)


class Bell(PipeEnd):
    """A Semaphore of transports/ring.py. Both verbs raise ConnectionError where the proxy has gone."""

    resting = False  # nothing is under way: nothing will be there yet, and that nobody can ring says nothing

    def __init__(self, scope: Scope, part: str, flags: int) -> None:
        super().__init__(scope, part, flags)
        self._late = late(part, scope)

    def release(self) -> None:
        os.write(self._fd, b"x")

    def acquire(self) -> None:
        deadline = time.monotonic() + self._timeout
        look = not self.resting
        while look or self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            look = False
            try:
                if os.read(self._fd, 1):
                    return
            except BlockingIOError:
                continue
            self._nobody_rings()
        raise TimeoutError(self._late)

    def _nobody_rings(self) -> None:
        raise ConnectionResetError("the proxy has closed its end, or was killed")


class FullBell(Bell):
    """The one that the receiver waits for."""

    _own = -1  # a writer of its own while nobody else is one, else poll(2) would return at once all the time

    def __init__(self, scope: Scope, part: str, flags: int) -> None:
        self._path = scope.path(part)
        super().__init__(scope, part, flags)

    def acquire(self) -> None:
        super().acquire()
        self._close_own()

    def _nobody_rings(self) -> None:
        if not self.resting:
            raise EOFError("the cache closed its end within the reply, or was killed")
        self._own = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)

    def _close_own(self) -> None:
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def close(self) -> None:
        self._close_own()
        super().close()


class BellReceiver(RingReceiver):
    """Knows where a reply ends, so that it can tell a killed sender from one that had no more to send."""

    def __init__(self, ring: Ring, parts: Parts) -> None:
        super().__init__(ring, parts)
        assert isinstance(parts.full, FullBell)
        self._bell = parts.full
        self._left = 0  # bytes of the reply under way
        for _ in range(ring.depth):
            parts.free.release()

    def take(self) -> memoryview:
        self._bell.resting = not self._left
        piece = super().take()
        self._left = (self._left or HEAD_BYTES + content_length(piece)) - len(piece)
        return piece
