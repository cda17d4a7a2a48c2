"""FIFO (named pipe), fifo(7) and pipe(7).

A command is one write(2) of 512 bytes, atomic because it is under PIPE_BUF, and one read(2). Content goes
write(2) -> pages of the pipe -> readv(2): one copy in, one copy out. Descriptors are non-blocking, with poll(2)
where they would block. Many command receivers wait with EPOLLEXCLUSIVE, epoll_ctl(2), so that one record wakes
one of them and not the herd.
"""

import errno
import fcntl
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    hookimpl,
)


class Fifo:
    """One FIFO, and an end of it."""

    name = "fifo"

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        os.mkfifo(scope.path("fifo"), 0o600)
        try:
            yield
        finally:
            os.unlink(scope.path("fifo"))


class FifoEnd:
    def __init__(self, scope: Scope, flags: int, part: str = "fifo") -> None:
        try:
            self._fd = os.open(scope.path(part), flags | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:  # open(2): O_WRONLY | O_NONBLOCK and no reader
                raise ConnectionRefusedError("nobody has the FIFO open for reading") from None
            raise
        self._timeout = scope.timeout
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT if flags & os.O_WRONLY else select.POLLIN)

    def _wait(self, what: str) -> None:
        if not self._poll.poll(self._timeout * 1000):
            raise TimeoutError(f"{what} for {self._timeout} s")

    def _write(self, data: bytes | memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                self._wait("the FIFO stayed full")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True)
class FifoCommands(Fifo, CommandTransport):
    """Commands in a FIFO; it holds 128 of them (64 KiB)."""

    def receiver(self, scope: Scope) -> CommandReceiver:
        return FifoCommandReceiver(scope)

    def sender(self, scope: Scope) -> CommandSender:
        return FifoCommandSender(scope, os.O_WRONLY)


class FifoCommandSender(FifoEnd, CommandSender):
    def send(self, record: bytes) -> None:
        self._write(record)


class FifoCommandReceiver(FifoEnd, CommandReceiver):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, os.O_RDWR)  # a writer of its own, else the FIFO ends with its last proxy
        self._epoll = select.epoll()
        self._epoll.register(self._fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def receive(self) -> bytes:
        deadline = None
        while True:
            try:
                return os.read(self._fd, COMMAND_BYTES)
            except BlockingIOError:
                now = time.monotonic()
                deadline = deadline or now + self._timeout
            if now >= deadline or not self._epoll.poll(deadline - now):
                raise TimeoutError(f"no command for {self._timeout} s")

    def close(self) -> None:
        self._epoll.close()
        super().close()


@dataclass(frozen=True)
class FifoData(Fifo, DataTransport):
    """chunk: bytes that either end moves at a time.
    pipe_size: bytes that the pipe holds; an ordinary user may have up to /proc/sys/fs/pipe-max-size.
    """

    chunk: int = 1 << 18
    pipe_size: int = 1 << 18

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES or self.pipe_size < 1:
            raise ValueError(f"chunk={self.chunk}, pipe_size={self.pipe_size}: chunk must be over {HEAD_BYTES} bytes")

    def receiver(self, scope: Scope) -> Receiver:
        return FifoReceiver(scope, self)

    def sender(self, scope: Scope) -> Sender:
        return FifoSender(scope, self)


class FifoSender(FifoEnd, Sender):
    def __init__(self, scope: Scope, options: FifoData) -> None:
        super().__init__(scope, os.O_WRONLY)
        self._buffer = memoryview(bytearray(options.chunk))

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        sent = 0  # count 0, giving up, cannot be said in a stream of bytes: the receiver's timeout ends the reply
        while sent < count:
            sent += self._write(self._buffer[sent:count])


class FifoReceiver(FifoEnd, Receiver):
    def __init__(self, scope: Scope, options: FifoData) -> None:
        # A writer of its own: that the last cache worker closed its end says nothing about the next reply.
        super().__init__(scope, os.O_RDWR)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, options.pipe_size)
        except OSError as error:
            self.close()
            raise OSError(
                f"pipe_size={options.pipe_size}: {error.strerror}; see /proc/sys/fs/pipe-max-size"
            ) from error
        self._buffer = memoryview(bytearray(options.chunk))

    def take(self) -> memoryview:
        while True:
            self._wait("nothing in the FIFO")
            try:
                return self._buffer[: os.readv(self._fd, (self._buffer,))]
            except BlockingIOError:  # poll(2) may wake for nothing
                continue

    def give_back(self) -> None:
        pass


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [FifoCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [FifoData]
