"""POSIX shared memory with two POSIX semaphores or FIFOs, shm_overview(7), sem_overview(7).

A byte goes preadv(2) -> a slot of the memory -> write(2) to the client; the slots form a ring,
transports/common/ring.py. Passing a slot on is an atomic addition in user space, and a futex(2) only if an end waits.
All pages are there before the first reply: posix_fallocate(3) makes them, MAP_POPULATE maps them at either end.

Limits: chunk times depth bytes for each lane must fit into /dev/shm (usually half of the memory).

Killed peers: noticed by the timeout.

With sync=fifo passing a slot on is a write(2) of one byte and taking one a read(2), with poll(2) if it has to wait:
transports/common/fifo_sync.py. A killed proxy is then noticed at once (EPIPE), and so is a killed cache within a reply.
"""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import posix_ipc

from harness.api import DataTransport, Receiver, Scope, Sender, hookimpl
from transports.common.fifo_sync import FifoRingReceiver, FifoSemaphore, fifo_semaphore
from transports.common.fifos import provisioned_fifos
from transports.common.posix_memory import provisioned_memory
from transports.common.posix_waits import LATE, SHORT, wait_on
from transports.common.ring import Parts, Ring, RingReceiver, RingSender, late

_SPIN_SECONDS = 100e-6  # of spin-then-block: about twice the time to be woken on another core


@dataclass(frozen=True)
class PosixShm(Ring, DataTransport):
    """chunk: bytes of a slot. depth: slots.
    wait: how an end waits. block: in the kernel. spin: reads the semaphore's value until its timeout. spin-then-block:
        reads it for 100 us, then waits in the kernel. What they cost and win: docs/decisions/0006-spinning.md.
    sync: what an end waits for, semaphore or fifo: docs/decisions/0008-a-second-sync.md. fifo needs wait=block.
    """

    name = "posix_shm"
    wait: str = "block"
    sync: str = "semaphore"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.wait not in {"block", "spin", "spin-then-block"}:
            raise ValueError(f"wait={self.wait}: must be block, spin or spin-then-block")
        if self.sync not in {"semaphore", "fifo"}:
            raise ValueError(f"sync={self.sync}: must be semaphore or fifo")
        if self.sync == "fifo" and self.wait != "block":
            raise ValueError(f"wait={self.wait} reads a semaphore, and sync=fifo has none: change one of them")
        if self.sync == "fifo" and self.depth > mmap.PAGESIZE:
            raise ValueError(
                f"depth={self.depth}: with sync=fifo at most {mmap.PAGESIZE}, the room of the smallest FIFO"
            )

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        semaphores = {"free": self.depth, "full": 0} if self.sync == "semaphore" else {}
        memory = provisioned_memory(scope, "memory", self.size, semaphores, f"{self.depth} slots of {self.chunk} bytes")
        with memory, provisioned_fifos(scope, "free", "full") if self.sync == "fifo" else nullcontext():
            yield

    def receiver(self, scope: Scope) -> Receiver:
        kind = FifoRingReceiver if self.sync == "fifo" else RingReceiver
        return kind(self, self._open(scope, receives=True))

    def sender(self, scope: Scope) -> Sender:
        return RingSender(self, self._open(scope, receives=False))

    def _synchronise(self, scope: Scope, part: str, receives: bool) -> "FifoSemaphore | BlockingSemaphore":
        if self.sync == "fifo":
            return fifo_semaphore(scope, part, receives)
        kind = BlockingSemaphore if self.wait == "block" else SpinningSemaphore
        return kind(scope, part, self.wait)

    def _open(self, scope: Scope, receives: bool) -> Parts:
        with ExitStack() as undo:
            try:
                free = self._synchronise(scope, "free", receives)
                undo.callback(free.close)
                full = self._synchronise(scope, "full", receives)
                undo.callback(full.close)
                shared = posix_ipc.SharedMemory(scope.posix_name("memory"))
            except posix_ipc.ExistentialError as error:
                raise FileNotFoundError(str(error)) from error
            try:
                # Maps every page now: the first replies would else pay for the faults.
                memory = mmap.mmap(shared.fd, self.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
            finally:
                shared.close_fd()
            undo.callback(memory.close)
            return Parts(memoryview(memory), free, full, undo.pop_all())


class BlockingSemaphore:
    moment: float | None = SHORT
    busy: tuple[type[Exception], ...] = LATE

    def __init__(self, scope: Scope, part: str, wait: str) -> None:
        self._semaphore = posix_ipc.Semaphore(scope.posix_name(part))
        self._timeout = scope.timeout
        self._then_block = wait != "spin"
        self._spin_seconds = _SPIN_SECONDS if self._then_block else scope.timeout
        self._late = late(part, scope)
        self.acquire: Callable[[float | None], None] = self._semaphore.acquire
        self.release: Callable[[], None] = self._semaphore.release
        self.close: Callable[[], None] = self._semaphore.close

    def wait(self) -> None:
        if not wait_on(self._semaphore, self._timeout):
            raise TimeoutError(self._late) from None


class SpinningSemaphore(BlockingSemaphore):
    """Reads the semaphore's value, sem_getvalue(3), which only this end of the lane counts down."""

    def __init__(self, scope: Scope, part: str, wait: str) -> None:
        super().__init__(scope, part, wait)
        self.acquire = self._spin

    def _spin(self, seconds: float | None) -> None:
        semaphore = self._semaphore
        if not semaphore.value:
            deadline = time.monotonic() + self._spin_seconds
            while not semaphore.value:
                if time.monotonic() >= deadline:
                    if self._then_block:
                        break
                    raise TimeoutError(self._late)
                os.sched_yield()  # lets the other end run if it has no core of its own; releases the GIL, too
        semaphore.acquire(seconds)


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [PosixShm]
