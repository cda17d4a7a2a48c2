"""The floor of the command channels: what is left when nobody queues the commands. Why: docs/decisions/0007.

A proxy worker waits for its reply before it sends again, so one slot of POSIX shared memory for each sender is all
that must be there, shm_overview(7); lane and path have to cross, or the pipeline could not work. A sender fills its
slot, sets its flag and calls sem_post(3); a receiver returns from sem_timedwait(3), finds a flag, copies the slot and
clears the flag. One copy in, one out, and futex(2) only to wake who sleeps. A sender whose last command nobody took
looks again each 200 us: the pipeline has none such.

Limits: one slot of 512 bytes, in /dev/shm, for each sender that is open at a time.

Killed peers: a sender owns its slot by a lock on a byte of the memory, F_OFD_SETLK in fcntl(2), which ends with it;
its last command stands. It shares nothing else. Receivers exclude each other with a semaphore: they are one program,
which ends as a whole with any of its workers. If one is killed while it holds that, the others get TimeoutError, as
do senders with their second command, until the cache is started again.
"""

import fcntl
import os
import struct
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from harness.api import COMMAND_BYTES, CommandReceiver, CommandSender, CommandTransport, Scope, check_least, hookimpl
from transports.common.posix_end import MemoryEnd, wait
from transports.common.posix_memory import provisioned

_LOOK_AGAIN = 200e-6
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock, fcntl(2): type, whence, start, length, pid


@dataclass(frozen=True)
class NullCommands(CommandTransport):
    """senders: slots, one for each open sender."""

    name = "null"
    floor = True
    senders: int = 256

    def __post_init__(self) -> None:
        check_least(self, senders=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned(scope, "memory", self.senders * (1 + COMMAND_BYTES), {"full": 0, "lock": 1})

    def receiver(self, scope: Scope) -> CommandReceiver:
        return NullCommandReceiver(scope, self.senders)

    def sender(self, scope: Scope) -> CommandSender:
        return NullCommandSender(scope, self.senders)


class SlotsEnd(MemoryEnd):
    """The memory is a flag for each slot, then the slots."""

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
        self._index = self._own()
        self._mine = self._slot(self._index)

    def _own(self) -> int:
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
                raise TimeoutError(f"nobody took the last command for {self._timeout} s")
            time.sleep(_LOOK_AGAIN)


class NullCommandReceiver(SlotsEnd, CommandReceiver):
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


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [NullCommands]
