"""The chart `symbols`: a heat map of the functions in which each role spends its CPU time."""

import math
from collections import defaultdict
from collections.abc import Mapping

from harness.analysis.chart_data import ChartData
from harness.analysis.study import Cell, Context, Study
from harness.factors import ROLES
from harness.report import plot, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS
from harness.report.plot import Chart, Draw, Drawn, Panel, words

_MOST_CELLS, _MOST_SYMBOLS = 16, 14  # columns and rows of a panel


def chart(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart | None:
    """A heat map for each context and role. None where the probe `perf` did not run."""
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        cells = [cell for cell in context.cells if cell.number in chart_data.symbols][:_MOST_CELLS]
        for role in ROLES:
            shares = {styles.key(cell): chart_data.symbols[cell.number].get(role, {}) for cell in cells}
            totals: dict[str, float] = defaultdict(float)
            for of_cell in shares.values():
                for symbol, share in of_cell.items():
                    totals[symbol] += share
            top = sorted(totals, key=lambda symbol: -totals[symbol])[:_MOST_SYMBOLS]
            named = vocabulary.of_context(context).roles[role]
            if top:
                panels.append(Panel(f"{named}, {context.label}", _panel(context, named, cells, styles, shares, top)))
    if not panels:
        return None
    return Chart(
        "symbols",
        "Where in the code",
        "Shares of each role's CPU samples by symbol; darker is more. The samples are from separate trials with the "
        "perf probe. Sampling slows a trial down, so read these as shares, not as times.",
        panels[: 2 * MOST_PANELS],
        2 if max(len(one.cells) for one in study.contexts) <= 7 else 1,
    )


def _panel(
    context: Context,
    role: str,
    cells: list[Cell],
    styles: DesignStyles,
    shares: Mapping[int, Mapping[str, float]],
    symbols: list[str],
) -> Draw:
    def draw(width: float) -> Drawn:
        left = min(230.0, width * 0.42)
        wide, high = min(90.0, (width - left) / len(cells)), 22
        drawn, top = plot.heads([styles.name(cell) for cell in cells], left, wide)
        for row, symbol in enumerate(symbols):
            y = top + row * high
            drawn.append(words(left - 8, y + 15, plot.clip(symbol, left - 8), "label", "end"))
            for column, cell in enumerate(cells):
                share = shares[styles.key(cell)].get(symbol, 0.0)
                shade = f"up{min(4, math.ceil(share * 12))}" if share >= 0.005 else "even"
                text = f"{cell.label}\n{context.label}\n{role}: {symbol}\n{100 * share:.1f} % of the role's samples"
                shown = f"{100 * share:.0f}" if share >= 0.01 and wide > 24 else ""
                drawn += plot.tile(left + column * wide, y, wide, high, shade, shown, styles.key(cell), text)
        return drawn, top + len(symbols) * high + 8.0

    return draw
