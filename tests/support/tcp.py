"""Commands and content over TCP on the loopback, as an author would write them with the helpers of harness.api.

A command goes over a connection of its own, connect(2) -> send(2) -> backlog of the cache's listener, which all cache
workers share by fork -> accept(2) -> recv(2). The backlog is the queue. Content goes over a connection for each cache
worker: preadv(2) -> buffer of the cache -> send(2) -> socket buffers -> recv(2) -> buffer of the proxy.

Limits: the backlog holds at most somaxconn commands (4096). If it is full, the kernel tries to connect again a second
later. Each command leaves a port in TIME_WAIT for a minute.

Killed peers: a killed cache: ECONNREFUSED at once. A reply whose connection ends within it: EOFError at once. A killed
proxy: ECONNRESET or EPIPE.
"""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

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
    check_least,
    hookimpl,
    socket_name,
    tcp_accepted,
    tcp_connected,
    tcp_listener,
)

_listeners: dict[str, socket.socket] = {}  # of this process, by port file; forks inherit them


@dataclass(frozen=True)
class TcpCommands(CommandTransport):
    """depth: commands that the backlog holds."""

    name = "tcp"
    depth: int = 1024

    def __post_init__(self) -> None:
        check_least(self, depth=1)

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        path = scope.path("port")
        with socket_name(path):
            try:
                with tcp_listener(path, scope.timeout, self.depth) as _listeners[path]:
                    yield
            finally:
                _listeners.pop(path, None)

    def receiver(self, scope: Scope) -> CommandReceiver:
        return TcpCommandReceiver(scope)

    def sender(self, scope: Scope) -> CommandSender:
        tcp_connected(scope.path("port"), scope.timeout).close()  # raises if there is no cache
        return TcpCommandSender(scope)


class TcpCommandSender(CommandSender):
    def __init__(self, scope: Scope) -> None:
        self._connect = partial(tcp_connected, scope.path("port"), scope.timeout)

    def send(self, record: bytes) -> None:
        with self._connect() as connection:
            connection.send(record)  # a new connection has room for it

    def close(self) -> None:
        """Each command has a connection of its own."""


class TcpCommandReceiver(CommandReceiver):
    def __init__(self, scope: Scope) -> None:
        path = scope.path("port")
        self._listener = _listeners[path].dup()
        self._accept = partial(tcp_accepted, self._listener, path, scope.timeout)

    def receive(self) -> bytes:
        while True:
            if (connection := self._accept()) is None:
                continue
            with connection:
                record = connection.recv(COMMAND_BYTES, socket.MSG_WAITALL)
            if len(record) == COMMAND_BYTES:  # else the sender only tried the connection, or was killed
                return record

    def close(self) -> None:
        self._listener.close()


@dataclass(frozen=True)
class TcpData(DataTransport):
    """chunk: bytes that either end moves at a time."""

    name = "tcp"
    chunk: int = 1 << 18

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("port"))

    def receiver(self, scope: Scope) -> Receiver:
        path = scope.path("port")
        listener = tcp_listener(path, scope.timeout)
        accept = partial(tcp_accepted, listener, path, scope.timeout)
        return StreamReceiver(listener, self.chunk, scope.timeout, accept)

    def sender(self, scope: Scope) -> Sender:
        return StreamSender(tcp_connected(scope.path("port"), scope.timeout), self.chunk, scope.timeout)


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [TcpCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [TcpData]
