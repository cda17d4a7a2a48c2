"""Prints what a study says: a table for each context, then claims, advice, and what one has to know about them.

`harness show DIR` prints it from the files of a run, as `harness run` did at its end.
"""

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis import naming, run_files
from harness.results import Trial

if TYPE_CHECKING:  # numpy and scipy are only loaded where something is analysed
    from harness.analysis.study import Cell, Context, Study

WIDTH = 120  # where the output is no terminal
_ROOM = 150  # columns of a terminal that has room for plots
_PLOT = 25  # characters of one


def main(argv: Sequence[str]) -> int:
    """Print the summary of a run's files. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="harness show",
        description="Print the tables of a run again, from its files.",
        epilog="Exit codes: 0 printed, 2 there are no such files. docs/statistics.md says what intervals mean.",
    )
    parser.add_argument("directory", metavar="DIR", help="a directory that `harness run` wrote")
    args = parser.parse_args(argv)

    def body() -> int:
        show(*run_files.load(args.directory))
        return 0

    return run_files.main("show", body)


def show(trials: Iterable[Trial], experiment: Mapping[str, Any] | None = None) -> None:
    """Print the summary of a study's trials. experiment: what `study.analyse` takes. Raises ValueError."""
    from harness.analysis import study  # noqa: PLC0415

    render(study.analyse(trials, experiment or {}))


def render(study: "Study") -> None:
    """Print a study."""
    screen = console()
    for context in study.contexts:
        screen.print(_table(study, context, screen.width >= _ROOM))
    lines = [one.sentence for one in study.crossovers]
    lines += [f"Claim {answer.outcome}: {answer.claim.text}" for answer in study.answers]
    lines += [study.control.line, *study.notes]
    lines += [f"No good trial: {label} ({reason})" for label, reason in study.missing]
    lines.append(
        "requests/s: geometric mean of the trials, their smallest and largest. CPU us: proxy and cache, a request. "
        "floor: what the harness itself costs. Unbeaten: no other one is told to be faster at any of these sizes."
    )
    tell(screen, lines)


def tell(screen: Console, lines: Iterable[str]) -> None:
    """Print lines as they are."""
    for line in lines:
        screen.print(line, markup=False, highlight=False)


def console() -> Console:
    """Standard output for tables: as wide as the terminal, or as this project's pages."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=WIDTH)


def _table(study: "Study", context: "Context", plots: bool = False) -> Table:
    counts = sorted({cell.trials for cell in context.cells})
    trials = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    table = Table(
        title=f"{context.label} ({trials} {'trials' if counts[-1] > 1 else 'trial'} a cell)",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    rivals = [cell for cell in context.cells if not cell.floor] or context.cells
    names = [name for name in study.compared if len({cell.design[name] for cell in rivals}) > 1]
    names = names or [name for name in study.compared if name != "source"] or list(study.compared)
    for name in names:
        table.add_column(name, overflow="fold")
    ratio = "p50 ratio" if context.metric.startswith("latency_") else "ratio"
    for head in ("requests/s", "min to max", ratio, "interval"):
        table.add_column(head, justify="right", no_wrap=True)
    if plots:
        table.add_column(f"{'1':^{_PLOT}}", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for head in ("MB/s", "CPU us", "p50 us", "p99 us"):
        table.add_column(head, justify="right", no_wrap=True)
    for cell, plot in zip(context.cells, _plots(context), strict=True):
        table.add_row(*_design(cell, names), *_figures(context, cell, [plot] if plots else []))
    return table


def _design(cell: "Cell", names: Sequence[str]) -> list[str]:
    levels = [naming.value(name, cell.design[name]) or "-" for name in names]
    if cell.design.get("source") == "direct" and "source" not in names:
        levels[0] = "direct"
    return levels


def _plots(context: "Context") -> list[str]:
    """The intervals of a context's ratios as lines of characters, 1 in the middle, on one logarithmic scale."""
    judged = [cell.figures.get(context.metric) for cell in context.cells]
    ratios = [figure.ratio if figure else None for figure in judged]
    far = max([abs(math.log(one.value)) for one in ratios if one], default=0) * 1.4 or 0.1
    half = _PLOT // 2

    def place(value: float) -> int:
        away = math.log(value) / far if value > 0 else -1.0
        return half + round(half * max(-1.0, min(1.0, away)))

    lines = []
    for ratio in ratios:
        line = [" "] * _PLOT
        if ratio and ratio.bounded:
            ends = place(ratio.low), place(ratio.high)
            line[ends[0] : ends[1] + 1] = "\u2500" * (ends[1] - ends[0] + 1)
        line[half] = "\u253c" if line[half] != " " else "\u2502"
        line[place(ratio.value) if ratio else half] = "\u25cf"
        lines.append("".join(line))
    return lines


def _figures(context: "Context", cell: "Cell", plots: Iterable[str]) -> Iterable[str | Text]:
    throughput = cell.figures.get("requests_per_s")
    yield f"{throughput.value.value:,.0f}" if throughput else "-"
    yield f"{throughput.least:,.0f} to {throughput.most:,.0f}" if throughput else "-"
    judged = cell.figures.get(context.metric)
    ratio = judged.ratio if judged else None
    yield f"{ratio.value:.2f}" if ratio else "1.00" if cell.baseline else "-"
    yield f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio and ratio.bounded else "-"
    yield from plots
    said = "baseline" if cell.baseline else "floor" if cell.floor else judged.verdict if judged else ""
    other = context.baseline and cell.wait != context.baseline.wait
    flags = f" {'*' if other else ''}{f'!{cell.disturbed}' if cell.disturbed else ''}".rstrip()
    yield Text(said + flags)
    for column, scale, places in (
        ("content_bytes_per_s", 1e6, 0),
        ("cpu_us_per_request", 1, 1),
        ("latency_p50_us", 1, 0),
        ("latency_p99_us", 1, 0),
    ):
        figure = cell.figures.get(column)
        yield f"{figure.value.value / scale:,.{places}f}" if figure else "-"
