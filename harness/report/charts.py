"""The pictures of a study. Each is made only where there is something to show; every mark tells its figures, its
interval, and the rows behind it."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.analysis import wording
from harness.analysis.cells import MEDIAN_LATENCY, THROUGHPUT
from harness.analysis.compare import Comparison
from harness.analysis.details import FIRM, MODES, ROLES, Details, Percentile
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context, Study
from harness.report import plot
from harness.report.markup import Markup, el
from harness.report.plot import Figure, Panel, Scale, micros, number, short, words
from harness.results import FACTORS, Trial

COLOURS = 6
MOST_PANELS, MOST_ROWS, MOST_LINES, MOST_MARKS = 12, 32, 14, 1500

_Drawn = tuple[list[Markup], float]


class Look:
    """How a study's designs are told apart: a number, a short name, a colour and a shape for each.

    A short name leaves out the factors that are the same in all designs.
    """

    def __init__(self, study: Study) -> None:
        cells = {cell.label: cell for context in study.contexts for cell in context.cells}
        self.cells = sorted(cells.values(), key=lambda cell: cell.number)
        self._number = {cell.label: number for number, cell in enumerate(self.cells)}
        rivals = [cell for cell in self.cells if cell.design.get("source") != "direct"] or self.cells
        self.factors = [name for name in study.compared if len({cell.design[name] for cell in rivals}) > 1]
        self._style: dict[int, int] = {}
        self._drawn, self.of_lines = self._few_lines(study)
        for cell in self.cells:
            if not cell.floor:
                self._style[self.key(cell)] = len(self._style)

    def _few_lines(self, study: Study) -> tuple[set[int], str]:
        """The designs that are drawn as lines, the same ones in all pictures, and a note on which these are."""
        if len(self.cells) <= MOST_LINES:
            return {self.key(cell) for cell in self.cells}, ""
        base = next((context.baseline for context in study.contexts if context.baseline), self.cells[0])
        if len(self.factors) > 1:
            name = min(self.factors, key=lambda one: len({cell.design[one] for cell in self.cells}))
            alike = {self.key(cell) for cell in self.cells if cell.design[name] == base.design[name]}
            if 1 < len(alike) <= MOST_LINES + 2:
                given = wording.design({name: base.design[name]})
                return alike, f"Drawn are those with the baseline's {name}, {given}. The tables have all."
        best = [
            self.key(cell) for place in range(MOST_LINES) for one in study.contexts for cell in one.cells[place:][:1]
        ]
        chosen = list(dict.fromkeys([self.key(base), *best]))[:MOST_LINES]
        return set(
            chosen
        ), f"Drawn are {len(chosen)} of {len(self.cells)}: the best ones and the baseline. The tables have all."

    def lines(self, context: Context) -> list[Cell]:
        """The cells of a context that are drawn as lines."""
        return [cell for cell in context.cells if self.key(cell) in self._drawn]

    @property
    def columns(self) -> int:
        """How many panels fit side by side where names stand beside the marks."""
        return 3 if max((len(self.name(cell)) for cell in self.cells), default=0) <= 13 else 2

    def key(self, cell: Cell) -> int:
        """The number of a cell's design: marks of one design have it in all pictures."""
        return self._number[cell.label]

    def name(self, cell: Cell) -> str:
        """The short name of a cell's design."""
        if cell.design.get("source") == "direct":
            return "direct"
        return wording.design({name: cell.design[name] for name in self.factors}) or cell.label

    def colour(self, cell: Cell) -> str:
        """The class of a cell's colour; floors are grey."""
        return "floor" if cell.floor else f"c{self._style[self.key(cell)] % COLOURS}"

    def shape(self, cell: Cell) -> int:
        """Its shape: one for each round through the colours."""
        return 3 if cell.floor else self._style[self.key(cell)] // COLOURS

    def mark(self, cell: Cell, x: float, y: float, tip: str, size: float = 4.5) -> Markup:
        """A marker of a cell."""
        return el(
            "path",
            d=plot.marker(self.shape(cell), x, y, size),
            class_=f"m dot {self.colour(cell)}",
            data_k=self.key(cell),
            data_tip=tip,
        )

    def chips(self) -> list[tuple[str, list[int], str, int]]:
        """What can be marked: (name, designs, class, shape). Designs, or where these are combinations their levels."""
        if len(self.factors) < 2:
            return [(self.name(cell), [self.key(cell)], self.colour(cell), self.shape(cell)) for cell in self.cells]
        levels: dict[tuple[str, Any], list[int]] = defaultdict(list)
        for name in self.factors:
            for cell in self.cells:
                if cell.design.get("source") != "direct":
                    levels[name, cell.design[name]].append(self.key(cell))
        return [
            (wording.label({name: given}) or f"{name}: its own", keys, "", 0) for (name, given), keys in levels.items()
        ]


def charts(study: Study, details: Details, trials: Sequence[Trial]) -> list[Figure]:
    """All pictures that this study has something for."""
    look = Look(study)
    made = (
        _forest(study, look),
        _sizes(study, look),
        _heat(study, look),
        _spectrum(study, look, details),
        _cpu(study, look, details),
        *_symbols(study, look, details),
        _order(study, look, details, trials),
    )
    return [figure for figure in made if figure and figure.panels]


# Words of marks


def told(ratio: Estimate) -> str:
    """A ratio and its interval."""
    if not ratio.bounded:
        return f"{ratio.value:.3f}, no interval ({ratio.n} blocks)"
    return f"{ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f} at {100 * ratio.level:.4g} %, n = {ratio.n} blocks"


def _rows(cell: Cell) -> str:
    rows = ", ".join(map(str, cell.rows[:12]))
    return f"rows of trials.csv: {rows}" + (", \u2026" if len(cell.rows) > 12 else "")


def tip(context: Context, cell: Cell, *lines: str) -> str:
    """What a mark tells."""
    told_lines = [cell.label, context.label]
    figure = cell.figures.get(context.metric)
    if figure:
        value = micros(figure.value.value) if context.metric == MEDIAN_LATENCY else f"{number(figure.value.value)}/s"
        what = "median latency" if context.metric == MEDIAN_LATENCY else "requests"
        told_lines.append(f"{what}: {value}")
        if figure.ratio and not any("to the baseline" in line for line in lines):
            told_lines.append(f"to the baseline: {told(figure.ratio)}")
        if figure.verdict:
            told_lines.append(f"verdict: {figure.verdict}")
    if cell.baseline:
        told_lines.append("the baseline")
    if cell.disturbed:
        told_lines.append(f"{cell.disturbed} of {cell.trials} trials disturbed")
    return "\n".join((*told_lines, *lines, _rows(cell)))


def few(cells: Sequence[Cell], most: int) -> list[Cell]:
    """The first cells, and of the rest the baseline and the floors that fit."""
    if len(cells) <= most:
        return list(cells)
    always = [cell for cell in cells if cell.baseline or cell.floor][: most // 3]
    rest = [cell for cell in cells if cell not in always][: most - len(always)]
    return [cell for cell in cells if cell in always or cell in rest]


def _left_out(study: Study, most: int) -> str:
    notes = []
    if len(study.contexts) > MOST_PANELS:
        notes.append(f"the first {MOST_PANELS} of {len(study.contexts)} contexts")
    if any(len(context.cells) > most for context in study.contexts):
        notes.append(f"{most} cells of a context: the best, the baseline, floors")
    return f"Drawn are {' and '.join(notes)}. The tables have all." if notes else ""


# Pictures


def _forest(study: Study, look: Look) -> Figure | None:
    """Ratios to the baseline with their intervals."""
    contexts = [context for context in study.contexts if any(_ratio(context, cell) for cell in context.cells)]
    latency = any(context.metric == MEDIAN_LATENCY for context in contexts)
    what = "median latency, ratio" if latency else "requests/s, ratio"
    base = next((context.baseline.label for context in contexts if context.baseline), "")
    panels = [Panel(context.label, _forest_panel(context, look, f"{what} to {base}")) for context in contexts]
    return Figure(
        "ratios",
        "Against the baseline",
        f"{'Median latency' if latency else 'Throughput'} as a ratio to {base} within blocks, with intervals that hold "
        f"all at once. An interval that keeps clear of 1 is a difference; all others are open. "
        f"{'Left is better.' if latency else 'Right is better.'}",
        panels[:MOST_PANELS],
        look.columns,
        _left_out(study, MOST_ROWS),
    )


def _ratio(context: Context, cell: Cell) -> Estimate | None:
    figure = cell.figures.get(context.metric)
    return figure.ratio if figure else None


def _forest_panel(context: Context, look: Look, unit: str) -> Callable[[float], _Drawn]:
    cells = [cell for cell in few(context.cells, MOST_ROWS) if cell.baseline or _ratio(context, cell)]
    ratios = [ratio for cell in cells if (ratio := _ratio(context, cell))]
    values = [1.0, *(ratio.value for ratio in ratios)]
    # Few blocks have intervals of any width: those that leave the picture are cut off.
    ends = [end for ratio in ratios if ratio.bounded for end in (ratio.low, ratio.high)]
    least, most = max(min([*values, *ends]), min(values) / 2), min(max([*values, *ends]), max(values) * 2)
    span = plot.around([least, most], log=True)

    def draw(width: float) -> _Drawn:
        names = [look.name(cell) for cell in cells]
        left = min(max(map(len, names)) * plot.LETTER + 14, width * 0.42)
        right = 44
        x = Scale(*span, left, width - right, log=True)
        bottom = len(cells) * 21 + 4
        drawn: list[Markup] = plot.across(x, 0, bottom, lambda tick: f"{tick:.3g}", plot.clip(unit, width), one=1.0)
        for row, (cell, name) in enumerate(zip(cells, names, strict=True)):
            y = row * 21 + 13.0
            key, ratio = look.key(cell), _ratio(context, cell)
            kind = f"m label{' floor-name' if cell.floor else ''}"
            drawn.append(
                el("text", plot.clip(name, left - 12), x=left - 10, y=y + 4, text_anchor="end", class_=kind, data_k=key)
            )
            if ratio and ratio.bounded:
                drawn.append(_interval(x, y, ratio, f"m bar {look.colour(cell)}", key))
            drawn.append(look.mark(cell, x(ratio.value if ratio else 1.0), y, tip(context, cell)))
            value = f"{ratio.value:.2f}" if ratio else "base"
            drawn.append(el("text", value, x=width, y=y + 4, text_anchor="end", class_="m value", data_k=key))
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


_UNITS = {"files": "size of a file", "clients": "requests under way at a time", "rate_per_s": "requests asked for, 1/s"}


def _sizes(study: Study, look: Look) -> Figure | None:
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
        about = wording.label(levels)
        metric, title, label = _absolute_axis(some[0].metric == MEDIAN_LATENCY, name)
        panels += [
            Panel(", ".join(filter(None, (title, about))), _lines(some, look, name, metric, label)),
            Panel(
                ", ".join(filter(None, ("ratio to the baseline", about))), _lines(some, look, name, "", "{:.3g}".format)
            ),
        ]
    drawn = [context for _, some in groups for context in some]
    what = {"files": "file size", "clients": "concurrency", "rate_per_s": "rate of requests"}[name]
    return Figure(
        "sizes",
        f"By {what}",
        f"How each design does as the {what} grows: absolute, and as a ratio to the baseline with intervals. Where "
        "lines cross and the intervals are apart, another one is the better choice.",
        panels,
        2,
        look.of_lines,
        _legend(look, [cell for context in drawn for cell in look.lines(context)]),
    )


def _absolute_axis(latency: bool, name: str) -> tuple[str, str, Callable[[float], str]]:
    if latency:
        return "latency_p50_us", "median latency", micros
    return ("content_bytes_per_s", "content, B/s", short) if name == "files" else (THROUGHPUT, "requests/s", short)


def _legend(look: Look, cells: Iterable[Cell]) -> tuple[tuple[str, int, str, int | None], ...]:
    """Designs, each told by its own line's mark."""
    shown = {look.key(cell): cell for cell in cells}
    return tuple(
        (f"m dot {look.colour(cell)}", look.shape(cell), look.name(cell), key) for key, cell in sorted(shown.items())
    )


def _lines(
    contexts: list[Context], look: Look, name: str, metric: str, label: Callable[[float], str]
) -> Callable[[float], _Drawn]:
    """Lines by a number. metric: a column, or "": the ratio to the baseline."""
    series: dict[int, list[tuple[float, Estimate, Context, Cell]]] = defaultdict(list)
    for context in contexts:
        for cell in look.lines(context):
            figure = cell.figures.get(metric or context.metric)
            estimate = figure and (figure.value if metric else figure.ratio)
            if not metric and cell.baseline:
                estimate = Estimate(1.0, 1.0, 1.0, cell.trials, 1.0)
            if estimate:
                series[look.key(cell)].append((float(context.levels[name]), estimate, context, cell))
    points = [point for some in series.values() for point in some]
    levels = sorted({x for x, *_ in points}) or [1.0, 2.0]
    values = [estimate.value for _, estimate, _, _ in points] or [1.0]

    def draw(width: float) -> _Drawn:
        height = 250.0
        x = Scale(levels[0], levels[-1], 54, width - 14, log=True)
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
            lambda tick: wording.value(name, f"{tick:.0f}" if name == "files" else tick),
            _UNITS[name],
            ticks,
        )
        for key, some in series.items():
            cell = some[0][3]
            kind = f"{look.colour(cell)}{' dashed' if cell.floor else ''}"
            drawn.append(plot.curve([(x(at), y(one.value)) for at, one, *_ in some], f"m line {kind}", data_k=key))
            for at, estimate, context, cell in some:
                if not metric and estimate.bounded and not cell.baseline:
                    ends = [(x(at), y(estimate.low)), (x(at), y(estimate.high))]
                    drawn.append(plot.curve(ends, f"m thin {kind}", data_k=key))
                drawn.append(
                    look.mark(cell, x(at), y(estimate.value), tip(context, cell, *_absolute(metric, estimate)))
                )
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


def _heat(study: Study, look: Look) -> Figure | None:
    """Two factors against each other."""
    counts = {
        name: len({cell.design[name] for cell in look.cells if cell.design.get("source") != "direct"})
        for name in look.factors
        if name != "source"
    }
    pairs = [("command", "data"), ("depth", "chunk_bytes"), ("cache_threads", "proxy_threads")]
    pair = next((pair for pair in pairs if all(counts.get(name, 0) > 1 for name in pair)), None)
    if not pair and len(counts) > 1:
        pair = (sorted(counts, key=lambda name: counts[name])[-2], max(counts, key=lambda name: counts[name]))
    if not pair:
        return None
    panels = []
    for context in study.contexts:
        rest: dict[str, list[Cell]] = defaultdict(list)
        for cell in context.cells:
            others = {name: cell.design[name] for name in look.factors if name not in (*pair, "source")}
            if cell.design.get("source") != "direct":
                rest[wording.design(others)].append(cell)
        for about, cells in rest.items():
            if all(len({cell.design[name] for cell in cells}) > 1 for name in pair):
                title = ", ".join(filter(None, (context.label, about)))
                panels.append(Panel(title, _heat_panel(context, cells, look, pair)))
    down, right = (name.removesuffix("_bytes") for name in pair)
    return Figure(
        "pairs",
        f"{down.capitalize()} \u00d7 {right}",
        f"Each cell is a pair of {down} (down) and {right} (across): its ratio to the baseline. Blue is better than "
        "the baseline, orange is worse, and paler is nearer to it; what cannot be told from it is in italics.",
        panels[:MOST_PANELS],
        1 if counts[pair[1]] > 6 else 2,
        _left_out(study, 10**9),
    )


def _order_of(cells: Iterable[Cell], name: str) -> list[Any]:
    given = list(dict.fromkeys(cell.design[name] for cell in sorted(cells, key=lambda cell: cell.number)))
    return sorted(given) if all(isinstance(one, int | float) for one in given) else given


def _heat_panel(context: Context, cells: list[Cell], look: Look, pair: tuple[str, str]) -> Callable[[float], _Drawn]:
    down, right = (_order_of(cells, name) for name in pair)
    at = {(cell.design[pair[0]], cell.design[pair[1]]): cell for cell in cells}
    less = context.metric == MEDIAN_LATENCY

    def draw(width: float) -> _Drawn:
        names = [wording.value(pair[0], one) or "own" for one in down]
        left = min(max(map(len, names)) * plot.LETTER + 10, width * 0.3)
        wide, high = (width - left) / len(right), 26
        drawn, top = plot.heads([wording.value(pair[1], one) or "own" for one in right], left, wide)
        for row, (one, name) in enumerate(zip(down, names, strict=True)):
            y = top + row * high
            drawn.append(words(left - 8, y + 17, plot.clip(name, left - 8), "label", "end"))
            for column, other in enumerate(right):
                cell = at.get((one, other))
                if cell:
                    drawn += _heat_cell(context, cell, look, left + column * wide, float(y), wide, high, less)
        return drawn, top + len(down) * high + 8.0

    return draw


def _heat_cell(
    context: Context, cell: Cell, look: Look, x: float, y: float, wide: float, high: float, less: bool
) -> list[Markup]:
    figure = cell.figures.get(context.metric)
    ratio = figure.ratio.value if figure and figure.ratio else 1.0 if cell.baseline else None
    if ratio is None:
        return []
    better = -math.log2(ratio) if less else math.log2(ratio)
    step = min(4, round(abs(better) * 5))
    shade = f"{'up' if better > 0 else 'down'}{step}" if step else "even"
    quiet = "" if cell.baseline or (figure and figure.verdict not in ("cannot tell", "withheld", "")) else " open"
    key = look.key(cell)
    return [
        el(
            "rect",
            x=x + 1,
            y=y + 1,
            width=wide - 2,
            height=high - 2.0,
            rx=3,
            class_=f"m heat {shade}",
            data_k=key,
            data_tip=tip(context, cell),
        ),
        el(
            "text",
            f"{ratio:.2f}",
            x=x + wide / 2,
            y=y + 17,
            text_anchor="middle",
            class_=f"m in-{shade} heat-text{quiet}",
            data_k=key,
        ),
    ]


def _spectrum(study: Study, look: Look, details: Details) -> Figure | None:
    """The whole distribution of latency."""
    panels, shown = [], []
    for context in study.contexts[:MOST_PANELS]:
        found = [(cell, details.spectrum(cell)) for cell in look.lines(context)]
        found = [(cell, some) for cell, some in found if len(some) > 1]
        if found:
            panels.append(Panel(context.label, _spectrum_panel(context, found, look)))
            shown += [cell for cell, _ in found]
    whole = bool(details.latencies)
    return Figure(
        "latency",
        "Latency, all of it",
        "How long the slowest share of the replies took: both axes are logarithmic, so that the tail is seen. "
        + ("All replies of a cell's trials together. " if whole else "Medians of the trials' percentiles. ")
        + f"Dashed: fewer than {FIRM} replies are above, single events.",
        panels,
        3,
        look.of_lines,
        _legend(look, shown),
    )


def _percent(above: float) -> str:
    return f"p{100 * (1 - above):.6g}"


def _spectrum_panel(
    context: Context, found: list[tuple[Cell, list[Percentile]]], look: Look
) -> Callable[[float], _Drawn]:
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
            key, kind = look.key(cell), f"m line {look.colour(cell)}"
            points = [(x(-math.log10(one.above)), y(one.us)) for one in some]
            firm = sum(one.beyond >= FIRM for one in some)
            if firm > 1:
                drawn.append(plot.curve(points[:firm], f"{kind}{' dashed' if cell.floor else ''}", data_k=key))
            if firm < len(points):
                drawn.append(plot.curve(points[max(0, firm - 1) :], f"{kind} loose", data_k=key))
            for above in ticks:
                near = min(some, key=lambda one: abs(math.log(one.above / above)))
                if abs(math.log(near.above / above)) < 0.1:
                    text = tip(context, cell, f"{_percent(above)}: {micros(near.us)}, {near.beyond:.0f} replies above")
                    drawn.append(look.mark(cell, x(-math.log10(near.above)), y(near.us), text, 3.5))
        return drawn, height + 38

    return draw


def _cpu(study: Study, look: Look, details: Details) -> Figure | None:
    """CPU time of a request by role and mode."""
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        found = [(cell, details.cpu(cell)) for cell in few(context.cells, MOST_ROWS // 2)]
        found = [(cell, parts) for cell, parts in found if sum(parts.values()) > 0]
        if found:
            panels.append(Panel(context.label, _cpu_panel(context, found, look)))
    return Figure(
        "cpu",
        "Where the CPU time goes",
        "CPU time of a request: the processes of each role, in user mode (pale) and in the kernel. Totals are exact; "
        "how a total is parted is sampled.",
        panels,
        look.columns,
        _left_out(study, MOST_ROWS // 2),
        tuple((f"{role}-{mode}", -1, f"{role}, {mode}", None) for role in ROLES for mode in MODES),
    )


def _cpu_panel(
    context: Context, found: list[tuple[Cell, Mapping[tuple[str, str], float]]], look: Look
) -> Callable[[float], _Drawn]:
    most = max(sum(parts.values()) for _, parts in found)

    def draw(width: float) -> _Drawn:
        left = min(max(len(look.name(cell)) for cell, _ in found) * plot.LETTER + 14, width * 0.42)
        x = Scale(0, most * 1.02, left, width - 50)
        bottom = len(found) * 21 + 4
        drawn = plot.across(x, 0, bottom, short, "CPU time of a request, \u00b5s")
        for row, (cell, parts) in enumerate(found):
            y, begin, key = row * 21 + 3.0, 0.0, look.key(cell)
            drawn.append(
                el(
                    "text",
                    plot.clip(look.name(cell), left - 12),
                    x=left - 10,
                    y=y + 13,
                    text_anchor="end",
                    class_=f"m label{' floor-name' if cell.floor else ''}",
                    data_k=key,
                )
            )
            lines = [f"{role}, {mode}: {number(spent)} \u00b5s" for (role, mode), spent in parts.items() if spent]
            for (role, mode), spent in parts.items():
                if spent:
                    drawn.append(
                        el(
                            "rect",
                            x=x(begin),
                            y=y,
                            width=max(0.3, x(begin + spent) - x(begin)),
                            height=16.0,
                            class_=f"m part {role}-{mode}",
                            data_k=key,
                            data_tip=tip(context, cell, *lines),
                        )
                    )
                    begin += spent
            drawn.append(el("text", number(begin), x=x(begin) + 6, y=y + 13, class_="m value", data_k=key))
        return drawn, bottom + 38.0

    return draw


def _symbols(study: Study, look: Look, details: Details) -> list[Figure]:
    """Symbols that the perf probe saw."""
    panels = []
    for context in study.contexts[:MOST_PANELS]:
        cells = [cell for cell in context.cells if cell.number in details.symbols][:16]
        for role in ROLES:
            shares = {look.key(cell): details.symbols[cell.number].get(role, {}) for cell in cells}
            totals: dict[str, float] = defaultdict(float)
            for some in shares.values():
                for symbol, share in some.items():
                    totals[symbol] += share
            top = sorted(totals, key=lambda symbol: -totals[symbol])[:14]
            if top:
                panels.append(
                    Panel(f"{role}, {context.label}", _symbols_panel(context, role, cells, look, shares, top))
                )
    figure = Figure(
        "symbols",
        "Where in the code",
        "Shares of each role's CPU samples by symbol, from trials of their own for the perf probe; darker is more. "
        "Sampling slows a trial down, so these are shares, not times.",
        panels[: 2 * MOST_PANELS],
        2 if len(details.symbols) and max(len(one.cells) for one in study.contexts) <= 7 else 1,
    )
    return [figure] if panels else []


def _symbols_panel(
    context: Context,
    role: str,
    cells: list[Cell],
    look: Look,
    shares: Mapping[int, Mapping[str, float]],
    symbols: list[str],
) -> Callable[[float], _Drawn]:
    def draw(width: float) -> _Drawn:
        left = min(230.0, width * 0.42)
        wide, high = min(90.0, (width - left) / len(cells)), 22
        drawn, top = plot.heads([look.name(cell) for cell in cells], left, wide)
        for row, symbol in enumerate(symbols):
            y = top + row * high
            drawn.append(words(left - 8, y + 15, plot.clip(symbol, left - 8), "label", "end"))
            for column, cell in enumerate(cells):
                share = shares[look.key(cell)].get(symbol, 0.0)
                shade = f"up{min(4, math.ceil(share * 12))}" if share >= 0.005 else "even"
                text = f"{cell.label}\n{context.label}\n{role}: {symbol}\n{100 * share:.1f} % of the role's samples"
                drawn.append(
                    el(
                        "rect",
                        x=left + column * wide + 1,
                        y=y + 1,
                        width=wide - 2,
                        height=high - 2.0,
                        rx=2,
                        class_=f"m heat {shade}",
                        data_k=look.key(cell),
                        data_tip=text,
                    )
                )
                if share >= 0.01 and wide > 24:
                    drawn.append(
                        el(
                            "text",
                            f"{100 * share:.0f}",
                            x=left + (column + 0.5) * wide,
                            y=y + 15,
                            text_anchor="middle",
                            class_=f"m heat-text in-{shade}",
                            data_k=look.key(cell),
                        )
                    )
        return drawn, top + len(symbols) * high + 8.0

    return draw


def _order(study: Study, look: Look, details: Details, trials: Sequence[Trial]) -> Figure | None:
    """Each trial against the mean of its cell, in the order of the run."""
    points = []
    for context in study.contexts:
        for cell in context.cells:
            figure = cell.figures.get(context.metric)
            for row in cell.rows if figure else ():
                value = getattr(details.trials[row], context.metric)
                if value > 0:
                    points.append((row, value / cell.figures[context.metric].value.value, context, cell))
    if len(points) < 2:
        return None
    bad = [trial for trial in trials if trial.status != "ok"]
    blocks: dict[int, int] = {}
    for trial in trials:
        if trial.block > 0:
            blocks[trial.block] = min(blocks.get(trial.block, trial.trial), trial.trial)
    metric = "median latency" if study.contexts[0].metric == MEDIAN_LATENCY else "requests/s"
    return Figure(
        "order",
        "In the order of the run",
        "Each trial against the mean of its cell: a slope is drift, a gap is something that happened to the machine. "
        "Vertical lines begin a block; hollow marks are disturbed trials, crosses at the foot failed ones.",
        [
            Panel(
                f"{metric}, ratio to the cell's mean", _order_panel(points, bad, sorted(blocks.values()), look, details)
            )
        ],
    )


def _order_panel(
    points: list[tuple[int, float, Context, Cell]], bad: list[Trial], blocks: list[int], look: Look, details: Details
) -> Callable[[float], _Drawn]:
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
                trial = details.trials[row]
                text = (
                    f"trial {row}, block {trial.block}\n{cell.label}\n{context.label}\n{value:.3f} of the cell's mean"
                )
                text += f"\ndisturbed: {trial.disturbed}" if trial.disturbed else ""
                path = plot.marker(look.shape(cell), x(row), y(value), 3.2)
                kind = f"m dot {look.colour(cell)}{' hollow' if trial.disturbed else ''}"
                drawn.append(el("path", d=path, class_=kind, data_k=look.key(cell), data_tip=text))
        else:  # one path for all trials of a design: thousands of elements would make the page heavy
            dots: dict[int, list[str]] = defaultdict(list)
            for row, value, _, cell in points:
                dots[look.key(cell)].append(f"M{x(row):.0f} {y(value):.1f}h0")
            kinds = {look.key(cell): look.colour(cell) for *_, cell in points}
            drawn += [
                el("path", d="".join(some), class_=f"m many {kinds[key]}", data_k=key) for key, some in dots.items()
            ]
        for trial in bad[:MOST_MARKS]:
            at = x(trial.trial)
            text = f"trial {trial.trial}, block {trial.block}\n{trial.status}: {trial.reason}"
            drawn.append(el("path", d=f"M{at - 4:.1f} {height - 8}l8 8m0 -8l-8 8", class_="m cross", data_tip=text))
        return drawn, height + 38

    return draw


def changes(comparison: Comparison) -> Figure:
    """The cells of two runs: ratios of B to A."""
    pairs = comparison.pairs[: MOST_ROWS * 2]
    names = [wording.design(pair.levels) or "all trials" for pair in pairs]
    values = [1.0, *(pair.ratio.value for pair in pairs)]
    ends = [end for pair in pairs if pair.ratio.bounded for end in (pair.ratio.low, pair.ratio.high)]
    span = plot.around(
        [max(min([*values, *ends]), min(values) / 2), min(max([*values, *ends]), max(values) * 2)], log=True
    )

    def draw(width: float) -> _Drawn:
        left = min(max(map(len, names), default=0) * plot.LETTER + 14, width * 0.5)
        x = Scale(*span, left, width - 44, log=True)
        bottom = len(pairs) * 21 + 4
        drawn = plot.across(x, 0, bottom, "{:.3g}".format, f"{comparison.metric}, ratio of B to A", one=1.0)
        for row, (pair, name) in enumerate(zip(pairs, names, strict=True)):
            y, ratio = row * 21 + 13.0, pair.ratio
            kind = {"slower": "c1", "more": "c1", "faster": "c0", "less": "c0"}.get(pair.verdict, "floor")
            sides = f"A: {number(pair.first.value)}, B: {number(pair.second.value)}"
            text = "\n".join((name, sides, f"B to A: {told(ratio)}", f"verdict: {pair.verdict}"))
            drawn.append(
                el(
                    "text",
                    plot.clip(name, left - 12),
                    x=left - 10,
                    y=y + 4,
                    text_anchor="end",
                    class_="m label",
                    data_k=row,
                )
            )
            if ratio.bounded:
                drawn.append(_interval(x, y, ratio, f"m bar {kind}", row))
            drawn.append(
                el("path", d=plot.marker(0, x(ratio.value), y), class_=f"m dot {kind}", data_k=row, data_tip=text)
            )
            drawn.append(
                el("text", f"{ratio.value:.2f}", x=width, y=y + 4, text_anchor="end", class_="m value", data_k=row)
            )
        return drawn, bottom + 38.0

    note = (
        f"Drawn are the first {len(pairs)} of {len(comparison.pairs)} cells."
        if len(pairs) < len(comparison.pairs)
        else ""
    )
    return Figure(
        "changes",
        "What changed",
        "Each cell of both runs: the ratio of B to A, with intervals that hold all at once.",
        [Panel(comparison.metric, draw)],
        1,
        note,
    )


def levels(trials: Sequence[Trial]) -> tuple[list[str], dict[str, Any]]:
    """The factors that vary over trials, and those that do not with what they are."""
    seen = {name: {getattr(trial, name) for trial in trials} for name in FACTORS if name != "control"}
    varying = [name for name, given in seen.items() if len(given) > 1]
    return varying, {name: next(iter(given)) for name, given in seen.items() if len(given) == 1}
