"""Where the content comes from: a directory, or a file of keys and paths.

Descriptors stay open and are read with positional reads only. A directory's files are opened when they are first
asked for, so files that appear later are found. A file that is replaced by another of its name goes unnoticed while it
is open. How many stay open is bounded: strangers choose what is asked for.
"""

import errno
import os
import re
import resource
import stat
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from harness.console import Refused

COLD = "drop each file from the page cache when it is asked for"  # the help of the programs' option --cold
_DETOUR = re.compile(rb"/\.{0,2}(?:/|$)")
_NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}

Find = Callable[[bytes], int | None]


class Catalogue(Protocol):
    """Files by their paths.

    caller_closes: whether each descriptor that find() returns is the caller's to close; otherwise it stays open.
    """

    @property
    def caller_closes(self) -> bool: ...

    def find(self, path: bytes, /) -> int | None:
        """The descriptor of the file at `path` (starts with "/"), None if there is none. Raises OSError."""


def open_source(source: str, cold: bool = False) -> Catalogue:
    """The catalogue that `source` names. Raises OSError or ValueError, with the name of what cannot be served.

    cold: see Cold.
    """
    catalogue = Directory(source) if os.path.isdir(source) else Locals(source)
    return Cold(catalogue.find, catalogue.sample()) if cold else catalogue


class Descriptor(int):
    """A descriptor that is closed with the last reference to it: who uses it keeps it open."""

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # os may be gone before the last reference
        close(self)


class Directory:
    """The files below one directory. A symbolic link is followed if it leads to a file below that directory.

    Each file has one path here: a path with `//`, `/./` or `/../` in it leads to no file. Files are kept open by the
    path that no link is in, so that a file which is asked for over links takes no second descriptor. At most half of
    RLIMIT_NOFILE are open, getrlimit(2); then the one that was used longest ago is closed.
    """

    caller_closes = False

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._below = self._root.rstrip("/") + "/"
        self._most = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._opened: OrderedDict[bytes, Descriptor] = OrderedDict()  # the one used longest ago first, once half full
        self._half_full = False  # the order does not matter before

    def find(self, path: bytes, /) -> int | None:
        """See Catalogue. The descriptor stays open while the caller keeps the object that this returns."""
        fd = self._opened.get(path)
        if fd is None:
            return self._open(path)
        if self._half_full:
            with suppress(KeyError):  # another thread may have dropped the file meanwhile
                self._opened.move_to_end(path)
        return fd

    def sample(self) -> int | None:
        """The descriptor of any file that is not empty, None if there is none."""
        for directory, _, files in os.walk(self._root):
            for name in files:
                path = os.fsencode(os.path.join(directory, name).removeprefix(self._root))
                if (fd := self.find(path)) is not None and os.fstat(fd).st_size:
                    return fd
        return None

    def _open(self, path: bytes) -> int | None:
        if _DETOUR.search(path):
            return None
        try:
            # O_PATH looks a name up without opening the file, open(2). What it led to is judged first: free of races.
            pin = os.open(os.fsencode(self._root) + path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                return None
            raise
        try:
            here = f"/proc/self/fd/{pin}"
            place = os.readlink(here)
            if not place.startswith(self._below) or not stat.S_ISREG(os.fstat(pin).st_mode):
                return None
            own = b"/" + os.fsencode(place.removeprefix(self._below))
            if (fd := self._opened.get(own)) is None:
                fd = self._opened.setdefault(own, Descriptor(os.open(here, os.O_RDONLY | os.O_CLOEXEC)))
        finally:
            os.close(pin)
        self._half_full = len(self._opened) > self._most >> 1
        while len(self._opened) > self._most:
            self._opened.popitem(last=False)
        return fd


class Locals:
    """The files of a `locals.txt`: a line for each, `key<space or tab>path`, paths from the working directory."""

    caller_closes = False

    def __init__(self, source: str) -> None:
        self._opened: dict[bytes, int] = {}
        with open(source, "rb") as lines:
            for number, line in enumerate(lines, 1):
                fields = line.strip().split(maxsplit=1)
                if not fields:
                    continue
                where = f"{source}:{number}"
                if len(fields) == 1 or not fields[0].startswith(b"/"):
                    raise ValueError(f"{where}: write `/key path`, not {os.fsdecode(line.strip())!r}")
                if fields[0] in self._opened:
                    raise ValueError(f"{where}: the key {os.fsdecode(fields[0])} is there twice; keep one")
                self._opened[fields[0]] = _open_regular(where, fields[1])
        self.find: Find = self._opened.get  # see Catalogue

    def sample(self) -> int | None:
        """The descriptor of any file that is not empty, None if there is none."""
        return next((fd for fd in self._opened.values() if os.fstat(fd).st_size), None)


def _open_regular(where: str, path: bytes) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # O_NONBLOCK: a FIFO would wait for a writer
    except OSError as error:
        raise OSError(f"{where}: {os.fsdecode(path)}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(f"{where}: {os.fsdecode(path)}: not a regular file")
    return fd


class Cold:
    """Drops each file that `find` finds from the page cache, posix_fadvise(2) POSIX_FADV_DONTNEED.

    That call is part of what a request takes. It spares pages that are mapped, or on their way to a client. sample: the
    descriptor of one of the files. Raises Refused if its pages cannot be dropped: a tmpfs(5) consists of such pages.
    """

    caller_closes = False

    def __init__(self, find: Find, sample: int | None) -> None:
        self._find = find
        if sample is not None and not _drops_pages(sample):
            raise Refused(
                "--cold: the page cache keeps this file system's files (tmpfs?): serve files on a disk; a trial's are "
                "below $TRANSPORT_HARNESS_DIR"
            )

    def find(self, path: bytes, /) -> int | None:
        """See Catalogue."""
        fd = self._find(path)
        if fd is not None:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return fd


def _drops_pages(fd: int) -> bool:
    """Whether the file's pages leave the page cache: afterwards a read that must not wait finds nothing, preadv2(2).

    This is not tried for each request: the kernel may begin to read even so.
    """
    os.fsync(fd)  # pages that are yet to be written would stay
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        return not os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:  # tmpfs(5) does not know the flag
        return False
