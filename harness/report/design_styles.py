"""How the designs of a study styles in all pictures, how many of them are drawn, and what a mark tells."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context, Study
from harness.report import plot
from harness.report.markup import Markup, el
from harness.report.plot import micros, number

COLOURS = 6
# Contexts and rows of a picture, lines of a plot, and single marks of one.
MOST_PANELS, MOST_ROWS, MOST_LINES, MOST_MARKS = 12, 32, 14, 1500


class DesignStyles:
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
                given = naming.design({name: base.design[name]})
                return alike, f"Drawn are those with the baseline's {name}, {given}. The tables have all."
        places = range(MOST_LINES)
        best = [self.key(cell) for place in places for one in study.contexts for cell in one.cells[place : place + 1]]
        chosen = list(dict.fromkeys([self.key(base), *best]))[:MOST_LINES]
        note = f"Drawn are {len(chosen)} of {len(self.cells)}: the best ones and the baseline. The tables have all."
        return set(chosen), note

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
        return naming.design({name: cell.design[name] for name in self.factors}) or cell.label

    def colour(self, cell: Cell) -> str:
        """The class of a cell's colour; floors are grey."""
        return "floor" if cell.floor else f"c{self._style[self.key(cell)] % COLOURS}"

    def shape(self, cell: Cell) -> int:
        """Its shape: one for each round through the colours."""
        return 3 if cell.floor else self._style[self.key(cell)] // COLOURS

    def mark(self, cell: Cell, x: float, y: float, tip: str, size: float = 4.5) -> Markup:
        """A marker of a cell."""
        path = plot.marker(self.shape(cell), x, y, size)
        return el("path", d=path, class_=f"m dot {self.colour(cell)}", data_k=self.key(cell), data_tip=tip)

    def legend(self, cells: Iterable[Cell]) -> tuple[plot.Entry, ...]:
        """Designs, each told by its own mark."""
        shown = {self.key(cell): cell for cell in cells}
        return tuple(
            (f"m dot {self.colour(cell)}", self.shape(cell), self.name(cell), key)
            for key, cell in sorted(shown.items())
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
            (f"{name.removesuffix('_bytes')}: {naming.value(name, given) or 'own'}", keys, "", 0)
            for (name, given), keys in levels.items()
        ]


def told(ratio: Estimate) -> str:
    """A ratio and its interval."""
    if not ratio.bounded:
        return f"{ratio.value:.3f}, no interval ({ratio.n} blocks)"
    return f"{ratio.value:.3f}, {ratio.low:.3f} to {ratio.high:.3f} at {100 * ratio.level:.4g} %, n = {ratio.n} blocks"


def _rows(cell: Cell) -> str:
    rows = ", ".join(map(str, cell.rows[:8]))
    return f"rows of trials.csv: {rows}" + (", \u2026" if len(cell.rows) > 8 else "")


def tip(context: Context, cell: Cell, *lines: str) -> str:
    """What a mark tells."""
    told_lines = [cell.label, context.label]
    figure = cell.measurements.get(context.metric)
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


def left_out(study: Study, most: int) -> str:
    """A note on what pictures of contexts leave out."""
    notes = []
    if len(study.contexts) > MOST_PANELS:
        notes.append(f"the first {MOST_PANELS} of {len(study.contexts)} contexts")
    if any(len(context.cells) > most for context in study.contexts):
        notes.append(f"{most} cells of a context: the best, the baseline, floors")
    return f"Drawn are {' and '.join(notes)}. The tables have all." if notes else ""
