"""The chart `cpu`: the CPU time of a request, by role, in user mode and in the kernel."""

from collections.abc import Mapping

from harness.analysis.chart_data import MODES, ChartData
from harness.analysis.study import Cell, Study
from harness.factors import ROLES
from harness.report import vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS, MOST_ROWS, few, left_out
from harness.report.plot import Chart, Panel, number
from harness.report.stacked_bars import Bar, stacked


def chart(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart:
    """A stacked bar for each cell, a panel for each context."""
    said = vocabulary.of_study(study)
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        here = vocabulary.of_context(context)
        bars = [_bar(cell, chart_data.cpu(cell), here.roles) for cell in few(context.cells, MOST_ROWS // 2)]
        bars = [bar for bar in bars if bar.length > 0]
        if bars:
            panels.append(Panel(context.label, stacked(f"CPU time of a {here.request}", context, bars, styles)))
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


def _bar(cell: Cell, spent: Mapping[tuple[str, str], float], roles: Mapping[str, str]) -> Bar:
    """spent: (role, mode) -> microseconds for each request."""
    parts = [(f"{role}-{mode}", micros) for (role, mode), micros in spent.items()]
    lines = [f"{roles[role]}, {mode}: {number(micros)} \u00b5s" for (role, mode), micros in spent.items() if micros]
    return Bar(cell, parts, lines)
