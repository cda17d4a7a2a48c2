"""The chart `rounds`: the slices of live blocks, round by round, and what is left of their noise within rounds."""

from collections.abc import Sequence

from harness.analysis import drift
from harness.analysis.cells import MEDIAN_LATENCY
from harness.analysis.drift import BlockDrift, Drift, Spread
from harness.analysis.slices import Slices
from harness.analysis.study import Study
from harness.report import plot
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS
from harness.report.markup import Markup, el
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale
from harness.results import Trial

_BINS, _WIDE_BINS = 120, 30  # of the rounds of a panel
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
        latency = context.metric == MEDIAN_LATENCY
        ends = [end for _, spread in (*one.pace, *one.ratio) for end in (spread.low, spread.high)]
        span = plot.around([min([*ends, 0.95]), max([*ends, 1.05])], log=True)
        what = "median latency" if latency else "requests/s"
        panels += [
            Panel(_title(f"{what} of a slice", context.label), _panel(one, span, styles, ratios=False)),
            Panel(_title("ratio within its round", context.label), _panel(one, span, styles, ratios=True)),
        ]
    left_out = len(found) - len(panels) // 2
    return Chart(
        "rounds",
        "Round by round",
        "What the machine gave, and what is left of its noise within rounds. Left: slices of all cells, each against "
        "the median of its cell. Right: their ratios to the baseline's slice of the same round, each against the "
        "median of its cell. The band holds 80 % of the slices, the line is their median, and on the right each dot "
        "is the median of a design in some rounds. A hump on the left alone is noise that fell out. Vertical lines "
        "mark restarts of all programs.",
        panels,
        2,
        f"{left_out} more contexts are left out here." if left_out else "",
    )


def _title(what: str, label: str) -> str:
    return ", ".join(filter(None, (what, label)))


def _panel(one: Drift, span: tuple[float, float], styles: DesignStyles, ratios: bool) -> Draw:
    bins = one.ratio if ratios else one.pace

    def draw(width: float) -> Drawn:
        height = 150.0
        x, y = Scale(0, one.rounds, 48, width - 8), Scale(*span, height, 10, log=True)
        upper = [(x(at), y(spread.high)) for at, spread in bins]
        lower = [(x(at), y(spread.low)) for at, spread in reversed(bins)]
        drawn = [plot.curve([*upper, *lower], "band")] if len(bins) > 1 else []
        drawn += [plot.rule(x(block.first), 10, x(block.first), height, "block") for block in _shown(one.blocks)]
        drawn += plot.upright(y, 42, width, "{:.3g}".format, "", one=1.0)
        drawn += [_block(block, x, height) for block in _shown(one.blocks)]
        drawn += plot.across(x, height, height, lambda tick: f"{tick:.0f}", "rounds, blocks one after the other")
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
    size = {"x": x(block.first), "y": 10.0, "width": end - x(block.first), "height": height - 10}
    return el("rect", **size, class_="unseen-mark", data_tip=tooltip)


def _text(spread: Spread) -> str:
    return f"median {spread.middle:.3f}, 80 % within {spread.low:.3f} to {spread.high:.3f}"
