"""Trials sorted into cells, and cells into contexts: the sets of cells that may be compared with each other.

Cells of a context differ in the compared factors only. They are equal in all others, and so are machine, kernel,
Python and code, and the HTTP origin where there is one: trials that differ in one of `ORIGIN`, or in `origin`, are
never pooled. A factor that says nothing of a trial (the data transport, where the proxy serves files by itself) sets it
apart from none.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from harness import factors
from harness.factors import FACTORS
from harness.results import Trial

ORIGIN = ("host", "cpu", "cpus", "kernel", "python", "harness", "commit")
THROUGHPUT, MEDIAN_LATENCY = "requests_per_s", "latency_p50_us"

_TRANSPORTS = tuple(name for name, factor in FACTORS.items() if factor.about == "transport")
# What is asked of the system under test, as opposed to what it is.
_WORKLOAD = {name for name, factor in FACTORS.items() if factor.about in {"condition", "workload"}}
# `control` tells no cells apart: it marks the second copy of one.
_APART = ("files", *(name for name in FACTORS if name not in {"files", "control"}), "origin", *ORIGIN)

Levels = Mapping[str, Any]  # column of a factor -> value


class Run:
    """One cell's trials that were timed. `trials`: the good ones. `bad`: failed and refused ones."""

    def __init__(self, design: Levels, floor: bool) -> None:
        self.design = design
        self.floor = floor
        self.trials: list[Trial] = []
        self.bad: list[Trial] = []
        self._logs: dict[str, dict[int, float]] = {}

    def logs(self, metric: str) -> dict[int, float]:
        """block -> logarithm of the metric. Blocks where it is 0 are left out: they have no ratio."""
        if metric not in self._logs:
            in_block = defaultdict(list)
            for trial in self.trials:
                if (figure := getattr(trial, metric)) > 0:
                    in_block[trial.block].append(math.log(figure))
            self._logs[metric] = {block: sum(logs) / len(logs) for block, logs in in_block.items()}
        return self._logs[metric]

    def log_ratios(self, base: "Run", metric: str) -> list[float]:
        """The log ratios to another cell, in the blocks that have both."""
        mine, theirs = self.logs(metric), base.logs(metric)
        return [mine[block] - theirs[block] for block in sorted(mine.keys() & theirs.keys())]

    @property
    def number(self) -> tuple[int, int]:
        """Where it stands in the file's order."""
        return min((trial.cell, trial.trial) for trial in (*self.trials, *self.bad))

    @property
    def wait(self) -> str:
        """How its data transport waits. One that offers no strategy blocks."""
        return "/".join(sorted({trial.wait_effective or "block" for trial in self.trials}))

    def matches(self, wanted: Levels) -> bool:
        """Whether it has these levels. Ones that do not apply to it are no hindrance, but one has to be its own."""
        trial = (*self.trials, *self.bad)[0]
        applying = [name for name in wanted if applies(name, trial)]
        return bool(applying) and all(getattr(trial, name) == wanted[name] for name in applying)


@dataclass(frozen=True)
class Group:
    """A context. levels: what sets it apart from others. runs: its cells, in the order of the file, some perhaps
    without good trials. controls: second copies of cells, each with the cell."""

    levels: Levels
    runs: list[Run]
    controls: list[tuple[Run, Run]]

    @property
    def one(self) -> Trial:
        """Any of its trials."""
        return next(trial for run in self.runs for trial in (*run.trials, *run.bad))

    @property
    def good(self) -> list[Run]:
        """Its cells that have good trials."""
        return [run for run in self.runs if run.trials]

    @property
    def metric(self) -> str:
        """What it is about: throughput, or latency in an open loop, whose throughput is given."""
        return MEDIAN_LATENCY if self.one.rate > 0 else THROUGHPUT

    def baseline(self, wanted: Levels) -> Run | None:
        """The cell that others are compared with: the first one in the order of the file that has these levels, or
        of all where none are given; a floor only where nothing else does."""
        candidates = [run for run in self.good if not wanted or run.matches(wanted)]
        return min(candidates, key=attrgetter("floor"), default=None)


class Table:
    """The timed trials of a study; those that were run for a probe are not in it."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._trials = [trial for trial in trials if not trial.probe]
        self.varying = [
            name for name in _APART if len({getattr(trial, name) for trial in self._trials if applies(name, trial)}) > 1
        ]

    def compared(self, baseline: Levels) -> tuple[str, ...]:
        """The factors in which cells of a context differ: those that the baseline names, else the transports where
        they vary, else all that varies in the system under test."""
        system = {name for name in self.varying if name in FACTORS and name not in _WORKLOAD}
        names = set(baseline) or system.intersection(_TRANSPORTS) or system or {"command", "data"}
        if "source" in self.varying:
            names.add("source")  # the floor without a cache stands beside every figure
        return tuple(name for name in FACTORS if name in names)

    def groups(self, compared: Sequence[str], always: Iterable[str] = ("files",)) -> list[Group]:
        """The contexts by file size, then in the order of the file. always: factors that are told among their
        levels even where they do not vary."""
        # Where it is compared who the origin is, who it was sets nothing apart.
        within = {*compared, "origin"} if "origin_server" in compared else set(compared)
        apart = [name for name in _APART if name not in within and (name in self.varying or name in always)]
        contexts: dict[tuple[Any, ...], dict[tuple[Any, ...], Run]] = defaultdict(dict)
        # Trials that have no level of some factor come last, and join every context that differs in no other.
        lacking = [sum(not applies(name, trial) for name in apart) for trial in self._trials]
        for _, trial in sorted(zip(lacking, self._trials, strict=True), key=lambda pair: (pair[0], pair[1].trial)):
            key = tuple(getattr(trial, name) if applies(name, trial) else None for name in apart)
            cell = (trial.control, *(getattr(trial, name) for name in compared))
            joined = [one for one in contexts if _joins(key, one)] if None in key else []
            for context in joined or [key]:
                runs = contexts[context]
                if cell not in runs:
                    runs[cell] = Run(dict(zip(compared, cell[1:], strict=True)), self._is_floor(trial, compared))
                (runs[cell].trials if trial.status == "ok" else runs[cell].bad).append(trial)
        groups = [
            Group(
                {name: level for name, level in zip(apart, key, strict=True) if level is not None},
                sorted((run for cell, run in runs.items() if not cell[0]), key=attrgetter("number")),
                [(run, runs[0, *cell[1:]]) for cell, run in runs.items() if cell[0] and (0, *cell[1:]) in runs],
            )
            for key, runs in contexts.items()
        ]
        groups = [group for group in groups if group.runs]
        return sorted(groups, key=lambda group: (group.one.file_size_bytes, group.runs[0].number))

    def _is_floor(self, trial: Trial, compared: Sequence[str]) -> bool:
        """Whether it shows what the harness itself costs: `direct`, or a floor among transports that are compared."""
        rivals = {name for name in ("command", "data") if name in compared and name in self.varying}
        return not {"source", *rivals}.isdisjoint(trial.floor.split())


def applies(name: str, trial: Trial) -> bool:
    """Whether a column says anything of a trial. A trial that never ran need not know on which machine it did not."""
    if name in ORIGIN:
        return trial.status == "ok"
    if name == "origin":
        return trial.source == "curl" and (trial.status == "ok" or trial.origin != "")
    return factors.applies(name, trial)


def _joins(key: tuple[Any, ...], context: tuple[Any, ...]) -> bool:
    return all(mine is None or mine == theirs for mine, theirs in zip(key, context, strict=True))
