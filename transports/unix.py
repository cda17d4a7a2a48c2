"""Unix-domain sockets, unix(7).

Commands are datagrams: send(2) puts the record into the queue of one bound socket, which all cache workers share by
fork, and recv(2) takes it out. One system call at either end, records stay whole, the kernel wakes one waiting
receiver, and a full queue (/proc/sys/net/unix/max_dgram_qlen, usually 10) makes senders wait. SOCK_SEQPACKET would
need an accept(2), a descriptor and epoll(7) for each proxy worker, all of them shared by all cache workers. When the
last holder of the socket is gone, senders have ECONNREFUSED at once.

Content is a stream: preadv(2) -> buffer of the cache -> send(2) -> socket buffers -> recv(2) -> buffer of the proxy:
one copy in, one copy out. Each cache worker that serves a lane connects to it once. Between replies the proxy's end
waits with poll(2) for whichever connection speaks next; within a reply it stays with that one and needs recv(2)
alone. Where the reply ends it reads from the head. So a connection that ends within a reply means that the sender
gave up or was killed (EOFError at once), and one that ends between replies means nothing. A killed proxy: EPIPE.

The kernel's own timeouts, socket(7) SO_RCVTIMEO, cost no system call, as settimeout() would.
"""

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    content_length,
    hookimpl,
    limit_waits,
)


def bind(kind: socket.SocketKind, scope: Scope) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, kind)
    try:
        bound.bind(scope.path("socket"))
        os.chmod(scope.path("socket"), 0o600)
    except OSError:
        bound.close()
        raise
    return bound


def unlink(scope: Scope) -> None:
    with suppress(FileNotFoundError):  # bind(2) is what creates the name, and it may not have come to that
        os.unlink(scope.path("socket"))


class SocketEnd:
    def __init__(self, end: socket.socket, timeout: float) -> None:
        self._socket, self._timeout = end, timeout
        limit_waits(end, timeout)

    def close(self) -> None:
        self._socket.close()


class ConnectedEnd(SocketEnd):
    def __init__(self, end: socket.socket, scope: Scope) -> None:
        super().__init__(end, scope.timeout)
        try:
            end.connect(scope.path("socket"))
        except OSError:
            self.close()
            raise

    def _send(self, data: bytes | memoryview) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):  # a blocking socket takes all, unless its SO_SNDTIMEO passes first
            raise TimeoutError(f"the socket stayed full for {self._timeout} s")


_bound: dict[str, socket.socket] = {}  # of the command channels of this process, by directory; forks inherit them


@dataclass(frozen=True)
class UnixCommands(CommandTransport):
    """Commands in the queue of a datagram socket; /proc/sys/net/unix/max_dgram_qlen says how many it holds."""

    name = "unix"

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        try:
            with bind(socket.SOCK_DGRAM, scope) as _bound[scope.directory]:
                yield
        finally:
            _bound.pop(scope.directory, None)
            unlink(scope)

    def receiver(self, scope: Scope) -> CommandReceiver:
        return UnixCommandReceiver(_bound[scope.directory].dup(), scope.timeout)

    def sender(self, scope: Scope) -> CommandSender:
        return UnixCommandSender(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), scope)


class UnixCommandSender(ConnectedEnd, CommandSender):
    def send(self, record: bytes) -> None:
        self._send(record)


class UnixCommandReceiver(SocketEnd, CommandReceiver):
    def receive(self) -> bytes:
        try:
            return self._socket.recv(COMMAND_BYTES)
        except BlockingIOError:
            raise TimeoutError(f"no command for {self._timeout} s") from None


@dataclass(frozen=True)
class UnixData(DataTransport):
    """chunk: bytes that either end moves at a time.
    buffer: bytes asked for with SO_SNDBUF; the kernel doubles them, counts its own overhead against them, and allows
        /proc/sys/net/core/wmem_max.
    """

    name = "unix"
    chunk: int = 1 << 18
    buffer: int = 200 << 10

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES or not 4096 <= self.buffer < 1 << 30:
            raise ValueError(
                f"chunk={self.chunk}, buffer={self.buffer}: chunk must be over {HEAD_BYTES} bytes, "
                "buffer between 4KiB and 1GiB"
            )

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        self._sending_socket().close()  # a buffer that senders could not have is refused before anything starts
        try:
            yield
        finally:
            unlink(scope)

    def _sending_socket(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.buffer)
        if (given := end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2) < self.buffer:
            end.close()
            raise OSError(f"buffer={self.buffer}: the kernel gives {given}; see /proc/sys/net/core/wmem_max")
        return end

    def receiver(self, scope: Scope) -> Receiver:
        return UnixReceiver(scope, self)

    def sender(self, scope: Scope) -> Sender:
        return UnixSender(self._sending_socket(), scope, self.chunk)


class UnixSender(ConnectedEnd, Sender):
    def __init__(self, end: socket.socket, scope: Scope, chunk: int) -> None:
        super().__init__(end, scope)
        self._buffer = memoryview(bytearray(chunk))

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        if count:
            self._send(self._buffer[:count])
        else:
            self.close()


class UnixReceiver(Receiver):
    def __init__(self, scope: Scope, options: UnixData) -> None:
        self._timeout = scope.timeout
        self._buffer = memoryview(bytearray(options.chunk))
        self._left = 0  # bytes of the reply under way
        self._current: socket.socket | None = None  # the connection that it comes over
        self._connections: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._listener = bind(socket.SOCK_STREAM, scope)
        self._listener.listen()
        self._poll.register(self._listener, select.POLLIN)

    def take(self) -> memoryview:
        if self._left:
            count = self._receive(self._buffer)
        else:
            count = self._first_piece()
            while count < HEAD_BYTES:
                count += self._receive(self._buffer[count:])
            self._left = HEAD_BYTES + content_length(self._buffer)
        self._left -= count
        return self._buffer[:count]

    def _receive(self, room: memoryview) -> int:
        assert self._current is not None
        try:
            count = self._current.recv_into(room)
        except BlockingIOError:
            raise TimeoutError(f"nothing in the socket for {self._timeout} s") from None
        if not count:
            raise EOFError("the sender closed its end within the reply")
        return count

    def _first_piece(self) -> int:
        deadline = time.monotonic() + self._timeout
        while ready := self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            for fd, _ in ready:
                self._current = self._connections.get(fd)
                if self._current is None:
                    self._accept()
                    continue
                with suppress(ConnectionError):  # it was killed with something of ours unread
                    if count := self._current.recv_into(self._buffer):
                        return count
                self._drop(fd)
        raise TimeoutError(f"no reply for {self._timeout} s")

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        limit_waits(connection, self._timeout)
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._connections.pop(fd).close()

    def give_back(self) -> None:
        pass

    def close(self) -> None:
        self._listener.close()
        while self._connections:
            self._connections.popitem()[1].close()


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [UnixCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [UnixData]
