"""Unix-domain sockets, unix(7): a datagram socket for commands, stream sockets for content.

A command goes send(2) -> queue of one bound datagram socket, which all cache workers share by fork -> recv(2). One
system call at either end, records stay whole, the kernel wakes one waiting receiver, and a full queue makes senders
wait. SOCK_SEQPACKET would need an accept(2), a descriptor and epoll(7) for each proxy worker, all of them shared by all
cache workers.

Content goes preadv(2) -> buffer of the cache -> send(2) -> socket buffers -> recv(2) -> buffer of the proxy: one copy
in, one copy out. Each cache worker that serves a lane connects to it once. Between replies the proxy's end waits with
poll(2) for the connection that speaks next; within a reply it stays with that one and needs recv(2) alone. The head
says where the reply ends: harness/api/streams.py.

Limits: a queue of commands holds max_dgram_qlen records, usually 10, a sysctl of the network namespace. A connection
holds `buffer` bytes, counted with the kernel's overhead, of which wmem_max are allowed.

Killed peers: once all cache workers are gone, the next command raises ECONNREFUSED at once; a killed sender of commands
goes unnoticed. A connection that ends within a reply means that the sender gave up or was killed (EOFError at once),
one that ends between replies means nothing. A killed proxy: EPIPE. The timeouts are the kernel's, SO_RCVTIMEO of
socket(7), which cost no system call, unlike settimeout().
"""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
    StreamReceiver,
    StreamSender,
    bound_socket,
    check_least,
    connected_socket,
    hookimpl,
    socket_name,
)

_bound: dict[str, socket.socket] = {}  # the command sockets of this process, by directory; forks inherit them


@dataclass(frozen=True)
class UnixCommands(CommandTransport):
    """Commands in the queue of a datagram socket; /proc/sys/net/unix/max_dgram_qlen says how many it holds."""

    name = "unix"

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        path = scope.path("socket")
        with socket_name(path):
            try:
                with bound_socket(socket.SOCK_DGRAM, path, scope.timeout) as _bound[scope.directory]:
                    yield
            finally:
                _bound.pop(scope.directory, None)

    def receiver(self, scope: Scope) -> CommandReceiver:
        return UnixCommandEnd(_bound[scope.directory].dup(), scope.timeout)

    def sender(self, scope: Scope) -> CommandSender:
        end = connected_socket(socket.SOCK_DGRAM, scope.path("socket"), scope.timeout)
        return UnixCommandEnd(end, scope.timeout)


class UnixCommandEnd(CommandSender, CommandReceiver):
    def __init__(self, end: socket.socket, timeout: float) -> None:
        self._socket, self._timeout = end, timeout

    def send(self, record: bytes) -> None:
        try:
            self._socket.send(record)
        except BlockingIOError:
            raise TimeoutError(f"the queue stayed full for {self._timeout} s") from None

    def receive(self) -> bytes:
        try:
            return self._socket.recv(COMMAND_BYTES)
        except BlockingIOError:
            raise TimeoutError(f"no command for {self._timeout} s") from None

    def close(self) -> None:
        self._socket.close()


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
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            self._enlarge(probe)  # refuse a buffer that no sender can have before anything starts
        return socket_name(scope.path("socket"))

    def receiver(self, scope: Scope) -> Receiver:
        listener = bound_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout)
        return StreamReceiver(listener, self.chunk, scope.timeout)

    def sender(self, scope: Scope) -> Sender:
        connection = connected_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout)
        self._enlarge(connection)
        return StreamSender(connection, self.chunk, scope.timeout)

    def _enlarge(self, end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(self.buffer, 1 << 30))  # the kernel doubles an int
        if (given := end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2) < self.buffer:
            raise OSError(f"buffer={self.buffer}: the kernel gives {given}; see /proc/sys/net/core/wmem_max")


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [UnixCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [UnixData]
