"""Unix-domain stream sockets, unix(7), for content.

A byte goes preadv(2) -> buffer of the cache -> send(2) -> socket buffers -> recv(2) -> buffer of the proxy: one copy
in, one copy out. Each cache worker that serves a lane connects to it once. Between replies the proxy's end waits with
poll(2) for whichever connection speaks next; within a reply it stays with that one and needs recv(2) alone. Where the
reply ends it reads from the head.

Limits: a connection holds `buffer` bytes, counted with the kernel's overhead, of which wmem_max are allowed.

Killed peers: a connection that ends within a reply means that the sender gave up or was killed (EOFError at once),
and one that ends between replies means nothing. A killed proxy: EPIPE. The kernel's own timeouts, socket(7)
SO_RCVTIMEO, cost no system call, as settimeout() would.
"""

import select
import socket
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from harness.api import (
    HEAD_BYTES,
    DataTransport,
    Receiver,
    Scope,
    Sender,
    bound_socket,
    check_least,
    connected_socket,
    content_length,
    hookimpl,
    limit_waits,
    socket_name,
)


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
        check_least(self, chunk=HEAD_BYTES + 1, buffer=4096)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            self.enlarge(trial)  # a buffer that senders could not have is refused before anything starts
        return socket_name(scope.path("socket"))

    def receiver(self, scope: Scope) -> Receiver:
        return UnixReceiver(scope, self.chunk)

    def sender(self, scope: Scope) -> Sender:
        return UnixSender(scope, self)

    def enlarge(self, end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(self.buffer, 1 << 30))  # the kernel doubles an int
        if (given := end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2) < self.buffer:
            raise OSError(f"buffer={self.buffer}: the kernel gives {given}; see /proc/sys/net/core/wmem_max")


class UnixSender(Sender):
    def __init__(self, scope: Scope, options: UnixData) -> None:
        self._timeout = scope.timeout
        self._buffer = memoryview(bytearray(options.chunk))
        self._socket = connected_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout)
        options.enlarge(self._socket)

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        if not count:
            self.close()
            return
        try:
            sent = self._socket.send(self._buffer[:count])
        except BlockingIOError:
            sent = 0
        if sent < count:  # a blocking socket takes all, unless its SO_SNDTIMEO passes first
            raise TimeoutError(f"the socket stayed full for {self._timeout} s")

    def close(self) -> None:
        self._socket.close()


class UnixReceiver(Receiver):
    def __init__(self, scope: Scope, chunk: int) -> None:
        self._timeout = scope.timeout
        self._buffer = memoryview(bytearray(chunk))
        self._left = 0  # bytes of the reply under way
        self._connections: dict[int, socket.socket] = {}
        self._listener = bound_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout)
        self._listener.listen()
        self._current = self._listener  # then the connection that the reply comes over
        self._poll = select.poll()
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

    def _first_piece(self) -> int:
        deadline = time.monotonic() + self._timeout
        while ready := self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            for fd, _ in ready:
                if fd not in self._connections:
                    self._accept()
                    continue
                self._current = self._connections[fd]
                with suppress(ConnectionError):  # it was killed with something of ours unread
                    if count := self._current.recv_into(self._buffer):
                        return count
                self._poll.unregister(fd)
                self._connections.pop(fd).close()
        raise TimeoutError(f"no reply for {self._timeout} s")

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        limit_waits(connection, self._timeout)
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _receive(self, room: memoryview) -> int:
        try:
            count = self._current.recv_into(room)
        except BlockingIOError:
            raise TimeoutError(f"nothing in the socket for {self._timeout} s") from None
        if not count:
            raise EOFError("the sender closed its end within the reply")
        return count

    def give_back(self) -> None:
        """The buffer is this end's own."""

    def close(self) -> None:
        for end in (self._listener, *self._connections.values()):
            end.close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [UnixData]
