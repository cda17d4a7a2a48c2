"""The chart `stages`: where a request spends its time, stage by stage."""

from harness.analysis.chart_data import ChartData
from harness.analysis.stages import STAGES, WHOLE, Spreads, until
from harness.analysis.study import Cell, Study
from harness.report import vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS, MOST_ROWS, few, left_out
from harness.report.plot import Chart, Panel, micros
from harness.report.stacked_bars import Bar, stacked


def chart(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart | None:
    """A stacked bar for each cell, a panel for each context. None where the probe `stages` did not run."""
    said = vocabulary.of_study(study)
    panels, seen = [], set()
    for context in study.contexts[:MOST_PANELS]:
        cells = few([cell for cell in context.cells if chart_data.stages.get(cell.number)], MOST_ROWS // 2)
        if cells:
            bars = [_bar(cell, chart_data.stages[cell.number]) for cell in cells]
            seen |= {name for cell in cells for name in chart_data.stages[cell.number]}
            what = f"time of a {vocabulary.of_context(context).request}"
            panels.append(Panel(context.label, stacked(what, context, bars, styles)))
    if not panels:
        return None
    return Chart(
        "stages",
        f"Where a {said.request} spends its time",
        f"Medians of the stages of a {said.request}, one after the other: blue in the {said.roles['proxy']}, orange in "
        f"the {said.roles['cache']}, grey on the way between the two. A stage is named after what ends it. The number "
        "is the median of the whole, to which the line leads: medians of parts need not add up to it. The times are of "
        "separate trials with the stages probe, which lengthens them a little.",
        panels,
        styles.columns,
        left_out(study, MOST_ROWS // 2),
        tuple((f"stage-{name}", -1, stage.ends, None) for name, stage in STAGES.items() if name in seen),
    )


def _bar(cell: Cell, spreads: Spreads) -> Bar:
    parts = [(f"stage-{name}", spread.median) for name, spread in spreads.items() if name != WHOLE]
    return Bar(cell, parts, [_line(name, spreads) for name in spreads], spreads[WHOLE].median)


def _line(name: str, spreads: Spreads) -> str:
    """A line of a tooltip: a stage, its median and its quartiles."""
    low, median, high, _ = spreads[name]
    return f"{until(name)}: {micros(median)} ({micros(low)} to {micros(high)})"
