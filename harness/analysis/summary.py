"""Ranks the cells of a study for each file size, in a table.

The ratio of a trial is taken within its block, to the block's fastest transport at that file size: noise that a
block shares falls out of it. The `null` transport moves nothing and is not one of those, unless there is no other.
"""

from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from harness.results import FACTORS, Trial

_WIDTH = 120  # where the output is no terminal
_ALWAYS = ("command", "data")
_FLOOR = "null"


class Row(NamedTuple):
    """One cell: its factors, and medians over its trials. `low`, `high`: the ends of their requests/s."""

    factors: tuple[tuple[str, object], ...]
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
    """The cells by file size, the fastest first, told apart by all factors that vary. Failed trials are left out."""
    good = [trial for trial in trials if trial.status == "ok" and trial.requests_per_s > 0]
    varying = [
        name for name in FACTORS if name in _ALWAYS or len({getattr(trial, name) for trial in good}) > 1
    ]
    fastest: dict[tuple[int, int], float] = {}
    cells: dict[tuple[tuple[str, object], ...], list[Trial]] = {}
    moving = [trial for trial in good if trial.source != "direct" and trial.data.partition(":")[0] != _FLOOR]
    for trial in moving or good:
        key = trial.block, trial.file_size_bytes
        fastest[key] = max(trial.requests_per_s, fastest.get(key, 0.0))
    for trial in good:
        cells.setdefault(tuple((name, getattr(trial, name)) for name in varying), []).append(trial)

    def row(factors: tuple[tuple[str, object], ...], some: list[Trial]) -> Row:
        def ratio(one: Trial) -> float:
            return one.requests_per_s / fastest.get((one.block, one.file_size_bytes), one.requests_per_s)

        def middle(value: Callable[[Trial], float]) -> float:
            return median(map(value, some))

        return Row(
            factors=tuple((name, level) for name, level in factors if name != "files"),
            file_size_bytes=some[0].file_size_bytes,
            trials=len(some),
            requests_per_s=middle(lambda one: one.requests_per_s),
            low=min(one.requests_per_s for one in some),
            high=max(one.requests_per_s for one in some),
            ratio=middle(ratio),
            bytes_per_s=middle(lambda one: one.content_bytes_per_s),
            cpu_us=middle(lambda one: one.cpu_us_per_request),
            p50_us=middle(lambda one: one.latency_p50_us),
            p99_us=middle(lambda one: one.latency_p99_us),
            client_busy=middle(lambda one: one.client_busy),
        )

    rows = [row(factors, some) for factors, some in cells.items()]
    return sorted(rows, key=lambda row: (row.file_size_bytes, -row.requests_per_s))


def show(trials: list[Trial]) -> None:
    """Print the ranking of a study's trials."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    rows = rank(trials)
    for file_size in sorted({row.file_size_bytes for row in rows}):
        some = [row for row in rows if row.file_size_bytes == file_size]
        table = Table(title=f"{size(file_size)} files", title_justify="left", title_style="bold")
        for name, _ in some[0].factors:
            table.add_column(name)
        for heading in ("requests/s", "min", "max", "of best", "MB/s", "CPU us/request", "p50 us", "p99 us"):
            table.add_column(heading, justify="right")
        for row in some:
            table.add_row(
                *(str(level) or "-" for _, level in row.factors), f"{row.requests_per_s:,.0f}", f"{row.low:,.0f}",
                f"{row.high:,.0f}", f"{row.ratio:.2f}", f"{row.bytes_per_s / 1e6:,.0f}", f"{row.cpu_us:,.1f}",
                f"{row.p50_us:,.0f}", f"{row.p99_us:,.0f}",
            )  # fmt: skip
        console.print(table)
    print(_notes(trials, rows))


def _notes(trials: list[Trial], rows: list[Row]) -> str:
    failed = sum(trial.status != "ok" for trial in trials)
    notes = [
        "requests/s: median of the trials, with the smallest and the largest. of best: median ratio to the fastest "
        "transport of the same block.",
        "CPU: proxy and cache, user and kernel. `null` moves no content: it is the harness's own floor.",
    ]
    if rows:
        least = min(row.trials for row in rows)
        notes.append(f"Trials a cell: {least}; cells whose ranges (min to max) overlap are not told apart.")
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
