"""TCP on the loopback, tcp(7): a connection for each command, and one for each cache worker that sends content.

The kernel has no queue of TCP that several processes could read records from. A connection belongs to the process that
accepted it, and a command must reach the first worker that asks, in whichever process. So each command has a connection
of its own: connect(2) -> send(2) -> backlog of the cache's listener, which all cache workers share by fork -> accept(2)
-> recv(2) twice, for the key and the command. The backlog is the queue. Measured with both processes on one core, a
round trip takes 90 us more than with commands over `unix` (`harness ipc --command tcp`; 2 cores, virtual). The
alternative is one connection for each sender and a broker, a thread or process of the cache that deals the records out;
it costs a hop instead.

Content goes preadv(2) -> buffer of the cache -> send(2) -> socket buffers -> recv(2) -> buffer of the proxy: one copy
in, one copy out, and the work of TCP in between, on the loopback without checksums. Each cache worker that serves a
lane connects to it once, with TCP_NODELAY and without pacing. The proxy's end learns from poll(2) which connection
speaks next, as in `unix`: harness/api/streams.py.

A port has no owner and no mode. The listener writes its port and a random key to a file in the scope's directory, and a
connection that does not begin with the key is closed: tcp_listener in harness/api/sockets.py. So another user can cost
time, but can neither send nor read anything.

Limits: somaxconn commands in the backlog. If it is full, the kernel tries to connect again a second later. A
connection holds what tcp_wmem and tcp_rmem allow, 4 and 6 MiB. The cache resets the connection of a command once it has
it, SO_LINGER of socket(7): that way no port stays in TIME_WAIT.

Killed peers: a killed cache refuses commands at once (ECONNREFUSED), and those in its backlog are lost. A connection
that ends within a reply means that the sender gave up or was killed (EOFError at once), one that ends between replies
means nothing. A killed proxy: ECONNRESET or EPIPE.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    TcpPort,
    check_least,
    hookimpl,
    reset_on_close,
    socket_name,
    tcp_connected,
    tcp_listener,
)
from transports.common.message_queues import check_limit

_listeners: dict[str, socket.socket] = {}  # of this process, by port file; forks inherit them


@dataclass(frozen=True)
class TcpCommands(CommandTransport):
    """depth: commands that the backlog holds; /proc/sys/net/core/somaxconn says how many it may."""

    name = "tcp"
    depth: int = 1024

    def __post_init__(self) -> None:
        check_least(self, depth=1)

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        check_limit(self.depth, "commands in the backlog", "/proc/sys/net/core/somaxconn")
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
        return TcpCommandSender(scope)


class TcpCommandSender(CommandSender):
    def __init__(self, scope: Scope) -> None:
        self._port = TcpPort.read(scope.path("port"))
        self._timeout = scope.timeout
        self._port.connected(self._timeout).close()  # raises if there is no cache

    def send(self, record: bytes) -> None:
        self._port.connected(self._timeout, record).close()

    def close(self) -> None:
        """Each command has a connection of its own."""


class TcpCommandReceiver(CommandReceiver):
    def __init__(self, scope: Scope) -> None:
        path = scope.path("port")
        self._listener = _listeners[path].dup()
        self._timeout = scope.timeout
        self._port = TcpPort.read(path)

    def receive(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        while True:
            if (connection := self._port.accepted(self._listener, self._timeout)) is not None:
                record = b""
                with connection, suppress(OSError):  # a sender that was killed or stopped with its command half sent
                    reset_on_close(connection)
                    record = connection.recv(COMMAND_BYTES, socket.MSG_WAITALL)
                if len(record) == COMMAND_BYTES:
                    return record
            # Another program; or a sender that only tried whether there is a cache, or was killed.
            if time.monotonic() > deadline:
                raise TimeoutError(f"no command for {self._timeout} s")

    def close(self) -> None:
        self._listener.close()


@dataclass(frozen=True)
class TcpData(DataTransport):
    """chunk: bytes that either end moves at a time.
    congestion: TCP_CONGESTION of tcp(7) for the sender's socket. `system`: that of the machine; where it is bbr, a
        timer paces the content, docs/decisions/0003-congestion-control.md.
    """

    name = "tcp"
    chunk: int = 1 << 18
    congestion: str = "reno"

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            self._tune(probe)  # refuse what no sender can have before anything starts
        with socket_name(scope.path("port")):
            yield

    def receiver(self, scope: Scope) -> Receiver:
        path = scope.path("port")
        listener = tcp_listener(path, scope.timeout)
        accept = partial(TcpPort.read(path).accepted, listener, scope.timeout)
        return StreamReceiver(listener, self.chunk, scope.timeout, accept)

    def sender(self, scope: Scope) -> Sender:
        connection = tcp_connected(scope.path("port"), scope.timeout)
        self._tune(connection)
        return StreamSender(connection, self.chunk, scope.timeout)

    def _tune(self, end: socket.socket) -> None:
        if self.congestion != "system":
            try:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self.congestion.encode())
            except OSError as error:
                allowed = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
                raise OSError(f"congestion={self.congestion}: {error.strerror}; see {allowed}") from None


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [TcpCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [TcpData]
