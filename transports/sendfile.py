"""Descriptor passing and sendfile(2).

The cache sends the head and its open file over a Unix datagram socket, unix(7) SCM_RIGHTS; the proxy moves the
content with sendfile(2) from the page cache to the client's socket. No byte of content is copied to user space or
crosses the lane. The receiver owns the socket, so a killed proxy is noticed at once (ECONNREFUSED), a killed cache by
the timeout.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from harness.api import HEAD_BYTES, DataTransport, FileSender, Scope, SocketReceiver, hookimpl, send_file

_OFFSET = struct.Struct("<Q")
_FD_BYTES = struct.calcsize("@i")


@dataclass(frozen=True)
class Sendfile(DataTransport):
    name = "sendfile"

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        try:
            yield
        finally:
            with suppress(FileNotFoundError):  # the receiver makes the name: bind(2) is what creates it
                os.unlink(scope.path("socket"))

    def receiver(self, scope: Scope) -> SocketReceiver:
        return FileReceiver(scope)

    def sender(self, scope: Scope) -> FileSender:
        return DescriptorSender(scope)


class DatagramEnd:
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # The kernel's timeouts cost no system call of their own, as settimeout() would.
        limit = struct.pack("@ll", int(scope.timeout), int(scope.timeout % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def close(self) -> None:
        self._socket.close()


class DescriptorSender(DatagramEnd, FileSender):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        try:
            self._socket.connect(scope.path("socket"))
        except OSError:
            self.close()
            raise

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("@i", fd))] if count else []
        try:
            self._socket.sendmsg((head, _OFFSET.pack(offset)), rights)
        except BlockingIOError:
            raise TimeoutError(f"the socket stayed full for {self._timeout} s") from None


class FileReceiver(DatagramEnd, SocketReceiver):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._file = -1
        self._offset = 0
        try:
            self._socket.bind(scope.path("socket"))
            os.chmod(scope.path("socket"), 0o600)
        except OSError:
            self.close()
            raise

    def take(self) -> bytes:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(HEAD_BYTES + _OFFSET.size, socket.CMSG_SPACE(_FD_BYTES))
        except BlockingIOError:
            raise TimeoutError(f"no descriptor for {self._timeout} s") from None
        for _, _, rights in ancillary:
            (self._file,) = struct.unpack("@i", rights)
        (self._offset,) = _OFFSET.unpack_from(data, HEAD_BYTES)
        return data[:HEAD_BYTES]

    def deliver(self, sink: int, count: int) -> None:
        send_file(sink, self._file, self._offset, count, self._timeout)

    def give_back(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        self.give_back()
        super().close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Sendfile]
