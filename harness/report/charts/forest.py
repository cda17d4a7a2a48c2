"""A forest plot: a row for each ratio or difference, with its interval."""

import math
from collections.abc import Callable
from typing import NamedTuple

from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell
from harness.report import plot
from harness.report.design_styles import DesignStyles
from harness.report.markup import Markup, el
from harness.report.plot import Draw, Drawn, Scale


class Row(NamedTuple):
    """A row of a forest plot. key: number of the design. colour, shape: its style. estimate: None for the baseline.
    second: another one, which is drawn hollow below it."""

    name: str
    key: int
    colour: str
    shape: int
    estimate: Estimate | None
    tooltip: str
    second: Estimate | None = None

    @classmethod
    def of(
        cls, cell: Cell, styles: DesignStyles, tooltip: str, estimate: Estimate | None, second: Estimate | None = None
    ) -> "Row":
        """The row of a cell, in the style of its design."""
        style = styles.name(cell), styles.key(cell), styles.colour(cell), styles.shape(cell)
        return cls(*style, estimate, tooltip, second)


def forest(unit: str, rows: list[Row], text: Callable[[float], str], neutral: float = 1.0) -> Draw:
    """A forest plot of these rows. unit: the text below its axis. text: a value as text. neutral: the value of the
    baseline, 1 for ratios and 0 for differences."""
    estimates = [one for row in rows for one in (row.estimate, row.second) if one]
    values = [neutral, *(one.value for one in estimates)]
    ends = [end for one in estimates if one.bounded for end in (one.low, one.high)]
    least, most = min(values), max(values)
    # Few blocks give very wide intervals. Those that are wider than the plot are cut off.
    room = most - least or max(map(abs, ends), default=1.0)
    outer = (least / 2, most * 2) if neutral else (least - room, most + room)
    inner = max(min([least, *ends]), outer[0]), min(max([most, *ends]), outer[1])
    span = plot.around(inner, log=neutral > 0)

    def draw(width: float) -> Drawn:
        left = plot.margin([row.name for row in rows], width)
        x = Scale(*span, left, width - 44, log=neutral > 0)
        bottom = len(rows) * plot.ROW + 4
        drawn = plot.across(x, 0, bottom, "{:.3g}".format, plot.clip(unit, width), one=neutral)
        for place, row in enumerate(rows):
            y = place * plot.ROW + 13.0
            drawn.append(plot.named(row.name, left, y + 4, row.key, row.colour == "floor"))
            apart = 4.0 if row.second else 0.0
            if row.second:
                drawn += _mark(x, y + apart, row, row.second, "thin", " hollow", 3.2)
            drawn += _mark(x, y - apart, row, row.estimate or Estimate(neutral, 0, math.inf, 0, 0), "bar")
            value = text(row.estimate.value) if row.estimate else "base"
            drawn.append(el("text", value, x=width, y=y + 4, text_anchor="end", class_="m value", data_k=row.key))
        return drawn, bottom + 38.0

    return draw


def _mark(x: Scale, y: float, row: Row, one: Estimate, bar: str, hollow: str = "", size: float = 4.5) -> list[Markup]:
    """A marker at a value, and its interval, if it has one. bar, hollow: CSS classes of the interval and the marker."""
    path = plot.marker(row.shape, x(one.value), y, size)
    drawn = [_interval(x, y, one, f"m {bar} {row.colour}", row.key)] if one.bounded else []
    kind = f"m dot{hollow} {row.colour}"
    return [*drawn, el("path", d=path, class_=kind, data_k=row.key, data_tip=row.tooltip)]


def _interval(x: Scale, y: float, one: Estimate, kind: str, key: int) -> Markup:
    """A bar from end to end of an interval, with an arrow at an end that is beyond the plot."""
    low, high = x(one.low), x(one.high)
    path = f"M{low:.1f} {y:.1f}H{high:.1f}"
    if one.low < x.low:
        path += f"M{low + 4:.1f} {y - 4:.1f}l-4 4l4 4"
    if one.high > x.high:
        path += f"M{high - 4:.1f} {y - 4:.1f}l4 4l-4 4"
    return el("path", d=path, class_=kind, data_k=key)
