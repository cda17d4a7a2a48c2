"""What a study could resolve: how far the intervals of its ratios reach."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from harness.analysis.intervals import LEAST, Estimate, reach

MOST_NAMED = 4  # contexts in a sentence
FINE = 3.0  # percent below which the third decimal place of a ratio says something
COARSE = 5.0  # percent from which on a reader has to know it before all else


@dataclass(frozen=True)
class Resolution:
    """How far the simultaneous intervals of a context's ratios to the baseline reach, in % of the ratio, to the side
    where they reach further; infinite where there is no interval.

    median, largest: over the cells that are no floors. designs: how the trials were measured, `live` or `apart`.
    blocks: the fewest that a ratio rests on.
    """

    median: float
    largest: float
    designs: tuple[str, ...]
    blocks: int

    @property
    def coarse(self) -> bool:
        """Whether a reader has to know it before all else."""
        return self.largest > COARSE

    @property
    def places(self) -> int:
        """How many decimal places of a ratio say something."""
        return 3 if self.median < FINE else 2

    @property
    def text(self) -> str:
        """Such as `1.1 %, largest 2.3 % (live, 6 blocks)`."""
        if math.isinf(self.median):
            shown = f"none, an interval needs {LEAST} blocks"
        else:
            largest = f"{percent(self.largest)}" if math.isfinite(self.largest) else "no interval"
            shown = f"{percent(self.median)}, largest {largest}"
        return f"{shown} ({' and '.join(self.designs)}, {self.blocks} block{'s' if self.blocks != 1 else ''})"


def resolution(ratios: list[Estimate], designs: set[str]) -> Resolution | None:
    """Of the ratios of a context; None where it has none. designs: the column of its trials, in which an empty one is
    from a time before there was a choice."""
    if not ratios:
        return None
    far = [100 * reach(one) for one in ratios]
    named = sorted({design or "apart" for design in designs})
    return Resolution(median(far), max(far), tuple(named), min(one.n for one in ratios))


def line(of: Sequence[tuple[str, Resolution]]) -> str:
    """What a study could resolve, in a sentence: of each context (label, resolution), or, where they are many, of the
    coarsest ones."""
    if not of:
        return ""
    coarsest = sorted(of, key=lambda one: one[1].largest, reverse=True)
    shown = of if len(of) <= MOST_NAMED else coarsest[:MOST_NAMED]
    more = "" if len(of) <= MOST_NAMED else f"; {len(of) - MOST_NAMED} other contexts are finer"
    parts = "; ".join(f"{label or 'all trials'}: {one.text}" for label, one in shown)
    coarse = any(one.coarse for _, one in of)
    warning = " A difference that is smaller than its interval reaches is not seen." if coarse else ""
    return f"Resolution, how far intervals of ratios reach to each side, median of the cells: {parts}{more}.{warning}"


def percents(least: float, most: float) -> str:
    """A range of shares in percent as text: `1.7 to 23 %`."""
    ends = dict.fromkeys((percent(least), percent(most)))
    return " to ".join(ends).replace(" % to", " to")


def percent(value: float) -> str:
    """A share in percent as text: `1.7 %`, `23 %`."""
    return f"{value:.1f} %" if value < 10 else f"{value:.0f} %"
