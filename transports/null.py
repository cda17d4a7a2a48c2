"""The floor of the data transports: what is left when nobody moves the content.

The cache does not read the file, and the proxy sends zeros of its own, as many as the head announces. Only the head
crosses, through a page of POSIX shared memory, with one semaphore to wait for it, shm_overview(7) and
sem_overview(7). What this costs is what the harness itself costs.

Killed peers: noticed by the timeout. Limits: a page of /dev/shm for each lane.
"""

import mmap
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.api import HEAD_BYTES, DataTransport, FileSender, Receiver, Scope, check_least, hookimpl
from transports.common.posix_end import MemoryEnd, wait
from transports.common.posix_memory import provisioned


@dataclass(frozen=True)
class Null(DataTransport):
    """chunk: bytes of zeros that the proxy sends at a time."""

    name = "null"
    floor = True
    moves_content = False
    chunk: int = 1 << 18

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned(scope, "memory", mmap.PAGESIZE, {"full": 0})

    def receiver(self, scope: Scope) -> Receiver:
        return NullReceiver(scope, self.chunk)

    def sender(self, scope: Scope) -> FileSender:
        return NullSender(scope)


class NullSender(MemoryEnd, FileSender):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, "memory", "full")
        (self._full,) = self._semaphores

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self._memory[: HEAD_BYTES + 8] = head + count.to_bytes(8, "little")
        self._full.release()


class NullReceiver(MemoryEnd, Receiver):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope, "memory", "full")
        (self._full,) = self._semaphores
        self._chunk = chunk
        self._reply = memoryview(bytearray(HEAD_BYTES + chunk))  # a head, and zeros
        self._left = 0  # bytes of the reply under way

    def take(self) -> memoryview:
        start = HEAD_BYTES
        if not self._left:
            if not wait(self._full, self._timeout):
                raise TimeoutError(f"no reply for {self._timeout} s")
            start = 0
            self._reply[:HEAD_BYTES] = self._memory[:HEAD_BYTES]
            self._left = HEAD_BYTES + int.from_bytes(self._memory[HEAD_BYTES : HEAD_BYTES + 8], "little")
        count = min(self._left, self._chunk)
        self._left -= count
        return self._reply[start : start + count]

    def give_back(self) -> None:
        """The zeros are this end's own."""


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Null]
