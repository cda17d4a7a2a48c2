"""How much a chart draws. A sentence below the chart says what it leaves out; the tables have everything."""

from collections.abc import Sequence

from harness.analysis.study import Cell, Study

MOST_PANELS = 12  # contexts of a chart
MOST_ROWS = 32  # cells of a panel that has a row for each
MOST_LINES = 14  # lines of a panel
MOST_MARKS = 1500  # single marks of a panel


def few(cells: Sequence[Cell], most: int) -> list[Cell]:
    """At most `most` of the cells, which are ordered best first: the baseline and the floors, then the best ones."""
    if len(cells) <= most:
        return list(cells)
    always = [cell for cell in cells if cell.baseline or cell.floor][: most // 3]
    rest = [cell for cell in cells if cell not in always][: most - len(always)]
    return [cell for cell in cells if cell in always or cell in rest]


def left_out(study: Study, most_cells: int) -> str:
    """A sentence on what charts with a panel for each context leave out; empty where they leave nothing out."""
    drawn = []
    if len(study.contexts) > MOST_PANELS:
        drawn.append(f"the first {MOST_PANELS} of {len(study.contexts)} contexts")
    if any(len(context.cells) > most_cells for context in study.contexts):
        drawn.append(f"{most_cells} cells of a context (the best ones, the baseline, and floors)")
    return f"The chart shows {' and '.join(drawn)}. The tables have all." if drawn else ""
