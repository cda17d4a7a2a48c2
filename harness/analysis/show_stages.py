"""Prints where requests spend their time: a table of stages for each context that the probe `stages` looked at."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.stages import STAGES, WHOLE, Spread, Spreads, until
from harness.analysis.study import Cell, Context, Study

_STAGE, _CELL = 22, 24  # columns of the terminal for the name of a stage, and for a cell


def render(screen: Console, study: Study, stages: Mapping[int, Spreads]) -> None:
    """Print the tables. stages: by the number of a cell."""
    side_by_side = max(1, (screen.width - _STAGE) // _CELL)
    for context in study.contexts:
        cells = [cell for cell in context.cells if stages.get(cell.number)]
        for first in range(0, len(cells), side_by_side):
            screen.print(_table(context, cells[first : first + side_by_side], stages))


def _table(context: Context, cells: Sequence[Cell], stages: Mapping[int, Spreads]) -> Table:
    what = "message" if context.messages else "request"
    table = Table(
        title=f"Where a {what} spends its time, us: median (quartiles) of each stage. {context.label}".rstrip(),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("until")
    for cell in cells:
        table.add_column(Text(cell.label), justify="right", overflow="fold")
    own = [stages[cell.number] for cell in cells]
    for name in (*STAGES, WHOLE):
        if any(name in one for one in own):
            table.add_row(until(name), *(_text(one[name]) if name in one else "-" for one in own))
    return table


def _text(spread: Spread) -> str:
    low, median, high = (f"{one:,.1f}" if one < 1000 else f"{one:,.0f}" for one in spread[:3])
    return f"{median} ({low} to {high})"
