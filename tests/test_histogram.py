"""The layout of latencies' histograms."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from harness.load.histogram import BUCKETS, bucket, upper_bound

VALUES = st.integers(0, 63).flatmap(lambda bits: st.integers(0, 2 << bits)).map(lambda value: min(value, 2**64 - 1))


@given(VALUES)
def test_the_upper_bound_of_a_values_bucket_is_the_value_or_less_than_a_128th_above_it(value):
    bound = upper_bound(bucket(value))
    assert value <= bound
    assert (bound - value) * 128 < max(value, 1)
    assert 0 <= bucket(value) < BUCKETS


@given(VALUES, VALUES)
def test_buckets_are_in_the_order_of_their_values(one, other):
    assert (bucket(one) <= bucket(other)) or one > other


def test_buckets_adjoin_without_gap_or_overlap():
    for index in range(BUCKETS - 1):
        assert bucket(upper_bound(index)) == index
        assert bucket(upper_bound(index) + 1) == index + 1
    assert upper_bound(BUCKETS - 1) == 2**64 - 1


@given(st.lists(VALUES), st.lists(VALUES))
def test_merged_histograms_are_the_histogram_of_all_values(some, more):
    assert Counter(map(bucket, some)) + Counter(map(bucket, more)) == Counter(map(bucket, some + more))
