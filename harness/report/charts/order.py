"""The chart `order`: each trial against the mean of its cell, in the order of the run."""

from collections import defaultdict
from collections.abc import Sequence

from harness.analysis.cells import MEDIAN_LATENCY
from harness.analysis.study import Cell, Context, Study
from harness.report import plot, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.limits import MOST_MARKS
from harness.report.markup import Markup, el
from harness.report.plot import Chart, Draw, Drawn, Panel, Scale
from harness.results import LIVE, Trial

_MOST_BLOCKS = 200  # whose beginnings are drawn

_Point = tuple[Trial, float, Context, Cell]  # a good trial, its ratio to the mean of its cell


def chart(study: Study, styles: DesignStyles, trials: Sequence[Trial]) -> Chart | None:
    """One panel with all trials. None where there are fewer than two good ones, or where all are of live blocks, whose
    trials have no order: the chart `rounds` has them."""
    good = {trial.trial: trial for trial in trials if trial.status == "ok" and not trial.probe}
    if all(trial.design == LIVE for trial in good.values()):
        return None
    points: list[_Point] = []
    for context in study.contexts:
        for cell in context.cells:
            measured = cell.measurements.get(context.metric)
            for row in cell.rows if measured else ():
                value = getattr(good[row], context.metric)
                if measured and value > 0:
                    points.append((good[row], value / measured.value.value, context, cell))
    if len(points) < 2:
        return None
    bad = [trial for trial in trials if trial.status != "ok"]
    blocks: dict[int, int] = {}
    for trial in trials:
        if trial.block > 0:
            blocks[trial.block] = min(blocks.get(trial.block, trial.trial), trial.trial)
    said = vocabulary.of_study(study)
    metric = f"median {said.latency}" if study.contexts[0].metric == MEDIAN_LATENCY else said.rate
    return Chart(
        "order",
        "In the order of the run",
        "Each trial against the mean of its cell. A slope is drift; a gap is something that happened to the machine. "
        "Vertical lines mark the beginnings of blocks, hollow marks disturbed trials, crosses at the foot failed ones.",
        [Panel(f"{metric}, ratio to the cell's mean", _panel(points, bad, sorted(blocks.values()), styles))],
    )


def _panel(points: list[_Point], bad: list[Trial], blocks: list[int], styles: DesignStyles) -> Draw:
    values = sorted(value for _, value, _, _ in points)
    edge = len(values) // 200  # extreme trials are drawn at the edge, so that the others stay visible
    span = plot.around([min(values[edge], 0.95), max(values[-1 - edge], 1.05)], log=True)
    last = max(trial.trial for trial in (*(trial for trial, *_ in points), *bad))

    def draw(width: float) -> Drawn:
        height = 230.0
        x, y = Scale(0, last + 1, 48, width - 8), Scale(*span, height, 10, log=True)
        drawn = [plot.rule(x(block - 0.5), 10, x(block - 0.5), height, "block") for block in blocks[:_MOST_BLOCKS]]
        drawn += plot.upright(y, 42, width, "{:.3g}".format, "", one=1.0)
        drawn += plot.across(x, height, height, lambda tick: f"{tick:.0f}", "number of the trial")
        drawn += _marks(points, x, y, styles) if len(points) <= MOST_MARKS else _dots(points, x, y, styles)
        for trial in bad[:MOST_MARKS]:
            at = x(trial.trial)
            text = f"trial {trial.trial}, block {trial.block}\n{trial.status}: {trial.reason}"
            drawn.append(el("path", d=f"M{at - 4:.1f} {height - 8}l8 8m0 -8l-8 8", class_="m cross", data_tip=text))
        return drawn, height + 38

    return draw


def _marks(points: list[_Point], x: Scale, y: Scale, styles: DesignStyles) -> list[Markup]:
    """A mark for each trial."""
    drawn = []
    for trial, value, context, cell in points:
        lines = [f"trial {trial.trial}, block {trial.block}", cell.label, context.label]
        lines.append(f"{value:.3f} of the cell's mean")
        lines += [f"disturbed: {trial.disturbed}"] if trial.disturbed else []
        path = plot.marker(styles.shape(cell), x(trial.trial), y(value), 3.2)
        kind = f"m dot {styles.colour(cell)}{' hollow' if trial.disturbed else ''}"
        drawn.append(el("path", d=path, class_=kind, data_k=styles.key(cell), data_tip="\n".join(lines)))
    return drawn


def _dots(points: list[_Point], x: Scale, y: Scale, styles: DesignStyles) -> list[Markup]:
    """One path for all trials of a design, because thousands of elements would make the page slow."""
    dots: dict[int, list[str]] = defaultdict(list)
    for trial, value, _, cell in points:
        dots[styles.key(cell)].append(f"M{x(trial.trial):.0f} {y(value):.1f}h0")
    colours = {styles.key(cell): styles.colour(cell) for *_, cell in points}
    return [el("path", d="".join(path), class_=f"m many {colours[key]}", data_k=key) for key, path in dots.items()]
