"""Counts of whole numbers in HdrHistogram's log-linear layout, to 2 significant decimal digits: pure integers.

Each value below 256 has a bucket of its own. Above, each power of two is divided into 128 buckets of equal width, so
every value of a bucket is less than 1/128 below the largest one. The buckets are the same everywhere: the histograms
of several processes, or trials, are merged by adding the counts of equal buckets.
"""

BUCKETS = 7424  # for values below 2**64


def bucket(value: int) -> int:
    """The index of the bucket of a value, which is 0 or more."""
    shift = max(0, value.bit_length() - 8)
    return (shift << 7) + (value >> shift)


def upper_bound(index: int) -> int:
    """The largest value of a bucket."""
    shift = max(0, (index >> 7) - 1)
    return ((index - (shift << 7) + 1) << shift) - 1
