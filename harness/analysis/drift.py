"""How the slices of a context went, round by round: bursts and drift, in few enough points to draw.

The pace is what the machine gave: a slice against the others of its cell. The ratio is what the analysis goes by: a
slice against the baseline's in the same round, and that against the other rounds of the cell. What hits both slices of
a round is in the first and not in the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis.slices import Slices
from harness.analysis.study import Cell, Context
from harness.results import Trial

_Array = NDArray[Any]


class Spread(NamedTuple):
    """The 10th, 50th and 90th percentile of slices of all cells, as ratios."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class BlockDrift:
    """A block of so many rounds, before which there were `first` rounds of other blocks, and what its slices say."""

    block: int
    first: int
    rounds: int
    pace: Spread
    ratio: Spread


@dataclass(frozen=True)
class Drift:
    """What is drawn of a context. All places are numbers of rounds since the run began.

    pace, ratio: (place, percentiles) for each bin of rounds. cells: for each cell but the baseline its (place, median
    of its ratio), in fewer and wider bins.
    """

    blocks: list[BlockDrift]
    pace: list[tuple[float, Spread]]
    ratio: list[tuple[float, Spread]]
    cells: list[tuple[Cell, list[tuple[float, float]]]]

    @property
    def rounds(self) -> int:
        """How many rounds there are in all blocks."""
        return self.blocks[-1].first + self.blocks[-1].rounds


class _Points(NamedTuple):
    """Slices. cell: place of the cell in its context. at: rounds before it. log: logarithm of what it says."""

    cell: _Array
    at: _Array
    log: _Array

    def where(self, mask: _Array) -> "_Points":
        return _Points(self.cell[mask], self.at[mask], self.log[mask])


def of_context(
    context: Context, trials: Mapping[int, Trial], slices: Slices, bins: int, wide_bins: int
) -> Drift | None:
    """The drift of a context; None where no block has slices of the baseline and of another cell. trials: number ->
    trial. bins, wide_bins: how many there are at most, for all cells together and for one."""
    base, metric = context.baseline, context.metric
    base_rows = {trials[row].block: row for row in (base.rows if base else ()) if row in slices}
    alive = [
        (trials[row].block, place, row)
        for place, cell in enumerate(context.cells)
        for row in cell.rows
        if row in slices and trials[row].block in base_rows
    ]
    lengths: dict[int, int] = {}
    for block, _, row in sorted(alive):
        lengths[block] = max(lengths.get(block, 0), int(slices.of_trial(row, metric)[0].max(initial=0)))
    first = dict(zip(lengths, np.cumsum([0, *lengths.values()]).tolist(), strict=False))
    paces, ratios = [], []
    for block, place, row in alive:
        rounds, values = slices.of_trial(row, metric)
        paces.append((place, first[block] - 1 + rounds, np.log(values)))
        if row != base_rows[block]:
            both, own, of_base = slices.in_rounds(row, base_rows[block], metric)
            ratios.append((place, first[block] - 1 + both, np.log(own / of_base)))
    pace, ratio = _against_own(paces), _against_own(ratios)
    if not len(ratio.at):
        return None
    total = sum(lengths.values())
    return Drift(
        blocks=[
            BlockDrift(block, first[block], rounds, *(_spread(one, first[block], rounds) for one in (pace, ratio)))
            for block, rounds in lengths.items()
        ],
        pace=_binned(pace, total, bins),
        ratio=_binned(ratio, total, bins),
        cells=[
            (cell, [(at, one.middle) for at, one in _binned(ratio.where(ratio.cell == place), total, wide_bins)])
            for place, cell in enumerate(context.cells)
            if cell is not base
        ],
    )


def _against_own(parts: Sequence[tuple[int, _Array, _Array]]) -> _Points:
    """The slices of all cells, each against the median of its cell. parts: (cell, places, logarithms)."""
    if not parts:
        return _Points(*(np.empty(0) for _ in _Points._fields))
    cells = np.concatenate([np.full(len(at), cell) for cell, at, _ in parts])
    logs = np.concatenate([log for *_, log in parts])
    for cell in np.unique(cells):
        logs[cells == cell] -= np.median(logs[cells == cell])
    return _Points(cells, np.concatenate([at for _, at, _ in parts]), logs)


def _binned(points: _Points, total: int, bins: int) -> list[tuple[float, Spread]]:
    """The percentiles of the points in each bin of equally many rounds that has any."""
    size = -(-total // bins)
    found = []
    for begin in range(0, total, size):
        if ((points.at >= begin) & (points.at < begin + size)).any():
            found.append((begin + min(size, total - begin) / 2, _spread(points, begin, size)))
    return found


def _spread(points: _Points, begin: int, rounds: int) -> Spread:
    logs = points.log[(points.at >= begin) & (points.at < begin + rounds)]
    return Spread(*np.exp(np.percentile(logs, (10, 50, 90))).tolist()) if len(logs) else Spread(1, 1, 1)
