"""FIFO and splice(2) at both ends.

The cache writes the head into the FIFO, then splice(2) hangs pages of the page cache into it; the proxy reads the
head and splices what follows to the client's socket. No byte of content is copied to user space, and none in the
kernel: pipe and socket hold references to the file's own pages, so a change of the file changes what is on its way.
Both calls move at most what the pipe holds, pipe(7), so cache and proxy work on one reply at the same time.

FIFO and socket are non-blocking, with poll(2) where they would block: one blocking splice(2) would wait for
SO_SNDTIMEO several times over.

Killed peers: a stream of bytes cannot say that the file ended early or that the cache was killed: the proxy notices
both by the timeout. A killed proxy was the only reader: the cache gets EPIPE at once.

Limits: those of a pipe, as for `fifo`: pipe-max-size (1 MiB) and pipe-user-pages-soft (64 MiB), pipe(7).
"""

import os
import struct
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.api import HEAD_BYTES, DataTransport, FileSender, Scope, SocketReceiver, await_room, check_least, hookimpl
from transports.common.fifos import FifoEnd, provisioned_fifos

_DROP_LIMIT = 64 << 20  # bytes of a reply whose client has gone; beyond it a new lane is cheaper
_COUNT = struct.Struct("<Q")  # of content; follows the head, so that a reply can be dropped


@dataclass(frozen=True)
class Splice(DataTransport):
    """pipe_size: bytes that the pipe holds; an ordinary user may have up to /proc/sys/fs/pipe-max-size."""

    name = "splice"
    pipe_size: int = 1 << 18

    def __post_init__(self) -> None:
        check_least(self, pipe_size=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_fifos(scope, "pipe")

    def receiver(self, scope: Scope) -> SocketReceiver:
        # A writer of its own: that the last cache worker closed its end says nothing about the next reply.
        return PipeToSocket(scope, "pipe", os.O_RDWR, self.pipe_size)

    def sender(self, scope: Scope) -> FileSender:
        return FileToPipe(scope, "pipe", os.O_WRONLY)


class FileToPipe(FifoEnd, FileSender):
    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        os.write(self._fd, head + _COUNT.pack(count))  # the lane is at rest: there is room
        end = offset + count
        while offset < end:
            try:
                moved = os.splice(fd, self._fd, end - offset, offset_src=offset)
            except BlockingIOError:
                self._wait("the pipe stayed full")
                continue
            if not moved:
                raise EOFError(f"the file ended {end - offset} bytes early")
            offset += moved


class PipeToSocket(FifoEnd, SocketReceiver):
    _left = 0  # bytes of the reply that are not moved yet

    def take(self) -> bytes:
        self._wait("nothing in the pipe")
        message = os.read(self._fd, HEAD_BYTES + _COUNT.size)  # written in one call, so read in one: pipe(7)
        (self._left,) = _COUNT.unpack_from(message, HEAD_BYTES)
        return message[:HEAD_BYTES]

    def deliver(self, sink: int, count: int) -> None:
        if count != self._left:
            raise OSError(f"the sender announced {self._left} bytes of content, the head {count}")
        os.set_blocking(sink, False)
        self._move(sink)

    def give_back(self) -> None:
        if self._left > _DROP_LIMIT:
            raise OSError(f"{self._left} bytes are left of the reply, too many to drop")
        if self._left:
            with open(os.devnull, "wb") as nowhere:
                self._move(nowhere.fileno())

    def _move(self, sink: int) -> None:
        while self._left:
            try:
                self._left -= os.splice(self._fd, sink, self._left)
            except BlockingIOError:  # it does not say which of the two would block
                self._wait("nothing in the pipe")
                await_room(sink, self._timeout)


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Splice]
