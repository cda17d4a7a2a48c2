"""At which size one design overtakes another, with an interval: read between the sizes of the ladder that were run.

Between neighbouring sizes the time that one design takes more than the other, and the ends of its interval, are taken
to be straight lines: a request costs so much, and each of its bytes so much. The intervals of all sizes hold at once.
So what is read from them together does, too: one design is better up to the lower end of the interval of sizes, the
other one from its upper end on.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from harness.analysis import naming
from harness.analysis.cells import CellTrials, ContextTrials, Levels
from harness.analysis.ratios import Pair, more_micros
from harness.units import about_size


@dataclass(frozen=True)
class Crossing:
    """Where the best design changes as sizes grow.

    levels, label: the factors of these contexts but for the size. below, above: labels of the designs. size: bytes
    where they are equal. low, high: bytes up to which `below` is better, and from which on `above` is; None where the
    ladder shows it at none of its sizes.
    """

    levels: Levels
    label: str
    below: str
    above: str
    size: float
    low: float | None
    high: float | None

    @property
    def sentence(self) -> str:
        """Such as `fifo up to 20 KiB, unix from 52 KiB on; equal at about 31 KiB (8 clients).`"""
        below = f"{self.below} up to {about_size(self.low)}" if self.low is not None else f"{self.below} below"
        above = f"{self.above} from {about_size(self.high)} on" if self.high is not None else f"{self.above} above"
        where = f" ({self.label})" if self.label else ""
        return f"{below}, {above}; equal at about {about_size(self.size)}{where}."


class _Point(NamedTuple):
    """At one size, in bytes: how many microseconds `above` takes less, and the ends of their interval."""

    size: int
    low: float
    middle: float
    high: float


class _Change(NamedTuple):
    """A ladder of contexts by growing size, and two of its designs. size: of the last one where the first led."""

    levels: Levels
    contexts: list[ContextTrials]
    below: Levels
    above: Levels
    size: int


def crossings(contexts: Sequence[ContextTrials], leading: Sequence[Sequence[CellTrials]]) -> list[Crossing]:
    """The crossings of a study: each is between the best designs of two neighbouring sizes that share no leader, in
    contexts that differ in the size alone.

    contexts: by growing size. leading: the leaders of each, best first; none where they are withheld.
    """
    changes = list(_changes(contexts, leading))
    pairs = [[_pair(context, change) for context in change.contexts] for change in changes]
    asked = list(dict.fromkeys(pair for ladder in pairs for pair in ladder if pair))
    found = dict(zip(asked, more_micros(asked, len(asked)), strict=True))
    crossed = []
    for change, ladder in zip(changes, pairs, strict=True):
        points = [
            _Point(_size(pair.context), -more.high, -more.value, -more.low)
            for pair in ladder
            if pair and (more := found[pair]) and more.bounded
        ]
        if sizes := _between(points, change.size):
            names = naming.label(change.levels), naming.design(change.below), naming.design(change.above)
            crossed.append(Crossing(change.levels, *names, *sizes))
    return crossed


def _changes(contexts: Sequence[ContextTrials], leading: Sequence[Sequence[CellTrials]]) -> Iterator[_Change]:
    ladders: dict[tuple[tuple[str, Any], ...], list[tuple[ContextTrials, Sequence[CellTrials]]]] = defaultdict(list)
    for context, leaders in zip(contexts, leading, strict=True):
        if str(context.levels.get("files", "")).isdecimal():
            others = tuple((name, level) for name, level in context.levels.items() if name != "files")
            ladders[others].append((context, leaders))
    for others, ladder in ladders.items():
        for (context, leaders), (_, next_ones) in pairwise(ladder):
            designs = [[cell.design for cell in some] for some in (leaders, next_ones)]
            if all(designs) and not any(design in designs[1] for design in designs[0]):
                everywhere = [one for one, _ in ladder]
                yield _Change(dict(others), everywhere, designs[0][0], designs[1][0], _size(context))


def _size(context: ContextTrials) -> int:
    return int(context.levels["files"])


def _pair(context: ContextTrials, change: _Change) -> Pair | None:
    """The two designs in a context, which are compared as those at the top of its table are."""
    below, above = (
        next((cell for cell in context.good if cell.design == design), None) for design in (change.below, change.above)
    )
    return Pair(context, above, below, context.metric) if above and below else None


def _between(points: Sequence[_Point], size: int) -> tuple[float, float | None, float | None] | None:
    """(size, low, high) of the crossing from the point of that size to the next one; None where the middle does not
    change its sign there."""
    at = next((place for place, point in enumerate(points[:-1]) if point.size == size), None)
    if at is None or not points[at].middle <= 0 < points[at + 1].middle:
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
