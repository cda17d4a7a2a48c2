"""The chart `changes`: each cell's ratio of a second run to a first one."""

from harness.analysis import naming
from harness.analysis.compare import Comparison
from harness.report.charts.forest import Row, forest
from harness.report.limits import MOST_ROWS
from harness.report.plot import Chart, Panel, number
from harness.report.tooltips import ratio_text

_COLOURS = {"slower": "c1", "more": "c1", "faster": "c0", "less": "c0"}  # by verdict


def chart(comparison: Comparison) -> Chart:
    """A forest plot of all cells that two runs share."""
    pairs, rows = comparison.pairs[: MOST_ROWS * 2], []
    for key, pair in enumerate(pairs):
        name = naming.label(pair.levels) or "all trials"
        means = f"A: {number(pair.first.value)}, B: {number(pair.second.value)}"
        text = "\n".join((name, means, f"B to A: {ratio_text(pair.ratio)}", f"verdict: {pair.verdict}"))
        rows.append(Row(name, key, _COLOURS.get(pair.verdict, "floor"), 0, pair.ratio, text))
    left_out = len(comparison.pairs) - len(pairs)
    return Chart(
        "changes",
        "What changed",
        "The ratio of B to A for each cell that both runs have. All intervals hold at once. Blue is better, orange is "
        "worse.",
        [Panel(comparison.metric, forest(f"{comparison.metric}, ratio of B to A", rows, "{:.2f}".format))],
        note=f"The table has {left_out} more." if left_out else "",
    )
