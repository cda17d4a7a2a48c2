"""The layout of the histograms of latencies."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.histogram import BUCKETS, bucket, upper_bound
from harness.load.tally import OK, Usage, shared_tallies
from harness.load.totals import summarise

VALUES = st.integers(0, 63).flatmap(lambda bits: st.integers(0, 2 << bits)).map(lambda value: min(value, 2**64 - 1))


@given(VALUES)
def test_the_upper_bound_of_a_values_bucket_is_the_value_or_less_than_a_128th_above_it(value):
    bound = upper_bound(bucket(value))
    assert value <= bound
    assert (bound - value) * 128 < max(value, 1)
    assert 0 <= bucket(value) < BUCKETS


@given(st.lists(VALUES, min_size=2))
def test_buckets_are_in_the_order_of_their_values(values):
    assert list(map(bucket, sorted(values))) == sorted(map(bucket, values))


def test_buckets_adjoin_without_gap_or_overlap():
    for index in range(BUCKETS - 1):
        assert bucket(upper_bound(index)) == index
        assert bucket(upper_bound(index) + 1) == index + 1
    assert upper_bound(BUCKETS - 1) == 2**64 - 1


@pytest.mark.parametrize("room", [3, 1000])  # latencies that a tally keeps one by one; it counts the others in buckets
@given(some=st.lists(VALUES, max_size=20), more=st.lists(VALUES, max_size=20), last=VALUES)
def test_merged_histograms_are_the_histogram_of_all_values(room, some, more, last):
    def histogram(*shares):
        tallies = shared_tallies(len(shares), room)
        for tally, latencies in zip(tallies, shares, strict=True):
            tally.begin()
            for latency in latencies:
                tally.add(OK, 0, 0, latency)
            tally.end(1, Usage())
        return summarise(tallies, 0)["histogram"]

    merged = histogram([*some, last], more)
    assert merged == histogram([*some, last, *more])
    assert merged == sorted(Counter(upper_bound(bucket(value)) for value in [*some, last, *more]).items())
