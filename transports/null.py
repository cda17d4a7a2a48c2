"""The floors of a command channel, and of a lane whose proxy copies: no real one can be faster.

What they cost is what the harness itself costs, and the least that the kernel takes to wake a process. How they were
chosen, and what was measured: docs/decisions/0024-floors-that-are-floors.md.

Commands: lane and path have to cross, and reach one process of many that sleep. A command is one write(2) to a FIFO,
fifo(7), and one read(2) that waits without a timer: transports/common/ticks.py. The kernel wakes one reader for it.

Content: the cache does not read the file; only the head crosses, transports/common/null_lane.py. The proxy sends zeros
of its own, as many as the head announces. They are pages that nothing has written to, and so all the same page of the
kernel's, 4 KiB that stay in the nearest cache, in as few pieces as chunk allows.

Limits: a page of /dev/shm for each lane. The FIFO holds 128 commands.

Killed peers: a FIFO keeps nothing of them. Of a stopped cache worker one command may wait with it. On a lane they are
noticed by the timeout.
"""

import mmap
import os
import select
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
from transports.common.fifos import FifoEnd, provisioned_fifos
from transports.common.null_lane import NullLaneEnd, NullSender, provisioned_lane
from transports.common.ticks import Ticked

_TICK = bytes(COMMAND_BYTES)  # no command: each names a path


@dataclass(frozen=True)
class NullCommands(CommandTransport):
    """It has no options."""

    name = "null"
    floor = True

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_fifos(scope, "fifo")

    def receiver(self, scope: Scope) -> CommandReceiver:
        return NullCommandReceiver(scope)

    def sender(self, scope: Scope) -> CommandSender:
        return NullCommandSender(scope, "fifo", os.O_WRONLY)


class NullCommandSender(FifoEnd, CommandSender):
    def send(self, record: bytes) -> None:
        while True:
            try:
                os.write(self._fd, record)
                return
            except BlockingIOError:
                self._wait("the FIFO stayed full")


class NullCommandReceiver(FifoEnd, CommandReceiver):
    """Reads from a descriptor that blocks; the one of FifoEnd does not, and is for ticks."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, "fifo", os.O_RDWR)
        try:
            self._blocking = os.open(scope.path("fifo"), os.O_RDWR)
        except OSError:
            super().close()
            raise
        self._ticked = Ticked(self._tick, scope.timeout)
        self._anything = select.poll()  # of the thread that ticks: no two may use one
        self._anything.register(self._fd, select.POLLIN)

    def receive(self) -> bytes:
        if not self._ticked.started:
            self._ticked.start()
        record = os.read(self._blocking, COMMAND_BYTES)
        return record if record != _TICK else self._past_ticks()

    def _tick(self) -> None:
        if not self._anything.poll(0):  # else no end waits
            with suppress(BlockingIOError):  # senders have filled it since
                os.write(self._fd, _TICK)

    def _past_ticks(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            fd = self._blocking if self._ticked.will_tick(left) else self._fd
            if fd == self._fd and not self._poll.poll(left * 1000):
                break
            try:
                record = os.read(fd, COMMAND_BYTES)
            except BlockingIOError:
                continue
            if record != _TICK:
                return record
        raise TimeoutError(f"no command for {self._timeout} s")

    def close(self) -> None:
        self._ticked.stop()
        if self._fd >= 0:
            os.close(self._blocking)
        super().close()


@dataclass(frozen=True)
class Null(DataTransport):
    """chunk: bytes of zeros that the proxy sends at a time."""

    name = "null"
    floor = True
    moves_content = False
    chunk: int = 1 << 22

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_lane(scope)

    def receiver(self, scope: Scope) -> Receiver:
        return NullReceiver(scope, self.chunk)

    def sender(self, scope: Scope) -> FileSender:
        return NullSender(scope)


class NullReceiver(NullLaneEnd, Receiver):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope)
        self._chunk = chunk
        self._reply = memoryview(_zeros(HEAD_BYTES + chunk))  # a head, and zeros
        self._left = 0  # bytes of the reply under way

    def take(self) -> memoryview:
        if self._left:
            count = min(self._left, self._chunk)
            self._left -= count
            return self._reply[HEAD_BYTES : HEAD_BYTES + count]
        head, length = self._head()
        self._reply[:HEAD_BYTES] = head
        count = min(length, self._chunk)
        self._left = length - count
        return self._reply[: HEAD_BYTES + count]

    def give_back(self) -> None:
        """The zeros are this end's own."""


def _zeros(count: int) -> mmap.mmap:
    """Memory that is one page of the kernel's many times over until it is written to; a huge page would not fit into
    the nearest cache, madvise(2)."""
    memory = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [NullCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Null]
