"""The chart `rounds`: the slices of live blocks, round by round, and what is left of their noise within rounds."""

from collections.abc import Sequence

from harness.analysis import drift
from harness.analysis.drift import BlockDrift, Drift, Spread
from harness.analysis.slices import Slices
from harness.analysis.study import Study
from harness.report import plot
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS
from harness.report.markup import Markup, el
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale, short
from harness.results import Trial

_BINS, _WIDE_BINS = 120, 30  # of the rounds of a panel
_TOP = 18.0  # pixels above a plot
_MOST_BLOCKS = 60  # whose beginnings are drawn


def chart(study: Study, styles: DesignStyles, trials: Sequence[Trial], slices: Slices | None) -> Chart | None:
    """Two panels for each context that has slices: pace and ratio. None where none has."""
    numbered = {trial.trial: trial for trial in trials}
    found = [
        (context, one)
        for context in study.contexts
        if slices is not None and (one := drift.of_context(context, numbered, slices, _BINS, _WIDE_BINS))
    ]
    if not found:
        return None
    panels = []
    for context, one in found[: MOST_PANELS // 2]:
        ends = sorted(end for _, spread in (*one.pace, *one.ratio) for end in (spread.low, spread.high))
        edge = len(ends) // 40  # the others stay visible
        span = plot.around([min(ends[edge], 0.95), max(ends[-1 - edge], 1.05)], log=True)
        panels += [Panel(context.label or "all trials", _panel(one, span, styles, ratios)) for ratios in (False, True)]
    left_out = len(found) - len(panels) // 2
    return Chart(
        "rounds",
        "Round by round",
        "What the machine gave, and what is left of its noise within rounds. First panel: the slices of all cells, "
        "each against the median of its cell. Second panel: their ratios to the baseline's slice of the same round, "
        "each against the median of its cell. The band holds 80 % of them, the line is the median, a dot the median "
        "of a design in some rounds. What is in the first panel alone fell out; where all dots are off at once, the "
        "baseline's slice was hit. The outermost are drawn at the edge. Vertical lines mark restarts.",
        panels,
        2,
        f"{left_out} more contexts are left out here." if left_out else "",
    )


def _panel(one: Drift, span: tuple[float, float], styles: DesignStyles, ratios: bool) -> Draw:
    bins = one.ratio if ratios else one.pace
    unit = "ratio to the baseline in its round" if ratios else "slice, to its cell's median"

    def draw(width: float) -> Drawn:
        height = 150.0
        x, y = Scale(0, one.rounds, 48, width - 16), Scale(*span, height, _TOP, log=True)
        upper = [(x(at), y(spread.high)) for at, spread in bins]
        lower = [(x(at), y(spread.low)) for at, spread in reversed(bins)]
        drawn = [plot.curve([*upper, *lower], "band")] if len(bins) > 1 else []
        drawn += [plot.rule(x(block.first), _TOP, x(block.first), height, "block") for block in _shown(one.blocks)]
        drawn += plot.upright(y, 42, width, "{:.3g}".format, unit, one=1.0)
        drawn += [_block(block, x, height) for block in _shown(one.blocks)]
        drawn += plot.across(x, height, height, short, "rounds, blocks one after the other")
        drawn.append(plot.curve([(x(at), y(spread.middle)) for at, spread in bins], "line pace"))
        for cell, points in one.cells if ratios else ():
            dots = "".join(f"M{x(at):.0f} {y(value):.0f}h0" for at, value in points)
            drawn.append(el("path", d=dots, class_=f"m many {styles.colour(cell)}", data_k=styles.key(cell)))
        return drawn, height + 38

    return draw


def _shown(blocks: Sequence[BlockDrift]) -> Sequence[BlockDrift]:
    return blocks[:_MOST_BLOCKS]


def _block(block: BlockDrift, x: Scale, height: float) -> Markup:
    """An unseen mark over a block, which has its tooltip."""
    tooltip = "\n".join(
        (
            f"block {block.block}, {block.rounds} rounds",
            f"slices: {_text(block.pace)}",
            f"ratios within rounds: {_text(block.ratio)}",
        )
    )
    end = x(block.first + block.rounds)
    size = {"x": x(block.first), "y": _TOP, "width": end - x(block.first), "height": height - _TOP}
    return el("rect", **size, class_="unseen-mark", data_tip=tooltip)


def _text(spread: Spread) -> str:
    return f"median {spread.middle:.3f}, 80 % within {spread.low:.3f} to {spread.high:.3f}"
