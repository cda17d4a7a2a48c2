"""The floor, for either kind: what is left when a transport does next to nothing.

Data: nobody moves the content. The cache does not read the file and the proxy sends zeros of its own, as many as the
head announces. Only the head crosses, through one page of POSIX shared memory, with one semaphore to wait for it,
shm_overview(7) and sem_overview(7). What this costs is what the harness itself costs.

Commands: nobody queues them. A proxy worker waits for its reply before it sends again, so one slot of shared memory
for each sender is all that must be there; lane and path have to cross, or the pipeline could not work. A sender
fills its slot, sets its flag and calls sem_post(3); a receiver returns from sem_timedwait(3), finds a flag, copies
the slot and clears the flag. One copy in, one out, and futex(2) only to wake who sleeps. Why this is the floor:
docs/decisions/0007.

Killed peers: a sender owns its slot by a lock on a byte of a file, F_OFD_SETLK in fcntl(2), which ends with it; its
last command stands. It shares nothing else. Receivers exclude each other with a semaphore: they are one program, which
ends as a whole with any of its workers. If one is killed while it holds that, the others get TimeoutError, as do
senders with their second command, until the cache is started again.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import posix_ipc

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
    hookimpl,
)
from transports.posix_memory import lock_file, provisioned

AGAIN = 200e-6  # seconds between looks of a sender whose last command nobody took yet: the pipeline has none such
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock, fcntl(2): type, whence, start, length, pid


@dataclass(frozen=True)
class Null(DataTransport):
    """chunk: bytes of zeros that the proxy sends at a time."""

    name = "null"
    chunk: int = 1 << 18

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES:
            raise ValueError(f"chunk={self.chunk}: must be over {HEAD_BYTES} bytes")

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned(scope, "memory", mmap.PAGESIZE, {"full": 0})

    def receiver(self, scope: Scope) -> Receiver:
        return NullReceiver(scope, self.chunk)

    def sender(self, scope: Scope) -> FileSender:
        return NullSender(scope)


class NullEnd:
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        try:
            self._full = posix_ipc.Semaphore(scope.posix_name("full"))
            memory = posix_ipc.SharedMemory(scope.posix_name("memory"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        try:
            self._memory = mmap.mmap(memory.fd, mmap.PAGESIZE)
        finally:
            memory.close_fd()

    def close(self) -> None:
        if not self._memory.closed:
            self._memory.close()
            self._full.close()


class NullSender(NullEnd, FileSender):
    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self._memory[: HEAD_BYTES + 8] = head + count.to_bytes(8, "little")
        self._full.release()


class NullReceiver(NullEnd, Receiver):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope)
        self._zeros = memoryview(bytearray(chunk))
        self._left = 0

    def take(self) -> memoryview:
        if self._left:
            count = min(self._left, len(self._zeros))
            self._left -= count
            self._zeros[:HEAD_BYTES] = bytes(HEAD_BYTES)
            return self._zeros[:count]
        if not wait(self._full, self._timeout):
            raise TimeoutError(f"no reply for {self._timeout} s")
        self._zeros[:HEAD_BYTES] = self._memory[:HEAD_BYTES]
        content = int.from_bytes(self._memory[HEAD_BYTES : HEAD_BYTES + 8], "little")
        first = min(content, len(self._zeros) - HEAD_BYTES)
        self._left = content - first
        return self._zeros[: HEAD_BYTES + first]

    def give_back(self) -> None:
        pass


@dataclass(frozen=True)
class NullCommands(CommandTransport):
    """senders: slots, one for each open sender."""

    name = "null"
    senders: int = 256

    def __post_init__(self) -> None:
        if self.senders < 1:
            raise ValueError(f"senders={self.senders}: there must be at least 1")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        size = self.senders * (1 + COMMAND_BYTES)
        with provisioned(scope, "memory", size, {"full": 0, "lock": 1}), lock_file(scope.path("owners")):
            yield

    def receiver(self, scope: Scope) -> CommandReceiver:
        return NullCommandReceiver(scope, self.senders)

    def sender(self, scope: Scope) -> CommandSender:
        return NullCommandSender(scope, self.senders)


class NullCommandEnd:
    """The memory is a flag for each slot, then the slots."""

    def __init__(self, scope: Scope, senders: int) -> None:
        self._timeout = scope.timeout
        self._senders = senders
        try:
            self._full = posix_ipc.Semaphore(scope.posix_name("full"))
            self._lock = posix_ipc.Semaphore(scope.posix_name("lock"))
            memory = posix_ipc.SharedMemory(scope.posix_name("memory"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        try:
            self._memory = mmap.mmap(memory.fd, memory.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            memory.close_fd()

    def _slot(self, index: int) -> slice:
        start = self._senders + index * COMMAND_BYTES
        return slice(start, start + COMMAND_BYTES)

    def close(self) -> None:
        if not self._memory.closed:
            self._memory.close()
            self._full.close()
            self._lock.close()


class NullCommandSender(NullCommandEnd, CommandSender):
    def __init__(self, scope: Scope, senders: int) -> None:
        super().__init__(scope, senders)
        try:
            self._owners = os.open(scope.path("owners"), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            super().close()
            raise
        try:
            self._index = self._own()
        except OSError:
            self.close()
            raise
        self._mine = self._slot(self._index)

    def _own(self) -> int:
        for index in range(self._senders):
            try:
                fcntl.fcntl(self._owners, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, index, 1, 0))
            except BlockingIOError:
                continue
            return index
        raise OSError(f"all {self._senders} slots have a sender; start the cache with --command null:senders=MORE")

    def send(self, record: bytes) -> None:
        if self._memory[self._index]:
            self._wait()
        self._memory[self._mine] = record
        self._memory[self._index] = 1
        self._full.release()

    def _wait(self) -> None:
        deadline = time.monotonic() + self._timeout
        while self._memory[self._index]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody took the last command for {self._timeout} s")
            time.sleep(AGAIN)

    def close(self) -> None:
        if not self._memory.closed:
            os.close(self._owners)
        super().close()


class NullCommandReceiver(NullCommandEnd, CommandReceiver):
    _next = 0  # slot to begin with: else a busy sender could keep the later ones waiting

    def receive(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        rung = True
        while rung:
            rung = wait(self._full, deadline - time.monotonic())
            if not wait(self._lock, deadline - time.monotonic() if rung else 0):
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
                    self._full.release()  # for one whose sender was killed before it could post
                return record
        raise TimeoutError(f"no command for {self._timeout} s")


def wait(semaphore: posix_ipc.Semaphore, seconds: float) -> bool:
    """Whether it could be taken within `seconds`."""
    while True:
        try:
            semaphore.acquire(max(seconds, 0))
        except posix_ipc.BusyError:
            return False
        except posix_ipc.SignalError:
            continue  # posix_ipc does not retry as PEP 475 does
        return True


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [NullCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Null]
