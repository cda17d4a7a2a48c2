"""What a cache has fetched from an origin: a directory of bounded size that all its processes share.

Laws:
- A file's mode says what it is: 0600 while it is being fetched, 01600 when it is whole, 0601 when nothing came of it,
  and its content is the reason. Only what is whole is served, and it never changes.
- Whoever holds the lock of a file that is being fetched fetches it. Who else wants it waits for the lock, and finds in
  the file that it has open what came of it: one download for all who wait, well or not. A killed one lets go of its
  lock: the next in line begins anew.
- A file's size is the room that it has, also while it is being fetched. All together stay within the bound: there is
  room for another when whole ones are removed, the one that was not asked for the longest first.
- Whoever has a file open reads it to its end, removed or not. So it is opened for each request, and closed after.
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

from harness.pipeline.catalogue import Cold, Directory, Locals
from harness.pipeline.http_session import NotThere, Origin, OriginError, Session

_FETCHING, _WHOLE, _NOTHING = 0o600, 0o1600, 0o601  # all of them can be opened by those who come to wait
_PART = ".part"
_OURS = re.compile(rf"[0-9a-f]{{40}}(?:{re.escape(_PART)})?")
_LOCK = "room"  # held while room is made, or a name given
_NOT_THERE, _LOOK_AGAIN = b"not there", b"look again"  # reasons
_FIRST_ROOM = 1 << 16  # for a file of unknown length; it is doubled when it is full
_SHORTEST, _LONGEST = 0.001, 0.02  # seconds between looks whether a lock is free


class Store:
    """Files of `origin` in `directory`, which is made: together at most `bound` bytes.

    patience: seconds to wait for another one's download. durable: whether files are to outlive a crash of the machine.
    """

    def __init__(self, origin: Origin, directory: str, bound: int, patience: float, durable: bool) -> None:
        self.origin, self._directory, self.bound = origin, directory, bound
        self._patience, self._durable = patience, durable
        self._sessions: list[Session] = []  # that no thread is using
        os.makedirs(directory, 0o700, exist_ok=True)
        for name in os.listdir(directory):
            if _OURS.fullmatch(name) and name.endswith(_PART):
                with self._locked():
                    self._remove_if_abandoned(f"{directory}/{name}")

    def open(self, path: bytes) -> int | None:
        """A descriptor of the file at `path`, the caller's to close; None where the origin has none. Raises OSError."""
        name = f"{self._directory}/{blake2b(self.origin.url.encode() + path, digest_size=20).hexdigest()}"
        while True:
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
                os.utime(fd)  # it has been asked for
                return fd
            except FileNotFoundError:
                pass
            fd = os.open(name + _PART, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FETCHING)
            whole = False
            try:
                whole = self._come_by(fd, name, path)
            except NotThere:
                return None
            finally:
                if not whole:
                    os.close(fd)
            if whole:
                return fd

    def _come_by(self, fd: int, name: str, path: bytes) -> bool:
        """Whether `fd`, the open part of `name`, has become whole, by this one's doing or another's; else look again.

        Raises NotThere, OSError.
        """
        _lock(fd, self._patience)
        try:
            mode = _mode(fd)
            if mode == _FETCHING:
                if os.path.exists(name):  # between two looks another one fetched it
                    _give_up(fd, name, _LOOK_AGAIN)
                else:
                    self._fetch(fd, name, path)
                    return True
            elif mode == _NOTHING:
                reason = os.pread(fd, 1000, 0)
                if reason == _NOT_THERE:
                    raise NotThere("the origin has no such file")
                if reason != _LOOK_AGAIN:
                    raise OriginError(reason.decode())
            return mode == _WHOLE
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # it is that of all duplicates of the descriptor, which may be passed on

    def _fetch(self, fd: int, name: str, path: bytes) -> None:
        session = self._sessions.pop() if self._sessions else Session(self.origin)
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
            _give_up(fd, name, _NOT_THERE)
            raise
        except BaseException as error:
            _give_up(fd, name, str(error).encode())
            raise
        finally:
            self._sessions.append(session)

    def make_room(self, fd: int, size: int) -> None:
        """Give the file that is being fetched the size `size`. Raises OriginError where that would be too much."""
        with self._locked():
            files = []
            for entry in os.scandir(self._directory):
                with suppress(FileNotFoundError):  # nothing has come of it
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
        """Nobody else gives a file room or its name: who counts would miss what is renamed meanwhile."""
        lock = os.open(f"{self._directory}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock, self._patience)
            yield
        finally:
            os.close(lock)

    @staticmethod
    def _remove_if_abandoned(part: str) -> None:
        """Remove what a killed one left half fetched, or without its name; another cache of this store may be alive."""
        with suppress(FileNotFoundError, BlockingIOError):
            fd = os.open(part, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(fd), os.stat(part)):
                    return  # somebody has fetched it meanwhile
                if _mode(fd) == _WHOLE:
                    os.unlink(part)
                else:
                    _give_up(fd, part.removesuffix(_PART), _LOOK_AGAIN)
            finally:
                os.close(fd)


class _Filling:
    """Takes a body into an open file."""

    def __init__(self, store: Store, fd: int) -> None:
        self._store, self._fd = store, fd
        self._announced: int | None = None
        self._room = 0
        self.size = 0

    def begin(self, length: int | None) -> "_Filling":
        self._announced = length
        os.ftruncate(self._fd, 0)  # a killed one may have left something
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
    """The files of a catalogue, and for what is not there those of a store. Descriptors are the caller's to close."""

    def __init__(self, catalogue: Directory | Locals | Cold | None, store: Store) -> None:
        self._catalogue, self._store = catalogue, store

    def find(self, path: bytes) -> int | None:
        """A descriptor of the file at `path`, None where there is none. Raises OSError."""
        if self._catalogue is not None and (fd := self._catalogue.find(path)) is not None:
            return os.dup(fd)
        return self._store.open(path)


def _mode(fd: int) -> int:
    return stat.S_IMODE(os.fstat(fd).st_mode)


def _give_up(fd: int, name: str, reason: bytes) -> None:
    """Tell those who wait for the locked part of `name` that nothing came, and why, and let others begin anew."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, reason, 0)
    os.fchmod(fd, _NOTHING)
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
                raise TimeoutError(errno.ETIMEDOUT, f"another one's download took longer than {patience:g} s") from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
