"""A FIFO that the cache's own pages are hung into, vmsplice(2), fifo(7) and pipe(7).

A byte goes preadv(2) -> buffer of the cache -> readv(2) -> buffer of the proxy -> write(2): the pipe holds references
to the cache's pages in place of copies, so there is one copy between the processes where `fifo` has two. Each page,
however little of it counts, takes one of the pipe's places, of which a pipe of 256 KiB has 64.

Never a wrong byte, so no page may change while it is in the pipe:

- The cache fills its memory in turn, as a ring that has as many pages as the pipe has places, and those of two chunks
  more. Only the pages that were published last can be in the pipe, as many as it has places, and loan() returns none of
  them. The kernel frees a place only once it has copied the page to the reader. That is the well-known argument of a
  pipe with two buffers, for pieces of any size. It needs no receipt, and no wait but that for room in the pipe.
- The memory is private, and close() unmaps it: from then on no process can change the pages, and the pipe keeps them
  until they are read. So close() need not wait, and what a killed cache had sent arrives as it was. A fork that writes
  to the memory gets copies of the pages.
- The proxy reads. Were it to splice(2) the pages on, its socket would hold them for longer than the pipe does.

Killed peers: as with `fifo`: a killed cache is noticed by the timeout, a killed proxy by EPIPE at once.

Limits: those of a pipe, as for `fifo`. Each cache worker has pipe_size and two chunks of memory for each lane. Python
has no vmsplice(2): ctypes takes 5 ms to load, when a cache opens its first lane.
"""

import fcntl
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass

from harness.api import DataTransport, Scope, Sender, hookimpl
from transports.common.fifos import FifoEnd
from transports.common.ring import whole_pages
from transports.fifo import FifoData

_SPLICE_F_NONBLOCK = 2  # splice(2)


@dataclass(frozen=True)
class Vmsplice(FifoData):
    """chunk: bytes that either end moves at a time.
    pipe_size: bytes that the pipe holds, if its pages are full; an ordinary user may have up to
        /proc/sys/fs/pipe-max-size.
    """

    name = "vmsplice"

    def sender(self, scope: Scope) -> Sender:
        return PageSender(scope, self.chunk)


class PageSender(FifoEnd, Sender):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope, "fifo", os.O_WRONLY)
        self._chunk = chunk
        self._next = 0  # offset in the memory of the next piece, which begins a page
        size = fcntl.fcntl(self._fd, fcntl.F_GETPIPE_SZ) + 2 * whole_pages(chunk)  # the receiver has set the former
        self._room = memoryview(b"")  # what loan() has returned
        try:
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._hang = hanger(self._fd, self._memory)
        except BaseException:
            super().close()
            raise

    def loan(self) -> memoryview:
        if self._next + whole_pages(self._chunk) > len(self._memory):
            self._next = 0
        self._room = memoryview(self._memory)[self._next : self._next + self._chunk]
        return self._room

    def publish(self, count: int) -> None:
        start, end = self._next, self._next + count
        while start < end:
            try:
                start += self._hang(start, end - start)
            except BlockingIOError:
                self._wait("the pipe stayed full")
        self._next += whole_pages(count)

    def close(self) -> None:
        super().close()
        self._room.release()
        self._memory.close()


def hanger(fd: int, memory: mmap.mmap) -> Callable[[int, int], int]:
    """A function (offset, count) that hangs so many bytes of `memory` into the pipe `fd`, vmsplice(2).

    It returns how many there was room for, and raises BlockingIOError if for none, another OSError if it cannot.
    """
    import ctypes  # noqa: PLC0415  5 ms

    class Vector(ctypes.Structure):  # struct iovec, readv(2)
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    call = ctypes.CDLL(None, use_errno=True).vmsplice
    call.restype = ctypes.c_ssize_t
    call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_uint)
    vector, start = Vector(), ctypes.addressof(ctypes.c_char.from_buffer(memory))
    address, last_error = ctypes.addressof(vector), ctypes.get_errno

    def hang(offset: int, count: int) -> int:
        vector.base, vector.length = start + offset, count
        moved: int = call(fd, address, 1, _SPLICE_F_NONBLOCK)
        if moved < 0:
            raise OSError(error := last_error(), f"vmsplice(2): {os.strerror(error)}")
        return moved

    return hang


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Vmsplice]
