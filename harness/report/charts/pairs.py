"""The chart `pairs`: a map of verdicts against the baseline, by two factors."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY
from harness.analysis.intervals import Estimate, reach
from harness.analysis.study import Cell, Context, Study
from harness.analysis.verdicts import WITHHELD
from harness.report import plot
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS, left_out
from harness.report.markup import Markup
from harness.report.plot import Chart, Draw, Drawn, Panel, words
from harness.report.tooltips import tooltip

# Pairs of factors (down, across) that are drawn first, where both of a pair vary.
_USUAL = [("command", "data"), ("depth", "chunk"), ("cache_threads", "proxy_threads")]

_COARSE = 10.0  # %: an interval that reaches further, and contains 1, leaves the question open
_SHADES = {"better": "better", "same": "no difference found", "worse": "worse", "unknown": "cannot tell"}


def chart(study: Study, styles: DesignStyles) -> Chart | None:
    """A map for each context and each level of the other factors. None where fewer than two factors vary. A grid that
    would be mostly empty is left out."""
    counts = {
        name: len({cell.design[name] for cell in styles.cells if cell.design.get("source") != "direct"})
        for name in styles.factors
        if name != "source"
    }
    pair = next((pair for pair in _USUAL if all(counts.get(name, 0) > 1 for name in pair)), None)
    if not pair and len(counts) > 1:
        pair = (sorted(counts, key=lambda name: counts[name])[-2], max(counts, key=lambda name: counts[name]))
    if not pair:
        return None
    panels = []
    for context in study.contexts:
        by_others: dict[str, list[Cell]] = defaultdict(list)
        for cell in context.cells:
            others = {name: cell.design[name] for name in styles.factors if name not in (*pair, "source")}
            if cell.design.get("source") != "direct":
                by_others[naming.design(others)].append(cell)
        for label, cells in by_others.items():
            levels = [len({cell.design[name] for cell in cells}) for name in pair]
            if min(levels) > 1 and 2 * len(cells) > levels[0] * levels[1]:
                title = ", ".join(filter(None, (context.label, label)))
                panels.append(Panel(title, _panel(context, cells, styles, pair)))
    down, right = pair
    return Chart(
        "pairs",
        f"{down.capitalize()} \u00d7 {right}",
        f"What became of each pair of {down} (down) and {right} (across) against the baseline, and its ratio. No "
        f"difference found: its interval contains 1, and reaches no further than {_COARSE:.0f} %. Cannot tell: it "
        "reaches further, or there is none. Bold: unbeaten, no other pair is measurably better.",
        panels[:MOST_PANELS],
        1 if counts[pair[1]] > 6 else 2,
        left_out(study, 10**9),
        tuple((f"heat {shade}", -1, text, None) for shade, text in _SHADES.items()),
    )


def _panel(context: Context, cells: list[Cell], styles: DesignStyles, pair: tuple[str, str]) -> Draw:
    at = {tuple(cell.design[name] for name in pair): cell for cell in cells}

    def draw(width: float) -> Drawn:
        levels = [_ordered_levels(cells, name) for name in pair]
        # On a phone many columns do not fit, so the factor with more levels goes down.
        turned = len(levels[1]) > len(levels[0]) and width / len(levels[1]) < 44
        first, second = (1, 0) if turned else (0, 1)
        names, heads = ([naming.value(pair[one], level) or "own" for level in levels[one]] for one in (first, second))
        left = min(max(map(len, names)) * plot.LETTER + 10, width * 0.3)
        wide, high = (width - left) / len(heads), 26
        drawn, top = plot.heads(heads, left, wide)
        for row, name in enumerate(names):
            y = top + row * high
            drawn.append(words(left - 8, y + 17, plot.clip(name, left - 8), "label", "end"))
            for column in range(len(heads)):
                place = (column, row) if turned else (row, column)
                if cell := at.get((levels[0][place[0]], levels[1][place[1]])):
                    drawn += _tile(context, cell, styles, left + column * wide, float(y), wide, high)
        return drawn, top + len(names) * high + 8.0

    return draw


def _ordered_levels(cells: Iterable[Cell], name: str) -> list[Any]:
    """The levels of a factor: numbers by size, others in the order of the file."""
    given = list(dict.fromkeys(cell.design[name] for cell in sorted(cells, key=lambda cell: cell.number)))
    return sorted(given) if all(isinstance(one, int | float) for one in given) else given


def _tile(
    context: Context, cell: Cell, styles: DesignStyles, x: float, y: float, wide: float, high: float
) -> list[Markup]:
    measured = cell.measurements.get(context.metric)
    estimate = measured.ratio if measured else None
    if not estimate and not cell.baseline:
        return []
    shade = (
        "same"
        if cell.baseline or not estimate
        else _shade(estimate, context, bool(measured and measured.verdict == WITHHELD))
    )
    kind = " unbeaten" if cell in context.leaders else ""
    text = f"{estimate.value:.2f}" if estimate else "base"
    return plot.tile(x, y, wide, high, shade, text, styles.key(cell), tooltip(context, cell), kind)


def _shade(ratio: Estimate, context: Context, withheld: bool) -> str:
    """What a ratio says, as a key of _SHADES."""
    if withheld or not ratio.bounded:
        return "unknown"
    if ratio.low <= 1 <= ratio.high:
        return "same" if 100 * reach(ratio) <= _COARSE else "unknown"
    return "better" if (ratio.value > 1) == (context.metric != MEDIAN_LATENCY) else "worse"
