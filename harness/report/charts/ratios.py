"""The chart `ratios`: each cell's ratio to the baseline, with its interval."""

from harness.analysis.cells import MEDIAN_LATENCY
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context, Study
from harness.report import vocabulary
from harness.report.charts.forest import Row, forest
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS, MOST_ROWS, few, left_out
from harness.report.plot import Chart, Draw, Panel
from harness.report.tooltips import tooltip


def chart(study: Study, styles: DesignStyles) -> Chart:
    """A forest plot for each context that has ratios."""
    contexts = [context for context in study.contexts if any(_ratio(context, cell) for cell in context.cells)]
    latency = any(context.metric == MEDIAN_LATENCY for context in contexts)
    said = vocabulary.of_study(study)
    metric = f"median {said.latency}, ratio" if latency else f"{said.rate}, ratio"
    base = next((context.baseline.label for context in contexts if context.baseline), "")
    return Chart(
        "ratios",
        "Against the baseline",
        f"{f'Median {said.latency}' if latency else f'Throughput, {said.rate},'} as a ratio to {base}, taken within "
        f"blocks. All intervals hold at once. An interval that does not contain 1 shows a difference; "
        f"the others leave it open. {'Left is better.' if latency else 'Right is better.'}",
        [Panel(context.label, _panel(context, styles, f"{metric} to {base}")) for context in contexts[:MOST_PANELS]],
        styles.columns,
        left_out(study, MOST_ROWS),
    )


def _ratio(context: Context, cell: Cell) -> Estimate | None:
    measured = cell.measurements.get(context.metric)
    return measured.ratio if measured else None


def _panel(context: Context, styles: DesignStyles, unit: str) -> Draw:
    cells = [cell for cell in few(context.cells, MOST_ROWS) if cell.baseline or _ratio(context, cell)]
    rows = [Row.of(cell, styles, tooltip(context, cell), _ratio(context, cell)) for cell in cells]
    places = context.resolution.places if context.resolution else 2
    return forest(unit, rows, f"{{:.{places}f}}".format)
