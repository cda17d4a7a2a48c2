"""Where programs find each other, and what they leave behind: private directories, owner locks, sweeping.

    <base>/<rendezvous>/<program>/      a Home: one running program
        lock                            flock(2) held by every process of the program, so it ends with the last
        serving                         the same, but a cache that is asked to end releases it first
        left                            what transports should have removed and did not
        channel                         written once the command channel is ready: timeout and transport
        store/                          what a cache has fetched from an origin
        <scope>/                        one channel or lane: `names` (the ledger), FIFOs, sockets
        <scope>/lane                    timeout and data transport of a lane, for the cache

<base> is transport-harness-<uid> in /tmp, or in $TRANSPORT_HARNESS_DIR. Everything has mode 0700 or 0600. A program
holds a flock on <base> while it makes a home or sweeps the homes of dead programs, so only one does so at a time.
"""

import errno
import fcntl
import io
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from harness.api.scope import LEDGER, Scope, private_file, sysv_object, write_private_file

BASE_VARIABLE = "TRANSPORT_HARNESS_DIR"
DEFAULT = "default"
LOCK, SERVING, LEFT = "lock", "serving", "left"
_SWEEPS = "sweeps"  # the lock file of a home that sweeps by itself
_DIGITS = "digits"  # the file of a scope with the end of its names
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_ENTRY = re.compile(r"^(posix(?= /)|(?:shm|sem|msg)(?= \d+\n)) (\S+)\n")  # a line of a ledger
_LOCK_SECONDS = 10.0
_SOCKET_PATH_ROOM = 40  # of the 107 bytes of sun_path, unix(7): program, scope and the plugin's own part


class Taken(OSError):
    """A running program has this home."""


def base_directory() -> str:
    """The directory of all rendezvous of this user."""
    return os.path.abspath(f"{os.environ.get(BASE_VARIABLE) or '/tmp'}/transport-harness-{os.getuid()}")  # noqa: S108


def rendezvous_directory(rendezvous: str) -> str:
    """The directory of one rendezvous. Raises ValueError for a name that cannot be one."""
    if not _NAME.fullmatch(rendezvous):
        raise ValueError(f"rendezvous {rendezvous!r}: use 1 to 32 letters, digits, '.', '_' and '-'")
    directory = f"{base_directory()}/{rendezvous}"
    if len(os.fsencode(directory)) > 107 - _SOCKET_PATH_ROOM:
        raise ValueError(f"{directory}: too long for the sockets below it; set {BASE_VARIABLE} to a shorter directory")
    return directory


def is_taken(home: str, name: str = LOCK) -> bool:
    """Whether a process of the program that made `home` is alive; with SERVING, whether that program serves."""
    try:
        with open_lock(home, name) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two programs may ask at once
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def open_lock(home: str, name: str) -> io.FileIO:
    """A lock file of a home. Raises FileNotFoundError."""
    return open(f"{home}/{name}", "rb", buffering=0)


def wait_until_free(lock: io.FileIO) -> None:
    """Return when no process holds `lock` any more: it was released, or its last process has ended. No timeout."""
    fcntl.flock(lock, fcntl.LOCK_SH)


class Home:
    """A running program's own directory, from construction to close().

    lock: the descriptor that holds it; programs that are a part of this one inherit it. A new home first sweeps what
    dead programs left at its rendezvous, for no other program would free their memory and queues. sweeps: this program
    sweeps by itself and counts what it finds, so that while it runs no other home at its rendezvous sweeps. Raises
    Taken if a running program has the directory, ValueError for a bad rendezvous.
    """

    def __init__(self, rendezvous: str, program: str, sweeps: bool = False) -> None:
        self.directory = f"{rendezvous_directory(rendezvous)}/{program}"
        self._owner = os.getpid()
        with _locked_base() as base:
            if not any(is_taken(home, _SWEEPS) for home in _homes(f"{base}/{rendezvous}")):
                _sweep_dead(base, [rendezvous])  # what cannot be removed is said where somebody asks for it: sweep()
            if os.path.isdir(self.directory):
                if is_taken(self.directory):
                    raise Taken(errno.EADDRINUSE, "another one is running", self.directory)
                sweep_home(self.directory)  # of a killed program
            os.makedirs(os.path.dirname(self.directory), mode=0o700, exist_ok=True)  # mode: of the last directory only
            os.mkdir(self.directory, mode=0o700)
            self.lock = self.hold(LOCK)
            self._sweeps = self.hold(_SWEEPS) if sweeps else -1

    def hold(self, name: str) -> int:
        """Make a lock file and hold its lock, together with all forks to come, until unhold() or the end of the last.

        Returns its descriptor.
        """
        lock = os.open(f"{self.directory}/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits only for a program that is just asking, is_taken
        return lock

    def scope(self, part: str, timeout: float) -> Scope:
        """Make the directory of a scope that this program provisions."""
        os.mkdir(f"{self.directory}/{part}", 0o700)
        digits = os.urandom(4).hex()
        write_private_file(f"{self.directory}/{part}/{_DIGITS}", digits)
        return Scope(f"{self.directory}/{part}", _label(self.directory, part, digits), timeout, ledger=True)

    def close(self) -> list[str]:
        """Remove the home. Returns the IPC objects that were still in it, of workers that could not remove them.

        Does nothing the second time, and in forks that inherited the home: the process that made it removes it.
        """
        if os.getpid() != self._owner or self.lock < 0:
            return []
        with _locked_base():
            found = sweep_home(self.directory)
            os.close(self.lock)
            self.lock = -1
            if self._sweeps >= 0:
                os.close(self._sweeps)
            _remove_empty(os.path.dirname(self.directory))
        return found


def unhold(lock: int) -> None:
    """Release a lock for all processes that share it: the lock belongs to the open file, flock(2)."""
    fcntl.flock(lock, fcntl.LOCK_UN)


def foreign_scope(rendezvous: str, program: str, part: str, timeout: float) -> Scope:
    """The scope that another program provisioned, for an end to be opened in it. Raises FileNotFoundError where it is
    gone."""
    home = f"{rendezvous_directory(rendezvous)}/{program}"
    with open(f"{home}/{part}/{_DIGITS}") as digits:
        return Scope(f"{home}/{part}", _label(home, part, digits.read()), timeout)


def _label(home: str, part: str, digits: str) -> str:
    """The prefix of the names of a scope. It ends with random digits, which only we can read before the names are made:
    the name spaces of POSIX and SysV are for all, and another user who could guess a name would keep it from us."""
    return f"th-{os.getuid()}-{os.path.basename(os.path.dirname(home))}-{os.path.basename(home)}-{part}-{digits}"


def write_note(path: str, timeout: float, transport: str) -> None:
    """Publish what the other program must know of a channel or lane: timeout in seconds, transport with its options."""
    write_private_file(path, f"{timeout!r} {transport}\n")


def read_note(path: str) -> tuple[float, str]:
    """(timeout in seconds, transport with its options). Raises FileNotFoundError."""
    with open(path) as note:
        timeout, transport = note.read().split(maxsplit=1)
    return float(timeout), transport.strip()


def remove_scope(scope: Scope) -> None:
    """Remove the directory of a scope. Names that its transport should have removed and did not are noted in LEFT."""
    if found := _sweep_scope(scope.directory):
        with open(f"{os.path.dirname(scope.directory)}/{LEFT}", "a", opener=private_file) as left:
            left.write("".join(f"{name}\n" for name in found))


def sweep_home(home: str) -> list[str]:
    """Remove everything that a home's ledgers name, and the home. Returns the IPC objects that were left."""
    found: list[str] = []
    with suppress(FileNotFoundError), open(f"{home}/{LEFT}") as left:
        found += left.read().splitlines()
    for scope in os.scandir(home):
        if scope.is_dir(follow_symlinks=False):
            found += _sweep_scope(scope.path)
    shutil.rmtree(home)
    return found


def _sweep_scope(directory: str) -> list[str]:
    found: list[str] = []
    with suppress(FileNotFoundError), open(f"{directory}/{LEDGER}") as ledger:
        for kind, name in (pair for line in ledger for pair in _ENTRY.findall(line)):  # not what a kill has torn
            found += _remove_posix(name) if kind == "posix" else _remove_sysv(kind, int(name))
    for entry in os.scandir(directory):
        if stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) in {stat.S_IFIFO, stat.S_IFSOCK}:
            found.append(entry.path)
    shutil.rmtree(directory)
    return found


def sweep(rendezvous: str | None = None, failed: list[str] | None = None) -> list[str]:
    """Remove what dead programs of this user left, at one rendezvous or all. Returns the IPC objects found.

    Does not touch homes whose owner runs, nor directories that are not homes: a home has a lock file that we made. What
    cannot be removed does not keep the rest. It is added to `failed`, a line each; without that OSError says it.
    """
    if rendezvous is not None:
        rendezvous_directory(rendezvous)  # refuses a bad name
    if not os.path.isdir(base_directory()):
        return []
    with _locked_base() as base:
        found, wrong = _sweep_dead(base, [rendezvous] if rendezvous is not None else os.listdir(base))
    if wrong and failed is None:
        raise OSError("; ".join(wrong))
    if failed is not None:
        failed += wrong
    return found


def _sweep_dead(base: str, names: list[str]) -> tuple[list[str], list[str]]:
    """Sweep the homes of dead programs at the rendezvous of these names: the IPC objects found, and what failed."""
    found: list[str] = []
    failed: list[str] = []
    for name in names:
        directory = f"{base}/{name}"
        for home in _homes(directory):
            try:
                if not os.path.isfile(f"{home}/{LOCK}"):
                    _remove_empty(home)  # its maker was killed before it could lock it
                elif not is_taken(home):
                    found += sweep_home(home)
            except Exception as error:  # noqa: BLE001  whatever it is, it must not keep others from starting
                failed.append(f"{home}: {type(error).__name__}: {error}")
        _remove_empty(directory)
    return found, failed


def _homes(directory: str) -> list[str]:
    """The homes at a rendezvous, of whose directory this is the path, and whatever else is there."""
    return [f"{directory}/{program}" for program in os.listdir(directory)] if os.path.isdir(directory) else []


@contextmanager
def _locked_base() -> Iterator[str]:
    """Hold the base directory, which is made if it is missing. It is removed afterwards if it is empty."""
    base = base_directory()
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        with suppress(FileExistsError):
            os.makedirs(base, mode=0o700)  # mode: of the last directory only
        try:
            fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            status = os.fstat(fd)
            if status.st_uid != os.getuid() or status.st_mode & 0o077:
                raise PermissionError(errno.EPERM, "must be yours alone (mode 0700)", base)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another holder may have removed the directory while this one waited.
            if os.path.exists(base) and os.path.samestat(status, os.stat(base)):
                yield base
                _remove_empty(base)
                return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{base} stayed locked for {_LOCK_SECONDS:.0f} s") from None
            time.sleep(0.002)
        finally:
            os.close(fd)


def _remove_empty(directory: str) -> None:
    with suppress(OSError):
        os.rmdir(directory)


def _remove_posix(name: str) -> list[str]:
    import posix_ipc  # noqa: PLC0415  only a sweep that finds something needs it

    found = []
    for kind, unlink in (
        ("shared memory", posix_ipc.unlink_shared_memory),
        ("semaphore", posix_ipc.unlink_semaphore),
        ("queue", posix_ipc.unlink_message_queue),
    ):
        with suppress(posix_ipc.ExistentialError, posix_ipc.PermissionsError):  # the latter: it is another user's
            unlink(name)
            found.append(f"POSIX {kind} {name}")
    return found


def _remove_sysv(kind: str, key: int) -> list[str]:
    holder = sysv_object(kind, key)
    if not holder or holder["cuid"] != os.geteuid():
        return []
    import sysv_ipc  # noqa: PLC0415

    remove, what = {
        "shm": (sysv_ipc.remove_shared_memory, "shared memory"),
        "sem": (sysv_ipc.remove_semaphore, "semaphore"),
        "msg": (sysv_ipc.remove_message_queue, "queue"),
    }[kind]
    with suppress(sysv_ipc.ExistentialError):
        remove(holder["id"])
        return [f"SysV {what} {key:#x}"]
    return []
