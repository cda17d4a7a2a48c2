"""Confidence intervals of geometric means, of their ratios, and of differences. Means are taken of logarithms.

The trials of a block ran next to each other. So each block gives one log ratio of two cells, and a disturbance that hit
both cells cancels out. The interval of the mean of these log ratios is Student's t. From `BOOTSTRAP_FROM` blocks on,
each end is the farther one of Student's t and the BCa bootstrap (Efron 1987), which follows skewed noise. With fewer
blocks the bootstrap is not used, because its intervals are far too narrow: the mean of a resample never leaves the
range of a handful of values. With fewer than `LEAST` blocks there is no interval. docs/decisions/0009 has the
simulations behind these choices.

Many comparisons: each interval in a family of m is at the level 1 - 0.05/m (Bonferroni). So with at least 95 %
probability all of them hold at once, however they depend on each other. A verdict is read off its own interval.

Alike comparisons: at such levels the t of few blocks is very wide, because a few blocks say little about the scatter
they come from. The cells of a context say more together. So the scatter of a ratio is moderated by that of the others
in its context (Smyth 2004), within bounds that keep the coverage where cells scatter unlike each other (`moderated`).
docs/decisions/0016 has the simulations.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, ndtr, ndtri, polygamma, stdtrit

CONFIDENCE = 0.95
LEAST = 3
BOOTSTRAP_FROM = 20
RESAMPLES = 4999
ALIKE = 8  # other comparisons from which on those of a context add as many degrees of freedom as they may
_SEED = 20_240_229
_ROWS = 500  # rows that are bootstrapped at a time: 20 MB of resampled means

_Array = NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """value: a ratio, a geometric mean in the unit of its column, or a difference. low, high: the ends of its interval
    at `level`, or the ends of all that it could be (0 or minus infinity, infinity) where there is no interval. n: the
    number of blocks that it rests on."""

    value: float
    low: float
    high: float
    n: int
    level: float

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.high)

    @property
    def inverse(self) -> "Estimate":
        """Of a ratio, the one the other way round: of times, where this is of rates."""
        high = 1 / self.low if self.low else math.inf
        return Estimate(1 / self.value, 1 / self.high, high, self.n, self.level)


def corrected(comparisons: int, ends: int = 2) -> float:
    """The level of each interval in a family of `comparisons` intervals, so that all hold at once at `CONFIDENCE`.
    ends: 1 where only one end of each interval is looked at."""
    return 1 - (1 - CONFIDENCE) * 2 / ends / max(1, comparisons)


def means(
    samples: Sequence[Sequence[float]], level: float = CONFIDENCE, alike: Sequence[Hashable] = ()
) -> list[Estimate]:
    """An estimate of the geometric mean for each sample of logarithms. No sample may be empty.

    Samples of log ratios within blocks give estimates of ratios. alike: a key for each sample; those of equal keys are
    comparisons of one context, whose scatter is moderated; (): none is.
    """
    return [
        Estimate(math.exp(one.value), math.exp(one.low), math.exp(one.high), one.n, level)
        for one in differences(samples, level, alike)
    ]


def differences(
    samples: Sequence[Sequence[float]], level: float = CONFIDENCE, alike: Sequence[Hashable] = ()
) -> list[Estimate]:
    """An estimate of the mean for each sample of differences within blocks. No sample may be empty. alike: as for
    means()."""
    sizes = np.array([len(sample) for sample in samples], dtype=int)
    middle, variances = np.zeros(len(samples)), np.zeros(len(samples))
    low, high = np.full(len(samples), -np.inf), np.full(len(samples), np.inf)
    resampled = []
    for n in map(int, np.unique(sizes)):
        where = np.flatnonzero(sizes == n).tolist()
        values = np.array([samples[index] for index in where], dtype=float)
        middle[where] = values.mean(axis=1)
        variances[where] = values.var(axis=1, ddof=1) if n >= LEAST else 0
        if n >= BOOTSTRAP_FROM:
            resampled.append((where, bca(values, level)))
    groups = defaultdict(list)
    for index in np.flatnonzero(sizes >= LEAST).tolist():
        groups[alike[index] if alike else index].append(index)
    for group in groups.values():
        used, freedom = moderated(variances[group], sizes[group] - 1)
        half = stdtrit(freedom, (1 + level) / 2) * np.sqrt(used / sizes[group])
        low[group], high[group] = middle[group] - half, middle[group] + half
    for where, (lower, upper) in resampled:
        low[where], high[where] = np.minimum(low[where], lower), np.maximum(high[where], upper)
    ends = zip(middle.tolist(), low.tolist(), high.tolist(), sizes.tolist(), strict=True)
    return [Estimate(value, least, most, n, level) for value, least, most, n in ends]


def moderated(variances: _Array, freedom: _Array) -> tuple[_Array, _Array]:
    """The variances to use for comparisons of one context, and their degrees of freedom, from those that each
    comparison has by itself.

    Each is drawn to the common one, the more the less they differ beyond what chance explains. Source: Smyth 2004,
    "Linear Models and Empirical Bayes Methods", section 6.2. Two bounds besides hold the coverage where one cell
    scatters more than the others: a variance only grows, and the others add no more degrees of freedom than its own,
    times their number to `ALIKE`.
    """
    known = variances > 0
    others = np.count_nonzero(known) - 1
    if others < 1:
        return variances, freedom
    half = freedom[known] / 2
    logs = np.log(variances[known]) - digamma(half) + np.log(half)
    beyond = float(logs.var(ddof=1) - polygamma(1, half).mean())
    most = freedom * min(1.0, others / ALIKE)
    if beyond > 0:
        of_common = 2 * _inverse_trigamma(beyond)
        common = math.exp(logs.mean() + digamma(of_common / 2) - math.log(of_common / 2))
        added = np.minimum(of_common, most)
    else:
        common, added = float(variances[known].mean()), most
    return np.maximum(variances, (added * common + freedom * variances) / (added + freedom)), freedom + added


def _inverse_trigamma(value: float) -> float:
    """The number whose trigamma is `value`, above 0. Source: the appendix of Smyth 2004."""
    at = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, at))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, at))
        at += step
        if -step / at < 1e-8:
            break
    return at


def unpaired(test: Sequence[float], baseline: Sequence[float], level: float = CONFIDENCE) -> Estimate:
    """An estimate of the ratio of geometric means, test to baseline, from two samples of logarithms that share no
    blocks: Welch's t (Welch 1947). Its n is the size of the smaller sample."""
    n = min(len(test), len(baseline))
    if n < LEAST:
        return Estimate(math.exp(float(np.mean(test) - np.mean(baseline))), 0.0, math.inf, n, level)
    difference, variance, freedom = welch(test, baseline)
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance) if variance > 0 else 0.0
    return Estimate(math.exp(difference), math.exp(difference - half), math.exp(difference + half), n, level)


def welch(test: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """The difference of two means, its variance, and the degrees of freedom of that. Each sample has two values or
    more."""
    first, second = np.array(test, dtype=float), np.array(baseline, dtype=float)
    a, b = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1)) if a + b > 0 else math.inf
    return float(first.mean() - second.mean()), float(a + b), float(freedom)


def reach(ratio: Estimate) -> float:
    """How far the interval of a ratio reaches, to the side where it reaches further, as a share of the ratio."""
    return max(ratio.high / ratio.value - 1, 1 - ratio.low / ratio.value)


def interval(one: Estimate) -> str:
    """The ends of the interval of a ratio as text."""
    return f"{one.low:.3f} to {one.high:.3f}" if one.bounded else "none"


def more(one: Estimate) -> str:
    """A difference in microseconds and how far its interval reaches, as text: `+1.3 \u00b1 0.2`."""
    if not one.bounded:
        return f"{one.value:+,.1f}"
    half = max(one.high - one.value, one.value - one.low)
    places = 0 if half >= 10 else 1 if half >= 1 else 2
    value = round(one.value, places) + 0.0  # no `-0`
    return f"{value:+,.{places}f} \u00b1 {half:,.{places}f}"


def bca(logs: _Array, level: float) -> _Array:
    """BCa intervals for the mean of each row of logs (rows x blocks). Returns the ends: 2 x rows. Source: Efron 1987,
    "Better Bootstrap Confidence Intervals". The acceleration is the jackknife's, which for a mean depends on the second
    and third moment only."""
    pieces = [_bca(logs[row : row + _ROWS], level) for row in range(0, len(logs), _ROWS)]
    return np.concatenate(pieces, axis=1)


def _bca(logs: _Array, level: float) -> _Array:
    middle = logs.mean(axis=1, keepdims=True)
    resampled = np.sort(logs @ _weights(logs.shape[1]).T, axis=1)
    # A resample whose mean equals the sample's counts half. Equal but for rounding is equal, or the interval would
    # depend on rounding where many values are the same.
    rounding = 1e-9 * np.ptp(logs, axis=1, keepdims=True)
    less, less_or_equal = resampled < middle - rounding, resampled <= middle + rounding
    below = (less.mean(axis=1) + less_or_equal.mean(axis=1)) / 2
    bias = ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    second, third = (((logs - middle) ** power).sum(axis=1) for power in (2, 3))
    acceleration = np.divide(third, 6 * second**1.5, out=np.zeros_like(third), where=second > 0)
    z = bias + np.outer([-1, 1], np.full(len(logs), ndtri((1 + level) / 2)))
    share = ndtr(bias + z / (1 - acceleration * z))
    place = np.clip(share * (RESAMPLES + 1) - 1, 0, RESAMPLES - 1)
    left = np.minimum(place.astype(int), RESAMPLES - 2)
    rows = np.arange(len(logs))
    ends: _Array = resampled[rows, left] + (place - left) * (resampled[rows, left + 1] - resampled[rows, left])
    return ends


@lru_cache(maxsize=8)
def _weights(n: int) -> _Array:
    """The weight of each of n values in each resample: RESAMPLES x n, each row with the sum 1. The seed is fixed, so
    that the same files always give the same intervals."""
    return np.random.default_rng(_SEED).multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
