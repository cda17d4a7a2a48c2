"""The pictures of a study. Each is made only where there is something to show; every mark tells its figures, its
interval, and the rows behind it."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY, THROUGHPUT
from harness.analysis.chart_data import FIRM, MODES, ROLES, ChartData, Percentile
from harness.analysis.compare import Comparison
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context, Study
from harness.analysis.verdicts import WITHHELD
from harness.factors import FACTORS
from harness.report import plot
from harness.report.design_styles import MOST_MARKS, MOST_PANELS, MOST_ROWS, DesignStyles, few, left_out, tip, told
from harness.report.markup import Markup, el
from harness.report.plot import Chart, Panel, Scale, micros, number, short, words
from harness.results import Trial

_Drawn = tuple[list[Markup], float]
_Draw = Callable[[float], _Drawn]


def charts(study: Study, chart_data: ChartData, trials: Sequence[Trial]) -> list[Chart]:
    """All pictures that this study has something for."""
    styles = DesignStyles(study)
    made = (
        _forest(study, styles),
        _sizes(study, styles),
        _heat(study, styles),
        _spectrum(study, styles, chart_data),
        _cpu(study, styles, chart_data),
        *_symbols(study, styles, chart_data),
        _order(study, styles, chart_data, trials),
    )
    return [figure for figure in made if figure and figure.panels]


# Pictures


def _forest(study: Study, styles: DesignStyles) -> Chart | None:
    """Ratios to the baseline with their intervals."""
    contexts = [context for context in study.contexts if any(_ratio(context, cell) for cell in context.cells)]
    latency = any(context.metric == MEDIAN_LATENCY for context in contexts)
    what = "median latency, ratio" if latency else "requests/s, ratio"
    base = next((context.baseline.label for context in contexts if context.baseline), "")
    panels = [Panel(context.label, _forest_panel(context, styles, f"{what} to {base}")) for context in contexts]
    return Chart(
        "ratios",
        "Against the baseline",
        f"{'Median latency' if latency else 'Throughput'} as a ratio to {base} within blocks, with intervals that hold "
        f"all at once. An interval that keeps clear of 1 is a difference; all others are open. "
        f"{'Left is better.' if latency else 'Right is better.'}",
        panels[:MOST_PANELS],
        styles.columns,
        left_out(study, MOST_ROWS),
    )


def _ratio(context: Context, cell: Cell) -> Estimate | None:
    figure = cell.measurements.get(context.metric)
    return figure.ratio if figure else None


def _forest_panel(context: Context, styles: DesignStyles, unit: str) -> _Draw:
    cells = [cell for cell in few(context.cells, MOST_ROWS) if cell.baseline or _ratio(context, cell)]
    return _ratios(
        unit,
        [
            _Row(
                styles.name(cell),
                styles.key(cell),
                styles.colour(cell),
                styles.shape(cell),
                _ratio(context, cell),
                tip(context, cell),
            )
            for cell in cells
        ],
    )


class _Row(NamedTuple):
    """A ratio in a forest plot; none is the baseline's."""

    name: str
    key: int
    colour: str
    shape: int
    ratio: Estimate | None
    tip: str


def _ratios(unit: str, rows: list[_Row]) -> _Draw:
    """A forest plot."""
    ratios = [row.ratio for row in rows if row.ratio]
    values = [1.0, *(ratio.value for ratio in ratios)]
    # Few blocks have intervals of any width: those that leave the picture are cut off.
    ends = [end for ratio in ratios if ratio.bounded for end in (ratio.low, ratio.high)]
    least, most = max(min([*values, *ends]), min(values) / 2), min(max([*values, *ends]), max(values) * 2)
    span = plot.around([least, most], log=True)

    def draw(width: float) -> _Drawn:
        left = plot.margin([row.name for row in rows], width)
        x = Scale(*span, left, width - 44, log=True)
        bottom = len(rows) * plot.ROW + 4
        drawn = plot.across(x, 0, bottom, "{:.3g}".format, plot.clip(unit, width), one=1.0)
        for place, row in enumerate(rows):
            y = place * plot.ROW + 13.0
            drawn.append(plot.named(row.name, left, y + 4, row.key, row.colour == "floor"))
            if row.ratio and row.ratio.bounded:
                drawn.append(_interval(x, y, row.ratio, f"m bar {row.colour}", row.key))
            path = plot.marker(row.shape, x(row.ratio.value if row.ratio else 1.0), y)
            drawn.append(el("path", d=path, class_=f"m dot {row.colour}", data_k=row.key, data_tip=row.tip))
            value = f"{row.ratio.value:.2f}" if row.ratio else "base"
            drawn.append(el("text", value, x=width, y=y + 4, text_anchor="end", class_="m value", data_k=row.key))
        return drawn, bottom + 38.0

    return draw


def _interval(x: Scale, y: float, ratio: Estimate, kind: str, key: int) -> Markup:
    """A bar from end to end; an arrow where it goes on beyond the picture."""
    low, high = x(ratio.low), x(ratio.high)
    path = f"M{low:.1f} {y:.1f}H{high:.1f}"
    if ratio.low < x.low:
        path += f"M{low + 4:.1f} {y - 4:.1f}l-4 4l4 4"
    if ratio.high > x.high:
        path += f"M{high - 4:.1f} {y - 4:.1f}l4 4l-4 4"
    return el("path", d=path, class_=kind, data_k=key)


def _numeric(study: Study) -> str:
    """The factor to be drawn from left to right: of file size, number of clients and rate the one with most levels."""
    counts = {}
    for name in _UNITS:
        given = {context.levels[name] for context in study.contexts if name in context.levels}
        if all(str(one).replace(".", "").isdecimal() and float(one) > 0 for one in given):
            counts[name] = len(given)
    name = max(counts, key=lambda one: counts[one], default="")
    return name if counts.get(name, 0) > 1 else ""


_UNITS = {"files": "size of a file", "clients": "requests under way at a time", "rate": "requests asked for, 1/s"}


def _sizes(study: Study, styles: DesignStyles) -> Chart | None:
    """Figures by file size, or by another number that contexts differ in."""
    name = _numeric(study)
    if not name:
        return None
    alike: dict[tuple[Any, ...], list[Context]] = defaultdict(list)
    for context in study.contexts:
        alike[tuple((one, level) for one, level in context.levels.items() if one != name)].append(context)
    groups = [
        (dict(levels), sorted(some, key=lambda one: float(one.levels[name])))
        for levels, some in alike.items()
        if len(some) > 1
    ]
    panels = []
    for levels, some in groups[: MOST_PANELS // 2]:
        about = naming.label(levels)
        metric, title, label = _absolute_axis(some[0].metric == MEDIAN_LATENCY, name)
        panels += [
            Panel(", ".join(filter(None, (title, about))), _lines(some, styles, name, metric, label)),
            Panel(
                ", ".join(filter(None, ("ratio to the baseline", about))),
                _lines(some, styles, name, "", "{:.3g}".format),
            ),
        ]
    drawn = [context for _, some in groups for context in some]
    what = {"files": "file size", "clients": "concurrency", "rate": "rate of requests"}[name]
    return Chart(
        "sizes",
        f"By {what}",
        f"How each design does as the {what} grows: absolute, and as a ratio to the baseline with intervals. Where "
        "lines cross and the intervals are apart, another one is the better choice.",
        panels,
        2,
        styles.of_lines,
        styles.legend([cell for context in drawn for cell in styles.lines(context)]),
    )


def _absolute_axis(latency: bool, name: str) -> tuple[str, str, Callable[[float], str]]:
    if latency:
        return "latency_p50_us", "median latency", micros
    return ("content_bytes_per_s", "content, B/s", short) if name == "files" else (THROUGHPUT, "requests/s", short)


def _lines(
    contexts: list[Context], styles: DesignStyles, name: str, metric: str, label: Callable[[float], str]
) -> _Draw:
    """Lines by a number. metric: a column, or "": the ratio to the baseline."""
    series: dict[int, list[tuple[float, Estimate, Context, Cell]]] = defaultdict(list)
    for context in contexts:
        for cell in styles.lines(context):
            figure = cell.measurements.get(metric or context.metric)
            estimate = figure and (figure.value if metric else figure.ratio)
            if not metric and cell.baseline:
                estimate = Estimate(1.0, 1.0, 1.0, cell.trials, 1.0)
            if estimate:
                series[styles.key(cell)].append((float(context.levels[name]), estimate, context, cell))
    points = [point for some in series.values() for point in some]
    levels = sorted({x for x, *_ in points}) or [1.0, 2.0]
    values = [estimate.value for _, estimate, _, _ in points] or [1.0]

    def draw(width: float) -> _Drawn:
        height = 250.0
        x = Scale(levels[0], levels[-1], 60 if metric else 66, width - 18, log=True)
        y = Scale(*plot.around(values, log=True), height, 18, log=True)
        ticks = [levels[0]]
        for level in levels[1:]:
            if x(level) - x(ticks[-1]) > 46:
                ticks.append(level)
        one = None if metric else 1.0
        drawn = plot.upright(y, 48, width, label, "", one=one)
        drawn += plot.across(
            x,
            18,
            height,
            lambda tick: naming.value(name, f"{tick:.0f}" if name == "files" else tick),
            _UNITS[name],
            ticks,
        )
        for position, (key, some) in enumerate(series.items()):
            # Intervals stand beside each other.
            aside = (position / max(1, len(series) - 1) - 0.5) * min(20, 3 * len(series)) if not metric else 0.0
            cell = some[0][3]
            kind = f"{styles.colour(cell)}{' dashed' if cell.floor else ''}"
            points = [(x(at) + aside, y(estimate.value)) for at, estimate, *_ in some]
            drawn.append(plot.curve(points, f"m line {kind}", data_k=key))
            for point, (_, estimate, context, cell) in zip(points, some, strict=True):
                if not metric and estimate.bounded and not cell.baseline:
                    ends = [(point[0], y(estimate.low)), (point[0], y(estimate.high))]
                    drawn.append(plot.curve(ends, f"m thin {kind}", data_k=key))
                drawn.append(styles.mark(cell, *point, tip(context, cell, *_absolute(metric, estimate))))
        return drawn, height + 38

    return draw


def _absolute(metric: str, estimate: Estimate) -> list[str]:
    if not metric or metric == THROUGHPUT:
        return []
    tell = micros if metric.startswith("latency") else lambda value: f"{number(value / 1e6)} MB/s"
    return [
        f"{tell(estimate.value)}, 95 %: {tell(estimate.low)} to {tell(estimate.high)}"
        if estimate.bounded
        else tell(estimate.value)
    ]


def _heat(study: Study, styles: DesignStyles) -> Chart | None:
    """Two factors against each other."""
    counts = {
        name: len({cell.design[name] for cell in styles.cells if cell.design.get("source") != "direct"})
        for name in styles.factors
        if name != "source"
    }
    pairs = [("command", "data"), ("depth", "chunk"), ("cache_threads", "proxy_threads")]
    pair = next((pair for pair in pairs if all(counts.get(name, 0) > 1 for name in pair)), None)
    if not pair and len(counts) > 1:
        pair = (sorted(counts, key=lambda name: counts[name])[-2], max(counts, key=lambda name: counts[name]))
    if not pair:
        return None
    panels = []
    for context in study.contexts:
        rest: dict[str, list[Cell]] = defaultdict(list)
        for cell in context.cells:
            others = {name: cell.design[name] for name in styles.factors if name not in (*pair, "source")}
            if cell.design.get("source") != "direct":
                rest[naming.design(others)].append(cell)
        for about, cells in rest.items():
            if all(len({cell.design[name] for cell in cells}) > 1 for name in pair):
                title = ", ".join(filter(None, (context.label, about)))
                panels.append(Panel(title, _heat_panel(context, cells, styles, pair)))
    down, right = (name.removesuffix("_bytes") for name in pair)
    return Chart(
        "pairs",
        f"{down.capitalize()} \u00d7 {right}",
        f"Each cell is a pair of {down} (down) and {right} (across): its ratio to the baseline. Blue is better than "
        "the baseline, orange is worse, and paler is nearer to it; what cannot be told from it is pale, in italics.",
        panels[:MOST_PANELS],
        1 if counts[pair[1]] > 6 else 2,
        left_out(study, 10**9),
    )


def _order_of(cells: Iterable[Cell], name: str) -> list[Any]:
    given = list(dict.fromkeys(cell.design[name] for cell in sorted(cells, key=lambda cell: cell.number)))
    return sorted(given) if all(isinstance(one, int | float) for one in given) else given


def _heat_panel(context: Context, cells: list[Cell], styles: DesignStyles, pair: tuple[str, str]) -> _Draw:
    at = {tuple(cell.design[name] for name in pair): cell for cell in cells}
    less = context.metric == MEDIAN_LATENCY

    def draw(width: float) -> _Drawn:
        levels = [_order_of(cells, name) for name in pair]
        # On a phone many columns do not fit: the longer factor goes down.
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
                cell = at.get((levels[0][place[0]], levels[1][place[1]]))
                if cell:
                    drawn += _heat_cell(context, cell, styles, left + column * wide, float(y), wide, high, less)
        return drawn, top + len(names) * high + 8.0

    return draw


def _heat_cell(
    context: Context, cell: Cell, styles: DesignStyles, x: float, y: float, wide: float, high: float, less: bool
) -> list[Markup]:
    figure = cell.measurements.get(context.metric)
    estimate = figure.ratio if figure else None
    if not estimate and not cell.baseline:
        return []
    ratio = estimate.value if estimate else 1.0
    # A difference that is not told from none must not shout.
    told_apart = estimate and figure and figure.verdict != WITHHELD and not estimate.low <= 1 <= estimate.high
    better = -math.log2(ratio) if less else math.log2(ratio)
    step = min(4 if told_apart else 1, round(abs(better) * 5))
    shade = f"{'up' if better > 0 else 'down'}{step}" if step else "even"
    quiet = "" if told_apart or cell.baseline else " open"
    return plot.tile(x, y, wide, high, shade, f"{ratio:.2f}", styles.key(cell), tip(context, cell), quiet)


def _spectrum(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart | None:
    """The whole distribution of latency."""
    panels, shown = [], []
    for context in study.contexts[:MOST_PANELS]:
        found = [(cell, chart_data.percentiles(cell)) for cell in styles.lines(context)]
        found = [(cell, some) for cell, some in found if len(some) > 1]
        if found:
            panels.append(Panel(context.label, _spectrum_panel(context, found, styles)))
            shown += [cell for cell, _ in found]
    whole = bool(chart_data.latencies)
    return Chart(
        "latency",
        "Latency, all of it",
        "How long the slowest share of the replies took: both axes are logarithmic, so that the tail is seen. "
        + ("All replies of a cell's trials together. " if whole else "Medians of the trials' percentiles. ")
        + f"Dashed: fewer than {FIRM} replies are above, single events.",
        panels,
        3,
        styles.of_lines,
        styles.legend(shown),
    )


def _percent(above: float) -> str:
    return f"p{100 * (1 - above):.6g}"


def _spectrum_panel(context: Context, found: list[tuple[Cell, list[Percentile]]], styles: DesignStyles) -> _Draw:
    found = [(cell, [one for one in some if one.above <= 0.501 and one.above >= 1e-4 * 0.99]) for cell, some in found]
    found = [(cell, some) for cell, some in found if some]
    values = [one.us for _, some in found for one in some] or [1.0]
    rarest = min((one.above for _, some in found for one in some), default=0.01)

    def draw(width: float) -> _Drawn:
        height = 250.0
        x = Scale(math.log10(2), -math.log10(rarest), 62, width - 18)
        y = Scale(*plot.around(values, log=True), height, 18, log=True)
        ticks = [above for above in (0.5, 0.1, 0.01, 1e-3, 1e-4) if above >= rarest * 0.99]
        drawn = plot.upright(y, 56, width, micros, "")
        labels = {-math.log10(above): _percent(above) for above in ticks}
        drawn += plot.across(x, 18, height, lambda tick: labels[tick], "percentile of latency", list(labels))
        for cell, some in found:
            key, kind = styles.key(cell), f"m line {styles.colour(cell)}"
            points = [(x(-math.log10(one.above)), y(one.us)) for one in some]
            firm = sum(one.replies_above >= FIRM for one in some)
            if firm > 1:
                drawn.append(plot.curve(points[:firm], f"{kind}{' dashed' if cell.floor else ''}", data_k=key))
            if firm < len(points):
                drawn.append(plot.curve(points[max(0, firm - 1) :], f"{kind} loose", data_k=key))
            for above in ticks:
                near = min(some, key=lambda one: abs(math.log(one.above / above)))
                if abs(math.log(near.above / above)) < 0.1:
                    text = tip(
                        context, cell, f"{_percent(above)}: {micros(near.us)}, {near.replies_above:.0f} replies above"
                    )
                    drawn.append(styles.mark(cell, x(-math.log10(near.above)), y(near.us), text, 3.5))
        return drawn, height + 38

    return draw


def _cpu(study: Study, styles: DesignStyles, chart_data: ChartData) -> Chart | None:
    """CPU time of a request by role and mode."""
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        found = [(cell, chart_data.cpu(cell)) for cell in few(context.cells, MOST_ROWS // 2)]
        found = [(cell, parts) for cell, parts in found if sum(parts.values()) > 0]
        if found:
            panels.append(Panel(context.label, _cpu_panel(context, found, styles)))
    return Chart(
        "cpu",
        "Where the CPU time goes",
        "CPU time of a request: the processes of each role, in user mode (pale) and in the kernel. Totals are exact; "
        "how a total is parted is sampled.",
        panels,
        styles.columns,
        left_out(study, MOST_ROWS // 2),
        tuple((f"{role}-{mode}", -1, f"{role}, {mode}", None) for role in ROLES for mode in MODES),
    )


def _cpu_panel(
    context: Context, found: list[tuple[Cell, Mapping[tuple[str, str], float]]], styles: DesignStyles
) -> _Draw:
    most = max(sum(parts.values()) for _, parts in found)

    def draw(width: float) -> _Drawn:
        left = plot.margin([styles.name(cell) for cell, _ in found], width)
        x = Scale(0, most * 1.02, left, width - 50)
        bottom = len(found) * plot.ROW + 4
        drawn = plot.across(x, 0, bottom, short, "CPU time of a request, \u00b5s")
        for row, (cell, parts) in enumerate(found):
            y, begin, key = row * plot.ROW + 3.0, 0.0, styles.key(cell)
            drawn.append(plot.named(styles.name(cell), left, y + 13, key, cell.floor))
            lines = [f"{role}, {mode}: {number(spent)} \u00b5s" for (role, mode), spent in parts.items() if spent]
            text = tip(context, cell, *lines)
            for (role, mode), spent in parts.items():
                if spent:
                    size = {"x": x(begin), "y": y, "width": max(0.3, x(begin + spent) - x(begin)), "height": 16.0}
                    drawn.append(el("rect", **size, class_=f"m part {role}-{mode}", data_k=key, data_tip=text))
                    begin += spent
            drawn.append(el("text", number(begin), x=x(begin) + 6, y=y + 13, class_="m value", data_k=key))
        return drawn, bottom + 38.0

    return draw


def _symbols(study: Study, styles: DesignStyles, chart_data: ChartData) -> list[Chart]:
    """Symbols that the perf probe saw."""
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        cells = [cell for cell in context.cells if cell.number in chart_data.symbols][:16]
        for role in ROLES:
            shares = {styles.key(cell): chart_data.symbols[cell.number].get(role, {}) for cell in cells}
            totals: dict[str, float] = defaultdict(float)
            for some in shares.values():
                for symbol, share in some.items():
                    totals[symbol] += share
            top = sorted(totals, key=lambda symbol: -totals[symbol])[:14]
            if top:
                panels.append(
                    Panel(f"{role}, {context.label}", _symbols_panel(context, role, cells, styles, shares, top))
                )
    figure = Chart(
        "symbols",
        "Where in the code",
        "Shares of each role's CPU samples by symbol, from trials of their own for the perf probe; darker is more. "
        "Sampling slows a trial down, so these are shares, not times.",
        panels[: 2 * MOST_PANELS],
        2 if len(chart_data.symbols) and max(len(one.cells) for one in study.contexts) <= 7 else 1,
    )
    return [figure] if panels else []


def _symbols_panel(
    context: Context,
    role: str,
    cells: list[Cell],
    styles: DesignStyles,
    shares: Mapping[int, Mapping[str, float]],
    symbols: list[str],
) -> _Draw:
    def draw(width: float) -> _Drawn:
        left = min(230.0, width * 0.42)
        wide, high = min(90.0, (width - left) / len(cells)), 22
        drawn, top = plot.heads([styles.name(cell) for cell in cells], left, wide)
        for row, symbol in enumerate(symbols):
            y = top + row * high
            drawn.append(words(left - 8, y + 15, plot.clip(symbol, left - 8), "label", "end"))
            for column, cell in enumerate(cells):
                share = shares[styles.key(cell)].get(symbol, 0.0)
                shade = f"up{min(4, math.ceil(share * 12))}" if share >= 0.005 else "even"
                text = f"{cell.label}\n{context.label}\n{role}: {symbol}\n{100 * share:.1f} % of the role's samples"
                shown = f"{100 * share:.0f}" if share >= 0.01 and wide > 24 else ""
                drawn += plot.tile(left + column * wide, y, wide, high, shade, shown, styles.key(cell), text)
        return drawn, top + len(symbols) * high + 8.0

    return draw


def _order(study: Study, styles: DesignStyles, chart_data: ChartData, trials: Sequence[Trial]) -> Chart | None:
    """Each trial against the mean of its cell, in the order of the run."""
    points = []
    for context in study.contexts:
        for cell in context.cells:
            figure = cell.measurements.get(context.metric)
            for row in cell.rows if figure else ():
                value = getattr(chart_data.trials[row], context.metric)
                if value > 0:
                    points.append((row, value / cell.measurements[context.metric].value.value, context, cell))
    if len(points) < 2:
        return None
    bad = [trial for trial in trials if trial.status != "ok"]
    blocks: dict[int, int] = {}
    for trial in trials:
        if trial.block > 0:
            blocks[trial.block] = min(blocks.get(trial.block, trial.trial), trial.trial)
    metric = "median latency" if study.contexts[0].metric == MEDIAN_LATENCY else "requests/s"
    return Chart(
        "order",
        "In the order of the run",
        "Each trial against the mean of its cell: a slope is drift, a gap is something that happened to the machine. "
        "Vertical lines begin a block; hollow marks are disturbed trials, crosses at the foot failed ones.",
        [
            Panel(
                f"{metric}, ratio to the cell's mean",
                _order_panel(points, bad, sorted(blocks.values()), styles, chart_data),
            )
        ],
    )


def _order_panel(
    points: list[tuple[int, float, Context, Cell]],
    bad: list[Trial],
    blocks: list[int],
    styles: DesignStyles,
    chart_data: ChartData,
) -> _Draw:
    values = sorted(value for _, value, _, _ in points)
    edge = len(values) // 200  # a trial that went quite wrong is put at the edge, so that all others are seen
    span = plot.around([min(values[edge], 0.95), max(values[-1 - edge], 1.05)], log=True)
    last = max([row for row, *_ in points] + [trial.trial for trial in bad])

    def draw(width: float) -> _Drawn:
        height = 230.0
        x, y = Scale(0, last + 1, 48, width - 8), Scale(*span, height, 10, log=True)
        drawn = [plot.rule(x(block - 0.5), 10, x(block - 0.5), height, "block") for block in blocks[:200]]
        drawn += plot.upright(y, 42, width, "{:.3g}".format, "", one=1.0)
        drawn += plot.across(x, height, height, lambda tick: f"{tick:.0f}", "number of the trial")
        if len(points) <= MOST_MARKS:
            for row, value, context, cell in points:
                trial = chart_data.trials[row]
                text = (
                    f"trial {row}, block {trial.block}\n{cell.label}\n{context.label}\n{value:.3f} of the cell's mean"
                )
                text += f"\ndisturbed: {trial.disturbed}" if trial.disturbed else ""
                path = plot.marker(styles.shape(cell), x(row), y(value), 3.2)
                kind = f"m dot {styles.colour(cell)}{' hollow' if trial.disturbed else ''}"
                drawn.append(el("path", d=path, class_=kind, data_k=styles.key(cell), data_tip=text))
        else:  # one path for all trials of a design: thousands of elements would make the page heavy
            dots: dict[int, list[str]] = defaultdict(list)
            for row, value, _, cell in points:
                dots[styles.key(cell)].append(f"M{x(row):.0f} {y(value):.1f}h0")
            kinds = {styles.key(cell): styles.colour(cell) for *_, cell in points}
            drawn += [
                el("path", d="".join(some), class_=f"m many {kinds[key]}", data_k=key) for key, some in dots.items()
            ]
        for trial in bad[:MOST_MARKS]:
            at = x(trial.trial)
            text = f"trial {trial.trial}, block {trial.block}\n{trial.status}: {trial.reason}"
            drawn.append(el("path", d=f"M{at - 4:.1f} {height - 8}l8 8m0 -8l-8 8", class_="m cross", data_tip=text))
        return drawn, height + 38

    return draw


_CHANGE = {"slower": "c1", "more": "c1", "faster": "c0", "less": "c0"}


def changes(comparison: Comparison) -> Chart:
    """The cells of two runs: ratios of B to A."""
    pairs, rows = comparison.pairs[: MOST_ROWS * 2], []
    for key, pair in enumerate(pairs):
        name = naming.label(pair.levels) or "all trials"
        sides = f"A: {number(pair.first.value)}, B: {number(pair.second.value)}"
        text = "\n".join((name, sides, f"B to A: {told(pair.ratio)}", f"verdict: {pair.verdict}"))
        rows.append(_Row(name, key, _CHANGE.get(pair.verdict, "floor"), 0, pair.ratio, text))
    left = len(comparison.pairs) - len(pairs)
    return Chart(
        "changes",
        "What changed",
        "Each cell of both runs: the ratio of B to A. All intervals hold at once. Blue is better, orange is worse.",
        [Panel(comparison.metric, _ratios(f"{comparison.metric}, ratio of B to A", rows))],
        note=f"{left} more are in the table." if left else "",
    )


def levels(trials: Sequence[Trial]) -> tuple[list[str], dict[str, Any]]:
    """The factors that vary over trials, and those that do not with what they are."""
    seen = {name: {getattr(trial, name) for trial in trials} for name in FACTORS if name != "control"}
    varying = [name for name, given in seen.items() if len(given) > 1]
    return varying, {name: next(iter(given)) for name, given in seen.items() if len(given) == 1}
