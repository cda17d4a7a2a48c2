"""Unix-domain datagram socket, unix(7), for commands.

send(2) puts a record into the queue of one bound socket, which all cache workers share by fork, and recv(2) takes it
out. One system call at either end, records stay whole, the kernel wakes one waiting receiver, and a full queue makes
senders wait. SOCK_SEQPACKET would need an accept(2), a descriptor and epoll(7) for each proxy worker, all of them
shared by all cache workers.

Limits: max_dgram_qlen records in the queue, usually 10: a sysctl of the network namespace.

Killed peers: when the last holder of the socket is gone, senders have ECONNREFUSED at once; nobody is told of a
killed sender. The kernel's own timeouts, socket(7) SO_RCVTIMEO, cost no system call, as settimeout() would.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.api import (
    COMMAND_BYTES,
    CommandReceiver,
    CommandSender,
    CommandTransport,
    Scope,
    bound_socket,
    connected_socket,
    hookimpl,
    socket_name,
)

_bound: dict[str, socket.socket] = {}  # of the command channels of this process, by directory; forks inherit them


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


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [UnixCommands]
