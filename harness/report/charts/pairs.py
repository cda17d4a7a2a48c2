"""The chart `pairs`: a heat map of ratios to the baseline, by two factors."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY
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


def chart(study: Study, styles: DesignStyles) -> Chart | None:
    """A heat map for each context and each level of the other factors. None where fewer than two factors vary."""
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
            if all(len({cell.design[name] for cell in cells}) > 1 for name in pair):
                title = ", ".join(filter(None, (context.label, label)))
                panels.append(Panel(title, _panel(context, cells, styles, pair)))
    down, right = pair
    return Chart(
        "pairs",
        f"{down.capitalize()} \u00d7 {right}",
        f"The ratio to the baseline for each pair of {down} (down) and {right} (across). Blue is better than the "
        "baseline, orange is worse; the paler, the nearer to it. Pale and in italics: the interval contains 1.",
        panels[:MOST_PANELS],
        1 if counts[pair[1]] > 6 else 2,
        left_out(study, 10**9),
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
    ratio = estimate.value if estimate else 1.0
    # Only a ratio whose interval excludes 1 gets a strong colour.
    differs = estimate and measured and measured.verdict != WITHHELD and not estimate.low <= 1 <= estimate.high
    better = -math.log2(ratio) if context.metric == MEDIAN_LATENCY else math.log2(ratio)
    step = min(4 if differs else 1, round(abs(better) * 5))
    shade = f"{'up' if better > 0 else 'down'}{step}" if step else "even"
    kind = "" if differs or cell.baseline else " open"
    return plot.tile(x, y, wide, high, shade, f"{ratio:.2f}", styles.key(cell), tooltip(context, cell), kind)
