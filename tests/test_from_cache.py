"""The lane pool is fair and bounded."""

import contextlib
import threading
import time
from collections import deque

import pytest
from support.programs import eventually

from harness import registry, rendezvous
from harness.pipeline.exchange import Lane
from harness.pipeline.from_cache import LanePool
from harness.pipeline.simplecached import LaneEnds
from harness.testkit import leaks


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


def test_a_second_end_of_a_lane_is_kept_for_the_next_time_and_closed_with_the_lane(capfd):
    # A worker may take a lane's next command before the end that sent the last reply was put back.
    with leaks.base_of_its_own(), contextlib.closing(rendezvous.Home("ends", "proxy-1")) as home:
        lane, other = (Lane(home, registry.data_transport("fifo"), 1.0, slot) for slot in ("0.0", "0.1"))
        lane.provision()
        other.provision()
        ends = LaneEnds("ends")
        before = leaks.descriptors()
        first, second = ends.open(lane.name), ends.open(lane.name)
        ends.idle[7] = first
        ends.keep(7, second)
        assert ends.spare(7) is second
        assert ends.spare(7) is None
        ends.keep(7, second)
        ends.keep(7, ends.open(lane.name))  # a third one, which is closed
        assert leaks.descriptors() == before + 2
        failing, first.close = first.close, lambda: 1 / 0
        lane.remove_names()
        ends._looked = 0.0  # else they are looked for once a second
        ends.open(other.name).close()
        assert eventually(lambda: leaks.descriptors() == before + 1)
        assert "an end was not closed: ZeroDivisionError" in capfd.readouterr().err
        failing()
        assert leaks.descriptors() == before
        assert ends.idle == {}
        assert ends.spare(7) is None
        lane.retire()
        other.retire()
