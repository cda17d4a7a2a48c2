"""Sealed memfds, memfd_create(2), passed by descriptor.

The cache copies a file once into memory of its own, seals it (F_SEAL_WRITE and others, fcntl(2)), and passes the
memfd over a Unix datagram socket, unix(7) SCM_RIGHTS; the proxy checks the seals and moves the content with
sendfile(2) to the client's socket. What was sealed can neither shrink nor change, whatever happens to the file: the
length in the head holds, and what is on its way is what was read.

A process keeps its memfds for all its lanes, by the identity of the file: device, inode, size and time of change.
(Two changes within one tick of the clock look alike to a kernel before Linux 6.13.) They are closed with the last
lane.

Killed peers: the proxy owns the socket, so a killed proxy is noticed at once (ECONNREFUSED), a killed cache by the
timeout.

Limits: each cache process has `keep` bytes of memory of its own for content, and a descriptor for each file in it, for
an eighth of RLIMIT_NOFILE files at most. Descriptors on their way count against RLIMIT_NOFILE, unix(7).
"""

import fcntl
import os
import resource
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from harness.api import DataTransport, DescriptorSocket, FileSender, Scope, SocketReceiver, hookimpl, socket_name
from transports.sendfile import FileReceiver

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Memfd(DataTransport):
    """keep: bytes of content that a cache process keeps in memory; the latest file is kept whatever its size."""

    name = "memfd"
    keeps_content = True
    keep: int = 1 << 28

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("socket"))

    def receiver(self, scope: Scope) -> SocketReceiver:
        return MemfdReceiver(scope)

    def sender(self, scope: Scope) -> FileSender:
        return MemfdSender(scope, self.keep)


class MemfdSender(FileSender):
    def __init__(self, scope: Scope, keep: int) -> None:
        self._lane = DescriptorSocket.connected(scope.path("socket"), scope.timeout)
        self._store: Store | None = _stores.setdefault(keep, Store(keep))

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        if not count:
            self._lane.send(head + bytes(8))  # FileReceiver expects an offset
            return
        assert self._store is not None
        sealed = self._store.sealed(fd)
        if sealed.size < offset + count:
            raise EOFError(f"the file ended {offset + count - sealed.size} bytes early")
        self._lane.send(head + offset.to_bytes(8, "little"), sealed.fd)

    def close(self) -> None:
        self._store = None
        self._lane.close()


class MemfdReceiver(FileReceiver):
    """Checks that the memfd is sealed, then delivers as `sendfile` does."""

    def deliver(self, sink: int, count: int) -> None:
        if fcntl.fcntl(self._file, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise OSError("the memfd is not sealed")
        super().deliver(sink, count)


class Sealed:
    """A memfd that holds the first `size` bytes of a file. It is closed with the last reference to this object."""

    def __init__(self, fd: int, size: int) -> None:
        self.size = size
        self.fd = os.memfd_create("content", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        offset = 0
        while offset < size:
            moved = os.sendfile(self.fd, fd, offset, size - offset)
            if not moved:
                raise EOFError(f"the file ended {size - offset} bytes early")
            offset += moved
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Store:
    """The memfds of one process, the latest used last. Shared by threads, hence the lock."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self._kept: OrderedDict[tuple[int, ...], Sealed] = OrderedDict()
        self._lock = threading.Lock()

    def sealed(self, fd: int) -> Sealed:
        """The content of a file. It stays open while the caller holds it, even after the store has dropped it."""
        file = os.fstat(fd)
        key = (file.st_dev, file.st_ino, file.st_size, file.st_ctime_ns)
        with self._lock:
            if (sealed := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return sealed
        sealed = Sealed(fd, file.st_size)  # without the lock: two threads may copy one file, and the later copy is kept
        with self._lock:
            self._kept[key] = sealed
            total = sum(each.size for each in self._kept.values())
            while len(self._kept) > 1 and (total > self._keep or len(self._kept) > self._most):
                total -= self._kept.popitem(last=False)[1].size
        return sealed


_stores: WeakValueDictionary[int, Store] = WeakValueDictionary()  # by `keep`, as long as a sender holds it


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Memfd]
