"""POSIX shared memory with POSIX semaphores, shm_overview(7), sem_overview(7): making, opening, removing."""

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import posix_ipc

from harness.api import Scope


@contextmanager
def provisioned_memory(
    scope: Scope, memory: str, size: int, semaphores: Mapping[str, int], what: str = ""
) -> Iterator[None]:
    """Make shared memory of `size` bytes and semaphores (part: initial value), and remove them on exit.

    Raises OSError, which begins with `what`, if the system has no room for them.
    """
    with ExitStack() as undo:
        try:
            for part, value in semaphores.items():
                name = scope.posix_name(part)
                posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600, initial_value=value).close()
                undo.callback(posix_ipc.unlink_semaphore, name)
            name = scope.posix_name(memory)
            shared = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=size)
            undo.callback(posix_ipc.unlink_shared_memory, name)
            try:
                os.posix_fallocate(shared.fd, 0, size)  # else writing to a full /dev/shm kills with SIGBUS
            finally:
                shared.close_fd()
        except (posix_ipc.Error, OSError) as error:
            raise OSError(f"{what}: {error}" if what else str(error)) from error
        yield


class MemoryEnd:
    """An end that opens what provisioned_memory made.

    _memory: mapped, with all its pages. _fd: its descriptor, for locks of this end, fcntl(2) and flock(2).
    _resources: closed by close(), the last one first.
    """

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
