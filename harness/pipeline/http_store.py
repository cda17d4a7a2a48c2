"""The files that a cache has fetched from an HTTP origin: a directory of bounded size, shared by its processes.

Laws:
- A file's mode says what it is: 0600 while it is being fetched; 01600 when it is whole; 0601 when the download failed,
  and then its content is the reason. Only whole files are served, and a whole file never changes.
- The process that holds the lock of a file fetches it. Other requests for the file wait for the lock, then read the
  outcome from the file that they have open: one download serves all of them, also where it fails. A process that is
  killed loses its lock: the next request in line begins the download anew.
- A file's size is the room that it has been given, also while it is being fetched. All files together stay within the
  bound: whole files are removed to make room for another, the least recently requested first.
- An open file can be read to its end even after it was removed. So each request opens the file, and closes it after.
"""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b

from harness.pipeline.catalogue import Catalogue
from harness.pipeline.http_session import NotThere, Origin, OriginError, Session

_FETCHING, _WHOLE, _FAILED = 0o600, 0o1600, 0o601  # a request that comes to wait can open each of them
_PART = ".part"
_OURS = re.compile(rf"[0-9a-f]{{40}}(?:{re.escape(_PART)})?")
_LOCK = "room"  # the file whose lock is held while room is made, or a file gets its name
_NOT_THERE, _LOOK_AGAIN = b"not there", b"look again"  # reasons of failed downloads
_FIRST_ROOM = 1 << 16  # bytes for a file of unknown length; doubled each time it is full
_SHORTEST, _LONGEST = 0.001, 0.02  # seconds between looks whether a lock is free


class HttpStore:
    """Files of `origin` in `directory`, which is created: together at most `bound` bytes.

    patience: seconds to wait for the download of another process or thread. durable: whether each file must outlive a
    crash of the machine.
    """

    def __init__(self, origin: Origin, directory: str, bound: int, patience: float, durable: bool) -> None:
        self.origin, self._directory, self.bound = origin, directory, bound
        self._patience, self._durable = patience, durable
        self._idle: list[Session] = []  # sessions that no thread is using
        os.makedirs(directory, 0o700, exist_ok=True)
        for name in os.listdir(directory):
            if _OURS.fullmatch(name) and name.endswith(_PART):
                with self._locked():
                    self._remove_if_abandoned(f"{directory}/{name}")

    def open(self, path: bytes) -> int | None:
        """A descriptor of the file at `path`, which the caller closes; None if the origin has none. Raises OSError."""
        name = f"{self._directory}/{blake2b(self.origin.url.encode() + path, digest_size=20).hexdigest()}"
        while True:
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                os.utime(fd)  # the time of the latest request
                return fd
            except FileNotFoundError:
                pass
            fd = os.open(name + _PART, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FETCHING)
            whole = False
            try:
                whole = self._obtain(fd, name, path)
            except NotThere:
                return None
            finally:
                if not whole:
                    os.close(fd)
            if whole:
                return fd

    def _obtain(self, fd: int, name: str, path: bytes) -> bool:
        """Have `fd`, the open part of `name`, fetched, by this thread or another. Returns whether it is whole; if not,
        look again.

        Raises NotThere, OSError.
        """
        _lock(fd, self._patience)
        try:
            mode = _mode(fd)
            if mode == _FETCHING:
                if os.path.exists(name):  # fetched by another thread or process meanwhile
                    _fail(fd, name, _LOOK_AGAIN)
                else:
                    self._fetch(fd, name, path)
                    return True
            elif mode == _FAILED:
                reason = os.pread(fd, 1000, 0)
                if reason == _NOT_THERE:
                    raise NotThere("the origin has no such file")
                if reason != _LOOK_AGAIN:
                    raise OriginError(reason.decode())
            return mode == _WHOLE
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # duplicates of the descriptor, which may be passed on, share the lock

    def _fetch(self, fd: int, name: str, path: bytes) -> None:
        session = self._idle.pop() if self._idle else Session(self.origin)
        try:
            filling = _Filling(self, fd)
            session.get(path, filling.begin)
            os.ftruncate(fd, filling.size)
            if self._durable:
                os.fsync(fd)
            with self._locked():
                os.fchmod(fd, _WHOLE)
                os.rename(name + _PART, name)
        except NotThere:
            _fail(fd, name, _NOT_THERE)
            raise
        except BaseException as error:
            _fail(fd, name, str(error).encode())
            raise
        finally:
            self._idle.append(session)

    def make_room(self, fd: int, size: int) -> None:
        """Give the file that is being fetched the size `size`. Raises OriginError if that is over the bound."""
        with self._locked():
            files = []
            for entry in os.scandir(self._directory):
                with suppress(FileNotFoundError):  # its download has just failed
                    if _OURS.fullmatch(entry.name):
                        files.append((entry, entry.stat()))
            total = sum(status.st_size for _, status in files) - os.fstat(fd).st_size + size
            for entry, status in sorted(files, key=lambda file: file[1].st_mtime_ns):
                if total <= self.bound:
                    break
                if not entry.name.endswith(_PART) or stat.S_IMODE(status.st_mode) == _WHOLE:
                    os.unlink(entry.path)
                    total -= status.st_size
            if total > self.bound:
                raise OriginError(f"no room for {size} bytes in a store of {self.bound}")
            os.ftruncate(fd, size)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process gives a file room or its name meanwhile: a count would miss a file that is being renamed."""
        lock = os.open(f"{self._directory}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock, self._patience)
            yield
        finally:
            os.close(lock)

    @staticmethod
    def _remove_if_abandoned(part: str) -> None:
        """Remove a part that a killed process left. Parts of a living cache that shares this store are kept."""
        with suppress(FileNotFoundError, BlockingIOError):
            fd = os.open(part, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(fd), os.stat(part)):
                    return  # another process has fetched it meanwhile
                if _mode(fd) == _WHOLE:
                    os.unlink(part)
                else:
                    _fail(fd, part.removesuffix(_PART), _LOOK_AGAIN)
            finally:
                os.close(fd)


class _Filling:
    """Writes a body into an open file of the store. size: bytes so far."""

    def __init__(self, store: HttpStore, fd: int) -> None:
        self._store, self._fd = store, fd
        self._room = 0
        self.size = 0

    def begin(self, length: int | None) -> "_Filling":
        os.ftruncate(self._fd, 0)  # a killed process may have left content
        self._take_room(min(_FIRST_ROOM, self._store.bound) if length is None else length)
        return self

    def _take_room(self, size: int) -> None:
        self._store.make_room(self._fd, size)
        self._room = size

    def write(self, piece: bytes) -> None:
        end = self.size + len(piece)
        if end > self._room:
            self._take_room(max(end, min(2 * self._room, self._store.bound)))
        while self.size < end:
            self.size += os.pwrite(self._fd, piece[self.size - end :], self.size)

    def pause(self) -> None:
        pass


class Fetching:
    """The catalogue of a cache with an origin: files of `catalogue`, and for paths that it lacks those of `store`."""

    caller_closes = True

    def __init__(self, catalogue: Catalogue | None, store: HttpStore) -> None:
        self._catalogue, self._store = catalogue, store

    def find(self, path: bytes, /) -> int | None:
        """See Catalogue."""
        if self._catalogue is not None and (fd := self._catalogue.find(path)) is not None:
            return os.dup(fd)
        return self._store.open(path)


def _mode(fd: int) -> int:
    return stat.S_IMODE(os.fstat(fd).st_mode)


def _fail(fd: int, name: str, reason: bytes) -> None:
    """Note in the locked part of `name` why its download failed, for requests that wait; later ones begin anew."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, reason, 0)
    os.fchmod(fd, _FAILED)
    os.unlink(name + _PART)


def _lock(fd: int, patience: float) -> None:
    """Lock a file. Raises TimeoutError after `patience` seconds: flock(2) itself waits without a bound."""
    deadline, pause = time.monotonic() + patience, _SHORTEST
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"another request's download took longer than {patience:g} s"
                ) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
