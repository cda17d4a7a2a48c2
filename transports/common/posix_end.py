"""What the ends of transports in POSIX shared memory have in common: opening and closing what posix_memory.py made."""

import mmap
import os
from contextlib import ExitStack

import posix_ipc

from harness.api import Scope


class MemoryEnd:
    """_memory: mapped, with all its pages. _fd: its descriptor, whose locks are this end's own, fcntl(2) and flock(2).
    _resources: closed last in, first out."""

    def __init__(self, scope: Scope, memory: str, *semaphores: str) -> None:
        self._timeout = scope.timeout
        with ExitStack() as undo:
            try:
                self._fd = posix_ipc.SharedMemory(scope.posix_name(memory)).fd
                undo.callback(os.close, self._fd)
                self._semaphores = [posix_ipc.Semaphore(scope.posix_name(part)) for part in semaphores]
            except posix_ipc.ExistentialError as error:
                raise FileNotFoundError(str(error)) from error
            for semaphore in self._semaphores:
                undo.callback(semaphore.close)
            self._memory = mmap.mmap(self._fd, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
            undo.callback(self._memory.close)
            self._resources = undo.pop_all()

    def close(self) -> None:
        self._resources.close()


def wait(semaphore: posix_ipc.Semaphore, seconds: float) -> bool:
    """Whether it could be taken within `seconds`."""
    while True:
        try:
            semaphore.acquire(max(seconds, 0))
        except posix_ipc.BusyError:
            return False
        except posix_ipc.SignalError:
            continue  # posix_ipc does not retry as PEP 475 does
        return True
