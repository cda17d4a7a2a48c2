"""A ring of commands in POSIX shared memory, shm_overview(7): the cost of a queue that the kernel does not keep.

A command is copied into the ring by its sender and out of it by one receiver. The memory holds two positions, each
advanced by one side only; that they differ says that a record is there. The POSIX semaphores `full` and `room`,
sem_overview(7), count nothing: a post only wakes a process that waits, and a process that finds more than it needs
posts again for the next one. So a missing post costs time, never a record or a slot.

    send      flock(2), copy in, advance, flock(2), sem_post(3)                with futex(2) only if a
    receive   sem_timedwait(3), lock, copy out, advance, unlock, sem_post(3)   process has to be woken

With sync=eventfd both are eventfds, eventfd(2): a write(2) for each command, and epoll_wait(2) and a read(2) for each
wait. A thread of the cache hands them over, unix(7) SCM_RIGHTS, to each sender that opens: transports/common/bells.py.

Killed peers: senders belong to many programs, so they share a lock that the kernel takes from the dead, flock(2) on the
memory itself. A record is there once the position has moved, one 8-byte store. A sender killed before that leaves
nothing; one killed before its post leaves a record that the next receiver to look takes. Receivers belong to one
program that ends as a whole with any of its workers; they share a semaphore, far cheaper. If one is killed while it
holds that, the others get TimeoutError, and so do senders once the ring is full, until the cache is started again.

Limits: the memory is in /dev/shm. A record is stored before its position, which other x86-64 processors see in that
order; not shown for other architectures. Two senders that meet at the lock try again after 20 us: flock(2) has no timed
wait, and a stopped holder must not stop the others for ever.
"""

import fcntl
import math
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from harness.api import COMMAND_BYTES, CommandReceiver, CommandSender, CommandTransport, Scope, check_least, hookimpl
from transports.common.bells import (
    Bell,
    EventfdBell,
    SemaphoreBell,
    asked_eventfds,
    inherited_eventfds,
    provisioned_eventfds,
)
from transports.common.posix_memory import MemoryEnd, provisioned_memory
from transports.common.posix_waits import wait

PUBLISHED, TAKEN, WORDS = 0, 8, 64  # 64-bit words at the front of the memory, each position on a cache line of its own
_RETRY = 20e-6
_LOOK_EVERY = 0.1  # seconds; a sender that was killed may have taken the ringing of an eventfd with it


@dataclass(frozen=True)
class ShmRing(CommandTransport):
    """depth: records that the ring holds.
    sync: what wakes a process that waits, semaphore or eventfd: docs/decisions/0025-more-mechanisms.md.
    """

    name = "shm_ring"
    depth: int = 128
    sync: str = "semaphore"

    def __post_init__(self) -> None:
        check_least(self, depth=1)
        if self.sync not in {"semaphore", "eventfd"}:
            raise ValueError(f"sync={self.sync}: must be semaphore or eventfd")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        size = WORDS * 8 + self.depth * COMMAND_BYTES
        semaphores = {"lock": 1} | dict.fromkeys(self.semaphores, 0)
        memory = provisioned_memory(scope, "ring", size, semaphores, f"a ring of {self.depth} records")
        with memory, nullcontext() if self.semaphores else provisioned_eventfds(scope, 2):
            yield

    @property
    def semaphores(self) -> tuple[str, ...]:
        """Those that wake a process."""
        return ("full", "room") if self.sync == "semaphore" else ()

    def receiver(self, scope: Scope) -> CommandReceiver:
        return CommandRingReceiver(scope, self)

    def sender(self, scope: Scope) -> CommandSender:
        return CommandRingSender(scope, self)


class CommandRingEnd(MemoryEnd):
    def __init__(self, scope: Scope, options: ShmRing) -> None:
        super().__init__(scope, "ring", "lock", *options.semaphores)
        self._lock, *semaphores = self._semaphores
        self._depth = options.depth
        self._words = memoryview(self._memory)[: WORDS * 8].cast("Q")
        self._resources.callback(self._words.release)
        self._full: Bell
        self._room: Bell
        try:
            if semaphores:
                self._full, self._room = map(SemaphoreBell, semaphores)
            else:
                full, room = self._eventfds(scope)
                self._full = EventfdBell(full, math.inf, self._resources)
                self._room = EventfdBell(room, _LOOK_EVERY, self._resources)
        except OSError:
            self.close()
            raise

    @abstractmethod
    def _eventfds(self, scope: Scope) -> list[int]:
        """Those of `full` and `room`."""

    def _slot(self, position: int) -> slice:
        start = WORDS * 8 + position % self._depth * COMMAND_BYTES
        return slice(start, start + COMMAND_BYTES)


class CommandRingSender(CommandRingEnd, CommandSender):
    def _eventfds(self, scope: Scope) -> list[int]:
        return asked_eventfds(scope, 2, self._resources)

    def send(self, record: bytes) -> None:
        words = self._words
        deadline = time.monotonic() + self._timeout
        waited = False
        while True:
            self._lock_senders(deadline)
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
            waited = True
            if not self._room.wait(deadline - time.monotonic()):
                raise TimeoutError(f"the ring stayed full for {self._timeout} s")
        self._full.ring()
        if used + 1 < self._depth:
            self._room.ring(needed=waited)  # another sender may wait for what is left

    def _lock_senders(self, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another sender kept the ring for {self._timeout} s") from None
                time.sleep(_RETRY)
            else:
                return


class CommandRingReceiver(CommandRingEnd, CommandReceiver):
    def _eventfds(self, scope: Scope) -> list[int]:
        return inherited_eventfds(scope, self._resources)

    def receive(self) -> bytes:
        words = self._words
        deadline = time.monotonic() + self._timeout
        posted = True
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
                    # Senders may have filled it meanwhile, and one of them may wait.
                    self._room.ring(needed=words[PUBLISHED] - position >= self._depth)
                    if waiting > 1:
                        self._full.ring()  # another receiver may wait for what is left
                    return record
            if not posted:
                raise TimeoutError(f"no command for {self._timeout} s")
            posted = self._full.wait(deadline - time.monotonic())


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [ShmRing]
