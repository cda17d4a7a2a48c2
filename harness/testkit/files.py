"""Files that replies are made of, and whether their pages are in the page cache."""

import contextlib
import ctypes
import mmap
import os
import tempfile
import time
from collections.abc import Iterator

_PERSIST = 5.0  # seconds in which pages on their way to a client, which cannot be dropped, arrive


@contextlib.contextmanager
def open_file(content: bytes) -> Iterator[int]:
    """The descriptor of a file without a name. It is on a disk where there is one: /tmp may be a tmpfs(5)."""
    with tempfile.TemporaryFile(dir="/var/tmp" if os.access("/var/tmp", os.W_OK) else None) as file:  # noqa: S108
        file.write(content)
        file.flush()
        yield file.fileno()


def overwrite(fd: int, content: bytes) -> None:
    """Change a file's content, but neither its size nor its time of modification."""
    before = os.fstat(fd)
    os.pwrite(fd, content, 0)
    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def leaves_page_cache(fd: int) -> bool:
    """Drop a file's pages, posix_fadvise(2) POSIX_FADV_DONTNEED: whether they are gone.

    They stay where they are mapped, and in file systems that have no other place for them, such as tmpfs(5).
    """
    deadline = time.monotonic() + _PERSIST
    os.fsync(fd)  # what is yet to be written stays
    while True:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if not in_page_cache(fd):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def in_page_cache(fd: int) -> bool:
    """Whether any page of a file is in the page cache, mincore(2). Unlike preadv2(2), it has no page read in."""
    size = os.fstat(fd).st_size
    pages = (ctypes.c_ubyte * (size // mmap.PAGESIZE + 1))()
    with mmap.mmap(fd, size) as mapping:
        start = ctypes.c_char.from_buffer(mapping)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(start), ctypes.c_size_t(size), pages)
        del start  # or the mapping could not be closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return any(page & 1 for page in pages)
