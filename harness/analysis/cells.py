"""Sorts the trials of a study into cells, and cells into contexts.

A cell is one combination of factors. A context is a set of cells that differ only in the compared factors. Its cells
are equal in all other factors, and in everything in `PROVENANCE` and the columns `origin` and `version`: machine,
kernel, Python, code, the HTTP origin where there is one, and what `interpreter` runs. Trials that differ in one of
these are never pooled.

A factor that does not apply to a trial does not separate that trial from others. For example, the data transport does
not apply where the proxy serves files by itself.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np

from harness import factors
from harness.analysis.slices import METRICS, Slices, centre
from harness.factors import CHANNELS, FACTORS
from harness.results import Trial

PROVENANCE = ("host", "cpu", "cpus", "kernel", "python", "harness", "commit", "code")
THROUGHPUT, MEDIAN_LATENCY, CPU_TIME = "requests_per_s", "latency_p50_us", "cpu_us_per_request"
# Metrics whose difference is a time for each request -> that time in microseconds. With throughput it is the time that
# the whole system takes for one, which is less than its latency where several are under way.
MICROSECONDS: Mapping[str, Callable[[Any], Any]] = {
    THROUGHPUT: lambda value: 1e6 / value,
    CPU_TIME: lambda value: value,
    MEDIAN_LATENCY: lambda value: value,
}

_TRANSPORTS = tuple(name for name, factor in FACTORS.items() if factor.about == "transport")
# What is asked of the system under test, as opposed to what it is.
_WORKLOAD = {name for name, factor in FACTORS.items() if factor.about in {"condition", "workload"}}
# `control` tells no cells apart: it marks the second copy of one.
_APART = ("files", *(name for name in FACTORS if name not in {"files", "control"}), "origin", "version", *PROVENANCE)
# Columns that follow from a factor: where it is compared, they must not separate contexts.
_FOLLOWS = {"origin": "origin_server", "version": "interpreter"}
_TELLING = attrgetter(*FACTORS, "origin", "version", *PROVENANCE, "status")  # all that applies() looks at, too
_VERSIONS = {"interpreter"}  # what is compared where the only rival of a cell is itself in another version

Levels = Mapping[str, Any]  # column of a factor -> value


class CellTrials:
    """The timed trials of one cell, in one context.

    design: its compared factors. floor: whether it shows only what the harness itself costs. trials: the good ones.
    bad: those that failed or were refused. slices: those of all trials of the study, where it has any.
    """

    def __init__(self, design: Levels, floor: bool, slices: Slices | None = None) -> None:
        self.design = design
        self.floor = floor
        self.slices = slices
        self.trials: list[Trial] = []
        self.bad: list[Trial] = []
        self._logs: dict[str, dict[int, float]] = {}
        self._log_ratios: dict[tuple[CellTrials, str], dict[int, float]] = {}

    def logs(self, metric: str) -> dict[int, float]:
        """block -> logarithm of the metric. Blocks in which the metric is 0 are left out, because they have no
        ratio."""
        if metric not in self._logs:
            in_block = defaultdict(list)
            for trial in self.trials:
                if (value := getattr(trial, metric)) > 0:
                    in_block[trial.block].append(math.log(value))
            self._logs[metric] = {block: sum(logs) / len(logs) for block, logs in in_block.items()}
        return self._logs[metric]

    def log_ratios(self, base: "CellTrials", metric: str) -> dict[int, float]:
        """block -> log ratio of this cell to another one, for each block that has both. It is the centre of the log
        ratios of their slices of equal rounds, where the block has such slices and they say something of the metric.
        Else it is that of the rows."""
        if (base, metric) not in self._log_ratios:
            own, of_base = self.logs(metric), base.logs(metric)
            by_rows = {block: own[block] - of_base[block] for block in sorted(own.keys() & of_base.keys())}
            self._log_ratios[base, metric] = by_rows | {
                block: centre(np.log(values / of_base)) for block, values, of_base in self.paired(base, metric)
            }
        return self._log_ratios[base, metric]

    def differences(self, base: "CellTrials", metric: str) -> dict[int, float]:
        """block -> microseconds that a request takes more than with another cell, in the sense of the metric, one of
        MICROSECONDS. From slices or rows, as log_ratios()."""
        micros = MICROSECONDS[metric]
        own, of_base = (
            {block: micros(math.exp(log)) for block, log in one.logs(metric).items()} for one in (self, base)
        )
        by_rows = {block: own[block] - of_base[block] for block in sorted(own.keys() & of_base.keys())}
        return by_rows | {
            block: centre(micros(values) - micros(of_base)) for block, values, of_base in self.paired(base, metric)
        }

    def paired(self, base: "CellTrials", metric: str) -> Iterator[tuple[int, Any, Any]]:
        """For each block that has slices of equal rounds of both cells: the block, the values of this cell, those of
        the other one."""
        slices = self.slices
        if slices is None or metric not in METRICS:
            return
        in_block = {trial.block: trial.trial for trial in base.trials if trial.trial in slices}
        for trial in self.trials:
            if trial.trial in slices and trial.block in in_block:
                own, of_base = slices.paired(trial.trial, in_block[trial.block], metric)
                if len(own):
                    yield trial.block, own, of_base

    @property
    def number(self) -> tuple[int, int]:
        """The cell's position in the order of the file: its number, then the number of its first trial."""
        return min((trial.cell, trial.trial) for trial in (*self.trials, *self.bad))

    @property
    def wait(self) -> str:
        """The wait strategy of its data transport: `block` where the transport offers no strategy."""
        return "/".join(sorted({trial.wait_effective or "block" for trial in self.trials}))

    def matches(self, wanted: Levels) -> bool:
        """Whether the cell has the wanted levels. Factors that do not apply to the cell are ignored, but at least one
        has to apply."""
        trial = (*self.trials, *self.bad)[0]
        applying = [name for name in wanted if applies(name, trial)]
        return bool(applying) and all(getattr(trial, name) == wanted[name] for name in applying)


@dataclass(frozen=True, eq=False)
class ContextTrials:
    """The timed trials of one context.

    levels: the factors that separate it from other contexts. cells: in the order of the file; some may have no good
    trials. controls: pairs of (a second copy of a cell, the cell).
    """

    levels: Levels
    cells: list[CellTrials]
    controls: list[tuple[CellTrials, CellTrials]]

    @property
    def any_trial(self) -> Trial:
        """One of its trials, a good one where there is one; all of them have the levels of the context."""
        good = (trial for cell in self.cells for trial in cell.trials)
        return next(itertools.chain(good, (trial for cell in self.cells for trial in cell.bad)))

    @property
    def good(self) -> list[CellTrials]:
        """Its cells that have good trials."""
        return [cell for cell in self.cells if cell.trials]

    @property
    def metric(self) -> str:
        """The metric that its cells are ranked by: throughput, or median latency in an open loop, where the throughput
        is given."""
        return MEDIAN_LATENCY if self.any_trial.rate > 0 else THROUGHPUT

    def baseline(self, wanted: Levels) -> CellTrials | None:
        """The cell that the others are compared with: the first one in the order of the file that has the wanted
        levels, or the first of all where none are wanted. A floor is taken only where there is no other cell."""
        candidates = [cell for cell in self.good if not wanted or cell.matches(wanted)]
        return min(candidates, key=attrgetter("floor"), default=None)


class StudyTrials:
    """The timed trials of a study. Trials that were run for a probe are left out."""

    def __init__(self, trials: Iterable[Trial], slices: Slices | None = None) -> None:
        self._slices = slices
        # Trials that are equal in all that separates contexts and cells: one stands for its group, and groups are few.
        alike: dict[Any, list[tuple[int, Trial]]] = defaultdict(list)
        for place, trial in enumerate(trials):
            if not trial.probe:
                alike[_TELLING(trial)].append((place, trial))
        self._alike = list(alike.values())
        self._kinds = [some[0][1] for some in self._alike]
        self.varying = [name for name in _APART if self._varies(name)]

    def _varies(self, name: str) -> bool:
        """Whether a column varies over the trials to which it applies. Most columns have one value, which is quick to
        see."""
        return (
            len(set(map(attrgetter(name), self._kinds))) > 1
            and len({getattr(trial, name) for trial in self._kinds if applies(name, trial)}) > 1
        )

    def compared(self, baseline: Levels) -> tuple[str, ...]:
        """The factors in which cells of a context differ: those that the baseline names, else the transports where
        they vary, else every factor of the system under test that varies."""
        system = {name for name in self.varying if name in FACTORS and name not in _WORKLOAD}
        names = set(baseline) or system.intersection(_TRANSPORTS) or system or {*CHANNELS}
        if "source" in self.varying and names != _VERSIONS:
            names.add("source")  # so that the floor without a cache is a cell of every context
        return tuple(name for name in FACTORS if name in names)

    def contexts(self, compared: Sequence[str], always: Iterable[str] = ("files",)) -> list[ContextTrials]:
        """The contexts by file size, then in the order of the file. always: factors that are among the levels of a
        context even where they do not vary."""
        within = {*compared, *(column for column, factor in _FOLLOWS.items() if factor in compared)}
        telling = [*compared, "version"] if "interpreter" in compared else compared
        apart = [name for name in _APART if name not in within and (name in self.varying or name in always)]
        sorted_trials: dict[tuple[Any, ...], dict[tuple[Any, ...], CellTrials]] = defaultdict(dict)
        # Trials to which some factor does not apply come last. They join every context that differs in no other factor.
        in_turn = []
        for kind, some in zip(self._kinds, self._alike, strict=True):
            key = tuple(getattr(kind, name) if applies(name, kind) else None for name in apart)
            lacking = sum(not applies(name, kind) for name in apart)
            cell_key = (kind.control, *(getattr(kind, name) for name in telling))
            in_turn += [(lacking, trial.trial, place, trial, key, cell_key) for place, trial in some]
        for *_, trial, key, cell_key in sorted(in_turn, key=itemgetter(0, 1, 2)):
            joined = [one for one in sorted_trials if _joins(key, one)] if None in key else []
            for context_key in joined or [key]:
                cells = sorted_trials[context_key]
                if cell_key not in cells:
                    design = dict(zip(compared, cell_key[1:], strict=False))
                    cells[cell_key] = CellTrials(design, self._is_floor(trial, compared), self._slices)
                cell = cells[cell_key]
                (cell.trials if trial.status == "ok" else cell.bad).append(trial)
        contexts = [
            ContextTrials(
                {name: level for name, level in zip(apart, key, strict=True) if level is not None},
                sorted((cell for cell_key, cell in cells.items() if not cell_key[0]), key=attrgetter("number")),
                [(cell, cells[0, *one[1:]]) for one, cell in cells.items() if one[0] and (0, *one[1:]) in cells],
            )
            for key, cells in sorted_trials.items()
        ]
        contexts = [context for context in contexts if context.cells]
        return sorted(contexts, key=lambda context: (context.any_trial.file_size_bytes, context.cells[0].number))

    def _is_floor(self, trial: Trial, compared: Sequence[str]) -> bool:
        """Whether it shows what the harness itself costs: `direct`, or a floor among transports that are compared."""
        if {*compared} == _VERSIONS:
            return False
        rivals = {name for name in CHANNELS if name in compared and name in self.varying}
        return not {"source", *rivals}.isdisjoint(trial.floor.split())


def applies(name: str, trial: Trial) -> bool:
    """Whether a column means anything in a trial. One that did not run may lack the facts of its machine."""
    if name in PROVENANCE or name == "version":
        return trial.status == "ok"
    if name == "origin":
        return trial.source == "curl" and (trial.status == "ok" or trial.origin != "")
    return factors.applies(name, trial)


def _joins(key: tuple[Any, ...], context: tuple[Any, ...]) -> bool:
    """Whether a trial with this key belongs to a context; None is a factor that does not apply to the trial."""
    return all(level is None or level == other for level, other in zip(key, context, strict=True))
