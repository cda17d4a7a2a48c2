"""The chart `latency`: the whole distribution of latency, up to the 99.99th percentile."""

import math

from harness.analysis.chart_data import FIRM, ChartData, Percentile
from harness.analysis.study import Cell, Context, Study
from harness.report import plot, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale, micros
from harness.report.tooltips import tooltip


def chart(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart:
    """Lines of percentiles, a panel for each context."""
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        lines = [(cell, chart_data.percentiles(cell)) for cell in styles.lines(context)]
        lines = [(cell, percentiles) for cell, percentiles in lines if len(percentiles) > 1]
        if lines:
            panels.append(Panel(context.label, _panel(context, lines, styles)))
    said = vocabulary.of_study(study)
    whole = bool(chart_data.latencies)
    return Chart(
        "latency",
        f"{said.latency.capitalize()}, all of it",
        f"How long the slowest {said.request}s took; the further right, the fewer they are. Both axes are logarithmic, "
        "so that the tail is visible. "
        + (f"All {said.request}s of a cell's trials together. " if whole else "Medians of the trials' percentiles. ")
        + f"Dotted: fewer than {FIRM} took longer, so these are single events.",
        panels,
        2,
        styles.of_lines,
    )


def _percent(above: float) -> str:
    return f"p{100 * (1 - above):.6g}"


def _panel(context: Context, lines: list[tuple[Cell, list[Percentile]]], styles: DesignStyles) -> Draw:
    # From the median to p99.99.
    lines = [(cell, [one for one in line if one.above <= 0.501 and one.above >= 1e-4 * 0.99]) for cell, line in lines]
    lines = [(cell, line) for cell, line in lines if line]
    values = [one.us for _, line in lines for one in line] or [1.0]
    rarest = min((one.above for _, line in lines for one in line), default=0.01)

    def draw(width: float) -> Drawn:
        height = max(250.0, 24 + len(lines) * plot.END_ROW)
        right = width - plot.room_for_ends([styles.name(cell) for cell, _ in lines], width)
        x = Scale(math.log10(2), -math.log10(rarest), 62, right - 8)
        named: list[plot.End] = []
        y = Scale(*plot.around(values, log=True), height, 18, log=True)
        ticks = [above for above in (0.5, 0.1, 0.01, 1e-3, 1e-4) if above >= rarest * 0.99]
        drawn = plot.upright(y, 56, right, micros, "")
        labels = {-math.log10(above): _percent(above) for above in ticks}
        drawn += plot.across(
            x,
            18,
            height,
            lambda tick: labels[tick],
            f"percentile of {vocabulary.of_context(context).latency}",
            list(labels),
        )
        for cell, line in lines:
            key, kind = styles.key(cell), f"m line {styles.colour(cell)}"
            points = [(x(-math.log10(one.above)), y(one.us)) for one in line]
            named.append((*points[-1], styles.name(cell), key, styles.colour(cell)))
            firm = sum(one.replies_above >= FIRM for one in line)
            if firm > 1:
                drawn.append(plot.curve(points[:firm], f"{kind}{' dashed' if cell.floor else ''}", data_k=key))
            if firm < len(points):
                drawn.append(plot.curve(points[max(0, firm - 1) :], f"{kind} loose", data_k=key))
            for above in ticks:
                near = min(line, key=lambda one: abs(math.log(one.above / above)))
                if abs(math.log(near.above / above)) < 0.1:
                    value = f"{_percent(above)}: {micros(near.us)}, {near.replies_above:.0f} took longer"
                    text = tooltip(context, cell, value)
                    drawn.append(styles.mark(cell, x(-math.log10(near.above)), y(near.us), text, 3.5))
        return [*plot.ends(named, right, width, 18, height), *drawn], height + 38

    return draw
