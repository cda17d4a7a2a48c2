"""The lane pool is fair and bounded."""

import threading
import time
from collections import deque

import pytest
from support.programs import eventually

from harness.pipeline.from_cache import LanePool


def test_a_freed_lane_goes_to_the_thread_that_waits_longest_and_not_to_a_newcomer():
    pool = LanePool(["lane"])
    held = pool.lease(1)
    served = []

    def wait(number):
        lane = pool.lease(10)
        served.append(number)
        time.sleep(0.001)
        pool.give_back(lane)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        assert eventually(lambda waiting=number + 1: len(pool._waiting) == waiting)
    pool.give_back(held)
    pool.give_back(pool.lease(10))  # a newcomer, who comes last
    assert served == list(range(8))
    for thread in threads:
        thread.join()


def test_waiting_for_a_lane_ends_in_time_and_who_gave_up_gets_none():
    pool = LanePool(["lane"])
    held = pool.lease(1)
    with pytest.raises(TimeoutError, match=r"no lane became free for 0\.02 s"):
        pool.lease(0.02)
    pool.give_back(held)
    assert pool.lease(0.02) == "lane"


def test_a_lane_that_comes_back_just_before_a_thread_is_seen_to_wait_is_not_lost(monkeypatch):
    pool = LanePool(["lane"])
    held = pool.lease(1)

    class Waiting(deque):
        def append(self, ticket):
            pool.give_back(held)  # by another thread, at the worst moment
            super().append(ticket)

    monkeypatch.setattr(pool, "_waiting", Waiting())
    assert pool.lease(0.5) == "lane"


def test_the_lane_used_last_is_leased_next_because_its_memory_is_warm():
    pool = LanePool(["cold", "colder"])
    warm = pool.lease(1)
    pool.give_back(warm)
    assert pool.lease(1) is warm
