"""What the harness's pipeline costs against the same one in C: runs benchmarks/native/pipeline.yaml, prints tables.

    make native
    .venv/bin/python benchmarks/pipeline.py DIR [--client c|python] [OPTION OF harness run...]

All cells of a block are alive at once, and its slices of load alternate. The client is the same for all: that in C, or
the harness's own; DIR/client says which. A run that ended early is resumed, with the client that it had.
"""

import argparse
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness import cli
from harness.analysis import intervals, run_files
from harness.analysis.cells import CellTrials, ContextTrials, StudyTrials
from harness.analysis.intervals import Estimate
from harness.measure import live
from harness.measure.live_programs import Clients
from harness.measure.starting import Command
from harness.units import show_size

NATIVE = Path(__file__).parent / "native"
STUDY = NATIVE / "pipeline.yaml"
BASE = "posix_shm", "workers"
_ROLES = ("proxy", "cache", "client")
_NAMES = {"": "harness", "workers": "C", "boss": "C, a boss accepts"}


class Row(NamedTuple):
    """A design in a context. per_second: requests. ratio: of its requests/s to those of BASE; None for BASE itself.
    micros: role -> (user, kernel) CPU time of a request, us. The sum is exact, and its parts are sampled, proc(5)."""

    name: str
    per_second: float
    ratio: Estimate | None
    micros: dict[str, tuple[float, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--client", choices=("c", "python"), default="c", help="%(default)s")
    args, others = parser.parse_known_args()
    client = args.client
    run = [str(STUDY), "-o", args.directory]
    if os.path.exists(f"{args.directory}/trials.csv"):
        client = Path(args.directory, "client").read_text().strip()
        run = ["--resume", args.directory]
    if client == "c":
        use_client(NATIVE / "load")
    try:
        code = cli.main(["run", *run, *others])
    finally:
        if os.path.isdir(args.directory):
            Path(args.directory, "client").write_text(client + "\n")
    if not code:
        print(f"The client: {'in C' if client == 'c' else 'of the harness'}.\n\n{written(args.directory)}")
    return code


def use_client(interpreter: Path) -> None:
    """Have live blocks run in this process start their clients by an interpreter, not as forks of this one."""

    def clients(*arguments: object) -> Clients:
        return Clients(*arguments[:3], partial(Command, interpreter=str(interpreter)))  # type: ignore[arg-type]

    live.Clients = clients  # type: ignore[assignment,misc]


def written(directory: str) -> str:
    """The tables of a run, in Markdown: one for each placement and size."""
    trials, _, slices = run_files.load_run(directory)
    contexts = StudyTrials(trials, slices).contexts(("data", "interpreter"), always=("files", "placement"))
    lines = []
    for context in sorted(contexts, key=lambda one: one.any_trial.placement != "same-core"):
        where = context.any_trial
        lines += [f"**{where.placement}, {show_size(where.file_size_bytes)}**", ""]
        lines += [
            "| pipeline | requests/s | to C | CPU of proxy, us (user) | of cache | of client |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for row in rows(context, len(contexts)):
            times = [f"{sum(row.micros[role]):,.0f} ({row.micros[role][0]:,.0f})" for role in _ROLES]
            ratio = f"{row.ratio.value:.2f} ({row.ratio.low:.2f} to {row.ratio.high:.2f})" if row.ratio else "1"
            lines.append(f"| {row.name} | {row.per_second:,.0f} | {ratio} | {' | '.join(times)} |")
        lines.append("")
    return "\n".join(lines)


def rows(context: ContextTrials, contexts: int) -> list[Row]:
    """The designs of a context that have good trials. contexts: of the run, whose intervals all hold at once."""
    base = next(cell for cell in context.good if _key(cell) == BASE)
    others = [cell for cell in context.good if cell is not base]
    ratios = intervals.means(
        [list(cell.log_ratios(base, "requests_per_s").values()) for cell in others],
        intervals.corrected(len(others) * contexts),
        ["alike"] * len(others),
    )
    found = dict(zip(map(_key, others), ratios, strict=True))
    return [_row(cell, found.get(_key(cell))) for cell in context.good]


def _row(cell: CellTrials, ratio: Estimate | None) -> Row:
    data, kind = _key(cell)
    rate = intervals.means([list(cell.logs("requests_per_s").values())])[0].value
    requests = sum(trial.requests_ended for trial in cell.trials)

    def micros(column: str) -> float:
        return sum(_column(cell, column)) * 1e6 / requests

    times = {role: (micros(f"{role}_user_s"), micros(f"{role}_kernel_s")) for role in _ROLES}
    return Row(f"{_NAMES[kind]}, `{data}`", rate, ratio, times)


def _column(cell: CellTrials, name: str) -> Iterable[float]:
    return (getattr(trial, name) for trial in cell.trials)


def _key(cell: CellTrials) -> tuple[str, str]:
    return cell.design["data"], os.path.basename(cell.design["interpreter"])


if __name__ == "__main__":
    sys.exit(main())
