"""The floors: what is left of a channel when it neither queues commands nor moves content.

What they cost is what the harness itself costs. Both use POSIX shared memory and semaphores, shm_overview(7) and
sem_overview(7).

Content: the cache does not read the file, and the proxy sends zeros of its own, as many as the head announces. Only
the head crosses, through a page of shared memory, with one semaphore to wait for it.

Commands: lane and path have to cross, or the pipeline could not work, but a queue can be left out
(docs/decisions/0007-null-command.md). A proxy worker waits for its reply before it sends again, so one slot of shared
memory for each sender is enough. A sender fills its slot, sets its flag and calls sem_post(3). A receiver returns from
sem_timedwait(3), finds a flag, copies the slot and clears the flag. One copy in, one out, and futex(2) only to wake a
process that sleeps. A sender whose last command was not taken yet looks again each 200 us; that does not happen in the
pipeline.

Limits: a page of /dev/shm for each lane; one slot of 512 bytes in /dev/shm for each sender that is open at a time.

Killed peers: an end of a lane notices by the timeout. A sender of commands owns its slot by a lock on a byte of the
memory, F_OFD_SETLK in fcntl(2), which ends with it; its last command stands, and it shares nothing else. Receivers
exclude each other with a semaphore: they are one program, which ends as a whole with any of its workers. If one is
killed while it holds the semaphore, the others get TimeoutError, as do senders with their second command, until the
cache is started again.
"""

import fcntl
import mmap
import os
import struct
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from harness.api import (
    COMMAND_BYTES,
    HEAD_BYTES,
    CommandReceiver,
    CommandSender,
    CommandTransport,
    DataTransport,
    FileSender,
    Receiver,
    Scope,
    check_least,
    hookimpl,
)
from transports.common.posix_memory import MemoryEnd, provisioned_memory
from transports.common.posix_waits import wait

_LOOK_AGAIN = 200e-6
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock, fcntl(2): type, whence, start, length, pid
_COUNT = struct.Struct("<Q")  # of content; follows the head


@dataclass(frozen=True)
class NullCommands(CommandTransport):
    """senders: slots, one for each open sender."""

    name = "null"
    floor = True
    senders: int = 256

    def __post_init__(self) -> None:
        check_least(self, senders=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_memory(scope, "memory", self.senders * (1 + COMMAND_BYTES), {"full": 0, "lock": 1})

    def receiver(self, scope: Scope) -> CommandReceiver:
        return NullCommandReceiver(scope, self.senders)

    def sender(self, scope: Scope) -> CommandSender:
        return NullCommandSender(scope, self.senders)


class SlotsEnd(MemoryEnd):
    """The memory holds a flag for each slot, then the slots."""

    def __init__(self, scope: Scope, senders: int) -> None:
        super().__init__(scope, "memory", "full", "lock")
        self._full, self._lock = self._semaphores
        self._senders = senders

    def _slot(self, index: int) -> slice:
        start = self._senders + index * COMMAND_BYTES
        return slice(start, start + COMMAND_BYTES)


class NullCommandSender(SlotsEnd, CommandSender):
    def __init__(self, scope: Scope, senders: int) -> None:
        super().__init__(scope, senders)
        self._index = self._own_slot()
        self._mine = self._slot(self._index)

    def _own_slot(self) -> int:
        for index in range(self._senders):
            with suppress(BlockingIOError):
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, index, 1, 0))
                return index
        self.close()
        raise OSError(f"all {self._senders} slots have a sender; start the cache with --command null:senders=MORE")

    def send(self, record: bytes) -> None:
        if self._memory[self._index]:
            self._await_taken()
        self._memory[self._mine] = record
        self._memory[self._index] = 1
        self._full.release()

    def _await_taken(self) -> None:
        deadline = time.monotonic() + self._timeout
        while self._memory[self._index]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no receiver took the last command for {self._timeout} s")
            time.sleep(_LOOK_AGAIN)


class NullCommandReceiver(SlotsEnd, CommandReceiver):
    _next = 0  # slot to begin with: else a busy sender could keep the later ones waiting

    def receive(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        posted = True
        while posted:
            posted = wait(self._full, deadline - time.monotonic())
            if not wait(self._lock, deadline - time.monotonic() if posted else 0):
                break
            flags = self._memory[: self._senders]
            index = flags.find(1, self._next)
            if index < 0:
                index = flags.find(1)
            if index >= 0:
                record = self._memory[self._slot(index)]
                self._memory[index] = 0
            self._lock.release()
            if index >= 0:
                self._next = index + 1
                if flags.count(1) > 1 and not self._full.value:
                    self._full.release()  # for a sender that was killed before it could post
                return record
        raise TimeoutError(f"no command for {self._timeout} s")


@dataclass(frozen=True)
class Null(DataTransport):
    """chunk: bytes of zeros that the proxy sends at a time."""

    name = "null"
    floor = True
    moves_content = False
    chunk: int = 1 << 18

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_memory(scope, "memory", mmap.PAGESIZE, {"full": 0})

    def receiver(self, scope: Scope) -> Receiver:
        return NullReceiver(scope, self.chunk)

    def sender(self, scope: Scope) -> FileSender:
        return NullSender(scope)


class NullSender(MemoryEnd, FileSender):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, "memory", "full")
        (self._full,) = self._semaphores

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self._memory[: HEAD_BYTES + _COUNT.size] = head + _COUNT.pack(count)
        self._full.release()


class NullReceiver(MemoryEnd, Receiver):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope, "memory", "full")
        (self._full,) = self._semaphores
        self._chunk = chunk
        self._reply = memoryview(bytearray(HEAD_BYTES + chunk))  # a head, and zeros
        self._left = 0  # bytes of the reply under way

    def take(self) -> memoryview:
        start = HEAD_BYTES
        if not self._left:
            if not wait(self._full, self._timeout):
                raise TimeoutError(f"no reply for {self._timeout} s")
            start = 0
            self._reply[:HEAD_BYTES] = self._memory[:HEAD_BYTES]
            (count,) = _COUNT.unpack_from(self._memory, HEAD_BYTES)
            self._left = HEAD_BYTES + count
        count = min(self._left, self._chunk)
        self._left -= count
        return self._reply[start : start + count]

    def give_back(self) -> None:
        """The zeros are this end's own."""


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [NullCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Null]
