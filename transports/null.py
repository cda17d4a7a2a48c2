"""The floor: replies whose content nobody moves.

The cache does not read the file and the proxy sends zeros of its own, as many as the head announces. Only the head
crosses, through one page of POSIX shared memory, with one semaphore to wait for it, shm_overview(7) and
sem_overview(7). What this costs is what the harness itself costs.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import posix_ipc

from harness.api import HEAD_BYTES, DataTransport, FileSender, Receiver, Scope, hookimpl


@dataclass(frozen=True)
class Null(DataTransport):
    """chunk: bytes of zeros that the proxy sends at a time."""

    name = "null"
    chunk: int = 1 << 18

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES:
            raise ValueError(f"chunk={self.chunk}: must be over {HEAD_BYTES} bytes")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        memory, full = scope.posix_name("memory"), scope.posix_name("full")
        with ExitStack() as undo:
            try:
                posix_ipc.Semaphore(full, posix_ipc.O_CREX, mode=0o600, initial_value=0).close()
                undo.callback(posix_ipc.unlink_semaphore, full)
                shared = posix_ipc.SharedMemory(memory, posix_ipc.O_CREX, mode=0o600, size=mmap.PAGESIZE)
                undo.callback(posix_ipc.unlink_shared_memory, memory)
                try:
                    os.posix_fallocate(shared.fd, 0, mmap.PAGESIZE)
                finally:
                    shared.close_fd()
            except (posix_ipc.Error, OSError) as error:
                raise OSError(str(error)) from error
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return NullReceiver(scope, self.chunk)

    def sender(self, scope: Scope) -> FileSender:
        return NullSender(scope)


class NullEnd:
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        try:
            self._full = posix_ipc.Semaphore(scope.posix_name("full"))
            memory = posix_ipc.SharedMemory(scope.posix_name("memory"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        try:
            self._memory = mmap.mmap(memory.fd, mmap.PAGESIZE)
        finally:
            memory.close_fd()

    def close(self) -> None:
        if not self._memory.closed:
            self._memory.close()
            self._full.close()


class NullSender(NullEnd, FileSender):
    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self._memory[: HEAD_BYTES + 8] = head + count.to_bytes(8, "little")
        self._full.release()


class NullReceiver(NullEnd, Receiver):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope)
        self._zeros = memoryview(bytearray(chunk))
        self._left = 0

    def take(self) -> memoryview:
        if self._left:
            count = min(self._left, len(self._zeros))
            self._left -= count
            self._zeros[:HEAD_BYTES] = bytes(HEAD_BYTES)
            return self._zeros[:count]
        while True:
            try:
                self._full.acquire(self._timeout)
            except posix_ipc.BusyError:
                raise TimeoutError(f"no reply for {self._timeout} s") from None
            except posix_ipc.SignalError:
                continue  # posix_ipc does not retry as PEP 475 does
            break
        self._zeros[:HEAD_BYTES] = self._memory[:HEAD_BYTES]
        content = int.from_bytes(self._memory[HEAD_BYTES : HEAD_BYTES + 8], "little")
        first = min(content, len(self._zeros) - HEAD_BYTES)
        self._left = content - first
        return self._zeros[: HEAD_BYTES + first]

    def give_back(self) -> None:
        pass


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Null]
