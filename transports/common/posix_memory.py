"""What the transports in POSIX shared memory have in common: making it, with semaphores, and removing both."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import posix_ipc

from harness.api import Scope


@contextmanager
def provisioned(scope: Scope, memory: str, size: int, semaphores: Mapping[str, int], what: str = "") -> Iterator[None]:
    """Shared memory of `size` bytes and semaphores (part: initial value), as long as the context lasts.

    Raises OSError, which begins with `what`, where the system has no room for them.
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
                os.posix_fallocate(shared.fd, 0, size)  # else a full /dev/shm is a SIGBUS for whoever writes
            finally:
                shared.close_fd()
        except (posix_ipc.Error, OSError) as error:
            raise OSError(f"{what}: {error}" if what else str(error)) from error
        yield
