"""A ring of commands in POSIX shared memory, shm_overview(7): what a queue costs that no kernel keeps.

A command is copied into the ring by its sender and out of it by one receiver. In memory lie two positions, each
advanced by one side only. That they differ says that a record is there; the POSIX semaphores `full` and `room`,
sem_overview(7), are no counters but bells, rung to wake who waits, and whoever finds more than it needs rings on.
So a ring that was not rung costs time, never a record or a slot.

    send      flock(2), copy in, advance, flock(2), sem_post(3)                with futex(2) only where
    receive   sem_timedwait(3), lock, copy out, advance, unlock, sem_post(3)   somebody has to be woken

Killed peers: senders belong to many programs, so what they share is a lock that the kernel takes from the dead,
flock(2) on the memory itself. A record is there once the position has moved, one 8-byte store: a sender killed before
leaves nothing, one killed before it could ring leaves a record that the next receiver to look takes. Receivers belong
to one program that ends as a whole with any of its workers; theirs is a semaphore, far cheaper. If one is killed while
it holds that, the others get TimeoutError, and senders, too, once the ring is full, until the cache is started again.

Limits: the memory is in /dev/shm. A record is stored before its position, which x86-64 shows to others in that order;
not shown for other processors. Two senders that meet at the lock try again after 20 us: flock(2) has no timed wait,
and a stopped holder must not stop the others for ever.
"""

import fcntl
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import posix_ipc

from harness.api import COMMAND_BYTES, CommandReceiver, CommandSender, CommandTransport, Scope, check_least, hookimpl
from transports.common.posix_end import MemoryEnd, wait
from transports.common.posix_memory import provisioned

PUBLISHED, TAKEN, WORDS = 0, 8, 64  # 64-bit words at the front of the memory, each position on a cache line of its own
_RETRY = 20e-6


@dataclass(frozen=True)
class ShmRing(CommandTransport):
    """depth: records that the ring holds."""

    name = "shm_ring"
    depth: int = 128

    def __post_init__(self) -> None:
        check_least(self, depth=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        size = WORDS * 8 + self.depth * COMMAND_BYTES
        semaphores = {"full": 0, "room": 0, "lock": 1}
        return provisioned(scope, "ring", size, semaphores, f"a ring of {self.depth} records")

    def receiver(self, scope: Scope) -> CommandReceiver:
        return RingReceiver(scope, self.depth)

    def sender(self, scope: Scope) -> CommandSender:
        return RingSender(scope, self.depth)


class RingEnd(MemoryEnd):
    def __init__(self, scope: Scope, depth: int) -> None:
        super().__init__(scope, "ring", "full", "room", "lock")
        self._full, self._room, self._lock = self._semaphores
        self._depth = depth
        self._words = memoryview(self._memory)[: WORDS * 8].cast("Q")
        self._resources.callback(self._words.release)

    def _slot(self, position: int) -> slice:
        start = WORDS * 8 + position % self._depth * COMMAND_BYTES
        return slice(start, start + COMMAND_BYTES)


class RingSender(RingEnd, CommandSender):
    def send(self, record: bytes) -> None:
        words = self._words
        deadline = time.monotonic() + self._timeout
        while True:
            self._exclude(deadline)
            try:
                position = words[PUBLISHED]
                used = position - words[TAKEN]
                if used < self._depth:
                    self._memory[self._slot(position)] = record
                    words[PUBLISHED] = position + 1
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            if used < self._depth:
                break
            if not wait(self._room, deadline - time.monotonic()):
                raise TimeoutError(f"the ring stayed full for {self._timeout} s")
        ring(self._full)
        if used + 1 < self._depth:
            ring(self._room)  # another sender may wait for what is left

    def _exclude(self, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another sender kept the ring for {self._timeout} s") from None
                time.sleep(_RETRY)
            else:
                return


class RingReceiver(RingEnd, CommandReceiver):
    def receive(self) -> bytes:
        words = self._words
        deadline = time.monotonic() + self._timeout
        rung = True
        while True:
            if words[PUBLISHED] != words[TAKEN]:
                if not wait(self._lock, deadline - time.monotonic()):
                    raise TimeoutError(f"another receiver kept the ring for {self._timeout} s; start the cache again")
                position = words[TAKEN]
                waiting = words[PUBLISHED] - position
                if waiting:
                    record = self._memory[self._slot(position)]
                    words[TAKEN] = position + 1
                self._lock.release()
                if waiting:
                    ring(self._room)
                    if waiting > 1:
                        ring(self._full)  # another receiver may wait for what is left
                    return record
            if not rung:
                raise TimeoutError(f"no command for {self._timeout} s")
            rung = wait(self._full, deadline - time.monotonic())


def ring(bell: posix_ipc.Semaphore) -> None:
    if not bell.value:  # a bell that rings already will be heard by whoever comes to wait
        bell.release()


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [ShmRing]
