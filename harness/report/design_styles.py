"""The styles of a study's designs: the number, the short name, the colour and the shape that a design has in all
charts."""

from collections import defaultdict
from typing import Any

from harness.analysis import naming
from harness.analysis.study import Cell, Context, Study
from harness.report import plot
from harness.report.limits import MOST_LINES
from harness.report.markup import Markup, el

COLOURS = 6


class DesignStyles:
    """The style of each design of a study. A design is the compared factors of a cell: it occurs in many contexts.

    A short name leaves out the factors that are the same in all designs.
    """

    def __init__(self, study: Study) -> None:
        cells = {cell.label: cell for context in study.contexts for cell in context.cells}
        self.cells = sorted(cells.values(), key=lambda cell: cell.number)
        self._number = {cell.label: number for number, cell in enumerate(self.cells)}
        rivals = [cell for cell in self.cells if cell.design.get("source") != "direct"] or self.cells
        self.factors = [name for name in study.compared if len({cell.design[name] for cell in rivals}) > 1]
        self._style: dict[int, int] = {}
        self._drawn, self.of_lines = self._chosen_lines(study)
        for cell in self.cells:
            if not cell.floor:
                self._style[self.key(cell)] = len(self._style)

    def _chosen_lines(self, study: Study) -> tuple[set[int], str]:
        """The designs that are drawn as lines, the same ones in all charts, and a sentence on which these are."""
        if len(self.cells) <= MOST_LINES:
            return {self.key(cell) for cell in self.cells}, ""
        base = next((context.baseline for context in study.contexts if context.baseline), self.cells[0])
        if len(self.factors) > 1:
            name = min(self.factors, key=lambda one: len({cell.design[one] for cell in self.cells}))
            alike = {self.key(cell) for cell in self.cells if cell.design[name] == base.design[name]}
            if 1 < len(alike) <= MOST_LINES + 2:
                given = naming.design({name: base.design[name]})
                return alike, f"The chart shows the designs with the baseline's {name}, {given}. The tables have all."
        places = range(MOST_LINES)
        best = [self.key(cell) for place in places for one in study.contexts for cell in one.cells[place : place + 1]]
        chosen = list(dict.fromkeys([self.key(base), *best]))[:MOST_LINES]
        note = f"The chart shows {len(chosen)} of {len(self.cells)} designs: the best ones and the baseline. "
        note += "The tables have all."
        return set(chosen), note

    def lines(self, context: Context) -> list[Cell]:
        """The cells of a context that are drawn as lines."""
        return [cell for cell in context.cells if self.key(cell) in self._drawn]

    @property
    def columns(self) -> int:
        """How many panels fit side by side in charts that have the names of designs beside the marks."""
        return 3 if max((len(self.name(cell)) for cell in self.cells), default=0) <= 13 else 2

    def key(self, cell: Cell) -> int:
        """The number of a cell's design. All marks of a design have it, in all charts and tables."""
        return self._number[cell.label]

    def name(self, cell: Cell) -> str:
        """The short name of a cell's design."""
        if cell.design.get("source") == "direct":
            return "direct"
        return naming.design({name: cell.design[name] for name in self.factors}) or cell.label

    def colour(self, cell: Cell) -> str:
        """The CSS class of the colour of a cell's design; floors are grey."""
        return "floor" if cell.floor else f"c{self._style[self.key(cell)] % COLOURS}"

    def shape(self, cell: Cell) -> int:
        """The shape of a cell's design, as plot.marker counts shapes. Each round through the colours has another
        one."""
        return 3 if cell.floor else self._style[self.key(cell)] // COLOURS

    def mark(self, cell: Cell, x: float, y: float, tooltip: str, size: float = 4.5) -> Markup:
        """The marker of a cell at a point."""
        path = plot.marker(self.shape(cell), x, y, size)
        return el("path", d=path, class_=f"m dot {self.colour(cell)}", data_k=self.key(cell), data_tip=tooltip)

    def chips(self) -> list[tuple[str, list[int], str, int]]:
        """What the buttons above the charts highlight: (name, numbers of designs, CSS class, shape).

        There is a button for each design, or, where designs are combinations of factors, for each level of a factor.
        """
        if len(self.factors) < 2:
            return [(self.name(cell), [self.key(cell)], self.colour(cell), self.shape(cell)) for cell in self.cells]
        levels: dict[tuple[str, Any], list[int]] = defaultdict(list)
        for name in self.factors:
            for cell in self.cells:
                if cell.design.get("source") != "direct":
                    levels[name, cell.design[name]].append(self.key(cell))
        return [
            (f"{name}: {naming.value(name, given) or 'own'}", keys, "", 0) for (name, given), keys in levels.items()
        ]
