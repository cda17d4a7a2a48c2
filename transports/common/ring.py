"""A lane as a ring of slots in shared memory with two semaphores, for the transports over shared memory.

A lane is `depth` slots of `chunk` bytes. The cache preads a file straight into the slot that loan() returns, and the
proxy sends straight from it: one copy in, one out. `free` counts slots that may be filled, `full` those that may be
taken; depth 1 is the classic one-segment handshake. A reply ends without a handshake of its own: the next one waits
for `free` like any other piece, so it cannot overwrite what is not read yet. Which slot is the next to be filled is in
the memory, for all senders of the lane; the one receiver counts for itself. Each transport makes the memory and the
semaphores, and ends a wait in time, by itself.
"""

import mmap
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.api import HEAD_BYTES, Receiver, Scope, Sender, content_length

LENGTHS = 8  # of the 64-bit words at the front of the memory: a length a slot. The first word is the next slot.


class Semaphore(Protocol):
    """What an end waits for. acquire and release may be the IPC package's own functions, hence the properties.

    acquire: gets `moment`, the seconds after which it may give up. If it raises one of `busy`, wait() goes on. The two
    raise TimeoutError after the scope's timeout, and go on if a signal interrupts them.
    """

    @property
    def moment(self) -> float | None: ...

    @property
    def acquire(self) -> Callable[[float | None], object]: ...

    @property
    def release(self) -> Callable[[], object]: ...

    @property
    def busy(self) -> tuple[type[Exception], ...]: ...

    def wait(self) -> None: ...


class InTime:
    """The part of a Semaphore whose acquire is never busy, for it ends in time by itself."""

    moment: float | None = None
    busy: tuple[type[Exception], ...] = ()

    def wait(self) -> None:
        """Is not called."""


def late(part: str, scope: Scope) -> str:
    """The message of a TimeoutError of `free` or `full`."""
    return f"no slot was {'freed' if part == 'free' else 'filled'} for {scope.timeout} s"


class Parts(NamedTuple):
    """What an end is made of.

    memory: a writable buffer of Ring.size bytes, zero at first. resources: the end closes them after its views.
    """

    memory: memoryview
    free: Semaphore
    full: Semaphore
    resources: ExitStack


@dataclass(frozen=True)
class Ring:
    """chunk: bytes of a slot. depth: slots."""

    chunk: int = 1 << 18
    depth: int = 4

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES or self.depth < 1:
            raise ValueError(
                f"chunk={self.chunk}, depth={self.depth}: chunk must be over {HEAD_BYTES} bytes, depth at least 1"
            )

    @property
    def first_slot(self) -> int:
        return whole_pages((LENGTHS + self.depth) * 8)

    @property
    def stride(self) -> int:
        """Slots start on pages: where source and destination of a copy lie matters more than the space."""
        return whole_pages(self.chunk)

    @property
    def size(self) -> int:
        return self.first_slot + self.depth * self.stride


class RingEnd:
    def __init__(self, ring: Ring, parts: Parts, awaited: Semaphore, passed_on: Semaphore) -> None:
        view = parts.memory
        self._next = view[:8].cast("Q")
        self._lengths = view[LENGTHS * 8 : ring.first_slot].cast("Q")
        starts = range(ring.first_slot, ring.size, ring.stride)
        self._slots = [view[start : start + ring.chunk] for start in starts]
        self._following = [*range(1, ring.depth), 0]
        self._slot = self._next[0]  # that this end fills or takes; all are free when an end is opened
        self._views = [self._next, self._lengths, *self._slots, view]
        self._acquire, self._moment, self._busy, self._wait = (
            awaited.acquire,
            awaited.moment,
            awaited.busy,
            awaited.wait,
        )
        self._release, self._resources = passed_on.release, parts.resources

    def close(self) -> None:
        while self._views:
            self._views.pop().release()
        self._slots.clear()
        self._resources.close()


# A function that is kept in an attribute is taken out before it is called: CPython 3.11 specialises no call of
# `self._function(...)`, and looks for a method each time.


class RingSender(RingEnd, Sender):
    def __init__(self, ring: Ring, parts: Parts) -> None:
        super().__init__(ring, parts, parts.free, parts.full)

    def loan(self) -> memoryview:
        acquire = self._acquire
        try:
            acquire(self._moment)
        except self._busy:
            self._wait()
        self._slot = slot = self._next[0]
        return self._slots[slot]

    def publish(self, count: int) -> None:
        slot, release = self._slot, self._release
        self._lengths[slot] = count
        self._next[0] = self._following[slot]
        release()


class RingReceiver(RingEnd, Receiver):
    def __init__(self, ring: Ring, parts: Parts) -> None:
        super().__init__(ring, parts, parts.full, parts.free)

    def take(self) -> memoryview:
        acquire = self._acquire
        try:
            acquire(self._moment)
        except self._busy:
            self._wait()
        slot = self._slot
        count = self._lengths[slot]
        if not count:
            raise EOFError("the sender gave up")
        return self._slots[slot][:count]

    def give_back(self) -> None:
        self._slot, release = self._following[self._slot], self._release
        release()


class Awaited(Semaphore, Protocol):
    """A `full` that notices when a sender has gone, which is an error within a reply and none between replies.

    resting: whether no reply is under way.
    """

    resting: bool


class AwareReceiver(RingReceiver):
    """Knows where a reply ends, and so whether a sender that has gone was killed or had no more to send."""

    def __init__(self, ring: Ring, parts: Parts, full: Awaited) -> None:
        super().__init__(ring, parts)
        self._awaited = full
        self._unread = 0  # bytes of the reply under way

    def take(self) -> memoryview:
        self._awaited.resting = not self._unread
        piece = super().take()
        self._unread = (self._unread or HEAD_BYTES + content_length(piece)) - len(piece)
        return piece


def whole_pages(count: int, page: int = mmap.PAGESIZE) -> int:
    """The bytes of so many pages as `count` bytes need. page: bytes of one."""
    return -(-count // page) * page
