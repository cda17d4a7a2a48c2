"""Descriptor passing and mmap(2).

The cache sends the head and its open file over a Unix datagram socket, unix(7) SCM_RIGHTS; the proxy maps the file
and sends from the mapping with write(2): one copy, from the page cache into the socket's buffers. A lane keeps its
mappings, by device and inode (which no other file has while this one is mapped) and size, so that the pages of a file
are mapped once a lane. A mapping shows the file as it is now, not as it was.

No code here touches the mapped bytes, only the kernel does: if the file has shrunk, write(2) fails with EFAULT, and
there is no SIGBUS. But from the file's end to the end of its last page it writes zeros. So the last byte of the content
is read with pread(2) after all else is written: if it is there, so were all bytes before it; if not, the reply that the
client gets is short.

Killed peers: the proxy owns the socket, so a killed proxy is noticed at once (ECONNREFUSED), a killed cache by the
timeout.

Limits: `keep` mappings a lane, of max_map_count a process (65530). Descriptors on their way count against
RLIMIT_NOFILE, unix(7).
"""

import errno
import mmap
import os
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.api import (
    DataTransport,
    FileSender,
    Scope,
    SocketReceiver,
    await_room,
    check_least,
    hookimpl,
    socket_name,
)
from transports.sendfile import DescriptorSender, FileReceiver


@dataclass(frozen=True)
class Mmap(DataTransport):
    """keep: mappings that a lane keeps; each takes a descriptor and address space."""

    name = "mmap"
    keeps_content = True
    keep: int = 8

    def __post_init__(self) -> None:
        check_least(self, keep=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("socket"))

    def receiver(self, scope: Scope) -> SocketReceiver:
        return MappingReceiver(scope, self.keep)

    def sender(self, scope: Scope) -> FileSender:
        return DescriptorSender(scope)


class MappingReceiver(FileReceiver):
    """Maps the file and writes the content itself, though it copies: only this code knows what EFAULT means here."""

    def __init__(self, scope: Scope, keep: int) -> None:
        super().__init__(scope)
        self._keep = keep
        self._mappings: OrderedDict[tuple[int, int, int], mmap.mmap] = OrderedDict()  # the latest used last

    def deliver(self, sink: int, count: int) -> None:
        offset, last = self._offset, self._offset + count - 1
        os.set_blocking(sink, False)
        with memoryview(self._mapping(last)) as content:
            while offset < last:
                with content[offset:last] as rest:
                    offset += self._write(sink, rest)
        byte = os.pread(self._file, 1, last)
        if not byte:
            raise EOFError("the file has shrunk")
        while not self._write(sink, byte):
            pass

    def _mapping(self, last: int) -> mmap.mmap:
        """The mapping of the file. Raises EOFError if the file has no byte at `last`."""
        file = os.fstat(self._file)
        if file.st_size <= last:
            raise EOFError(f"the file ended {last + 1 - file.st_size} bytes early")
        key = (file.st_dev, file.st_ino, file.st_size)
        if (mapping := self._mappings.get(key)) is None:
            mapping = self._mappings[key] = mmap.mmap(self._file, file.st_size, prot=mmap.PROT_READ)
            if len(self._mappings) > self._keep:
                self._mappings.popitem(last=False)[1].close()
        else:
            self._mappings.move_to_end(key)
        return mapping

    def _write(self, sink: int, content: bytes | memoryview) -> int:
        """Returns the bytes written, 0 if the socket was full; it is not any more."""
        try:
            return os.write(sink, content)
        except BlockingIOError:
            await_room(sink, self._timeout)
            return 0
        except OSError as error:
            if error.errno == errno.EFAULT:
                raise EOFError("the file has shrunk") from None
            raise

    def close(self) -> None:
        super().close()
        while self._mappings:
            self._mappings.popitem()[1].close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Mmap]
