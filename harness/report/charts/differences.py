"""The chart `differences`: how many microseconds more than with the baseline a request takes, with intervals."""

from harness.analysis.cells import CPU_TIME, MEDIAN_LATENCY
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context, Study
from harness.report import vocabulary
from harness.report.charts.forest import Row, forest
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS, MOST_ROWS, few, left_out
from harness.report.plot import Chart, Draw, Panel, signed
from harness.report.tooltips import difference, tooltip

# Ratios that are further from 1 than that say more than microseconds do.
_FAR = 2.0


def chart(study: Study, styles: DesignStyles) -> Chart | None:
    """A forest plot for each context whose ratios are near 1. None where there is no such context."""
    measured = [context for context in study.contexts if any(_more(cell, context.metric) for cell in context.cells)]
    contexts = [context for context in measured if _near(context)]
    if not contexts:
        return None
    latency = any(context.metric == MEDIAN_LATENCY for context in contexts)
    said = vocabulary.of_study(study)
    what = f"median {said.latency}" if latency else "wall time"
    base = next(context.baseline.label for context in contexts if context.baseline)
    apart = len(measured) - len(contexts)
    notes = [left_out(study, MOST_ROWS)]
    if apart:
        notes.append(
            f"{apart} {'contexts have' if apart > 1 else 'context has'} ratios beyond a factor of {_FAR:g}, which say "
            "enough: their differences are in the table."
        )
    return Chart(
        "differences",
        f"Microseconds a {said.request}",
        f"What a {said.request} takes more, or less, than with {base}: {what}, and below it the {said.cpu}. Where "
        f"{said.request}s are small, most of that time is what the harness itself costs; ratios hide differences in "
        "it, microseconds do not. All intervals of a kind hold at once. Left is better.",
        [
            Panel(context.label, _panel(context, styles, f"\u00b5s a {said.request} more than {base}"))
            for context in contexts
        ][:MOST_PANELS],
        styles.columns,
        " ".join(filter(None, notes)),
        (("m dot floor", 0, what, None), ("m dot hollow floor", 0, said.cpu, None)),
    )


def _more(cell: Cell, metric: str) -> Estimate | None:
    measured = cell.measurements.get(metric)
    return measured.difference if measured else None


def _near(context: Context) -> bool:
    """Whether no cell but floors is `_FAR` times as fast or as slow as the baseline."""
    ratios = [
        measured.ratio.value
        for cell in context.cells
        if not cell.floor and (measured := cell.measurements.get(context.metric)) and measured.ratio
    ]
    return bool(ratios) and min(ratios) > 1 / _FAR and max(ratios) < _FAR


def _panel(context: Context, styles: DesignStyles, unit: str) -> Draw:
    rows = [
        Row.of(
            cell,
            styles,
            tooltip(context, cell, *difference(context, cell)),
            _more(cell, context.metric),
            second=_more(cell, CPU_TIME),
        )
        for cell in few(context.cells, MOST_ROWS)
        if cell.baseline or _more(cell, context.metric)
    ]
    return forest(unit, rows, signed, neutral=0.0)
