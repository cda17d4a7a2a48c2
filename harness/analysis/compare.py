"""`harness compare`: two runs of the same cells, such as before and after a change of the code.

The runs share no blocks, so a ratio is one of geometric means over all trials of each, with Welch's interval. It knows
how trials of one run scatter, and not how runs do: what else differed between the two is in it.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table as Grid

from harness.analysis import claims, naming, run_files, show
from harness.analysis.cells import Levels, Run, Table, applies
from harness.analysis.intervals import LEAST, Estimate, corrected, interval, means, unpaired
from harness.analysis.verdicts import MORE, SLOWER, WITHHELD, controls, verdict
from harness.factors import FACTORS
from harness.results import Trial

# What two runs must share to be compared; versions and commits of the harness are what one compares.
_ALIKE = ("host", "cpu", "cpus", "kernel", "python")
_VERSION = ("harness", "commit")
_WORSE = {SLOWER, MORE}


@dataclass(frozen=True)
class Pair:
    """One cell of both runs. levels: its factors that vary. first, second: geometric means, in the unit of the metric,
    each with its 95 % interval. ratio: second to first, corrected for all pairs."""

    levels: Levels
    first: Estimate
    second: Estimate
    ratio: Estimate
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """unlike: what differs between the machines of the runs; empty where nothing does. notes: sentences that belong
    beside the figures. withheld: whether verdicts are."""

    metric: str
    pairs: list[Pair]
    unlike: list[str]
    withheld: bool
    notes: list[str]


def main(argv: Sequence[str]) -> int:
    """Compare two runs. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="harness compare",
        description="Compare the cells that two runs share: the ratio of the second run to the first.",
        epilog="Exit codes: 0 no cell is slower, 1 some are, 3 verdicts are withheld since an A/A control is off, 2 "
        "the runs cannot be compared. Unpaired: what else differed between the runs is in the ratios, too.",
    )
    parser.add_argument("first", metavar="DIR_A", help="a directory that `harness run` wrote")
    parser.add_argument("second", metavar="DIR_B", help="another one")
    parser.add_argument("--metric", default="requests_per_s", help="a column of trials.csv (%(default)s)")
    parser.add_argument("--force", action="store_true", help="compare also where the machines differ")
    args = parser.parse_args(argv)

    def body() -> int:
        first, second = (run_files.load(one)[0] for one in (args.first, args.second))
        found = compare(first, second, args.metric)
        if found.unlike and not args.force:
            raise ValueError(f"the runs are not alike: {'; '.join(found.unlike)}; --force compares them all the same")
        _show(found)
        if any(pair.verdict in _WORSE for pair in found.pairs):
            return 1
        return 3 if found.withheld else 0

    return run_files.main("compare", body)


def compare(first: Iterable[Trial], second: Iterable[Trial], metric: str = "requests_per_s") -> Comparison:
    """The cells that two runs share. Raises ValueError where there are none, or where the metric is no number."""
    if metric not in claims.METRICS:
        raise ValueError(f"{metric}: no column of numbers in trials.csv")
    runs = [[trial for trial in run if not trial.probe] for run in (first, second)]
    cells = [_cells(run) for run in runs]
    shared = sorted(cells[0].keys() & cells[1].keys(), key=lambda key: cells[0][key].number)
    if not shared:
        raise ValueError("the runs share no cell with good trials")
    off = [told for run in runs if (told := controls(Table(run))[1](metric))]
    samples = [[list(some[key].logs(metric).values()) for key in shared] for some in cells]
    usable = [index for index in range(len(shared)) if samples[0][index] and samples[1][index]]
    varying = [index for index in range(len(_KEY)) if len({key[index] for key in shared}) > 1]
    pairs = []
    for index in usable:
        a, b = samples[0][index], samples[1][index]
        ratio = unpaired(b, a, corrected(len(usable)))
        levels = {_KEY[place]: shared[index][place] for place in varying}
        said = WITHHELD if off else verdict(ratio, metric)
        one, other = means([a, b])
        pairs.append(Pair(levels, one, other, ratio, said))
    notes = [
        f"Ratios of B to A, unpaired; each of {len(pairs)} intervals at {100 * corrected(len(pairs)):.4g} %, so that "
        "all hold at once with 95 % probability. What else differed between the runs is in them, too.",
        *(f"A/A control: OFF, and verdicts are withheld: {told}." for told in off),
    ]
    for name in _VERSION:
        before, after = (_seen(run, name) for run in runs)
        notes.append(f"{name}: {before} in both." if before == after else f"{name}: {before} against {after}.")
    if any(min(pair.first.n, pair.second.n) < LEAST for pair in pairs):
        notes.append(f"Cells with fewer than {LEAST} good trials in a run have no interval.")
    if len(cells[0]) + len(cells[1]) > 2 * len(usable):
        notes.append(f"{len(cells[0]) + len(cells[1]) - 2 * len(usable)} cells have no counterpart and are left out.")
    if bad := sum(trial.status != "ok" for run in runs for trial in run):
        notes.append(f"{bad} trials failed or were refused and are left out.")
    if disturbed := sum(trial.status == "ok" and bool(trial.disturbed) for run in runs for trial in run):
        notes.append(f"{disturbed} trials were disturbed; they are in the figures.")
    if any(cells[0][key].wait != cells[1][key].wait for key in shared):
        notes.append("Some cells wait in another way in B than in A: that is compared, too.")
    machines = {name: [_seen(run, name) for run in runs] for name in _ALIKE}
    unlike = [f"{name}: {one} against {other}" for name, (one, other) in machines.items() if one != other]
    return Comparison(metric, pairs, unlike, bool(off), notes)


_KEY = [*(name for name in FACTORS if name != "control"), "origin"]


def _cells(trials: list[Trial]) -> dict[tuple[Any, ...], Run]:
    """The cells with good trials, without second copies."""
    cells: dict[tuple[Any, ...], Run] = {}
    for trial in trials:
        if trial.status == "ok" and not trial.control:
            key = tuple(getattr(trial, name) if applies(name, trial) else None for name in _KEY)
            cells.setdefault(key, Run({}, False)).trials.append(trial)
    return cells


def _seen(trials: list[Trial], name: str) -> str:
    return " and ".join(sorted({str(getattr(trial, name)) or "unknown" for trial in trials}))


def _show(found: Comparison) -> None:
    screen = show.console()
    grid = Grid(title=found.metric, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    names = list(found.pairs[0].levels) if found.pairs else []
    for name in names:
        grid.add_column(name, overflow="fold")
    for head in ("A", "B", "B to A", "interval"):
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    for pair in found.pairs:
        levels = ("-" if given in ("", None) else naming.value(name, given) for name, given in pair.levels.items())
        figures = (f"{one.value:,.5g}" for one in (pair.first, pair.second))
        grid.add_row(*levels, *figures, f"{pair.ratio.value:.3f}", interval(pair.ratio), pair.verdict)
    screen.print(grid)
    show.tell(screen, found.notes)
    if found.unlike:
        show.tell(screen, [f"The machines differ, and the ratios are of them, too: {'; '.join(found.unlike)}."])
