"""What charts show beside the analysis of a study: where requests and CPUs spend their time, all latencies, symbols.

All of it is of the same trials as the measurements of a cell.
"""

import csv
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from harness import results
from harness.analysis import naming, run_files
from harness.analysis.cells import THROUGHPUT
from harness.analysis.intervals import Estimate
from harness.analysis.stages import Spreads, spreads
from harness.analysis.study import Cell, Context
from harness.factors import ROLES
from harness.results import Trial

MODES = ("user", "kernel")
# A percentile with fewer replies above it than this rests on single events.
FIRM = 10

_COLUMNS = (
    ("latency_p50_us", 0.5),
    ("latency_p90_us", 0.1),
    ("latency_p99_us", 0.01),
    ("latency_p99_9_us", 1e-3),
    ("latency_p99_99_us", 1e-4),
)
_STEPS = [10 ** (-step / 8) for step in range(41)]  # from all replies to one of 100,000


@dataclass(frozen=True)
class Percentile:
    """One point of a distribution of latency: `above` is the share of the replies that took longer than `us`
    microseconds, `replies_above` is how many these are."""

    above: float
    us: float
    replies_above: float


@dataclass
class ChartData:
    """The data of a run that only charts show.

    trials: number -> trial, for good and timed trials. latencies: number of a trial -> (upper bound of a bucket in
    microseconds, count). symbols: number of a cell -> role -> symbol -> share of the role's samples, for cells that the
    probe `perf` sampled. stages: number of a cell -> stage -> how long it took, for cells that the probe `stages`
    looked at. unreadable: sentences about files that could not be read whole.
    """

    trials: dict[int, Trial] = field(default_factory=dict)
    latencies: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    symbols: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)
    stages: dict[int, Spreads] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def cpu(self, cell: Cell) -> Mapping[tuple[str, str], float]:
        """(role, mode) -> microseconds of CPU time for each request, over all trials of a cell."""
        trials = [self.trials[row] for row in cell.rows]
        requests = sum(trial.requests_ended for trial in trials)
        if not requests:
            return {}
        return {
            (role, mode): 1e6 * sum(getattr(trial, f"{role}_{mode}_s") for trial in trials) / requests
            for role in ROLES
            for mode in MODES
        }

    def percentiles(self, cell: Cell) -> list[Percentile]:
        """Percentiles of the latency of all replies in a cell's trials, up to the last one that has a reply above it.
        Without latency.csv these are the percentiles in trials.csv, of each the median over the trials."""
        merged: dict[float, int] = defaultdict(int)
        for row in cell.rows:
            for bound, count in self.latencies.get(row, ()):
                merged[bound] += count
        if merged:
            return _percentiles(sorted(merged.items()))
        trials = [self.trials[row] for row in cell.rows]
        count = sum(trial.requests_ended for trial in trials)
        found = []
        for column, above in _COLUMNS:
            values = sorted(filter(None, (getattr(trial, column) for trial in trials)))
            if values and count * above >= 1:
                found.append(Percentile(above, values[len(values) // 2], count * above / len(values)))
        return found


def read(directory: str, trials: Iterable[Trial], only: Collection[str] = ()) -> ChartData:
    """The chart data of a run, from those files that it has. only: the names of the files to read; all where it is
    empty. Raises OSError."""
    trials = list(trials)
    data = ChartData({trial.trial: trial for trial in trials if trial.status == "ok" and not trial.probe})
    cells = {trial.trial: trial.cell for trial in trials if trial.status == "ok" and trial.probe}
    for name, reader in ((results.LATENCY, _latencies), (run_files.SYMBOLS, _symbols), (results.STAGES, _stages)):
        path = f"{directory}/{name}"
        if (not only or name in only) and os.path.exists(path):
            try:
                reader(path, data, cells)
            except ValueError as error:  # a run that was killed may have left half a row
                data.unreadable.append(f"{name} is read up to this only: {error}")
    return data


def _latencies(path: str, data: ChartData, _: Mapping[int, int]) -> None:
    # Pairs, not the records of results.read_latencies, because there may be millions of rows.
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        expected = [column.name for column in fields(results.Bucket)]
        if next(rows, None) not in (expected, expected[:3]):  # without the host: of a version before fleets
            raise ValueError("its columns are of another version")
        for trial, bound, count, *_host in rows:
            data.latencies[int(trial)].append((float(bound), int(count)))


def _symbols(path: str, data: ChartData, cells: Mapping[int, int]) -> None:
    for row in results.read_observations(path):
        if row.unit == "share" and row.trial in cells:
            roles = data.symbols.setdefault(cells[row.trial], {})
            roles.setdefault(row.role, {})[row.metric] = row.value


def _stages(path: str, data: ChartData, cells: Mapping[int, int]) -> None:
    found = defaultdict(list)
    try:
        for row in results.read_requests(path):
            if row.trial in cells:
                found[cells[row.trial]].append(row)
    finally:
        data.stages = {cell: spreads(requests) for cell, requests in found.items()}


def _percentiles(counts: Sequence[tuple[float, int]]) -> list[Percentile]:
    """By nearest rank, as in the columns of trials.csv."""
    total = sum(count for _, count in counts)
    found: list[Percentile] = []
    steps = [above for above in _STEPS if total * above >= 1]
    replies = 0
    for bound, count in counts:
        replies += count
        while len(found) < len(steps) and 0 < replies >= total * (1 - steps[len(found)]) - 1e-9:
            above = steps[len(found)]
            found.append(Percentile(above, bound, total * above))
    return found


@dataclass(frozen=True)
class FloorShare:
    """How long a request takes at a floor, as a share of how long it takes at the baseline: the harness's own part."""

    context: str
    floor: str
    baseline: str
    share: Estimate


def floor_shares(contexts: Iterable[Context]) -> list[FloorShare]:
    """The shares of all floors that have a ratio to the baseline of their context. In a closed loop the time of a
    request is the inverse of the throughput."""
    found = []
    for context in contexts:
        for cell in context.cells:
            measured = cell.measurements.get(context.metric)
            if not (cell.floor and context.baseline and measured and measured.ratio):
                continue
            ratio = measured.ratio
            if context.metric == THROUGHPUT:
                ratio = ratio.inverse
            label = context.label or naming.label(context.levels)
            found.append(FloorShare(label, cell.label, context.baseline.label, ratio))
    return found
