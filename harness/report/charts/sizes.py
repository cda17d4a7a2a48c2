"""The chart `sizes`: each design's measurements as the file size grows, or the number of clients, or the rate."""

import math
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY, THROUGHPUT
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context, Study
from harness.report import plot, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale, micros, number, short
from harness.report.tooltips import tooltip

_LEAST = 3  # levels that make a line
_NEAR = 0.2  # lines nearer to each other than this share of their panel cannot be distinguished
# The factors that can be drawn from left to right, with the text below the axis and the word in the title.
_AXES = {
    "files": ("", ""),  # as the vocabulary has it
    "clients": ("requests under way at a time", "concurrency"),
    "rate": ("requests asked for, 1/s", "rate of requests"),
}


def chart(study: Study, styles: DesignStyles) -> Chart | None:
    """Two panels, absolute and as a ratio, for each set of contexts that differ only in one number. None where these
    have fewer than `_LEAST` levels, of which the chart `ratios` says as much. Over sizes the absolute panel is left out
    where its lines would lie on each other."""
    name = _numeric(study)
    if not name:
        return None
    alike: dict[tuple[Any, ...], list[Context]] = defaultdict(list)
    for context in study.contexts:
        alike[tuple((one, level) for one, level in context.levels.items() if one != name)].append(context)
    lines = [
        (dict(levels), sorted(contexts, key=lambda one: float(one.levels[name])))
        for levels, contexts in alike.items()
        if len(contexts) >= _LEAST
    ]
    said = vocabulary.of_study(study)
    panels = []
    for levels, contexts in lines[: MOST_PANELS // 2]:
        label = said.label(levels)
        metric, title, tick = _absolute_axis(contexts[0], name)
        if name != "files" or not _coincide(contexts, styles, metric):
            panels.append(Panel(_title(title, label), _panel(contexts, styles, name, metric, tick)))
        panels.append(
            Panel(_title("ratio to the baseline", label), _panel(contexts, styles, name, "", "{:.3g}".format))
        )
    what = said.size if name == "files" else _AXES[name][1]
    return Chart(
        "sizes",
        f"By {what}",
        f"How each design does as the {what} grows: absolute, where lines are apart, and as a ratio to the baseline "
        "with intervals. Where lines cross and their intervals do not overlap, another design becomes the better one.",
        panels,
        2,
        styles.of_lines,
    )


def _title(what: str, label: str) -> str:
    return ", ".join(filter(None, (what, label)))


def _numeric(study: Study) -> str:
    """The factor that is drawn from left to right: of those in _AXES the one with most levels; empty where none has
    two, or where levels are not positive numbers."""
    counts = {}
    for name in _AXES:
        given = {context.levels[name] for context in study.contexts if name in context.levels}
        if all(str(one).replace(".", "").isdecimal() and float(one) > 0 for one in given):
            counts[name] = len(given)
    name = max(counts, key=lambda one: counts[one], default="")
    return name if counts.get(name, 0) > 1 else ""


def _absolute_axis(context: Context, name: str) -> tuple[str, str, Callable[[float], str]]:
    said = vocabulary.of_context(context)
    if context.metric == MEDIAN_LATENCY:
        return MEDIAN_LATENCY, f"median {said.latency}", micros
    return ("content_bytes_per_s", "content", _bytes) if name == "files" else (THROUGHPUT, said.rate, short)


def _bytes(rate: float) -> str:
    """Bytes a second, for an axis: `20 MB/s`."""
    return next(
        (f"{rate / one:.4g} {unit}B/s" for one, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if rate >= one), ""
    )


def _coincide(contexts: list[Context], styles: DesignStyles, metric: str) -> bool:
    """Whether lines of a column would lie on each other, at most levels."""
    logs = [
        [math.log(one.value.value) for cell in styles.lines(context) if (one := cell.measurements.get(metric))]
        for context in contexts
    ]
    logs = [some for some in logs if some]
    whole = max(map(max, logs), default=0.0) - min(map(min, logs), default=0.0)
    return len(styles.cells) > 1 and median(max(some) - min(some) for some in logs or [[0.0]]) < _NEAR * whole


def _panel(
    contexts: list[Context], styles: DesignStyles, name: str, metric: str, tick_text: Callable[[float], str]
) -> Draw:
    """A line for each design. metric: a column, or an empty string for the ratio to the baseline."""
    said = vocabulary.of_context(contexts[0])
    series: dict[int, list[tuple[float, Estimate, Context, Cell]]] = defaultdict(list)
    for context in contexts:
        for cell in styles.lines(context):
            measured = cell.measurements.get(metric or context.metric)
            estimate = measured and (measured.value if metric else measured.ratio)
            if not metric and cell.baseline:
                estimate = Estimate(1.0, 1.0, 1.0, cell.trials, 1.0)
            if estimate:
                series[styles.key(cell)].append((float(context.levels[name]), estimate, context, cell))
    points = [point for line in series.values() for point in line]
    levels = sorted({x for x, *_ in points}) or [1.0, 2.0]
    names = {float(context.levels[name]): naming.value(name, context.levels[name]) for context in contexts}
    values = [estimate.value for _, estimate, _, _ in points] or [1.0]

    def draw(width: float) -> Drawn:
        height = max(250.0, 24 + len(series) * plot.END_ROW)
        right = width - plot.room_for_ends([styles.name(line[0][3]) for line in series.values()], width)
        x = Scale(levels[0], levels[-1], 66, right - 16, log=True)
        named: list[plot.End] = []
        y = Scale(*plot.around(values, log=True), height, 18, log=True)
        apart = max(map(len, names.values())) * plot.END_LETTER + 8
        ticks = [levels[0]]
        for level in levels[1:]:
            if x(level) - x(ticks[-1]) > apart:
                ticks.append(level)
        one = None if metric else 1.0
        drawn = plot.upright(y, 52, right, tick_text, "", one=one)
        drawn += plot.across(
            x,
            18,
            height,
            lambda tick: names.get(tick, ""),
            said.size if name == "files" else _AXES[name][0],
            ticks,
        )
        for position, (key, line) in enumerate(series.items()):
            # The intervals of one size are drawn beside each other.
            aside = (position / max(1, len(series) - 1) - 0.5) * min(20, 3 * len(series)) if not metric else 0.0
            cell = line[0][3]
            kind = f"{styles.colour(cell)}{' dashed' if cell.floor else ''}"
            points = [(x(at) + aside, y(estimate.value)) for at, estimate, *_ in line]
            named.append((*points[-1], styles.name(cell), key, styles.colour(cell)))
            drawn.append(plot.curve(points, f"m line {kind}", data_k=key))
            for point, (_, estimate, context, cell) in zip(points, line, strict=True):
                if not metric and estimate.bounded and not cell.baseline:
                    ends = [(point[0], y(estimate.low)), (point[0], y(estimate.high))]
                    drawn.append(plot.curve(ends, f"m thin {kind}", data_k=key))
                drawn.append(styles.mark(cell, *point, tooltip(context, cell, *_absolute(metric, estimate))))
        return [*plot.ends(named, right, width, 18, height), *drawn], height + 38

    return draw


def _absolute(metric: str, estimate: Estimate) -> list[str]:
    """The lines of a tooltip for an absolute value that is not among its other lines."""
    if not metric or metric == THROUGHPUT:
        return []
    text = micros if metric.startswith("latency") else lambda value: f"{number(value / 1e6)} MB/s"
    if not estimate.bounded:
        return [text(estimate.value)]
    return [f"{text(estimate.value)}, 95 %: {text(estimate.low)} to {text(estimate.high)}"]
