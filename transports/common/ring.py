"""A lane as a ring of slots in shared memory with two semaphores, for the transports over shared memory.

A lane is `depth` slots of `chunk` bytes. The cache preads a file straight into the slot that loan() returns, and the
proxy sends straight from it: one copy in, one out. `free` counts slots that may be filled, `full` those that may be
taken; depth 1 is the classic one-segment handshake. A reply ends without a handshake of its own: the next one waits
for `free` like any other piece, so it cannot overwrite what is not read yet. The ring's positions live in the memory,
each written by one end only. Each transport makes the memory and the semaphores, and ends a wait in time, by itself.
"""

import mmap
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.api import HEAD_BYTES, Receiver, Scope, Sender, content_length

# 64-bit words at the front of the memory: each end's position on a cache line of its own, then a length a slot.
PUBLISHED, TAKEN, LENGTHS = 0, 8, 16


class Semaphore(Protocol):
    """acquire raises TimeoutError after the scope's timeout, and goes on if a signal interrupts it."""

    def acquire(self) -> None: ...

    @property
    def release(self) -> Callable[[], None]: ...  # a property, as it may be the IPC package's own function


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
    def __init__(self, ring: Ring, parts: Parts) -> None:
        view = parts.memory
        self._depth = ring.depth
        self._words = view[: ring.first_slot].cast("Q")
        starts = range(ring.first_slot, ring.size, ring.stride)
        self._slots = [view[start : start + ring.chunk] for start in starts]
        self._views = [self._words, *self._slots, view]
        self._free, self._full, self._resources = parts.free, parts.full, parts.resources

    def close(self) -> None:
        while self._views:
            self._views.pop().release()
        self._slots.clear()
        self._resources.close()


class RingSender(RingEnd, Sender):
    def loan(self) -> memoryview:
        self._free.acquire()
        return self._slots[self._words[PUBLISHED] % self._depth]

    def publish(self, count: int) -> None:
        words = self._words
        position = words[PUBLISHED]
        words[LENGTHS + position % self._depth] = count
        words[PUBLISHED] = position + 1
        self._full.release()


class RingReceiver(RingEnd, Receiver):
    def take(self) -> memoryview:
        self._full.acquire()
        slot = self._words[TAKEN] % self._depth
        count = self._words[LENGTHS + slot]
        if not count:
            raise EOFError("the sender gave up")
        return self._slots[slot][:count]

    def give_back(self) -> None:
        self._words[TAKEN] += 1
        self._free.release()


class Awaited(Semaphore, Protocol):
    """A `full` that can tell that a sender has gone, which is an error within a reply and none between replies.

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


def whole_pages(count: int) -> int:
    """The bytes of so many pages as `count` bytes need."""
    return -(-count // mmap.PAGESIZE) * mmap.PAGESIZE
