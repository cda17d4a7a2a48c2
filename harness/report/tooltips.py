"""The text that the page shows for a mark under the pointer, or under the keyboard's focus."""

from harness.analysis.cells import CPU_TIME, MEDIAN_LATENCY, THROUGHPUT
from harness.analysis.intervals import Estimate, more
from harness.analysis.study import Cell, Context
from harness.report.plot import micros, number

_TO_BASELINE = "to the baseline"
_TIMES = {THROUGHPUT: "wall time", MEDIAN_LATENCY: "median latency", CPU_TIME: "CPU time of proxy and cache"}


def tooltip(context: Context, cell: Cell, *lines: str) -> str:
    """The text for a mark of a cell: the cell, its value, its ratio and its verdict, then `lines`, then its trials."""
    shown = [cell.label, context.label]
    measured = cell.measurements.get(context.metric)
    if measured:
        latency = context.metric == MEDIAN_LATENCY
        value = micros(measured.value.value) if latency else f"{number(measured.value.value)}/s"
        shown.append(f"{'median latency' if latency else 'requests'}: {value}")
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
    for metric, what in ((context.metric, _TIMES[context.metric]), (CPU_TIME, _TIMES[CPU_TIME])):
        measured = cell.measurements.get(metric)
        if measured and measured.difference:
            shown.append(f"{what}: {more(measured.difference)} \u00b5s a request")
    return shown


def _rows(cell: Cell) -> str:
    rows = ", ".join(map(str, cell.rows[:8]))
    return f"rows of trials.csv: {rows}" + (", \u2026" if len(cell.rows) > 8 else "")
