"""Two FIFOs in place of the semaphores of a ring, fifo(7): each byte stands for a slot that is free, or full.

A FIFO tells an end that its peer has gone, which a semaphore cannot. A cache worker learns at once that the proxy has
gone, when it waits for a slot or passes one on. The proxy learns that the last process of the cache that has the lane
open has gone, but only within a reply: between replies no process of the cache needs to have it open, as the next reply
may come from another.
"""

import os
import time

from harness.api import Scope
from transports.common.fifos import FifoEnd
from transports.common.ring import AwareReceiver, InTime, Parts, Ring, late


def fifo_semaphore(scope: Scope, part: str, receives: bool) -> "FifoSemaphore":
    """The receiver's or the sender's end of `free` or `full`."""
    if part == "free":  # the receiver opens it for reading, too: what is in it stays when a sender closes
        return FifoSemaphore(scope, part, os.O_RDWR if receives else os.O_RDONLY)
    return FullSemaphore(scope, part, os.O_RDONLY) if receives else FifoSemaphore(scope, part, os.O_WRONLY)


class FifoSemaphore(InTime, FifoEnd):
    """A Semaphore of transports/common/ring.py. Both verbs raise ConnectionError if the proxy has gone."""

    # No reply is under way: nothing will be in the FIFO yet, and a FIFO without a writer is no failure.
    resting = False

    def __init__(self, scope: Scope, part: str, flags: int) -> None:
        super().__init__(scope, part, flags)
        self._late = late(part, scope)

    def release(self) -> None:
        os.write(self._fd, b"x")

    def acquire(self, _: float | None = None) -> None:
        deadline = time.monotonic() + self._timeout
        look = not self.resting
        while look or self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            look = False
            try:
                if os.read(self._fd, 1):
                    return
            except BlockingIOError:
                continue
            self._without_writer()
        raise TimeoutError(self._late)

    def _without_writer(self) -> None:
        raise ConnectionResetError("the proxy has closed its end, or was killed")


class FullSemaphore(FifoSemaphore):
    """The FIFO that the receiver waits for."""

    # A writer of this end's own while there is no other: poll(2) would else return at once all the time.
    _own_writer = -1

    def __init__(self, scope: Scope, part: str, flags: int) -> None:
        self._path = scope.path(part)
        super().__init__(scope, part, flags)

    def acquire(self, _: float | None = None) -> None:
        super().acquire()
        self._close_own_writer()

    def _without_writer(self) -> None:
        if not self.resting:
            raise EOFError("the cache closed its end within the reply, or was killed")
        self._own_writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)

    def _close_own_writer(self) -> None:
        if self._own_writer >= 0:
            os.close(self._own_writer)
            self._own_writer = -1

    def close(self) -> None:
        self._close_own_writer()
        super().close()


def fifo_ring_receiver(ring: Ring, parts: Parts) -> AwareReceiver:
    """The receiver over the FIFOs of `parts`, of which it frees all slots."""
    assert isinstance(parts.full, FullSemaphore)
    for _ in range(ring.depth):
        parts.free.release()
    return AwareReceiver(ring, parts, parts.full)
