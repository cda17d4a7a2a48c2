"""`harness compare`: compares two runs of the same cells, for example before and after a change of the code.

The runs share no blocks. So each ratio is one of geometric means over all trials of each run, with Welch's interval.
The interval takes into account how the trials of one run scatter, but not how runs scatter: whatever else differed
between the two runs is part of the ratio. `harness ab` has no such gap: both versions are cells of one study.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table as Grid

from harness.analysis import claims, naming, run_files, show
from harness.analysis.cells import CellTrials, Levels, StudyTrials, applies
from harness.analysis.intervals import LEAST, Estimate, corrected, interval, means, unpaired
from harness.analysis.verdicts import MORE, SLOWER, WITHHELD, controls, verdict
from harness.factors import FACTORS
from harness.results import Trial

# What must be the same in two runs that are compared.
_ALIKE = ("host", "cpu", "cpus", "kernel", "python")
# What may differ, because it is often what is compared.
_VERSION = ("harness", "commit", "code")
_WORSE = {SLOWER, MORE}
# The columns that identify a cell in both runs.
_KEY = [*(name for name in FACTORS if name != "control"), "origin"]


@dataclass(frozen=True)
class Pair:
    """A cell that both runs have. levels: those of its factors that vary. first, second: its geometric mean in each
    run, in the unit of the metric, with its 95 % interval. ratio: second to first, at the level corrected for all
    pairs. logs: the logarithms of the metric in the blocks of each run."""

    levels: Levels
    first: Estimate
    second: Estimate
    ratio: Estimate
    verdict: str
    logs: tuple[list[float], list[float]] = field(default=([], []), repr=False)


@dataclass(frozen=True)
class Comparison:
    """Two runs compared. unlike: the differences between the machines of the runs. withheld: whether verdicts are
    withheld. notes: sentences to show beside the values."""

    metric: str
    pairs: list[Pair]
    unlike: list[str]
    withheld: bool
    notes: list[str]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness compare",
        description="Compare the cells that two runs share: the ratio of the second run to the first.",
        epilog="Exit codes: 0 no cell is slower, 1 some are, 3 verdicts are withheld because an A/A control is off, 2 "
        "the runs cannot be compared. The ratios are unpaired: whatever else differed between the runs is in them. "
        "Where noise drifts, 13 to 19 % of comparisons of equal code had a false verdict. To compare two versions of "
        "the code, run `harness ab`: it interleaves them in one study.",
    )
    parser.add_argument("first", metavar="DIR_A", help="a directory that `harness run` wrote")
    parser.add_argument("second", metavar="DIR_B", help="the directory of the second run")
    parser.add_argument("--metric", default="requests_per_s", help="a column of trials.csv (%(default)s)")
    parser.add_argument("--force", action="store_true", help="compare the runs even where their machines differ")
    return parser


def main(argv: Sequence[str]) -> int:
    """Compare two runs. Returns the exit code."""
    args = arguments().parse_args(argv)

    def body() -> int:
        if fleets := [one for one in (args.first, args.second) if run_files.is_fleet(one)]:
            if len(fleets) == 1:
                raise ValueError(
                    f"{fleets[0]} is the run of a fleet, the other one is not; compare with one of its hosts/"
                )
            return _compare_fleets(args)
        first, second = (run_files.load_run(one).trials for one in (args.first, args.second))
        found = compare(first, second, args.metric)
        _check_alike(found.unlike, args.force)
        _print(found)
        if any(pair.verdict in _WORSE for pair in found.pairs):
            return 1
        return 3 if found.withheld else 0

    return run_files.exit_code("compare", body)


def _compare_fleets(args: argparse.Namespace) -> int:
    # The analysis of fleets uses this module.
    from harness.analysis.fleet import compare as of_fleets  # noqa: PLC0415
    from harness.analysis.fleet import files, show  # noqa: PLC0415

    found = of_fleets.compare_fleets(files.load(args.first), files.load(args.second), args.metric)
    _check_alike(found.unlike[:4], args.force)
    show.render_comparison(found)
    if found.verdicts & _WORSE:
        return 1
    return 3 if found.withheld else 0


def _check_alike(unlike: Sequence[str], force: bool) -> None:
    if unlike and not force:
        raise ValueError(f"the runs are not alike: {'; '.join(unlike)}; add --force to compare them nevertheless")


def compare(first: Iterable[Trial], second: Iterable[Trial], metric: str = "requests_per_s") -> Comparison:
    """Compare the cells that two runs share. Raises ValueError where they share none with good trials, or where the
    metric is not a column of numbers."""
    if metric not in claims.METRICS:
        raise ValueError(f"{metric}: not a column of numbers in trials.csv; `harness docs results` lists the columns")
    runs = [[trial for trial in run if not trial.probe] for run in (first, second)]
    cells = [_cells(run) for run in runs]
    shared = sorted(cells[0].keys() & cells[1].keys(), key=lambda key: cells[0][key].number)
    if not shared:
        raise ValueError("the runs share no cell with good trials")
    off = [reason for run in runs if (reason := controls(StudyTrials(run))[1](metric))]
    samples = [[list(some[key].logs(metric).values()) for key in shared] for some in cells]
    usable = [index for index in range(len(shared)) if samples[0][index] and samples[1][index]]
    varying = [index for index in range(len(_KEY)) if len({key[index] for key in shared}) > 1]
    pairs = []
    for index in usable:
        a, b = samples[0][index], samples[1][index]
        ratio = unpaired(b, a, corrected(len(usable)))
        levels = {_KEY[place]: shared[index][place] for place in varying}
        first_mean, second_mean = means([a, b])
        said = WITHHELD if off else verdict(ratio, metric)
        pairs.append(Pair(levels, first_mean, second_mean, ratio, said, (a, b)))
    notes = [
        f"Ratios of B to A, unpaired; each of {len(pairs)} intervals at {100 * corrected(len(pairs)):.4g} %, so that "
        "all hold at once with 95 % probability. Whatever else differed between the runs is part of these ratios.",
        "Where noise drifts between runs, more verdicts are false than the intervals say: 13 to 19 % of comparisons of "
        "equal code had one. `harness ab` compares two versions of the code in one study, interleaved.",
        *(f"A/A control: OFF, so verdicts are withheld: {reason}." for reason in off),
    ]
    for name in _VERSION:
        before, after = (_values(run, name) for run in runs)
        notes.append(f"{name}: {before} in both." if before == after else f"{name}: {before} against {after}.")
    if any(min(pair.first.n, pair.second.n) < LEAST for pair in pairs):
        notes.append(f"Cells with fewer than {LEAST} good trials in a run have no interval.")
    if len(cells[0]) + len(cells[1]) > 2 * len(usable):
        notes.append(f"{len(cells[0]) + len(cells[1]) - 2 * len(usable)} cells have no counterpart and are left out.")
    if bad := sum(trial.status != "ok" for run in runs for trial in run):
        notes.append(f"{bad} trials failed or were refused and are left out.")
    if disturbed := sum(trial.status == "ok" and bool(trial.disturbed) for run in runs for trial in run):
        notes.append(f"{disturbed} trials were disturbed. They are not left out.")
    if any(cells[0][key].wait != cells[1][key].wait for key in shared):
        notes.append(
            "Some cells wait in another way in B than in A, so their ratios are those of the wait strategies as well."
        )
    machines = {name: [_values(run, name) for run in runs] for name in _ALIKE}
    unlike = [f"{name}: {one} against {other}" for name, (one, other) in machines.items() if one != other]
    return Comparison(metric, pairs, unlike, bool(off), notes)


def _cells(trials: list[Trial]) -> dict[tuple[Any, ...], CellTrials]:
    """The cells that have good trials, without the second copies of an A/A control."""
    cells: dict[tuple[Any, ...], CellTrials] = {}
    for trial in trials:
        if trial.status == "ok" and not trial.control:
            key = tuple(getattr(trial, name) if applies(name, trial) else None for name in _KEY)
            cells.setdefault(key, CellTrials({}, False)).trials.append(trial)
    return cells


def _values(trials: list[Trial], name: str) -> str:
    return " and ".join(sorted({str(getattr(trial, name)) or "unknown" for trial in trials}))


def _print(found: Comparison) -> None:
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
        means_shown = (f"{one.value:,.5g}" for one in (pair.first, pair.second))
        grid.add_row(*levels, *means_shown, f"{pair.ratio.value:.3f}", interval(pair.ratio), pair.verdict)
    screen.print(grid)
    show.print_lines(screen, found.notes)
    if found.unlike:
        show.print_lines(screen, [f"The machines differ, so that is part of the ratios: {'; '.join(found.unlike)}."])
