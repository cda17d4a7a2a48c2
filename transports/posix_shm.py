"""POSIX shared memory with two POSIX semaphores, FIFOs or eventfds, shm_overview(7), sem_overview(7).

A byte goes preadv(2) -> a slot of the memory -> write(2) to the client; the slots form a ring,
transports/common/ring.py. Passing a slot on is an atomic addition in user space, and a futex(2) only if an end waits.
All pages are there before the first reply: posix_fallocate(3) makes them, MAP_POPULATE maps them at either end.

Limits: chunk times depth bytes for each lane must fit into /dev/shm (usually half of the memory), with pages=huge in
whole huge pages.

Killed peers: noticed by the timeout.

With sync=eventfd passing a slot on is a write(2) to a counter and taking one a read(2), with poll(2) if it has to wait:
transports/common/eventfd_sync.py. A killed peer is noticed at once, as with sync=fifo. Each sender costs three
descriptors at either end.

With sync=fifo passing a slot on is a write(2) of one byte and taking one a read(2), with poll(2) if it has to wait:
transports/common/fifo_sync.py. A killed proxy is then noticed at once (EPIPE), and so is a killed cache within a reply.
"""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import posix_ipc

from harness.api import DataTransport, Receiver, Scope, Sender, hookimpl, socket_name
from transports.common.eventfd_sync import ReceivingEventfds, SendingEventfds, eventfd_ring_receiver
from transports.common.fifo_sync import fifo_ring_receiver, fifo_semaphore
from transports.common.fifos import provisioned_fifos
from transports.common.huge_pages import collapse, huge_page_size
from transports.common.posix_memory import provisioned_memory
from transports.common.posix_waits import LATE, SHORT, wait_on
from transports.common.ring import Parts, Ring, RingReceiver, RingSender, Semaphore, late, whole_pages

_SPIN_SECONDS = 100e-6  # of spin-then-block, and at most of adaptive: about twice the time to be woken on another core
_SPIN_START = 10e-6  # of adaptive


@dataclass(frozen=True)
class PosixShm(Ring, DataTransport):
    """chunk: bytes of a slot. depth: slots.
    wait: how an end waits. block: in the kernel. spin: reads the semaphore's value until its timeout. spin-then-block:
        reads it for 100 us, then waits in the kernel. What they cost and win: docs/decisions/0006-spinning.md.
        adaptive: spins as long as past waits were short, then waits: docs/decisions/0025-more-mechanisms.md.
    sync: what an end waits for. semaphore, or, with wait=block, fifo: docs/decisions/0008-a-second-sync.md, or eventfd:
        docs/decisions/0025-more-mechanisms.md.
    pages: of the memory. system: as /dev/shm is mounted, usually of 4 KiB. huge: transparent huge pages, usually of
        2 MiB; /dev/shm must be mounted with huge=advise, tmpfs(5).
    """

    name = "posix_shm"
    wait: str = "block"
    sync: str = "semaphore"
    pages: str = "system"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.wait not in _WAITS:
            raise ValueError(f"wait={self.wait}: must be block, spin, spin-then-block or adaptive")
        if self.pages not in {"system", "huge"}:
            raise ValueError(f"pages={self.pages}: must be system or huge")
        if self.sync not in {"semaphore", "fifo", "eventfd"}:
            raise ValueError(f"sync={self.sync}: must be semaphore, fifo or eventfd")
        if self.sync != "semaphore" and self.wait != "block":
            raise ValueError(f"wait={self.wait} reads a semaphore, and sync={self.sync} has none: change one of them")
        if self.sync == "fifo" and self.depth > mmap.PAGESIZE:
            raise ValueError(
                f"depth={self.depth}: with sync=fifo at most {mmap.PAGESIZE}, the room of the smallest FIFO"
            )

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        semaphores = {"free": self.depth, "full": 0} if self.sync == "semaphore" else {}
        with ExitStack() as undo:
            what = f"{self.depth} slots of {self.chunk} bytes"
            size = whole_pages(self.size, huge_page_size()) if self.pages == "huge" else self.size
            undo.enter_context(provisioned_memory(scope, "memory", size, semaphores, what))
            if self.pages == "huge":
                with mapped(scope) as memory:
                    collapse(memory)
            if self.sync == "fifo":
                undo.enter_context(provisioned_fifos(scope, "free", "full"))
            elif self.sync == "eventfd":
                undo.enter_context(socket_name(scope.path("socket")))
            yield

    def receiver(self, scope: Scope) -> Receiver:
        kinds = {"semaphore": RingReceiver, "fifo": fifo_ring_receiver, "eventfd": eventfd_ring_receiver}
        return kinds[self.sync](self, self._open(scope, receives=True))

    def sender(self, scope: Scope) -> Sender:
        return RingSender(self, self._open(scope, receives=False))

    def _open(self, scope: Scope, receives: bool) -> Parts:
        with ExitStack() as undo:
            try:
                free, full = self._synchronised(scope, receives, undo)
                memory = mapped(scope)
            except posix_ipc.ExistentialError as error:
                raise FileNotFoundError(str(error)) from error
            undo.callback(memory.close)
            return Parts(memoryview(memory)[: self.size], free, full, undo.pop_all())

    def _synchronised(self, scope: Scope, receives: bool, undo: ExitStack) -> tuple[Semaphore, Semaphore]:
        """What an end waits for, (free, full). undo: gets what closes them."""
        if self.sync == "eventfd":
            both = ReceivingEventfds(scope, undo) if receives else SendingEventfds(scope, self.depth, undo)
            return both, both
        kind = _WAITS[self.wait]
        ends = []
        for part in ("free", "full"):
            ends.append(fifo_semaphore(scope, part, receives) if self.sync == "fifo" else kind(scope, part, self.wait))
            undo.callback(ends[-1].close)
        return ends[0], ends[1]


def mapped(scope: Scope) -> mmap.mmap:
    """The memory of a lane, with all its pages: the first replies would else pay for the faults."""
    shared = posix_ipc.SharedMemory(scope.posix_name("memory"))
    try:
        return mmap.mmap(shared.fd, 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    finally:
        shared.close_fd()


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


class AdaptiveSemaphore(SpinningSemaphore):
    """Spins as long as past waits were short, then blocks. It does not spin at first."""

    def __init__(self, scope: Scope, part: str, wait: str) -> None:
        super().__init__(scope, part, wait)
        self._spin_seconds = 0.0
        self.acquire = self._adapt

    def _adapt(self, seconds: float | None) -> None:
        if self._semaphore.value:
            self._semaphore.acquire(seconds)
            return
        begun = time.monotonic()
        try:
            self._spin(seconds)
        finally:
            self._spin_seconds = adapted(self._spin_seconds, time.monotonic() - begun)


def adapted(spin: float, waited: float) -> float:
    """How long to spin after a wait of `waited` seconds that began with at most `spin` seconds of spinning.

    The rule is that of the kernel where it polls for a virtual processor that halts, virt/kvm/kvm_main.c of Linux 6.12:
    twice as long, from 10 us to 100 us, if spinning was too short and 100 us would have done; half as long, and not at
    all below 10 us, if 100 us would not have done.
    """
    if waited > _SPIN_SECONDS:
        return spin / 2 if spin >= 2 * _SPIN_START else 0.0
    return min(max(2 * spin, _SPIN_START), _SPIN_SECONDS) if waited > spin else spin


_WAITS = {
    "block": BlockingSemaphore,
    "spin": SpinningSemaphore,
    "spin-then-block": SpinningSemaphore,
    "adaptive": AdaptiveSemaphore,
}


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [PosixShm]
