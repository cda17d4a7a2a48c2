"""What pictures show beside the figures of a study: where the CPU time goes, the whole spectrum of latency, symbols.

All of it is read off the trials that are behind a cell's figures, so that it is of the same rows.
"""

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from harness import results
from harness.analysis import naming
from harness.analysis.cells import THROUGHPUT
from harness.analysis.intervals import Estimate
from harness.analysis.study import Cell, Context
from harness.results import Trial

ROLES, MODES = ("client", "proxy", "cache"), ("user", "kernel")
SYMBOLS = "symbols.csv"
# Where a percentile has fewer replies above it than this, they are single events.
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
    """above: the share of replies that took longer. beyond: how many these are."""

    above: float
    us: float
    beyond: float


@dataclass
class Details:
    """trials: the good, timed ones, by number. latencies: of each trial, (bucket's upper bound, count). symbols: of
    each cell that perf looked at, role -> symbol -> share of the role's samples. troubles: what could not be read."""

    trials: dict[int, Trial] = field(default_factory=dict)
    latencies: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    symbols: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    def cpu(self, cell: Cell) -> Mapping[tuple[str, str], float]:
        """(role, mode) -> microseconds of CPU time a request, over all of a cell's trials."""
        trials = [self.trials[row] for row in cell.rows]
        requests = sum(trial.requests_ended for trial in trials)
        if not requests:
            return {}
        return {
            (role, mode): 1e6 * sum(getattr(trial, f"{role}_{mode}_s") for trial in trials) / requests
            for role in ROLES
            for mode in MODES
        }

    def spectrum(self, cell: Cell) -> list[Percentile]:
        """Percentiles of the latency of all replies of a cell's trials, as far as there are replies above them. Without
        latency.csv those of the columns, each the median of the trials'."""
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
            seen = sorted(filter(None, (getattr(trial, column) for trial in trials)))
            if seen and count * above >= 1:
                found.append(Percentile(above, seen[len(seen) // 2], count * above / len(seen)))
        return found


def read(directory: str, trials: Iterable[Trial]) -> Details:
    """The details of a run, of the files that are there. Raises OSError, ValueError."""
    trials = list(trials)
    details = Details({trial.trial: trial for trial in trials if trial.status == "ok" and not trial.probe})
    cells = {trial.trial: trial.cell for trial in trials if trial.status == "ok" and trial.probe}
    for name, reader in ((results.LATENCY, _latencies), (SYMBOLS, _symbols)):
        path = f"{directory}/{name}"
        if os.path.exists(path):
            try:
                reader(path, details, cells)
            except ValueError as error:  # a killed run may have left half a row
                details.troubles.append(f"{name} is read up to this only: {error}")
    return details


def _latencies(path: str, details: Details, _: Mapping[int, int]) -> None:
    # Pairs, not records as results.read_latencies makes them: this may be millions of rows.
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if next(rows, None) != [column.name for column in fields(results.Bucket)]:
            raise ValueError("its columns are of another version")
        for trial, bound, count in rows:
            details.latencies[int(trial)].append((float(bound), int(count)))


def _symbols(path: str, details: Details, cells: Mapping[int, int]) -> None:
    for row in results.read_observations(path):
        if row.unit == "share" and row.trial in cells:
            roles = details.symbols.setdefault(cells[row.trial], {})
            roles.setdefault(row.role, {})[row.metric] = row.value


def _percentiles(counts: Sequence[tuple[float, int]]) -> list[Percentile]:
    """Nearest rank, as the columns have it."""
    total = sum(count for _, count in counts)
    found: list[Percentile] = []
    steps = [above for above in _STEPS if total * above >= 1]
    seen = 0
    for bound, count in counts:
        seen += count
        while len(found) < len(steps) and 0 < seen >= total * (1 - steps[len(found)]) - 1e-9:
            above = steps[len(found)]
            found.append(Percentile(above, bound, total * above))
    return found


@dataclass(frozen=True)
class Floor:
    """What share of a request's time at the baseline a floor needs as well, which is the harness's own."""

    context: str
    floor: str
    baseline: str
    share: Estimate


def floors(contexts: Iterable[Context]) -> list[Floor]:
    """The floors of all contexts that have a ratio to their baseline. In a closed loop time is the inverse of
    throughput."""
    found = []
    for context in contexts:
        for cell in context.cells:
            figure = cell.figures.get(context.metric)
            if not (cell.floor and context.baseline and figure and figure.ratio):
                continue
            ratio = figure.ratio
            if context.metric == THROUGHPUT:
                high = 1 / ratio.low if ratio.low else float("inf")
                ratio = Estimate(1 / ratio.value, 1 / ratio.high, high, ratio.n, ratio.level)
            label = context.label or naming.label(context.levels)
            found.append(Floor(label, cell.label, context.baseline.label, ratio))
    return found
