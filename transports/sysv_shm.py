"""SysV shared memory with two SysV semaphores, sysvipc(7), shmat(2) and semop(2): transports/ring.py.

A byte goes preadv(2) -> a slot of the memory -> write(2) to the client. Passing a slot on is a semop(2), and so is
taking one, whether or not anybody waits. Creation fills the memory, so it has its pages; each end maps them all when
it attaches, by looking at every one, as shmat(2) has no MAP_POPULATE.

A killed peer is noticed by the timeout. SysV semaphores have one, semtimedop(2), but sysv_ipc's wheels are built
without it: an acquire with a timeout then waits for ever. So a thread removes the semaphore that somebody waits on
for too long, and semop(2) fails with EIDRM. The lane would be retired anyway: docs/decisions/0005-sysv-timeouts.md.
"""

import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import sysv_ipc

from harness.api import DataTransport, Receiver, Scope, Sender, hookimpl
from transports.ring import Parts, Ring, RingReceiver, RingSender, late

# How semget(2) and shmget(2) say that one of the kernel's limits is met.
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
                    undo.callback(_remove, made)
                kind = "shm"
                made = sysv_ipc.SharedMemory(memory, **create, size=self.size, init_character=b"\0")
                undo.callback(_remove, made)
                made.detach()
            except (sysv_ipc.Error, OSError, ValueError, MemoryError) as error:
                limit = _LIMITS.get((kind, type(error)))
                see = f"; see /proc/sys/kernel/{limit}, proc(5)" if limit else ""
                raise OSError(f"{self.depth} slots of {self.chunk} bytes: {error}{see}") from error
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return RingReceiver(self, self._open(scope))

    def sender(self, scope: Scope) -> Sender:
        return RingSender(self, self._open(scope))

    def _open(self, scope: Scope) -> Parts:
        try:
            free, full = SysvSemaphore(scope, "free"), SysvSemaphore(scope, "full")
            attached = Attached(scope.sysv_key("shm", "memory"))
        except sysv_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        resources = ExitStack()
        resources.callback(attached.detach)
        view = memoryview(attached.memory)
        bytes(view[:: mmap.PAGESIZE])  # every page is mapped before the first reply, which would pay for the faults
        return Parts(view, free, full, resources)


class Attached:
    """A mapping. sysv_ipc does not know whether a view of it is in use, as mmap does: detaching would pull the memory
    from under it, and its next user would be killed. But every memory that has views holds a reference."""

    def __init__(self, key: int) -> None:
        self.memory = sysv_ipc.SharedMemory(key)
        self._references = sys.getrefcount(self.memory)

    def detach(self) -> None:
        if sys.getrefcount(self.memory) != self._references:
            raise BufferError("a piece of the lane is still in use")
        self.memory.detach()


class SysvSemaphore:
    def __init__(self, scope: Scope, part: str) -> None:
        self._semaphore = sysv_ipc.Semaphore(scope.sysv_key("sem", part))
        self._id = self._semaphore.id
        self._waits = _waits(scope.timeout)
        self._late = late(part, scope)

    def acquire(self) -> None:
        self._waits[self._id] = time.monotonic()
        while True:
            try:
                self._semaphore.acquire()
            except sysv_ipc.ExistentialError as error:
                # The watch takes a wait out of the table before it removes the semaphore.
                if self._waits.pop(self._id, None) is None:
                    raise TimeoutError(self._late) from None
                raise FileNotFoundError(str(error)) from None
            except sysv_ipc.Error as error:
                if type(error) is sysv_ipc.Error:  # a signal; sysv_ipc does not retry as PEP 475 does
                    continue
                raise OSError(str(error)) from None
            self._waits.pop(self._id, None)
            return

    def release(self) -> None:
        try:
            self._semaphore.release()
        except sysv_ipc.Error as error:
            raise FileNotFoundError(str(error)) from None


@cache
def _waits(timeout: float) -> dict[int, float]:
    """Semaphore id to start, of the waits of this process that may take `timeout` seconds, under a watch's eyes."""
    waits: dict[int, float] = {}
    threading.Thread(target=_watch, args=(waits, timeout), daemon=True).start()
    return waits


os.register_at_fork(after_in_child=_waits.cache_clear)  # a fork has no threads; ends are opened where they are used


def _watch(waits: dict[int, float], timeout: float) -> None:
    """End what waits too long. No wait that begins while this sleeps can be late before it wakes."""
    while True:
        time.sleep(max(0.0, min(list(waits.values()), default=time.monotonic()) + timeout - time.monotonic()))
        for semaphore, start in list(waits.items()):
            if time.monotonic() - start >= timeout and waits.pop(semaphore, None) is not None:
                with suppress(sysv_ipc.Error):
                    sysv_ipc.remove_semaphore(semaphore)


def _remove(made: Any) -> None:
    with suppress(sysv_ipc.ExistentialError):  # a semaphore may be gone, when a wait for it took too long
        made.remove()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [SysvShm]
