"""Where the content comes from: a directory, or a file of keys and paths. Each file is opened once.

Descriptors stay open and are read with positional reads only. A directory's files are opened when they are first
asked for, so files that appear later are found; a file that is replaced by another of its name is not noticed.
"""

import errno
import os
import re
import stat

from harness.console import Refused

COLD = "drop each file from the page cache when it is asked for"  # what the programs' option does
_DETOUR = re.compile(rb"/\.{0,2}(?:/|$)")
_NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


def open_source(source: str, cold: bool = False) -> "Directory | Locals | Cold":
    """The catalogue that `source` names. Raises OSError or ValueError, with the name of what cannot be served.

    cold: see Cold.
    """
    catalogue = Directory(source) if os.path.isdir(source) else Locals(source)
    return Cold(catalogue) if cold else catalogue


class Directory:
    """The files below one directory, also through symbolic links, as long as these lead to files below it.

    A file has one path here: one with `//`, `/./` or `/../` in it leads to none.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._below = self._root.rstrip("/") + "/"
        self._opened: dict[bytes, int] = {}

    def find(self, path: bytes) -> int | None:
        """The descriptor of the file at `path` (starts with "/"), None where there is none."""
        fd = self._opened.get(path)
        return self._open(path) if fd is None else fd

    def some(self) -> int | None:
        """The descriptor of any file that is not empty, None where there is none."""
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
            # O_PATH looks a name up without opening the file, open(2); where that led is judged first, race-free.
            pin = os.open(os.fsencode(self._root) + path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_SUCH_FILE:
                return None
            raise
        try:
            here = f"/proc/self/fd/{pin}"
            if not os.readlink(here).startswith(self._below) or not stat.S_ISREG(os.fstat(pin).st_mode):
                return None
            fd = os.open(here, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(pin)
        if (first := self._opened.setdefault(path, fd)) != fd:  # another thread was faster
            os.close(fd)
        return first


class Locals:
    """The files of a `locals.txt`: a line for each, `key<space or tab>path`, paths from the working directory."""

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
        self.find = self._opened.get

    def some(self) -> int | None:
        """The descriptor of any file that is not empty, None where there is none."""
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
    """Drops each file from the page cache when it is asked for, posix_fadvise(2) POSIX_FADV_DONTNEED.

    The call is part of what a request takes. It spares pages that are mapped, or on their way to a client. Raises
    Refused where pages stay anyway, as in a tmpfs(5), which is nothing else.
    """

    def __init__(self, catalogue: Directory | Locals) -> None:
        some = catalogue.some()
        self._find = catalogue.find
        if some is not None and not _drops_pages(some):
            raise Refused(
                "--cold: the page cache keeps this file system's files (tmpfs?): serve files on a disk; a trial's are "
                "below $TRANSPORT_HARNESS_DIR"
            )

    def find(self, path: bytes) -> int | None:
        fd = self._find(path)
        if fd is not None:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return fd


def _drops_pages(fd: int) -> bool:
    """Whether the file can be had out of the page cache: then a read that may not wait finds nothing, preadv2(2).

    Not for each request: the kernel may begin to read all the same.
    """
    os.fsync(fd)  # what is yet to be written stays
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        return not os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:  # tmpfs(5) does not know the flag
        return False
