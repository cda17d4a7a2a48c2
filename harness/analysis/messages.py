"""What `harness ipc` prints: a study of lanes in the words of messages between two processes.

First the answer, a line for each size: the best mechanism, and those in which no difference to it was found. Then the
sizes where the best one changes, what the run could resolve, and tables of mechanism x size.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.analysis import naming
from harness.analysis.cells import CPU_TIME, THROUGHPUT
from harness.analysis.crossovers import ladders
from harness.analysis.intervals import LEAST, more
from harness.analysis.resolution import percents
from harness.analysis.show import console, print_lines
from harness.analysis.study import Cell, Context, Study, floors_of
from harness.units import KIB, MIB

WIDTH = 80  # columns, where the output is not a terminal: it fits into a chat
_NAMED = 4  # mechanisms that a line names
_MARKDOWN_WIDTH = 1000  # columns: lines of a Markdown table are not folded
_MARGIN = 2  # columns between two of a table
_DEPTH = "lanes"  # the factor that says how many messages are in flight
_TOGETHER = {_DEPTH, "proxy_threads", "cache_threads"}  # the factors that move with it
# Names of placements, as this page has them.
_WHERE = {"same-core": "both processes on one core", "spread": "each process on a core of its own"}


def render(
    study: Study,
    about: Iterable[str],
    markdown: bool = False,
    fixed: Mapping[str, Any] = {},
    sockets: Collection[str] = (),
) -> None:
    """Print it. about: lines that say what was measured, which come after the tables. fixed: levels that do not vary,
    for titles. sockets: mechanisms that end in a socket, which are marked."""
    marks = {cell.label: _mark(cell, sockets) for context in study.contexts for cell in context.cells}
    screen = Console(width=_MARKDOWN_WIDTH) if markdown else console(WIDTH)
    for levels, contexts in ladders(study.contexts, lambda context: context.levels):
        title = _title({**fixed, **levels})
        print_lines(screen, [f"### {title}" if markdown else title.upper(), ""])
        _print(screen, _answer(contexts, marks), markdown)
        lines = [f"{one.line}." for one in study.crossings if one.levels == levels]
        print_lines(screen, _spaced([*lines, _resolution(contexts), ""], markdown))
        for head, text in _tables(contexts):
            _print_tables(screen, head, _matrices(screen, contexts, text, marks), markdown)
    for head, table in _by_depth(study, marks, fixed):
        _print_tables(screen, head, [table], markdown)
    lines = [f"No good figures: {label} ({reason})" for label, reason in study.missing]
    print_lines(screen, _spaced([*about, study.control.line, *study.cautions, *lines], markdown))


def _spaced(lines: Iterable[str], markdown: bool) -> Iterator[str]:
    """In Markdown each is a paragraph of its own."""
    for line in lines:
        yield line
        if markdown and line:
            yield ""


def _resolution(contexts: Iterable[Context]) -> str:
    """What the run could resolve, in a sentence."""
    found = [context.resolution for context in contexts if context.resolution]
    if not found:
        return "There is nothing to compare."
    far = [one.median for one in found if math.isfinite(one.median)]
    if not far:
        return f"Too few blocks to tell differences: an interval needs {LEAST}, so give it more time with --budget."
    blocks = min(one.blocks for one in found)
    return (
        f"Differences under {percents(min(far), max(far))}, as the size may be, are not seen here (half of the "
        f"mechanisms do better; {blocks} blocks)."
    )


def _title(levels: Mapping[str, Any]) -> str:
    where = _WHERE.get(str(levels.get("placement")))
    depth = levels.get(_DEPTH, 1)
    flight = f"{depth} in flight" if depth > 1 else ""
    others = {
        name: level for name, level in levels.items() if name not in _TOGETHER and (name != "placement" or not where)
    }
    return ", ".join(filter(None, (where, naming.label(others), flight))) or "all messages"


def _size(context: Context) -> str:
    return naming.value("files", context.levels["files"])


def _print_tables(screen: Console, head: str, tables: Iterable[Table], markdown: bool) -> None:
    print_lines(screen, [f"**{head}**\n" if markdown else head])
    for table in tables:
        _print(screen, table, markdown)
    print_lines(screen, [""])


def _print(screen: Console, table: Table, markdown: bool) -> None:
    if not markdown:
        screen.print(table)
        return
    table.box = box.MARKDOWN
    with screen.capture() as captured:
        screen.print(table)
    lines = (line.rstrip() for line in captured.get().splitlines())
    print_lines(screen, [*filter(None, lines), ""])


def _table(heads: Iterable[str], left: int) -> Table:
    """left: how many columns, the first ones, have their text at the left."""
    table = Table(box=None, padding=(0, _MARGIN, 0, 0), pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < left else "right", no_wrap=True)
    return table


def _mark(cell: Cell, sockets: Collection[str]) -> str:
    """The label of a cell, with a star where it is a floor, and a plus where it ends in a socket."""
    return f"{cell.label}{' *' if cell.floor else ''}{' +' if cell.design.get('data') in sockets else ''}"


def _answer(contexts: Iterable[Context], marks: Mapping[str, str]) -> Table:
    """For each size the best mechanism, its mean time, those in which no difference to it was found, and the next."""
    table = _table(("message", "best", "mean us", "no difference found", "next, us more"), 2)
    table.columns[3].justify = table.columns[4].justify = "left"
    table.columns[3].no_wrap = table.columns[4].no_wrap = False
    for context in contexts:
        leading = [cell.label for cell in context.leaders]
        if not leading:
            table.add_row(_size(context), "-", "-", "not said; see below", "")
            continue
        best, *tied = context.leaders
        named = [marks[cell.label] for cell in tied[:_NAMED]] + (
            [f"{len(tied) - _NAMED} more"] if len(tied) > _NAMED else []
        )
        rest = next((cell for cell in context.cells if cell.label not in leading and not cell.floor), None)
        further = f"{marks[rest.label]} {_apart(rest, best):+.1f}" if rest else ""
        table.add_row(_size(context), marks[best.label], _figure(_micros(best)), ", ".join(named) or "none", further)
    return table


def _micros(cell: Cell) -> float:
    """The mean time of a message in microseconds: of the whole system's, where several are in flight."""
    return 1e6 / cell.measurements[THROUGHPUT].value.value


def _apart(cell: Cell, best: Cell) -> float:
    """Microseconds that a message takes more with a cell than with the best one: by their differences to the baseline,
    which are taken within rounds, where both have one."""
    own, of_best = _beyond_baseline(cell), _beyond_baseline(best)
    if own is None or of_best is None:
        return _micros(cell) - _micros(best)
    return own - of_best


def _beyond_baseline(cell: Cell) -> float | None:
    difference = cell.measurements[THROUGHPUT].difference
    return 0.0 if cell.baseline else difference.value if difference else None


def _tables(contexts: list[Context]) -> Iterator[tuple[str, Callable[[Context, Cell], str]]]:
    """(what a table has, the text of one of its places)."""
    base = next((context.baseline.label for context in contexts if context.baseline), "")
    yield (
        "microseconds for a round trip: median / 99 % of them take at most (~ no difference to the best was found)",
        _latency,
    )
    if base:
        yield f"microseconds that a message takes more than over {base}", _more
    if floors := ", ".join(floors_of(contexts)):
        yield f"microseconds that a message takes more than over the floor of its shape ({floors})", _above
    yield "messages or bytes a second, and CPU microseconds of both processes for a message", _rate


def _matrices(
    screen: Console, contexts: list[Context], text: Callable[[Context, Cell], str], marks: Mapping[str, str]
) -> Iterator[Table]:
    """Tables of mechanism x size, each with as many sizes as the screen has room for."""
    rows: dict[str, dict[str, str]] = {}
    floors = set()
    for context in contexts:
        for cell in context.cells:
            rows.setdefault(cell.label, {})[_size(context)] = text(context, cell)
            floors |= {cell.label} if cell.floor else set()
    order = sorted(rows, key=lambda label: (label in floors, label))
    sizes = [_size(context) for context in contexts]
    names = max(len(marks[label]) for label in order) + _MARGIN
    widths = [max(len(size), *(len(one.get(size, "-")) for one in rows.values())) + _MARGIN for size in sizes]
    while sizes:
        count = 1
        while count < len(sizes) and names + sum(widths[: count + 1]) <= screen.width:
            count += 1
        table = _table(("", *sizes[:count]), 1)
        for label in order:
            table.add_row(marks[label], *(rows[label].get(size, "-") for size in sizes[:count]))
        yield table
        sizes, widths = sizes[count:], widths[count:]


def _by_depth(study: Study, marks: Mapping[str, str], fixed: Mapping[str, Any]) -> Iterator[tuple[str, Table]]:
    """Where several numbers of messages were in flight: for each place and size, the mechanism that carries most."""
    depths = sorted({context.levels[_DEPTH] for context in study.contexts if _DEPTH in context.levels})
    if len(depths) < 2:
        return
    rows: dict[str, dict[int, tuple[Context, Cell]]] = {}
    for context in study.contexts:
        cells = [cell for cell in context.cells if not cell.floor and THROUGHPUT in cell.measurements]
        if cells:
            levels = {**fixed, **context.levels}
            where = {name: level for name, level in levels.items() if name not in {*_TOGETHER, "files"}}
            best = max(cells, key=lambda cell: cell.measurements[THROUGHPUT].value.value)
            rows.setdefault(f"{_size(context)}, {_title(where)}", {})[context.levels[_DEPTH]] = context, best
    table = _table(("", *(f"{depth} in flight" for depth in depths)), 1)
    for label, found in rows.items():
        if found.keys() == {*depths}:
            texts = (found[depth] for depth in depths)
            table.add_row(label, *(f"{marks[cell.label]} {_carried(context, cell)}" for context, cell in texts))
    yield "what the mechanism carries that carried most, as more messages are in flight", table


def _carried(context: Context, cell: Cell) -> str:
    """Messages or bytes a second."""
    rate = cell.measurements[THROUGHPUT].value.value
    if context.file_size_bytes < 4 * KIB:
        return f"{rate / 1e3:.3g} k/s"
    return f"{rate * context.file_size_bytes / MIB:,.0f} MiB/s"


def _latency(context: Context, cell: Cell) -> str:
    median, most = (cell.measurements.get(f"latency_{name}_us") for name in ("p50", "p99"))
    if not median or not most:
        return "-"
    mark = "~" if len(context.leaders) > 1 and cell in context.leaders else ""
    return f"{mark}{_figure(median.value.value)} / {_figure(most.value.value)}"


def _more(_: Context, cell: Cell) -> str:
    judged = cell.measurements.get(THROUGHPUT)
    return more(judged.difference) if judged and judged.difference else "0" if cell.baseline else "-"


def _above(_: Context, cell: Cell) -> str:
    return more(cell.above_floor.micros) if cell.above_floor else "-"


def _rate(context: Context, cell: Cell) -> str:
    if THROUGHPUT not in cell.measurements:
        return "-"
    cpu = cell.measurements.get(CPU_TIME)
    return f"{_carried(context, cell)}{f', {_figure(cpu.value.value)}' if cpu else ''}"


def _figure(micros: float) -> str:
    return f"{micros:.1f}" if micros < 100 else f"{micros:,.0f}"
