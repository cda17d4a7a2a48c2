"""SysV shared memory with two SysV semaphores, sysvipc(7), shmat(2) and semop(2).

A byte goes preadv(2) -> a slot of the memory -> write(2) to the client; the slots form a ring,
transports/common/ring.py. Passing a slot on is a semop(2), and so is taking one, whether or not the other end waits.
Creation fills the memory, so it has its pages. Each end maps them all when it attaches, by reading a byte of each, as
shmat(2) has no MAP_POPULATE.

Limits: the machine has shmmni segments (4096) and semmni semaphores (32000). A lane takes one and two of them.

Killed peers: noticed by the timeout. SysV semaphores have one, semtimedop(2), but sysv_ipc's wheels are built
without it: an acquire with a timeout then waits for ever. So a thread removes a semaphore that an end waits on for too
long, and semop(2) fails with EIDRM. The lane would be retired anyway: docs/decisions/0005-sysv-timeouts.md.
"""

import mmap
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import sysv_ipc

from harness.api import DataTransport, Receiver, Scope, Sender, hookimpl
from transports.common.ring import InTime, Parts, Ring, RingReceiver, RingSender, late
from transports.common.sysv_waits import Waiter, raise_unless_interrupted, remove

# Which limit of the kernel semget(2) or shmget(2) has met, by the error that sysv_ipc makes of it.
_LIMITS = {("sem", OSError): "sem", ("shm", ValueError): "shmmax", ("shm", OSError): "shmall and shmmni"}


@dataclass(frozen=True)
class SysvShm(Ring, DataTransport):
    """chunk: bytes of a slot. depth: slots."""

    name = "sysv_shm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth > sysv_ipc.SEMAPHORE_VALUE_MAX:
            raise ValueError(f"depth={self.depth}: a semaphore counts to {sysv_ipc.SEMAPHORE_VALUE_MAX}")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        free, full = scope.sysv_key("sem", "free"), scope.sysv_key("sem", "full")
        memory = scope.sysv_key("shm", "memory")
        create: dict[str, int] = {"flags": sysv_ipc.IPC_CREX, "mode": 0o600}
        with ExitStack() as undo:
            kind = "sem"
            try:
                for key, value in ((free, self.depth), (full, 0)):
                    made = sysv_ipc.Semaphore(key, **create, initial_value=value)
                    undo.callback(remove, made)
                kind = "shm"
                made = sysv_ipc.SharedMemory(memory, **create, size=self.size, init_character=b"\0")
                undo.callback(remove, made)
                made.detach()
            except (sysv_ipc.Error, OSError, ValueError, MemoryError) as error:
                limit = _LIMITS.get((kind, type(error)))
                see = f"; see /proc/sys/kernel/{limit}, proc(5)" if limit else ""
                raise OSError(f"{self.depth} slots of {self.chunk} bytes: {error}{see}") from error
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return RingReceiver(self, opened(scope))

    def sender(self, scope: Scope) -> Sender:
        return RingSender(self, opened(scope))


def opened(scope: Scope) -> Parts:
    try:
        free, full = SysvSemaphore(scope, "free"), SysvSemaphore(scope, "full")
        attached = Attached(scope.sysv_key("shm", "memory"))
    except sysv_ipc.ExistentialError as error:
        raise FileNotFoundError(str(error)) from error
    resources = ExitStack()
    resources.callback(attached.detach)
    view = memoryview(attached.memory)
    bytes(view[:: mmap.PAGESIZE])  # maps every page now: the first replies would else pay for the faults
    return Parts(view, free, full, resources)


class Attached:
    """A mapping that refuses to go while a view of it is in use, as an mmap does.

    sysv_ipc would detach it, and the next access to the view would kill the process. But each view holds a reference.
    """

    def __init__(self, key: int) -> None:
        self.memory = sysv_ipc.SharedMemory(key)
        self._references = sys.getrefcount(self.memory)

    def detach(self) -> None:
        if sys.getrefcount(self.memory) != self._references:
            raise BufferError("a piece of the lane is still in use")
        self.memory.detach()


class SysvSemaphore(InTime, Waiter):
    def __init__(self, scope: Scope, part: str) -> None:
        super().__init__(scope.timeout)
        self._semaphore = sysv_ipc.Semaphore(scope.sysv_key("sem", part))
        self.acquire = self.in_time(self._semaphore.acquire, late(part, scope))

    def release(self) -> None:
        try:
            self._semaphore.release()
        except sysv_ipc.Error as error:
            raise_unless_interrupted(error)

    def end_wait(self) -> None:
        remove(self._semaphore)


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [SysvShm]
