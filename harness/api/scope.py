"""The names of one channel or lane: paths, POSIX names and SysV keys, and the ledger that a sweep reads.

Why names are written down before their objects are made: docs/decisions/0001-ledger-and-locks.md.
"""

import os
import zlib
from dataclasses import dataclass
from typing import Literal

SysvKind = Literal["shm", "sem", "msg"]
LEDGER = "names"  # the file, in the directory of a scope, that lists the names which the scope gave out


@dataclass(frozen=True)
class Scope:
    """The namespace of one channel or lane, unique to user, rendezvous, program, lane and generation.

    directory: absolute path of a private directory (mode 0700) that exists as long as the channel does.
    label: the prefix of the POSIX names of this scope.
    timeout: seconds that a blocking call may take.
    ledger: whether to write names down as they are given out, so that a sweep finds them if the owner is killed.
        True in the process that calls provision(); the ends only open names.
    """

    directory: str
    label: str
    timeout: float
    ledger: bool = False

    def path(self, part: str) -> str:
        """A path for a FIFO, a socket or a file. The harness removes it with the directory if the plugin does not."""
        return f"{self.directory}/{part}"

    def posix_name(self, part: str) -> str:
        """A name for shm_open(3), sem_open(3) or mq_open(3)."""
        name = f"/{self.label}-{part}"
        self._record(f"posix {name}")
        return name

    def sysv_key(self, kind: SysvKind, part: str) -> int:
        """A key for shmget(2), semget(2) or msgget(2): positive, 31 bits, never IPC_PRIVATE.

        In the process that calls provision(), the first call for a key raises FileExistsError if another program's
        object has that key. So every object whose key is in the ledger was made after the entry, and is ours, even if
        the owner was killed before it could report the creation. One gap stays: another program may take the key
        between this call and the creation.
        """
        key = zlib.crc32(f"{self.label}/{part}".encode()) & 0x7FFFFFFF or 1
        if self.ledger and f"{kind} {key}" not in self._recorded():
            if holder := sysv_object(kind, key):
                raise FileExistsError(
                    f"SysV {kind} {key:#x} is another program's object, id {holder['id']}; find it with ipcs(1)"
                )
            self._record(f"{kind} {key}")
        return key

    def _recorded(self) -> list[str]:
        try:
            with open(f"{self.directory}/{LEDGER}") as ledger:
                return ledger.read().splitlines()
        except FileNotFoundError:
            return []

    def _record(self, line: str) -> None:
        if self.ledger:
            with open(f"{self.directory}/{LEDGER}", "a", opener=private_file) as ledger:
                ledger.write(line + "\n")


def sysv_object(kind: str, key: int) -> dict[str, int]:
    """The row of /proc/sysvipc, proc(5), for the object with this key: id, cuid and more; empty if there is none."""
    with open(f"/proc/sysvipc/{kind}") as table:
        names = ["key", "id", *next(table).split()[2:]]
        rows = (dict(zip(names, map(int, line.split()), strict=True)) for line in table)
        return next((row for row in rows if row["key"] == key), {})


def private_file(path: str, flags: int) -> int:
    """An opener for open(): it makes files with mode 0600, which only their owner may read."""
    return os.open(path, flags, 0o600)


def write_private_file(path: str, text: str) -> None:
    """Write a file of mode 0600 in one step, rename(2): a reader finds all of the text or no file."""
    with open(f"{path}.new", "w", opener=private_file) as file:
        file.write(text)
    os.rename(f"{path}.new", path)
