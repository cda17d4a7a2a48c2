"""At which size one design gives way to another, with an interval: read between the sizes of the ladder that were run.

Between neighbouring sizes the time that one design takes more than the other, and the ends of its interval, are taken
to be straight lines: a request costs so much, and each of its bytes so much. The intervals are of the level at which
all pairs of designs hold at once at all sizes, for the two that are compared are chosen by what was measured.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from harness.analysis import naming
from harness.analysis.cells import CellTrials, ContextTrials, Levels
from harness.analysis.crossovers import ladders, leading_ranges
from harness.analysis.ratios import Pair, more_micros
from harness.units import about_size


@dataclass(frozen=True)
class Crossing:
    """Where the best design changes as sizes grow.

    levels, label: the factors of these contexts but for the size. below, above: labels of the designs. size: bytes
    where they are equal. low, high: bytes up to which `below` is better, and from which on `above` is, at the sizes of
    the ladder that show it; None where none does.
    """

    levels: Levels
    label: str
    below: str
    above: str
    size: float
    low: float | None
    high: float | None

    @property
    def line(self) -> str:
        """Such as `fifo gives way to unix at about 31 KiB: better up to 20 KiB, worse from 52 KiB on`."""
        shown = [f"better up to {about_size(self.low)}"] if self.low is not None else []
        shown += [f"worse from {about_size(self.high)} on"] if self.high is not None else []
        sure = f": {', '.join(shown)}" if shown else ""
        return f"{self.below} gives way to {self.above} at about {about_size(self.size)}{sure}"

    @property
    def sentence(self) -> str:
        """The line, and the contexts that it is true of."""
        return f"{self.line}{f' ({self.label})' if self.label else ''}."


class _Point(NamedTuple):
    """At one size, in bytes: how many microseconds `above` takes less, and the ends of their interval."""

    size: int
    low: float
    middle: float
    high: float


class _Change(NamedTuple):
    """A ladder of contexts by growing size, and two of its designs. sizes: the first one where each of them leads."""

    levels: Levels
    contexts: list[ContextTrials]
    below: Levels
    above: Levels
    sizes: tuple[int, int]


def crossings(contexts: Sequence[ContextTrials], leading: Sequence[Sequence[CellTrials]]) -> list[Crossing]:
    """The crossings of a study: each is between two ranges of sizes that follow each other and share no leader, in
    contexts that differ in the size alone.

    leading: the leaders of each context, best first; none where they are withheld.
    """
    changes = list(_changes(contexts, leading))
    pairs = [[_pair(context, change) for context in change.contexts] for change in changes]
    asked = list(dict.fromkeys(pair for ladder in pairs for pair in ladder if pair))
    rivals = {
        context: sum(not cell.floor for cell in context.good) for change in changes for context in change.contexts
    }
    found = dict(zip(asked, more_micros(asked, sum(math.comb(count, 2) for count in rivals.values())), strict=True))
    crossed = []
    for change, ladder in zip(changes, pairs, strict=True):
        points = [
            _Point(_size(pair.context), -more.high, -more.value, -more.low)
            for pair in ladder
            if pair and (more := found[pair]) and more.bounded
        ]
        if sizes := _between(points, change.sizes):
            names = naming.label(change.levels), naming.design(change.below), naming.design(change.above)
            crossed.append(Crossing(change.levels, *names, *sizes))
    return crossed


def _changes(contexts: Sequence[ContextTrials], leading: Sequence[Sequence[CellTrials]]) -> Iterator[_Change]:
    sized = [
        (context, [cell.design for cell in leaders])
        for context, leaders in zip(contexts, leading, strict=True)
        if leaders and str(context.levels.get("files", "")).isdecimal()
    ]
    for levels, unsorted in ladders(sized, lambda one: one[0].levels):
        ladder = sorted(unsorted, key=lambda one: _size(one[0]))
        ranges = leading_ranges((context.levels["files"], designs) for context, designs in ladder)
        for (small, before), (large, after) in pairwise(ranges):
            sizes = int(small[0]), int(large[0])
            yield _Change(levels, [context for context, _ in ladder], before[0], after[0], sizes)


def _size(context: ContextTrials) -> int:
    return int(context.levels["files"])


def _pair(context: ContextTrials, change: _Change) -> Pair | None:
    """The two designs in a context, which are compared as those at the top of its table are."""
    below, above = (
        next((cell for cell in context.good if cell.design == design), None) for design in (change.below, change.above)
    )
    return Pair(context, above, below, context.metric) if above and below else None


def _between(points: Sequence[_Point], sizes: tuple[int, int]) -> tuple[float, float | None, float | None] | None:
    """(size, low, high) of the crossing between the points of these sizes; None where the middle does not change its
    sign there, or where the designs change places elsewhere, too."""
    inner = [
        place
        for place, (one, other) in enumerate(pairwise(points))
        if sizes[0] <= one.size and other.size <= sizes[1] and one.middle <= 0 < other.middle
    ]
    if not inner:
        return None
    at = inner[-1]
    if any(point.low > 0 for point in points[:at]) or any(point.high < 0 for point in points[at + 1 :]):
        return None
    left = next((place for place in range(at, -1, -1) if points[place].high < 0), None)
    right = next((place for place in range(at + 1, len(points)) if points[place].low > 0), None)
    return (
        _zero(points[at], points[at + 1], "middle"),
        None if left is None else _zero(points[left], points[left + 1], "high"),
        None if right is None else _zero(points[right - 1], points[right], "low"),
    )


def _zero(one: _Point, other: _Point, line: str) -> float:
    """The size where the straight line through two points is 0."""
    first, second = float(getattr(one, line)), float(getattr(other, line))
    return one.size + (other.size - one.size) * first / (first - second)
