"""The slices of live blocks, and what a block says of two cells by them.

Slices of equal rounds ran next to each other. So a ratio, or a difference, is taken within each round, and the block
gives the `centre` of these. A few rounds that something hit do not move it. The block is the unit of inference: its
centre is one value in harness.analysis.intervals, and its rounds are never counted as if they were independent.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import results
from harness.results import Slice

TRIM = 0.25  # share of the rounds that `centre` leaves out at each end: docs/decisions/0016

_Array = NDArray[Any]
COLUMNS = [column.name for column in fields(Slice) if column.name != "host"]  # those of numbers
# What slices can say: metric, by its name in trials.csv -> its value in each slice, from the columns.
METRICS: Mapping[str, Callable[[Mapping[str, _Array]], _Array]] = {
    "requests_per_s": lambda of: _quotient(of["requests"], of["seconds"]),
    "content_bytes_per_s": lambda of: _quotient(of["content_bytes"], of["seconds"]),
    "cpu_us_per_request": lambda of: _quotient(1e6 * (of["proxy_cpu_s"] + of["cache_cpu_s"]), of["all_requests"]),
    "latency_p50_us": lambda of: of["latency_p50_us"],
}


def centre(values: _Array) -> float:
    """The centre of the rounds of a block: the mean of their middle half, in which the rounds at its ends count in
    part."""
    weights = _kept(len(values))
    return float(np.sort(values) @ weights / weights.sum())


def centre_variance(values: _Array) -> float:
    """The variance that the centre of two or more rounds would have, were they independent: that of the rounds with
    the outer ones drawn in, scaled. Source: Yuen 1974, "The Two-Sample Trimmed t"."""
    n, weights = len(values), _kept(len(values))
    if not (cut := int(TRIM * n)):  # all of them count
        return float(values.var(ddof=1) * (weights @ weights) / weights.sum() ** 2)
    ordered = np.sort(values)
    drawn_in = np.clip(values, ordered[cut], ordered[n - 1 - cut])
    kept = n - 2 * cut
    return float(drawn_in.var(ddof=1)) * (n - 1) / (kept * (kept - 1))


@lru_cache(maxsize=64)
def _kept(n: int) -> _Array:
    """How much each of n ordered values counts."""
    places = np.arange(n)
    weights: _Array = np.clip(np.minimum(places + 1, n - places) - TRIM * n, 0.0, 1.0)
    return weights


class Slices:
    """The slices of a run. columns: name -> its values, one for each slice, as in results.Slice."""

    def __init__(self, columns: Mapping[str, _Array]) -> None:
        trials = columns["trial"].astype(np.int64)
        order = np.lexsort((columns["round"], trials))
        numbers, first = np.unique(trials[order], return_index=True)
        self._rows = dict(zip(numbers.tolist(), np.split(order, first[1:]), strict=False))
        self._columns = columns
        self._values: dict[tuple[int, str], tuple[_Array, _Array]] = {}

    def __len__(self) -> int:
        return len(self._columns["trial"])

    def __contains__(self, trial: int) -> bool:
        return trial in self._rows

    def column(self, name: str, more_trials: int = 0) -> _Array:
        """A column of all slices, the numbers of trials with so much added."""
        return self._columns[name] + more_trials if name == "trial" else self._columns[name]

    def paired(self, trial: int, base: int, metric: str) -> tuple[_Array, _Array]:
        """The values of a metric in the slices of two trials, for the rounds in which both have a value above 0."""
        _, own, of_base = self.in_rounds(trial, base, metric)
        return own, of_base

    def in_rounds(self, trial: int, base: int, metric: str) -> tuple[_Array, _Array, _Array]:
        """The rounds in which two trials have a value above 0, and then what paired() returns."""
        (own_rounds, own), (base_rounds, of_base) = self.of_trial(trial, metric), self.of_trial(base, metric)
        if np.array_equal(own_rounds, base_rounds):  # as nearly always; it takes no search
            return own_rounds, own, of_base
        both, left, right = np.intersect1d(own_rounds, base_rounds, assume_unique=True, return_indices=True)
        return both, own[left], of_base[right]

    def of_trial(self, trial: int, metric: str) -> tuple[_Array, _Array]:
        """The rounds of a trial in which a metric is above 0, and its values there."""
        if (trial, metric) not in self._values:
            rows = self._rows[trial]
            values = METRICS[metric]({name: column[rows] for name, column in self._columns.items()})
            above = values > 0
            self._values[trial, metric] = self._columns["round"][rows][above], values[above]
        return self._values[trial, metric]


def of_rows(rows: Iterable[Slice]) -> Slices:
    """The slices of these rows."""
    table = np.array([astuple(row)[: len(COLUMNS)] for row in rows], dtype=float).reshape(-1, len(COLUMNS))
    return Slices(dict(zip(COLUMNS, table.T, strict=True)))


def joined(parts: Sequence[tuple[Slices, int]]) -> Slices:
    """The slices of several runs as those of one. Each part comes with what is added to its numbers of trials."""
    return Slices({name: np.concatenate([one.column(name, by) for one, by in parts]) for name in COLUMNS})


def read(path: str) -> Slices:
    """The slices in a file. A last line that a killed run left torn is not read. Raises OSError, and ValueError where
    the file has other columns or a line that is no slice."""
    columns, text = results.read_slices(path)
    try:
        table = (
            np.loadtxt(io.BytesIO(text), delimiter=",", comments=None, ndmin=2) if text else np.empty((0, len(columns)))
        )
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    if table.shape[1] != len(columns):
        raise ValueError(f"{path}: rows of {table.shape[1]} numbers, where there are {len(columns)} columns")
    if not np.isfinite(table).all():
        raise ValueError(f"{path}: a figure that is no finite number")
    empty = np.zeros(len(table))  # a column that a later version has added
    return Slices({**dict.fromkeys(COLUMNS, empty), **dict(zip(columns, table.T, strict=True))})


def _quotient(above: _Array, below: _Array) -> _Array:
    """above / below, and 0 where below is 0."""
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
