"""What the lanes of all floors have in common: the head of a reply crosses, its content does not.

The head lies in a page of shared memory, shm_overview(7). One POSIX semaphore says that it is there, sem_overview(7):
sem_post(3) at the cache, sem_wait(3) at the proxy, and futex(2) only where one sleeps. The cache reads no file.

Killed peers: noticed by the timeout, of transports/common/ticks.py.
"""

import mmap
import struct
import time
from contextlib import AbstractContextManager

import posix_ipc

from harness.api import HEAD_BYTES, FileSender, Scope
from transports.common.posix_memory import MemoryEnd, provisioned_memory
from transports.common.posix_waits import wait
from transports.common.ticks import Ticked

_COUNT = struct.Struct("<Q")  # of content; follows the head
_MESSAGE = HEAD_BYTES + _COUNT.size


def provisioned_lane(scope: Scope) -> AbstractContextManager[None]:
    return provisioned_memory(scope, "memory", mmap.PAGESIZE, {"full": 0})


class NullSender(MemoryEnd, FileSender):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, "memory", "full")
        (self._full,) = self._semaphores

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self._memory[:_MESSAGE] = head + _COUNT.pack(count)
        self._full.release()


class NullLaneEnd(MemoryEnd):
    """The proxy's end, as far as the head."""

    _tick_posted = False  # and not taken: one unit of the semaphore is no reply

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, "memory", "full")
        (self._full,) = self._semaphores
        self._acquire = self._full.acquire
        self._ticked = Ticked(self._tick, scope.timeout)
        self._resources.callback(self._ticked.stop)

    def _head(self) -> tuple[bytes, int]:
        """The head of the next reply, and how many bytes of content follow it. Raises TimeoutError."""
        if not self._ticked.started:
            self._ticked.start()
        self._acquire_one()
        if self._tick_posted:
            self._pass_ticks()
        memory = self._memory
        return memory[:HEAD_BYTES], _COUNT.unpack_from(memory, HEAD_BYTES)[0]

    def _acquire_one(self) -> None:
        while True:
            try:
                self._acquire()
                return
            except posix_ipc.SignalError:  # posix_ipc does not retry as PEP 475 does
                continue

    def _tick(self) -> None:
        if not self._tick_posted:
            self._tick_posted = True
            self._full.release()

    def _pass_ticks(self) -> None:
        """Take a reply's unit of the semaphore in place of that of a tick. Raises TimeoutError."""
        deadline = time.monotonic() + self._timeout
        while self._tick_posted:
            self._tick_posted = False
            left = deadline - time.monotonic()
            if self._ticked.will_tick(left):
                self._acquire_one()
            elif not wait(self._full, left):
                raise TimeoutError(f"no reply for {self._timeout} s")
