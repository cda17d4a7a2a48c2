"""Ranks transports for each file size, in a table.

The ratio of a trial is taken within its block, to the block's fastest cell of that file size: noise that a block
shares falls out of it.
"""

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from harness.results import Trial

_WIDTH = 120  # where the output is no terminal


class Row(NamedTuple):
    """One cell. Medians over its trials; `low` and `high`: the smallest and the largest of their requests/s."""

    command: str
    data: str
    file_size_bytes: int
    trials: int
    requests_per_s: float
    low: float
    high: float
    ratio: float
    bytes_per_s: float
    cpu_us: float
    p50_us: float
    p99_us: float
    client_busy: float


def rank(trials: Iterable[Trial]) -> list[Row]:
    """The cells by file size, the fastest first. Failed trials are left out."""
    good = [trial for trial in trials if trial.status == "ok"]
    fastest: dict[tuple[int, int], float] = {}
    cells: dict[tuple[str, str, int], list[Trial]] = {}
    for trial in good:
        key = trial.block, trial.file_size_bytes
        fastest[key] = max(trial.requests_per_s, fastest.get(key, 0.0))
        cells.setdefault((trial.command, trial.data, trial.file_size_bytes), []).append(trial)
    rows = [
        Row(
            *cell,
            len(some),
            median(speeds := [one.requests_per_s for one in some]),
            min(speeds),
            max(speeds),
            median(one.requests_per_s / fastest[one.block, one.file_size_bytes] for one in some),
            median(one.content_bytes_per_s for one in some),
            median(one.cpu_us_per_request for one in some),
            median(one.latency_p50_us for one in some),
            median(one.latency_p99_us for one in some),
            median(one.client_busy for one in some),
        )
        for cell, some in cells.items()
    ]
    return sorted(rows, key=lambda row: (row.file_size_bytes, -row.requests_per_s))


def show(trials: list[Trial]) -> None:
    """Print the ranking of a study's trials."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    rows = rank(trials)
    for file_size in sorted({row.file_size_bytes for row in rows}):
        table = Table(title=f"{size(file_size)} files", title_justify="left", title_style="bold")
        table.add_column("command")
        table.add_column("data")
        for heading in ("requests/s", "of best", "min", "max", "MB/s", "CPU us/request", "p50 us", "p99 us"):
            table.add_column(heading, justify="right")
        for row in rows:
            if row.file_size_bytes == file_size:
                table.add_row(
                    row.command, row.data, f"{row.requests_per_s:,.0f}", f"{row.ratio:.2f}", f"{row.low:,.0f}",
                    f"{row.high:,.0f}", f"{row.bytes_per_s / 1e6:,.0f}", f"{row.cpu_us:,.1f}", f"{row.p50_us:,.0f}",
                    f"{row.p99_us:,.0f}",
                )  # fmt: skip
        console.print(table)
    print(_notes(trials, rows))


def _notes(trials: list[Trial], rows: list[Row]) -> str:
    failed = sum(trial.status != "ok" for trial in trials)
    notes = [
        "requests/s: median of the trials, with the smallest and the largest; `of best`: median ratio to the fastest "
        "of the same block.",
        "CPU: proxy and cache, user and kernel. `null` moves no content: it is the harness's own floor.",
    ]
    if rows:
        least = min(row.trials for row in rows)
        notes.append(f"Trials a cell: {least}; cells whose ranges overlap are not told apart.")
    if failed:
        notes.append(f"{failed} of {len(trials)} trials failed and are left out; `reason` in the CSV says why.")
    if any(row.client_busy > 0.9 for row in rows):
        notes.append("In some cells the client was busy over 90 % of the time: it may be the limit there.")
    return "\n".join(notes)


def size(count: int) -> str:
    """A number of bytes for people: 1536 B, 64 KiB, 3 MiB."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} B"
