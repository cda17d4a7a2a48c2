"""The chart `stages`: where a request spends its time, stage by stage."""

from harness.analysis.chart_data import ChartData
from harness.analysis.stages import STAGES, WHOLE, Spreads
from harness.analysis.study import Cell, Context, Study
from harness.report import plot, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_PANELS, MOST_ROWS, few, left_out
from harness.report.markup import el
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale, micros, number, short
from harness.report.tooltips import tooltip


def chart(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart | None:
    """A stacked bar for each cell, a panel for each context. None where the probe `stages` did not run."""
    said = vocabulary.of_study(study)
    panels, seen = [], set()
    for context in study.contexts[:MOST_PANELS]:
        cells = few([cell for cell in context.cells if chart_data.stages.get(cell.number)], MOST_ROWS // 2)
        if cells:
            bars = [(cell, chart_data.stages[cell.number]) for cell in cells]
            seen |= {name for _, spreads in bars for name in spreads}
            panels.append(Panel(context.label, _panel(context, bars, styles)))
    if not panels:
        return None
    return Chart(
        "stages",
        f"Where a {said.request} spends its time",
        f"Medians of the stages of a {said.request}, one after the other: blue in the {said.roles['proxy']}, orange in "
        f"the {said.roles['cache']}, grey on the way between the two. A stage is named after what ends it. The number "
        "is the median of the whole, to which the line leads: medians of parts need not add up to it. The times are of "
        "separate trials with the stages probe, which lengthens them a little.",
        panels,
        styles.columns,
        left_out(study, MOST_ROWS // 2),
        tuple((f"stage-{name}", -1, stage.ends, None) for name, stage in STAGES.items() if name in seen),
    )


def _panel(context: Context, bars: list[tuple[Cell, Spreads]], styles: DesignStyles) -> Draw:
    said = vocabulary.of_context(context)
    most = max(max(_parts(spreads), spreads[WHOLE].median) for _, spreads in bars)

    def draw(width: float) -> Drawn:
        left = plot.margin([styles.name(cell) for cell, _ in bars], width)
        x = Scale(0, most * 1.02, left, width - 50)
        bottom = len(bars) * plot.ROW + 4
        drawn = plot.across(x, 0, bottom, short, f"time of a {said.request}, \u00b5s")
        for row, (cell, spreads) in enumerate(bars):
            y, begin, key = row * plot.ROW + 3.0, 0.0, styles.key(cell)
            drawn.append(plot.named(styles.name(cell), left, y + 13, key, cell.floor))
            text = tooltip(context, cell, *(_line(name, spreads) for name in spreads))
            for name, spread in spreads.items():
                if name != WHOLE and spread.median:
                    end = begin + spread.median
                    size = {"x": x(begin), "y": y, "width": max(0.3, x(end) - x(begin)), "height": 16.0}
                    drawn.append(el("rect", **size, class_=f"m part stage-{name}", data_k=key, data_tip=text))
                    begin = end
            whole = spreads[WHOLE].median
            drawn.append(plot.rule(x(begin), y + 8, x(whole), y + 8, "zero"))
            far = x(max(begin, whole)) + 6
            drawn.append(el("text", number(whole), x=far, y=y + 13, class_="m value", data_k=key))
        return drawn, bottom + 38.0

    return draw


def _parts(spreads: Spreads) -> float:
    """The length of a bar, in microseconds."""
    return sum(spread.median for name, spread in spreads.items() if name != WHOLE)


def _line(name: str, spreads: Spreads) -> str:
    """A line of a tooltip: a stage, its median and its quartiles."""
    low, median, high, _ = spreads[name]
    ends = "all of it" if name == WHOLE else STAGES[name].ends
    return f"{ends}: {micros(median)} ({micros(low)} to {micros(high)})"
