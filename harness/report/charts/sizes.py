"""The chart `sizes`: each design's measurements as the file size grows, or the number of clients, or the rate."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY, THROUGHPUT
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context, Study
from harness.report import plot
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale, micros, number, short
from harness.report.tooltips import tooltip

# The factors that can be drawn from left to right, with the text below the axis and the word in the title.
_AXES = {
    "files": ("size of a file", "file size"),
    "clients": ("requests under way at a time", "concurrency"),
    "rate": ("requests asked for, 1/s", "rate of requests"),
}


def chart(study: Study, styles: DesignStyles) -> Chart | None:
    """Two panels, absolute and as a ratio, for each set of contexts that differ only in one number. None where the
    contexts do not differ in a number."""
    name = _numeric(study)
    if not name:
        return None
    alike: dict[tuple[Any, ...], list[Context]] = defaultdict(list)
    for context in study.contexts:
        alike[tuple((one, level) for one, level in context.levels.items() if one != name)].append(context)
    lines = [
        (dict(levels), sorted(contexts, key=lambda one: float(one.levels[name])))
        for levels, contexts in alike.items()
        if len(contexts) > 1
    ]
    panels = []
    for levels, contexts in lines[: MOST_PANELS // 2]:
        label = naming.label(levels)
        metric, title, tick = _absolute_axis(contexts[0].metric == MEDIAN_LATENCY, name)
        panels += [
            Panel(_title(title, label), _panel(contexts, styles, name, metric, tick)),
            Panel(_title("ratio to the baseline", label), _panel(contexts, styles, name, "", "{:.3g}".format)),
        ]
    drawn = [context for _, contexts in lines for context in contexts]
    what = _AXES[name][1]
    return Chart(
        "sizes",
        f"By {what}",
        f"How each design does as the {what} grows: absolute, and as a ratio to the baseline with intervals. Where "
        "lines cross and their intervals do not overlap, another design becomes the better choice.",
        panels,
        2,
        styles.of_lines,
        styles.legend([cell for context in drawn for cell in styles.lines(context)]),
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


def _absolute_axis(latency: bool, name: str) -> tuple[str, str, Callable[[float], str]]:
    if latency:
        return "latency_p50_us", "median latency", micros
    return ("content_bytes_per_s", "content, B/s", short) if name == "files" else (THROUGHPUT, "requests/s", short)


def _panel(
    contexts: list[Context], styles: DesignStyles, name: str, metric: str, tick_text: Callable[[float], str]
) -> Draw:
    """A line for each design. metric: a column, or an empty string for the ratio to the baseline."""
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
        height = 250.0
        x = Scale(levels[0], levels[-1], 60 if metric else 66, width - 18, log=True)
        y = Scale(*plot.around(values, log=True), height, 18, log=True)
        ticks = [levels[0]]
        for level in levels[1:]:
            if x(level) - x(ticks[-1]) > 46:
                ticks.append(level)
        one = None if metric else 1.0
        drawn = plot.upright(y, 48, width, tick_text, "", one=one)
        drawn += plot.across(
            x,
            18,
            height,
            lambda tick: names.get(tick, ""),
            _AXES[name][0],
            ticks,
        )
        for position, (key, line) in enumerate(series.items()):
            # The intervals of one size are drawn beside each other.
            aside = (position / max(1, len(series) - 1) - 0.5) * min(20, 3 * len(series)) if not metric else 0.0
            cell = line[0][3]
            kind = f"{styles.colour(cell)}{' dashed' if cell.floor else ''}"
            points = [(x(at) + aside, y(estimate.value)) for at, estimate, *_ in line]
            drawn.append(plot.curve(points, f"m line {kind}", data_k=key))
            for point, (_, estimate, context, cell) in zip(points, line, strict=True):
                if not metric and estimate.bounded and not cell.baseline:
                    ends = [(point[0], y(estimate.low)), (point[0], y(estimate.high))]
                    drawn.append(plot.curve(ends, f"m thin {kind}", data_k=key))
                drawn.append(styles.mark(cell, *point, tooltip(context, cell, *_absolute(metric, estimate))))
        return drawn, height + 38

    return draw


def _absolute(metric: str, estimate: Estimate) -> list[str]:
    """The lines of a tooltip for an absolute value that is not among its other lines."""
    if not metric or metric == THROUGHPUT:
        return []
    text = micros if metric.startswith("latency") else lambda value: f"{number(value / 1e6)} MB/s"
    if not estimate.bounded:
        return [text(estimate.value)]
    return [f"{text(estimate.value)}, 95 %: {text(estimate.low)} to {text(estimate.high)}"]
