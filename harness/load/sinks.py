"""Sinks: what becomes of the content of a reply."""

import os
import zlib
from collections.abc import Iterable, Mapping

_COPY = 1 << 20
_READ = 1 << 20


class Sink:
    """A sink that takes content and does nothing with it; the base of the others.

    A client of gfclient has received the content into its own memory by then, so this is `gfclient --copy`.
    """

    def open(self, path: str) -> None:
        """A reply for `path` begins."""

    def write(self, piece: memoryview) -> bool:
        """Take the next piece. Returns False where it differs from what was expected."""
        return True

    def close(self, complete: bool) -> bool:
        """The reply has ended; `complete`: with all its content. Returns False where that was not as expected."""
        return True


class Discard(Sink):
    """Has the kernel drop the content instead of copying it to the process: MSG_TRUNC, tcp(7)."""


class Copy(Sink):
    """Copies content to private memory of 1 MiB, over and over."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(_COPY))

    def write(self, piece: memoryview) -> bool:
        if len(piece) <= _COPY:
            self._memory[: len(piece)] = piece
        else:
            for start in range(0, len(piece), _COPY):
                self.write(piece[start : start + _COPY])
        return True


class Save(Sink):
    """Writes each file below `directory`, under its request's path. A file appears whole or not at all: rename(2).

    suffix: of the name that the file has until then, different for each sink.
    """

    def __init__(self, directory: str, suffix: str) -> None:
        self._directory, self._suffix = directory, suffix
        self._fd, self._target = -1, ""

    def open(self, path: str) -> None:
        self._target = self._directory + path
        os.makedirs(os.path.dirname(self._target), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(f"{self._target}.{self._suffix}", flags, 0o644)

    def write(self, piece: memoryview) -> bool:
        written = 0
        while written < len(piece):
            written += os.write(self._fd, piece[written:])
        return True

    def close(self, complete: bool) -> bool:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if complete:
                os.rename(f"{self._target}.{self._suffix}", self._target)
            else:
                os.unlink(f"{self._target}.{self._suffix}")
        return True


class Compare(Sink):
    """Compares content with the files below `directory`, then passes it to the sink `behind`."""

    def __init__(self, directory: str, behind: Sink) -> None:
        self._directory, self._behind = directory, behind
        self._expected: dict[str, int] = {}  # descriptors by path
        self._fd, self._offset = -1, 0

    def open(self, path: str) -> None:
        self._behind.open(path)
        self._offset = 0
        if path not in self._expected:
            self._expected[path] = os.open(self._directory + path, os.O_RDONLY | os.O_CLOEXEC)
        self._fd = self._expected[path]

    def write(self, piece: memoryview) -> bool:
        # bytes(): two bytes objects are compared by memcmp, a memoryview item by item, which takes 36 times as long.
        same = os.pread(self._fd, len(piece), self._offset) == bytes(piece)
        self._offset += len(piece)
        return self._behind.write(piece) and same

    def close(self, complete: bool) -> bool:
        right = not complete or os.fstat(self._fd).st_size == self._offset
        return self._behind.close(complete and right) and right


class Checksum(Sink):
    """Compares the CRC-32 of each reply with `expected`, which has that of each path: see checksums()."""

    def __init__(self, expected: Mapping[str, int]) -> None:
        self._expected = expected
        self._wanted = self._sum = 0

    def open(self, path: str) -> None:
        self._wanted, self._sum = self._expected[path], 0

    def write(self, piece: memoryview) -> bool:
        self._sum = zlib.crc32(piece, self._sum)
        return True

    def close(self, complete: bool) -> bool:
        return not complete or self._sum == self._wanted


def checksums(directory: str, paths: Iterable[str]) -> dict[str, int]:
    """The CRC-32 of each path's file below `directory`."""
    sums = {}
    for path in set(paths):
        with open(directory + path, "rb") as file:
            sums[path] = 0
            while piece := file.read(_READ):
                sums[path] = zlib.crc32(piece, sums[path])
    return sums
