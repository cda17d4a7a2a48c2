"""A forest plot: a row for each ratio, with its interval."""

from typing import NamedTuple

from harness.analysis.intervals import Estimate
from harness.report import plot
from harness.report.markup import Markup, el
from harness.report.plot import Draw, Drawn, Scale


class Row(NamedTuple):
    """A row of a forest plot. key: number of the design. colour, shape: its style. ratio: None for the baseline."""

    name: str
    key: int
    colour: str
    shape: int
    ratio: Estimate | None
    tooltip: str


def forest(unit: str, rows: list[Row]) -> Draw:
    """A forest plot of these rows. unit: the text below its axis."""
    ratios = [row.ratio for row in rows if row.ratio]
    values = [1.0, *(ratio.value for ratio in ratios)]
    # Few blocks give very wide intervals. Those that are wider than the plot are cut off.
    ends = [end for ratio in ratios if ratio.bounded for end in (ratio.low, ratio.high)]
    least, most = max(min([*values, *ends]), min(values) / 2), min(max([*values, *ends]), max(values) * 2)
    span = plot.around([least, most], log=True)

    def draw(width: float) -> Drawn:
        left = plot.margin([row.name for row in rows], width)
        x = Scale(*span, left, width - 44, log=True)
        bottom = len(rows) * plot.ROW + 4
        drawn = plot.across(x, 0, bottom, "{:.3g}".format, plot.clip(unit, width), one=1.0)
        for place, row in enumerate(rows):
            y = place * plot.ROW + 13.0
            drawn.append(plot.named(row.name, left, y + 4, row.key, row.colour == "floor"))
            if row.ratio and row.ratio.bounded:
                drawn.append(_interval(x, y, row.ratio, f"m bar {row.colour}", row.key))
            path = plot.marker(row.shape, x(row.ratio.value if row.ratio else 1.0), y)
            drawn.append(el("path", d=path, class_=f"m dot {row.colour}", data_k=row.key, data_tip=row.tooltip))
            value = f"{row.ratio.value:.2f}" if row.ratio else "base"
            drawn.append(el("text", value, x=width, y=y + 4, text_anchor="end", class_="m value", data_k=row.key))
        return drawn, bottom + 38.0

    return draw


def _interval(x: Scale, y: float, ratio: Estimate, kind: str, key: int) -> Markup:
    """A bar from end to end of an interval, with an arrow at an end that is beyond the plot."""
    low, high = x(ratio.low), x(ratio.high)
    path = f"M{low:.1f} {y:.1f}H{high:.1f}"
    if ratio.low < x.low:
        path += f"M{low + 4:.1f} {y - 4:.1f}l-4 4l4 4"
    if ratio.high > x.high:
        path += f"M{high - 4:.1f} {y - 4:.1f}l4 4l-4 4"
    return el("path", d=path, class_=kind, data_k=key)
