"""The chart `cpu`: the CPU time of a request, by role, in user mode and in the kernel."""

from collections.abc import Mapping

from harness.analysis.chart_data import MODES, ChartData
from harness.analysis.study import Cell, Context, Study
from harness.factors import ROLES
from harness.report import plot, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS, MOST_ROWS, few, left_out
from harness.report.markup import el
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale, number, short
from harness.report.tooltips import tooltip

_Parts = Mapping[tuple[str, str], float]  # (role, mode) -> microseconds for each request


def chart(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart:
    """A stacked bar for each cell, a panel for each context."""
    said = vocabulary.of_study(study)
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        bars = [(cell, chart_data.cpu(cell)) for cell in few(context.cells, MOST_ROWS // 2)]
        bars = [(cell, parts) for cell, parts in bars if sum(parts.values()) > 0]
        if bars:
            panels.append(Panel(context.label, _panel(context, bars, styles)))
    return Chart(
        "cpu",
        "Where the CPU time goes",
        f"CPU time of a {said.request} in the processes of each role, in user mode (pale) and in the kernel. "
        "Totals are exact; how a total divides into the two modes is sampled.",
        panels,
        styles.columns,
        left_out(study, MOST_ROWS // 2),
        tuple((f"{role}-{mode}", -1, f"{said.roles[role]}, {mode}", None) for role in ROLES for mode in MODES),
    )


def _panel(context: Context, bars: list[tuple[Cell, _Parts]], styles: DesignStyles) -> Draw:
    said = vocabulary.of_context(context)
    most = max(sum(parts.values()) for _, parts in bars)

    def draw(width: float) -> Drawn:
        left = plot.margin([styles.name(cell) for cell, _ in bars], width)
        x = Scale(0, most * 1.02, left, width - 50)
        bottom = len(bars) * plot.ROW + 4
        drawn = plot.across(x, 0, bottom, short, f"CPU time of a {said.request}, \u00b5s")
        for row, (cell, parts) in enumerate(bars):
            y, begin, key = row * plot.ROW + 3.0, 0.0, styles.key(cell)
            drawn.append(plot.named(styles.name(cell), left, y + 13, key, cell.floor))
            lines = [
                f"{said.roles[role]}, {mode}: {number(spent)} \u00b5s" for (role, mode), spent in parts.items() if spent
            ]
            text = tooltip(context, cell, *lines)
            for (role, mode), spent in parts.items():
                if spent:
                    size = {"x": x(begin), "y": y, "width": max(0.3, x(begin + spent) - x(begin)), "height": 16.0}
                    drawn.append(el("rect", **size, class_=f"m part {role}-{mode}", data_k=key, data_tip=text))
                    begin += spent
            drawn.append(el("text", number(begin), x=x(begin) + 6, y=y + 13, class_="m value", data_k=key))
        return drawn, bottom + 38.0

    return draw
