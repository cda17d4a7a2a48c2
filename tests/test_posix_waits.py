"""Waits that would follow the wall clock end in time, also where that clock is set."""

import os
import select
import signal
import threading
import time
from functools import partial

import posix_ipc
import pytest

from transports.common import posix_waits
from transports.common.posix_waits import SHORT, call_again, wait


@pytest.fixture
def semaphore():
    name = f"/th-waits-{os.getpid()}"
    made = posix_ipc.Semaphore(name, posix_ipc.O_CREX)
    yield made
    made.close()
    posix_ipc.unlink_semaphore(name)


class ClockSetForward:
    """A semaphore or a call as it is where the wall clock is set forward all the time: what waits for its time is late
    at once. What it is asked to wait for is kept."""

    def __init__(self, real, call):
        self.name, self._call, self.asked = real.name, call, []

    def acquire(self, seconds):
        self.asked.append(seconds)
        return self._call(seconds and 1e-9)


@pytest.mark.parametrize("seconds", [0.15, 0.02])
def test_a_wait_lasts_its_time_where_the_wall_clock_is_set_forward(semaphore, seconds):
    stepped = ClockSetForward(semaphore, semaphore.acquire)
    begun = time.monotonic()
    assert not wait(stepped, seconds)
    assert seconds - SHORT <= time.monotonic() - begun < seconds + 1
    assert stepped.asked == [SHORT], "the wall clock is never asked for more than that"


def test_a_long_wait_ends_as_soon_as_the_semaphore_is_up(semaphore):
    threading.Timer(5 * SHORT, semaphore.release).start()
    assert wait(semaphore, 20)
    assert not wait(semaphore, 0)


def test_a_signal_does_not_end_a_wait(semaphore):
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, SHORT / 2, 3 * SHORT)  # once in the short wait, then in the long one
    try:
        begun = time.monotonic()
        assert not wait(semaphore, 12 * SHORT)
        assert time.monotonic() - begun >= 11 * SHORT
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 2


def test_without_sem_clockwait_a_wait_lasts_its_time_too(semaphore, monkeypatch):
    monkeypatch.setattr(posix_waits, "_libc", lambda: (object(), None, None))
    begun = time.monotonic()
    assert not wait(ClockSetForward(semaphore, semaphore.acquire), 0.1)
    assert time.monotonic() - begun >= 0.1 - SHORT


def test_a_long_wait_for_a_semaphore_that_is_gone_says_so():
    name = f"/th-gone-{os.getpid()}"
    made = posix_ipc.Semaphore(name, posix_ipc.O_CREX)
    posix_ipc.unlink_semaphore(name)
    with pytest.raises(FileNotFoundError, match=name):
        wait(made, 20)
    made.close()


@pytest.mark.parametrize("full", [False, True])
def test_the_wait_for_a_queue_lasts_its_time_where_the_wall_clock_is_set_forward(full):
    name = f"/th-waits-{os.getpid()}"
    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=1, max_message_size=8)
    posix_ipc.unlink_message_queue(name)
    asked = []

    def call(seconds):
        asked.append(seconds)
        return queue.send(b"x", seconds and 1e-9) if full else queue.receive(seconds and 1e-9)

    if full:
        queue.send(b"first")
    waited = partial(call_again, call, queue, select.POLLOUT if full else select.POLLIN, 0.15, "late")
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="late"):
        waited()
    assert 0.15 - SHORT <= time.monotonic() - begun < 1.2
    assert not any(asked), "it waits by poll(2)"
    threading.Timer(5 * SHORT, queue.receive if full else lambda: queue.send(b"late")).start()
    result = waited()
    assert result is None if full else result[0] == b"late"
    queue.close()
