"""Waits on System V queues and semaphores that end in time, without a timeout of the kernel's.

msgop(2) has none, and the wheels of sysv_ipc lack semtimedop(2): docs/decisions/0005-sysv-timeouts.md. No call on the
path of a byte polls. An end that waits notes until when, which costs no system call. One thread for each timeout in use
sleeps until the first of these times, wakes about once a timeout, and ends the waits that are overdue. Each kind of end
says how: a lane's end removes the object that it waits for, as a lane that was late is retired anyway.
"""

import errno
import math
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import sysv_ipc

from harness.api import End

_AGAIN = 0.01  # seconds until a wait that is still there is ended again: it may only have been about to begin


class Waiter(End):
    """An end that waits in calls of sysv_ipc. While it waits it is in `_waits`, with a time of time.monotonic()."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._waits = _waits(timeout)

    @abstractmethod
    def end_wait(self) -> None:
        """Make the wait under way return or fail, from another thread. Errors raised here are ignored."""

    def in_time(self, call: Callable[..., Any], late: str) -> Callable[..., Any]:
        """Returns `call`, which waits, as a function that ends in time, and goes on if a signal interrupts it.

        The function raises TimeoutError(late) if the wait was ended, another OSError if it failed before. It is a
        closure because that costs a sixth of what a method does.
        """
        waits, timeout, monotonic = self._waits, self._timeout, time.monotonic

        def wait(*arguments: object) -> Any:
            waits[self] = until = monotonic() + timeout
            try:
                while True:
                    try:
                        return call(*arguments)
                    except (sysv_ipc.Error, OSError) as error:
                        if monotonic() >= until:
                            raise TimeoutError(late) from None
                        raise_unless_interrupted(error)
            finally:
                del waits[self]

        return wait

    def close(self) -> None:
        """These objects have no descriptor."""


def raise_unless_interrupted(error: Exception) -> None:
    """Raise an error of sysv_ipc as the contract has it: FileNotFoundError if the object is gone."""
    if type(error) is sysv_ipc.Error:
        return  # a signal; sysv_ipc does not retry as PEP 475 does
    if isinstance(error, OSError) and error.errno not in {errno.EINVAL, errno.EIDRM}:
        raise error
    gone = isinstance(error, sysv_ipc.ExistentialError | OSError)
    raise (FileNotFoundError if gone else OSError)(str(error)) from None


@cache
def _waits(timeout: float) -> dict[Waiter, float]:
    """The waits of this process that may take `timeout` seconds: which end, and until when. A thread watches them."""
    waits: dict[Waiter, float] = {}
    threading.Thread(target=_watch, args=(waits, timeout), daemon=True).start()
    return waits


os.register_at_fork(after_in_child=_waits.cache_clear)  # a fork has no threads; ends are opened where they are used


def _watch(waits: dict[Waiter, float], timeout: float) -> None:
    while True:
        now = time.monotonic()
        wake = now + timeout  # no wait that begins during the sleep can be late before
        for waiter in list(waits):
            until = waits.get(waiter, math.inf)
            if until <= now:
                with suppress(sysv_ipc.Error, OSError):
                    waiter.end_wait()
                until = now + _AGAIN
            wake = min(wake, until)
        time.sleep(max(0.0, wake - time.monotonic()))


def remove(made: Any) -> None:
    """Remove an object of sysv_ipc, if it is still there: a wait that took too long may have removed it."""
    with suppress(sysv_ipc.ExistentialError):
        made.remove()
