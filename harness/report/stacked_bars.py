"""Stacked bars: a row for each cell, with the parts of a request's time one after the other."""

from typing import NamedTuple

from harness.analysis.study import Cell, Context
from harness.report import plot
from harness.report.design_styles import DesignStyles
from harness.report.markup import el
from harness.report.plot import Draw, Drawn, Scale, number, short
from harness.report.tooltips import tooltip


class Bar(NamedTuple):
    """The bar of a cell. parts: the CSS class of each, and its length in microseconds. lines: those of its tooltip.
    whole: the length, in microseconds, to which a line leads; None where that is the sum of the parts."""

    cell: Cell
    parts: list[tuple[str, float]]
    lines: list[str]
    whole: float | None = None

    @property
    def length(self) -> float:
        """That of its parts."""
        return sum(length for _, length in self.parts)


def stacked(what: str, context: Context, bars: list[Bar], styles: DesignStyles) -> Draw:
    """The bars of a context. what: whose microseconds they are, for the text below the axis."""
    most = max(max(bar.length, bar.whole or 0) for bar in bars)

    def draw(width: float) -> Drawn:
        left = plot.margin([styles.name(bar.cell) for bar in bars], width)
        x = Scale(0, most * 1.02, left, width - 50)
        bottom = len(bars) * plot.ROW + 4
        drawn = plot.across(x, 0, bottom, short, f"{what}, \u00b5s")
        for row, (cell, parts, lines, whole) in enumerate(bars):
            y, begin, key = row * plot.ROW + 3.0, 0.0, styles.key(cell)
            drawn.append(plot.named(styles.name(cell), left, y + 13, key, cell.floor))
            text = tooltip(context, cell, *lines)
            for kind, length in parts:
                if length:
                    end = begin + length
                    size = {"x": x(begin), "y": y, "width": max(0.3, x(end) - x(begin)), "height": 16.0}
                    drawn.append(el("rect", **size, class_=f"m part {kind}", data_k=key, data_tip=text))
                    begin = end
            far, said = begin, begin
            if whole is not None:
                drawn.append(plot.rule(x(begin), y + 8, x(whole), y + 8, "zero"))
                far, said = max(begin, whole), whole
            drawn.append(el("text", number(said), x=x(far) + 6, y=y + 13, class_="m value", data_k=key))
        return drawn, bottom + 38.0

    return draw
