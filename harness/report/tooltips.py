"""The text that the page shows for a mark under the pointer, or under the keyboard's focus."""

from harness.analysis.cells import CPU_TIME, MEDIAN_LATENCY
from harness.analysis.intervals import Estimate, more
from harness.analysis.study import Cell, Context
from harness.report import vocabulary
from harness.report.plot import micros, number

_TO_BASELINE = "to the baseline"


def tooltip(context: Context, cell: Cell, *lines: str) -> str:
    """The text for a mark of a cell: the cell, its value, its ratio and its verdict, then `lines`, then its trials."""
    shown = [cell.label, context.label]
    measured = cell.measurements.get(context.metric)
    if measured:
        said = vocabulary.of_context(context)
        if context.metric == MEDIAN_LATENCY:
            shown.append(f"median {said.latency}: {micros(measured.value.value)}")
        else:
            shown.append(f"{number(measured.value.value)} {said.rate}")
        if measured.ratio and not any(_TO_BASELINE in line for line in lines):
            shown.append(f"{_TO_BASELINE}: {ratio_text(measured.ratio)}")
        if measured.verdict:
            shown.append(f"verdict: {measured.verdict}")
    if cell.baseline:
        shown.append("the baseline")
    if cell.disturbed:
        shown.append(f"{cell.disturbed} of {cell.trials} trials disturbed")
    return "\n".join((*shown, *lines, _rows(cell)))


def ratio_text(ratio: Estimate) -> str:
    """A ratio with its interval as text."""
    if not ratio.bounded:
        return f"{ratio.value:.3f}, no interval ({ratio.n} blocks)"
    return f"{ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f} at {100 * ratio.level:.4g} %, n = {ratio.n} blocks"


def difference(context: Context, cell: Cell) -> list[str]:
    """The lines of a tooltip for the microseconds that a request takes more than with the baseline."""
    shown = []
    said = vocabulary.of_context(context)
    time = f"median {said.latency}" if context.metric == MEDIAN_LATENCY else "wall time"
    for metric, what in ((context.metric, time), (CPU_TIME, said.cpu)):
        measured = cell.measurements.get(metric)
        if measured and measured.difference:
            shown.append(f"{what}: {more(measured.difference)} \u00b5s a {said.request}")
    return shown


def _rows(cell: Cell) -> str:
    rows = ", ".join(map(str, cell.rows[:8]))
    return f"rows of trials.csv: {rows}" + (", \u2026" if len(cell.rows) > 8 else "")
