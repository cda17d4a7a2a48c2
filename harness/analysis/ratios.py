"""The ratios of cells, and their differences in microseconds, with intervals that hold at once.

Tables, leaders, claims, controls and the rule that stops a run all ask here, so they never disagree.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from harness.analysis.cells import CellTrials, ContextTrials
from harness.analysis.intervals import Estimate, corrected, differences, means


class Pair(NamedTuple):
    """A comparison: a cell with another cell of its context, in a metric, a column of trials.csv."""

    context: ContextTrials
    cell: CellTrials
    base: CellTrials
    metric: str


def to_baselines(contexts: Sequence[ContextTrials], bases: Sequence[CellTrials | None], metric: str = "") -> list[Pair]:
    """All cells that have a baseline, each with it. bases: of each context. metric: "": what each context is ranked
    by."""
    return [
        Pair(context, cell, base, metric or context.metric)
        for context, base in zip(contexts, bases, strict=True)
        if base
        for cell in context.good
        if cell is not base
    ]


def ratios(pairs: Sequence[Pair], comparisons: int = 0, ends: int = 2) -> list[Estimate | None]:
    """The ratio of each pair, and None for one that shares no block.

    The intervals of so many comparisons hold at once with 95 % probability; 0: of as many as there are pairs that share
    a block. ends: how many of an interval's ends are looked at, 1 or 2.
    """
    return _estimates(pairs, comparisons, ends, lambda pair: pair.cell.log_ratios(pair.base, pair.metric), means)


def more_micros(pairs: Sequence[Pair], comparisons: int = 0) -> list[Estimate | None]:
    """How many microseconds more a request takes in each pair, as ratios(). The metrics are those of
    harness.analysis.cells.MICROSECONDS."""
    return _estimates(pairs, comparisons, 2, lambda pair: pair.cell.differences(pair.base, pair.metric), differences)


def _estimates(
    pairs: Sequence[Pair],
    comparisons: int,
    ends: int,
    by_block: Callable[[Pair], Mapping[int, float]],
    estimates: Callable[..., list[Estimate]],
) -> list[Estimate | None]:
    samples = {pair: list(values.values()) for pair in pairs if (values := by_block(pair))}
    level = corrected(comparisons or len(samples), ends)
    # The other cells of a context show how far comparisons with this cell scatter there.
    for context, _, base, metric in list(samples):
        for cell in context.good:
            other = Pair(context, cell, base, metric)
            if cell is not base and other not in samples and (values := by_block(other)):
                samples[other] = list(values.values())
    alike = [(id(pair.base), pair.metric) for pair in samples]
    found = dict(zip(samples, estimates(list(samples.values()), level, alike), strict=True))
    return [found.get(pair) for pair in pairs]
