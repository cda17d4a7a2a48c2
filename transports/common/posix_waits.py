"""Waits on POSIX semaphores and queues that do not follow the wall clock.

sem_timedwait(3), mq_timedsend(2) and mq_timedreceive(2) take a time of CLOCK_REALTIME: where that clock is set, a wait
ends too early or lasts too long. Nearly all waits are shorter than SHORT, and these calls wait for no longer than that.
What is then left is waited for on CLOCK_MONOTONIC: by sem_clockwait(3) of glibc 2.30, which posix_ipc does not have, or
by poll(2), which takes the descriptor of a queue, mq_overview(7). Only then is ctypes imported, which takes 5 ms. A
clock that is set back in these first milliseconds of a wait does prolong it.
"""

import errno
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import posix_ipc

SHORT = 0.01  # seconds


LATE = (posix_ipc.BusyError, posix_ipc.SignalError)  # posix_ipc does not retry as PEP 475 does


def wait(semaphore: posix_ipc.Semaphore, seconds: float) -> bool:
    """Take the semaphore. Returns whether that was possible within `seconds`. Raises what wait_on() raises."""
    try:
        semaphore.acquire(SHORT if seconds > SHORT else seconds if seconds > 0 else 0)
    except LATE:
        return wait_on(semaphore, seconds)
    return True


def wait_on(semaphore: posix_ipc.Semaphore, seconds: float) -> bool:
    """Take the semaphore after an acquire(SHORT) that was LATE. Returns whether that was possible within `seconds`.

    Raises FileNotFoundError where its name has been removed.
    """
    return seconds > 0 and _wait_until(semaphore, time.monotonic_ns() + round((seconds - SHORT) * 1e9))


def _wait_until(semaphore: posix_ipc.Semaphore, deadline: int) -> bool:
    """Take the semaphore before `deadline`, ns of time.monotonic_ns(). Returns whether that was possible."""
    libc, timespec, last_error = _libc()
    if not hasattr(libc, "sem_clockwait"):
        return _wait_by_the_wall_clock(semaphore, deadline)
    if not (same := libc.sem_open(semaphore.name.encode(), 0)):  # the very same: glibc counts who has it open
        if (error := last_error()) == errno.ENOENT:
            raise FileNotFoundError(f"{semaphore.name}: {os.strerror(error)}")
        return _wait_by_the_wall_clock(semaphore, deadline)  # there is no descriptor for it now
    try:
        until = timespec(*divmod(deadline, 10**9))
        while libc.sem_clockwait(same, time.CLOCK_MONOTONIC, until):
            if (error := last_error()) == errno.ETIMEDOUT:
                return False
            if error != errno.EINTR:
                raise OSError(error, os.strerror(error))
    finally:
        libc.sem_close(same)
    return True


def _wait_by_the_wall_clock(semaphore: posix_ipc.Semaphore, deadline: int) -> bool:
    """As _wait_until, but a clock that is set back prolongs the wait."""
    while (left := deadline - time.monotonic_ns()) > 0:
        with suppress(*LATE):
            semaphore.acquire(left / 1e9)
            return True
    return False


@cache
def _libc() -> tuple[Any, Any, Callable[[], int]]:
    """(the C library, its struct timespec, what returns the errno of its latest call)."""
    import ctypes  # noqa: PLC0415

    class Timespec(ctypes.Structure):
        _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))

    libc = ctypes.CDLL(None, use_errno=True)
    libc.sem_open.restype = ctypes.c_void_p
    libc.sem_close.argtypes = (ctypes.c_void_p,)
    with suppress(AttributeError):
        libc.sem_clockwait.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Timespec))
    return libc, Timespec, ctypes.get_errno


def call_again(
    call: Callable[[float], Any], queue: posix_ipc.MessageQueue, event: int, seconds: float, late: str
) -> Any:
    """What `call` returns, the sending or receiving of a message that was LATE after SHORT.

    call: gets the seconds for which it may wait. event: of poll(2), of a queue on which it can go on. Raises
    TimeoutError(late) after `seconds`.
    """
    deadline = time.monotonic() + seconds - SHORT
    poll = select.poll()
    poll.register(queue.mqd, event)
    while (left := deadline - time.monotonic()) > 0:
        poll.poll(left * 1e3)
        with suppress(*LATE):
            return call(0)
    raise TimeoutError(late)
