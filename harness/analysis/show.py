"""`harness show`: prints a study: a table for each context, then the leaders, the claims, and the notes.

`harness show DIR` prints from the files of a run what `harness run` printed at its end.
"""

import argparse
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import results
from harness.analysis import naming, run_files
from harness.results import Trial

if TYPE_CHECKING:  # importing it loads numpy and scipy, which only an analysis needs
    from harness.analysis.slices import Slices
    from harness.analysis.study import Cell, Context, Study

WIDTH = 120  # columns, where the output is not a terminal
_PLOT = 25  # columns of a plot
_PLOTTED = f"{'1':^{_PLOT}}"  # the head of that column
_BETWEEN = 2  # columns between two of a table
_ABOVE = "us above floor"  # the head of a column
# Columns of a table that are shown where there is room for them, the most useful first.
_OPTIONAL = ("interval", _ABOVE, "p99 us", "CPU us", "p50 us", "MB/s", _PLOTTED, "min to max")
_STYLES = {"faster": "green", "slower": "red", "baseline": "bold", "floor": "dim"}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness show",
        description="Print the tables of a run again, from its files.",
        epilog="Exit codes: 0 printed, 2 DIR has no results. `harness docs statistics` says what the intervals mean, "
        "and what the keys of the JSON are.",
    )
    parser.add_argument("directory", metavar="DIR", help="a directory that `harness run` or `harness fleet run` wrote")
    parser.add_argument("--json", action="store_true", help="print the study as one JSON object, for programs")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the tables of a run from its files. Returns the exit code."""
    args = arguments().parse_args(argv)

    def body() -> int:
        if run_files.is_fleet(args.directory):
            return _show_fleet(args.directory, as_json=args.json)
        if args.json:
            print_json(*run_files.load_run(args.directory))
        else:
            show_run(args.directory)
        return 0

    return run_files.exit_code("show", body)


def _show_fleet(directory: str, *, as_json: bool) -> int:
    from harness.analysis import for_programs  # noqa: PLC0415
    from harness.analysis.fleet import files, study  # noqa: PLC0415
    from harness.analysis.fleet import for_programs as as_values  # noqa: PLC0415
    from harness.analysis.fleet.show import render as render_fleet  # noqa: PLC0415

    found = study.analyse(files.load(directory))
    if as_json:
        print(for_programs.text(as_values.of_study(found)))
    else:
        render_fleet(found)
    return 0


def show_run(directory: str) -> None:
    """Print the result of a run from its files, and where requests spend their time if a probe looked. Raises OSError,
    ValueError."""
    from harness.analysis import chart_data, show_stages, study  # noqa: PLC0415

    run = run_files.load_run(directory)
    found = study.analyse(*run)
    render(found)
    if os.path.exists(f"{directory}/{results.STAGES}"):
        show_stages.render(console(), found, chart_data.read(directory, run.trials, [results.STAGES]).stages)


def print_json(trials: Iterable[Trial], experiment: Mapping[str, Any], slices: "Slices | None") -> None:
    """Analyse the trials of a study and print the result as JSON. Raises ValueError."""
    from harness.analysis import for_programs, study  # noqa: PLC0415

    print(for_programs.text(for_programs.of_study(study.analyse(trials, experiment, slices))))


def render(study: "Study") -> None:
    """Print an analysed study."""
    from harness.analysis.crossovers import UNBEATEN  # noqa: PLC0415
    from harness.analysis.study import floors_of  # noqa: PLC0415

    screen = console()
    if study.coarse:
        print_lines(screen, [study.resolution_line, ""])
    for context in study.contexts:
        screen.print(_table(screen, study, context))
    lines = [one.sentence for one in study.crossovers] + [one.sentence for one in study.crossings]
    lines += [f"Claim {answer.outcome}: {answer.claim.text}" for answer in study.answers]
    lines += [study.control.line, *([study.resolution_line] if not study.coarse else []), *study.notes]
    lines += [f"No good trial: {label} ({reason})" for label, reason in study.missing]
    lines.append(
        "requests/s: geometric mean of the trials, then their smallest and largest. us more: microseconds a request "
        "beyond the baseline, of all the system's time (open loop: of median latency). CPU us: of proxy and cache, for "
        "each request. floor: what the harness itself costs."
    )
    if floors := ", ".join(floors_of(study.contexts)):
        lines.append(f"{_ABOVE}: microseconds a request beyond the floor of its shape, copying or not ({floors}).")
    if study.crossovers:
        lines.append(UNBEATEN)
    print_lines(screen, filter(None, lines))


def print_lines(screen: Console, lines: Iterable[str]) -> None:
    """Print lines without interpreting any markup in them."""
    for line in lines:
        screen.print(line, markup=False, highlight=False)


def console(width: int = WIDTH) -> Console:
    """Standard output for tables: as wide as the terminal, or of that width where the output is not a terminal."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=width)


def _table(screen: Console, study: "Study", context: "Context") -> Table:
    """The table of a context, with the columns that there is room for."""
    counts = sorted({cell.trials for cell in context.cells})
    trials = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    rivals = [cell for cell in context.cells if not cell.floor] or context.cells
    names = [name for name in study.compared if len({cell.design[name] for cell in rivals}) > 1]
    names = names or [name for name in study.compared if name != "source"] or list(study.compared)
    rows = [
        dict(zip(names, _design(cell, names), strict=True)) | _values(context, cell) | {_PLOTTED: plot}
        for cell, plot in zip(context.cells, _plots(context), strict=True)
    ]
    table = Table(
        title=f"{context.label} ({trials} {'trials' if counts[-1] > 1 else 'trial'} a cell)",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    heads = [head for head in rows[0] if head != _ABOVE or any(cell.above_floor for cell in context.cells)]
    shown = _fitting({head: [row[head] for row in rows] for head in heads}, screen.width)
    for head in shown:
        left = head in {*names, "verdict", _PLOTTED}
        names_fold = head in names  # with options they can be longer than a line
        table.add_column(head, justify="left" if left else "right", no_wrap=not names_fold, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[head], _STYLES.get(row[head].split(" ")[0], "")) for head in shown))
    return table


def _fitting(columns: Mapping[str, Sequence[str]], room: int) -> list[str]:
    """The heads of the columns that there is room for, in their order: those of least use are left out first."""
    widths = {head: max(map(len, (head, *texts))) + _BETWEEN for head, texts in columns.items()}
    shown = {head for head in columns if head not in _OPTIONAL}
    for head in filter(columns.__contains__, _OPTIONAL):
        if sum(widths[one] for one in (*shown, head)) > room:
            break
        shown.add(head)
    return [head for head in columns if head in shown]


def _design(cell: "Cell", names: Sequence[str]) -> list[str]:
    levels = [naming.value(name, cell.design[name]) or "-" for name in names]
    if cell.design.get("source") == "direct" and "source" not in names:
        levels[0] = "direct"
    return levels


def _plots(context: "Context") -> list[str]:
    """The intervals of a context's ratios drawn with characters: a line for each cell, all on one logarithmic scale
    with 1 in the middle."""
    measured = [cell.measurements.get(context.metric) for cell in context.cells]
    ratios = [one.ratio if one else None for one in measured]
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


def _difference(context: "Context", cell: "Cell") -> str:
    """How many microseconds more than the baseline a request takes, such as `+1.3 \u00b1 0.2`."""
    from harness.analysis.intervals import more  # noqa: PLC0415

    judged = cell.measurements.get(context.metric)
    return more(judged.difference) if judged and judged.difference else "-"


def _above_floor(cell: "Cell") -> str:
    from harness.analysis.intervals import more  # noqa: PLC0415

    return more(cell.above_floor.micros) if cell.above_floor else "-"


def _values(context: "Context", cell: "Cell") -> dict[str, str]:
    """The text of each column but those of the design, by its head."""
    throughput = cell.measurements.get("requests_per_s")
    judged = cell.measurements.get(context.metric)
    ratio = judged.ratio if judged else None
    places = context.resolution.places if context.resolution else 2
    verdict = "baseline" if cell.baseline else "floor" if cell.floor else judged.verdict if judged else ""
    other_wait = context.baseline and cell.wait != context.baseline.wait
    flags = f" {'*' if other_wait else ''}{f'!{cell.disturbed}' if cell.disturbed else ''}".rstrip()

    def measured(column: str, places: int, scale: float = 1) -> str:
        one = cell.measurements.get(column)
        return f"{one.value.value / scale:,.{places}f}" if one else "-"

    return {
        "requests/s": f"{throughput.value.value:,.0f}" if throughput else "-",
        "min to max": f"{throughput.least:,.0f} to {throughput.most:,.0f}" if throughput else "-",
        "p50 ratio" if context.metric.startswith("latency_") else "ratio": (
            f"{ratio.value:.{places}f}" if ratio else f"{1:.{places}f}" if cell.baseline else "-"
        ),
        "interval": f"{ratio.low:.{places}f} to {ratio.high:.{places}f}" if ratio and ratio.bounded else "-",
        "us more": _difference(context, cell),
        _ABOVE: _above_floor(cell),
        "verdict": verdict + flags,
        "MB/s": measured("content_bytes_per_s", 0, 1e6),
        "CPU us": measured("cpu_us_per_request", 1),
        "p50 us": measured("latency_p50_us", 0),
        "p99 us": measured("latency_p99_us", 0),
    }
