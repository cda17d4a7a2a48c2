"""What a check leaves behind: IPC objects of this machine, descriptors of this process."""

import contextlib
import glob
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from harness import rendezvous
from harness.api.scope import LEDGER

_KIT = "TRANSPORT_HARNESS_KIT"  # a variable of the environment: the pid of the process that runs the kit
SETTLE = 0.5  # seconds in which the objects of other programs, such as a browser's, disappear by themselves
_Left = TypeVar("_Left")


@contextlib.contextmanager
def base_of_its_own() -> Iterator[None]:
    """While the context lasts, this process has an empty base directory for its rendezvous."""
    directory = tempfile.TemporaryDirectory(prefix=f"th-k{_kit()}-", dir="/tmp")  # short: it is for sockets
    with directory as base, _environment(rendezvous.BASE_VARIABLE, base):
        try:
            yield
        finally:
            rendezvous.sweep()  # for a check that was interrupted before its own sweep


def sweep_after(pid: int) -> None:
    """Remove what the kit of that process has left where it, or a check of it, died; its base directories last."""
    for base in glob.glob(f"/tmp/th-k{pid}-*"):  # noqa: S108
        with _environment(rendezvous.BASE_VARIABLE, base):
            rendezvous.sweep()
        with contextlib.suppress(OSError):
            os.rmdir(base)


@contextlib.contextmanager
def _environment(variable: str, value: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def rendezvous_name() -> str:
    """The name of this kit's rendezvous: several kits may run on one machine."""
    return f"kit{_kit()}"


@contextlib.contextmanager
def named_after_this_process() -> Iterator[None]:
    """While the context lasts, forks of this process call their base directory and rendezvous after it, too."""
    with _environment(_KIT, str(os.getpid())):
        yield


def _kit() -> str:
    return os.environ.get(_KIT) or str(os.getpid())


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def more_descriptors_than(before: int) -> int:
    """How many more this process has open than before, an earlier descriptors(). Threads of a library may still close
    some, for half a second."""
    return _settled(lambda: max(0, descriptors() - before))


def new_ipc_objects(before: set[str]) -> set[str]:
    """The objects that there are now and were not in `before`, an earlier ipc_objects().

    Other programs come and go meanwhile: what disappears by itself within half a second does not count.
    """
    return _settled(lambda: ipc_objects() - before)


def _settled(look: Callable[[], _Left]) -> _Left:
    """What `look` still finds once it finds nothing, or half a second later."""
    deadline = time.monotonic() + SETTLE
    while (left := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def ipc_objects() -> set[str]:
    """This user's System V and POSIX objects, as far as the machine lists them; queues where mqueue is mounted.

    Left out are those of other harness programs, other kits among them: POSIX objects by their names, System V objects
    by the ledgers of the programs whose base directory is in /tmp. Left out are also System V objects without a key,
    IPC_PRIVATE: no scope gives such a key out, and browsers make them all the time.
    """
    # An object's entry in its ledger is older than the object, and is removed after it. So what is listed both before
    # and after the ledgers are read, and is in none of them, belongs to no other harness program.
    listed = _system_v_objects()
    others = _keys_of_others()
    found = {f"SysV {kind} {key} {number}" for kind, key, number in listed & _system_v_objects() if key not in others}
    for directory, prefix in (("/dev/shm", "/dev/shm/"), ("/dev/mqueue", "queue /")):  # noqa: S108
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if os.lstat(f"{directory}/{name}").st_uid == os.getuid():
                    found.add(f"{prefix}{name}")
    return {name for name in found if not re.search(r"[/.]th-\d+-", name) or f"-{rendezvous_name()}-" in name}


def _system_v_objects() -> set[tuple[str, str, str]]:
    """(kind, key, id) of this user's objects that have a key, proc(5)."""
    found = set()
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sysvipc/{kind}") as table:
            owner = next(table).split().index("cuid")
            rows = [line.split() for line in table]
            found |= {(kind, row[0], row[1]) for row in rows if row[0] != "0" and row[owner] == str(os.getuid())}
    return found


def _keys_of_others() -> set[str]:
    """The System V keys in the ledgers of this user's programs below /tmp, but for the rendezvous of this process."""
    keys = set()
    ours = f"{rendezvous.base_directory()}/"
    user = f"transport-harness-{os.getuid()}"
    for base in (f"/tmp/{user}", *glob.glob(f"/tmp/th-*/{user}"), *glob.glob(f"/tmp/th-*/*/{user}")):  # noqa: S108
        for ledger in glob.glob(f"{base}/*/*/*/{LEDGER}"):
            if not ledger.startswith(ours):
                with contextlib.suppress(OSError, ValueError), open(ledger) as lines:
                    keys |= {key for kind, key in map(str.split, lines) if kind != "posix"}
    return keys
