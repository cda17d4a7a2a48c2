"""FIFO (named pipe), fifo(7) and pipe(7).

A command is one write(2) of 512 bytes, atomic because it is under PIPE_BUF, and one read(2). Content goes preadv(2) ->
buffer of the cache -> write(2) -> pages of the pipe -> readv(2) -> buffer of the proxy: one copy in, one copy out.
Descriptors are non-blocking; ends wait with poll(2). Many command receivers wait with EPOLLEXCLUSIVE,
epoll_ctl(2), so that one record wakes one of them and not all.

Killed peers: a stream of bytes cannot say that its sender gave up or was killed: the proxy notices by the timeout. A
killed proxy was the only reader: the cache gets EPIPE at once.

Limits: an ordinary user's pipe may hold pipe-max-size bytes (1 MiB), and all pipes of one pipe-user-pages-soft pages
(64 MiB); what is over that cannot grow beyond two pages, pipe(7).
"""

import itertools
import os
import select
import time
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass

from harness.api import (
    COMMAND_BYTES,
    HEAD_BYTES,
    CommandReceiver,
    CommandSender,
    CommandTransport,
    DataTransport,
    Receiver,
    Scope,
    Sender,
    check_least,
    hookimpl,
)
from transports.common.fifos import FifoEnd, provisioned_fifos


@dataclass(frozen=True)
class FifoCommands(CommandTransport):
    """fifos: how many FIFOs carry the commands; each holds 128 of them (64 KiB). A proxy worker writes to one, and each
    cache worker reads all.
    """

    name = "fifo"
    fifos: int = 1

    def __post_init__(self) -> None:
        check_least(self, fifos=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_fifos(scope, *self._parts())

    def receiver(self, scope: Scope) -> CommandReceiver:
        return FifoCommandReceiver(scope, self._parts())

    def sender(self, scope: Scope) -> CommandSender:
        # Pids of forks are neighbours, and so are the numbers of threads: each FIFO gets as many senders.
        return FifoCommandSender(scope, self._parts()[(os.getpid() + next(_senders)) % self.fifos], os.O_WRONLY)

    def _parts(self) -> list[str]:
        return [f"fifo{number}" for number in range(self.fifos)]


_senders = itertools.count()


class FifoCommandSender(FifoEnd, CommandSender):
    def send(self, record: bytes) -> None:
        while True:
            try:
                os.write(self._fd, record)
            except BlockingIOError:
                self._wait("the FIFO stayed full")
            else:
                return


class FifoCommandReceiver(CommandReceiver):
    def __init__(self, scope: Scope, parts: list[str]) -> None:
        self._timeout = scope.timeout
        with ExitStack() as undo:
            self._epoll = undo.enter_context(select.epoll())
            # Also open for writing, else a FIFO would end with its last proxy.
            ends = [undo.enter_context(closing(FifoEnd(scope, part, os.O_RDWR))) for part in parts]
            for end in ends:
                self._epoll.register(end.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
            self._fds = [end.fileno() for end in ends]
            self._resources = undo.pop_all()

    def receive(self) -> bytes:
        deadline = None
        while True:
            for fd in self._fds:
                try:
                    record = os.read(fd, COMMAND_BYTES)
                except BlockingIOError:
                    continue
                if len(self._fds) > 1:
                    self._fds.append(self._fds.pop(0))  # so each is the first to be read, in turn
                return record
            now = time.monotonic()
            deadline = deadline or now + self._timeout
            if now >= deadline or not self._epoll.poll(deadline - now):
                raise TimeoutError(f"no command for {self._timeout} s")

    def close(self) -> None:
        self._resources.close()


@dataclass(frozen=True)
class FifoData(DataTransport):
    """chunk: bytes that either end moves at a time.
    pipe_size: bytes that the pipe holds; an ordinary user may have up to /proc/sys/fs/pipe-max-size.
    """

    name = "fifo"
    chunk: int = 1 << 18
    pipe_size: int = 1 << 18

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1, pipe_size=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_fifos(scope, "fifo")

    def receiver(self, scope: Scope) -> Receiver:
        return FifoReceiver(scope, self)

    def sender(self, scope: Scope) -> Sender:
        return FifoSender(scope, self)


class FifoSender(FifoEnd, Sender):
    def __init__(self, scope: Scope, options: FifoData) -> None:
        super().__init__(scope, "fifo", os.O_WRONLY)
        self._buffer = memoryview(bytearray(options.chunk))

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        sent = 0
        while sent < count:
            try:
                sent += os.write(self._fd, self._buffer[sent:count])
            except BlockingIOError:
                self._wait("the FIFO stayed full")


class FifoReceiver(FifoEnd, Receiver):
    def __init__(self, scope: Scope, options: FifoData) -> None:
        super().__init__(scope, "fifo", os.O_RDWR, options.pipe_size)
        self._buffer = memoryview(bytearray(options.chunk))

    def take(self) -> memoryview:
        while True:
            self._wait("nothing in the FIFO")
            try:
                return self._buffer[: os.readv(self._fd, (self._buffer,))]
            except BlockingIOError:  # poll(2) may return without anything to read
                continue

    def give_back(self) -> None:
        """The buffer is this end's own."""


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [FifoCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [FifoData]
