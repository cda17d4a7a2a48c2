"""Descriptor passing and sendfile(2).

The cache sends the head and its open file over a Unix datagram socket, unix(7) SCM_RIGHTS; the proxy moves the
content with sendfile(2) from the page cache to the client's socket. No byte of content is copied to user space or
crosses the lane.

Killed peers: the proxy owns the socket, so a killed proxy is noticed at once (ECONNREFUSED), a killed cache by the
timeout.

Limits: descriptors on their way count against RLIMIT_NOFILE, unix(7).

In early figures this was slower than shared memory at 3 MiB, because of the pacing timer of BBR, whose interrupts the
client paid for: docs/decisions/0003-congestion-control.md. With Reno, which the proxy's sockets use, it is faster.
"""

import os
import struct
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.api import (
    HEAD_BYTES,
    DataTransport,
    DescriptorSocket,
    FileSender,
    Scope,
    SocketReceiver,
    hookimpl,
    send_file,
    socket_name,
)

_OFFSET = struct.Struct("<Q")  # of the content in the file; follows the head


@dataclass(frozen=True)
class Sendfile(DataTransport):
    """It has no options."""

    name = "sendfile"

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("socket"))

    def receiver(self, scope: Scope) -> SocketReceiver:
        return FileReceiver(scope)

    def sender(self, scope: Scope) -> FileSender:
        return DescriptorSender(scope)


class DescriptorSender(FileSender):
    """Sends the head and the open file itself."""

    def __init__(self, scope: Scope) -> None:
        self._lane = DescriptorSocket.connected(scope.path("socket"), scope.timeout)

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self._lane.send(head + _OFFSET.pack(offset), fd if count else -1)

    def close(self) -> None:
        self._lane.close()


class FileReceiver(SocketReceiver):
    """Receives an open file, and moves its content with sendfile(2)."""

    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._lane = DescriptorSocket.bound(scope.path("socket"), scope.timeout)
        self._file = -1
        self._offset = 0

    def take(self) -> bytes:
        message, self._file = self._lane.receive(HEAD_BYTES + _OFFSET.size)
        (self._offset,) = _OFFSET.unpack_from(message, HEAD_BYTES)
        return message[:HEAD_BYTES]

    def deliver(self, sink: int, count: int) -> None:
        send_file(sink, self._file, self._offset, count, self._timeout)

    def give_back(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        self.give_back()
        self._lane.close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Sendfile]
