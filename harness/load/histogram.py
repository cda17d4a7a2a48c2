"""Counts of whole numbers in HdrHistogram's log-linear layout, to 2 significant decimal digits: pure integers.

Below 256 each value has a bucket of its own; above, each power of two is parted into 128 buckets of one width. So no
value of a bucket is below its largest by 1/128 or more. Buckets are the same everywhere: the counts of several
processes, or trials, are merged by adding them up.
"""

BUCKETS = 7424  # for values below 2**64


def bucket(value: int) -> int:
    """The bucket of a value, 0 or more."""
    shift = max(0, value.bit_length() - 8)
    return (shift << 7) + (value >> shift)


def upper_bound(index: int) -> int:
    """The largest value of a bucket."""
    shift = max(0, (index >> 7) - 1)
    return ((index - (shift << 7) + 1) << shift) - 1
