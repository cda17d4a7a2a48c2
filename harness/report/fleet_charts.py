"""The charts of a fleet: for each design a forest plot, with a row for each host, the mean, and the next machine."""

import math

from harness.analysis.fleet.hosts import CellThere
from harness.analysis.fleet.over_hosts import TURNS
from harness.analysis.fleet.show import said
from harness.analysis.fleet.study import FleetCell, FleetContext, FleetStudy
from harness.analysis.intervals import Estimate
from harness.report import plot
from harness.report.charts.forest import Row, forest
from harness.report.limits import MOST_PANELS, MOST_ROWS
from harness.report.plot import Chart, Entry, Panel
from harness.report.tooltips import ratio_text

MOST_CHARTS = 12
_COLOURS = 2  # of the values of a fact; others are for what is said over hosts
_MEAN, _NEXT, _ALL = "c4", "c5", "c2"


def charts(study: FleetStudy) -> list[Chart]:
    """A chart for each design, those first whose verdict turns round."""
    designs: dict[str, list[tuple[FleetContext, FleetCell]]] = {cell.label: [] for _, cell in study.rivals}
    for context in study.contexts:
        for cell in context.cells:
            if cell.outcome:
                designs[cell.label].append((context, cell))
    keys = {host.name: number for number, host in enumerate(study.hosts)}
    return [
        _chart(f"hosts-{number}", label, cells, study, keys)
        for number, (label, cells) in enumerate(list(designs.items())[:MOST_CHARTS], 1)
    ]


def _chart(
    name: str, label: str, cells: list[tuple[FleetContext, FleetCell]], study: FleetStudy, keys: dict[str, int]
) -> Chart:
    colours, legend = _colours(cells, study)
    latency = cells[0][0].metric.startswith("latency_")
    panels = [
        Panel(
            f"{context.label or 'all trials'}: {said(cell)}",
            forest(
                f"{'median latency' if latency else 'requests/s'}, ratio to the baseline",
                _rows(context, cell, keys, colours),
                "{:.2f}".format,
            ),
        )
        for context, cell in cells[:MOST_PANELS]
        if any(one.ratio for one in cell.there.values())
    ]
    most = max((len(cell.there) for _, cell in cells), default=0)
    notes = [f"{MOST_ROWS} of {most} hosts are drawn, evenly by their ratios, with the extremes."] * (most > MOST_ROWS)
    notes += [f"The first {MOST_PANELS} of {len(cells)} contexts."] * (len(cells) > MOST_PANELS)
    return Chart(
        name,
        label,
        "A row for each host: its ratio to the baseline and its interval, from its own blocks. Then the mean of "
        f"{study.like}{', and where the next one lies' if study.apart else ''}. "
        f"{'Left is better.' if latency else 'Right is better.'}",
        panels,
        1,
        " ".join(notes),
        legend,
    )


def _colours(
    cells: list[tuple[FleetContext, FleetCell]], study: FleetStudy
) -> tuple[dict[str, str], tuple[Entry, ...]]:
    """host -> its colour: by the fact that splits hosts as the verdict does, where there is one."""
    split = next((cell.splits[0] for _, cell in cells if cell.outcome == TURNS and cell.splits), None)
    if not split or len(split.sides) > _COLOURS:
        return {}, ()
    colour = {value: f"c{place}" for place, value in enumerate(split.sides)}
    found = {host.name: colour[value] for host in study.hosts if (value := host.facts.get(split.fact, "")) in colour}
    legend = tuple((f"dot {kind}", 0, f"{split.fact}: {plot.clip(value, 200)}", -1) for value, kind in colour.items())
    return found, legend


def _rows(context: FleetContext, cell: FleetCell, keys: dict[str, int], colours: dict[str, str]) -> list[Row]:
    ordered = sorted(
        ((host, one) for host, one in cell.there.items() if one.ratio), key=lambda pair: _value(pair[1]), reverse=True
    )
    if len(ordered) > MOST_ROWS:
        step = (len(ordered) - 1) / (MOST_ROWS - 1)
        ordered = [ordered[round(place * step)] for place in range(MOST_ROWS)]
    rows = [
        Row(host, keys[host], colours.get(host, "c0"), 0, one.ratio, _tip(context, host, one)) for host, one in ordered
    ]
    if cell.together:
        rows.append(
            Row("all blocks", -1, _ALL, 3, cell.together, f"all blocks of these hosts\n{ratio_text(cell.together)}")
        )
    if cell.summary:
        mean, following = cell.summary.ratio, cell.summary.prediction
        scatter = f"tau {100 * cell.summary.tau:.2g} %, I\u00b2 {100 * cell.summary.i2:.0f} %"
        rows.append(Row("mean", -1, _MEAN, 3, mean, f"mean over hosts\n{over_text(mean)}\n{scatter}"))
        if following.bounded:
            rows.append(
                Row("next machine", -1, _NEXT, 1, following, f"the next machine like these\n{over_text(following)}")
            )
    return rows


def _value(one: CellThere) -> float:
    return one.ratio.value if one.ratio else math.nan


def _tip(context: FleetContext, host: str, one: CellThere) -> str:
    lines = (host, one.label, context.label, f"to the baseline: {ratio_text(one.ratio)}" if one.ratio else "")
    return "\n".join(filter(None, (*lines, f"verdict: {one.verdict}" if one.verdict else "")))


def over_text(one: Estimate) -> str:
    """An estimate over hosts as text."""
    if not one.bounded:
        return f"{one.value:.3f}, no interval ({one.n} hosts)"
    return f"{one.value:.3f}, {one.low:.3f} to {one.high:.3f} at {100 * one.level:.4g} %, n = {one.n} hosts"
