"""POSIX shared memory with two POSIX semaphores, shm_overview(7) and sem_overview(7).

One lane is a ring of `depth` slots of `chunk` bytes. The cache preads a file straight into the slot that it was
lent, and the proxy sends straight from it: one copy in, one out, and a futex(2) only where an end has to wait.
`free` counts slots that may be filled, `full` those that may be taken; depth 1 is the classic one-segment
handshake. A reply ends without a handshake of its own: the next one waits for `free` like any other piece, so it
cannot overwrite what is not read yet. The ring's positions live in the memory, each written by one end only.

A killed peer is noticed by the timeout, which sem_timedwait(3) takes from the wall clock.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import posix_ipc

from harness.api import HEAD_BYTES, DataTransport, Receiver, Scope, Sender, hookimpl

# 64-bit words at the front of the memory: each end's position on a cache line of its own, then a length a slot.
PUBLISHED, TAKEN, LENGTHS = 0, 8, 16


@dataclass(frozen=True)
class PosixShm(DataTransport):
    """chunk: bytes of a slot. depth: slots."""

    name = "posix_shm"
    chunk: int = 1 << 18
    depth: int = 4

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES or self.depth < 1:
            raise ValueError(
                f"chunk={self.chunk}, depth={self.depth}: chunk must be over {HEAD_BYTES} bytes, depth at least 1"
            )

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        memory, free, full = (scope.posix_name(part) for part in ("memory", "free", "full"))
        with ExitStack() as undo:
            try:
                posix_ipc.Semaphore(free, posix_ipc.O_CREX, mode=0o600, initial_value=self.depth).close()
                undo.callback(posix_ipc.unlink_semaphore, free)
                posix_ipc.Semaphore(full, posix_ipc.O_CREX, mode=0o600, initial_value=0).close()
                undo.callback(posix_ipc.unlink_semaphore, full)
                size = self.ring_offset + self.depth * self.stride
                shared = posix_ipc.SharedMemory(memory, posix_ipc.O_CREX, mode=0o600, size=size)
                undo.callback(posix_ipc.unlink_shared_memory, memory)
                try:
                    os.posix_fallocate(shared.fd, 0, size)  # else a full /dev/shm is a SIGBUS for whoever writes
                finally:
                    shared.close_fd()
            except (posix_ipc.Error, OSError) as error:
                raise OSError(f"{self.depth} slots of {self.chunk} bytes: {error}") from error
            yield

    @property
    def ring_offset(self) -> int:
        return _whole_pages((LENGTHS + self.depth) * 8)

    @property
    def stride(self) -> int:
        """Slots start on pages: where source and destination of a copy lie matters more than the space."""
        return _whole_pages(self.chunk)

    def receiver(self, scope: Scope) -> Receiver:
        return ShmReceiver(scope, self)

    def sender(self, scope: Scope) -> Sender:
        return ShmSender(scope, self)


class ShmEnd:
    def __init__(self, scope: Scope, options: PosixShm) -> None:
        self._timeout = scope.timeout
        self._depth = options.depth
        try:
            self._free = posix_ipc.Semaphore(scope.posix_name("free"))
            self._full = posix_ipc.Semaphore(scope.posix_name("full"))
            memory = posix_ipc.SharedMemory(scope.posix_name("memory"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        try:
            # Every page is there before the first reply, else the first replies would pay for the faults.
            self._memory = mmap.mmap(memory.fd, memory.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            memory.close_fd()
        view = memoryview(self._memory)
        self._words = view[: options.ring_offset].cast("Q")
        starts = range(options.ring_offset, len(view), options.stride)
        self._slots = [view[start : start + options.chunk] for start in starts]
        self._views = [self._words, *self._slots, view]

    def _acquire(self, semaphore: posix_ipc.Semaphore, what: str) -> None:
        while True:
            try:
                semaphore.acquire(self._timeout)
            except posix_ipc.BusyError:
                raise TimeoutError(f"{what} for {self._timeout} s") from None
            except posix_ipc.SignalError:
                continue  # posix_ipc does not retry as PEP 475 does
            return

    def close(self) -> None:
        if not self._views:
            return
        while self._views:
            self._views.pop().release()
        self._slots.clear()
        self._memory.close()
        self._free.close()
        self._full.close()


class ShmSender(ShmEnd, Sender):
    def loan(self) -> memoryview:
        self._acquire(self._free, "no slot became free")
        return self._slots[self._words[PUBLISHED] % self._depth]

    def publish(self, count: int) -> None:
        words = self._words
        position = words[PUBLISHED]
        words[LENGTHS + position % self._depth] = count
        words[PUBLISHED] = position + 1
        self._full.release()


class ShmReceiver(ShmEnd, Receiver):
    def take(self) -> memoryview:
        self._acquire(self._full, "no slot was filled")
        slot = self._words[TAKEN] % self._depth
        count = self._words[LENGTHS + slot]
        if not count:
            raise EOFError("the sender gave up")
        return self._slots[slot][:count]

    def give_back(self) -> None:
        self._words[TAKEN] += 1
        self._free.release()


def _whole_pages(count: int) -> int:
    return -(-count // mmap.PAGESIZE) * mmap.PAGESIZE


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [PosixShm]
