"""The plan of a study: which cells, in which order, against what.

Each block runs every cell once, in an order of its own that follows from the seed: noise that a block shares falls
out of ratios taken within it. Trials for costly probes come after the timed ones, one for each cell and probe.
"""

import dataclasses
import io
import itertools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from harness import registry
from harness.analysis.claims import Claim
from harness.experiment.language import convert
from harness.factors import FACTORS, OFFERED, Spec
from harness.measure.slicing import FITTING, Slicing
from harness.results import LIVE
from harness.suggest import unknown

_START = 0.3  # seconds that a trial takes beside its load: programs start, stop and are swept
_RATE = 5000.0  # requests/s, to guess how long a number of them takes
_LEAST_SECONDS = 0.1  # of a scaled trial
MOST_BLOCKS = 1000  # where a budget ends the run
_LIVE_START = 0.25  # seconds for the programs of a cell to start and to be looked at, in a live block
_PER_WINDOW = 2.0  # seconds of a slice for each second of its window


class Slot(NamedTuple):
    """One trial of the plan. number: its place in the order, from 1. block: 0 for a probe's trial. cell: from 1."""

    number: int
    block: int
    cell: int
    probe: str = ""


@dataclass(frozen=True)
class Plan:
    """baseline: factor to value. repeats: blocks, at most. least: blocks before `within` may end the run.

    within: the width of interval, a share of 1 to each side, that ends the run; 0: all blocks are run.
    claims: as the analysis reads them from the results. live: whether a trial prints figures each second. design: how
    trials are measured, LIVE or APART. slicing: of live blocks. budget: seconds for all blocks, which ends the run; 0:
    none.
    """

    name: str
    question: str
    cells: tuple[Spec, ...]
    repeats: int
    seed: int = 1
    least: int = 0
    within: float = 0.0
    baseline: Mapping[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    probes: tuple[str, ...] = ()
    live: bool = False
    design: str = LIVE
    slicing: Slicing = FITTING
    budget: float = 0.0
    left_out: tuple[str, ...] = field(default=(), compare=False)

    def blocks(self) -> Iterator[list[Slot]]:
        """The timed trials, block by block."""
        for block in range(1, self.repeats + 1):
            order = list(range(1, len(self.cells) + 1))
            random.Random(f"{self.seed}/{block}").shuffle(order)
            first = (block - 1) * len(order) + 1
            yield [Slot(number, block, cell) for number, cell in enumerate(order, first)]

    def probing(self, first: int = 1) -> list[Slot]:
        """The trials for costly probes: one for each cell and probe. first: the number of the first one."""
        known = registry.installed().probes
        costly = [name for name in self.probes if known[name].costly]
        pairs = itertools.product(costly, range(1, len(self.cells) + 1))
        return [Slot(number, 0, cell, probe) for number, (probe, cell) in enumerate(pairs, first)]

    @property
    def design_reason(self) -> str:
        """Why trials are measured as they are."""
        if self.design == LIVE:
            return "all cells of a block alive at once, in slices of load"
        return needs_apart(self.cells, self.live) or better_apart(self.cells) or "as the file says"

    def seconds(self) -> float:
        """About how long all blocks take."""
        if self.budget:
            return self.budget
        if self.design == LIVE:
            block = sum(_LIVE_START + cell.warmup + _PER_WINDOW * cell.seconds for cell in self.cells)
            return block * self.repeats + (_START + self.cells[0].warmup + 1) * len(self.probing())
        loads = (cell.requests / _RATE if cell.requests else cell.seconds for cell in self.cells)
        block = sum(loads) + sum(2 * cell.warmup + _START for cell in self.cells)  # content is compared twice
        return block * self.repeats + block / len(self.cells) * len(self.probing())

    def scaled(self, scale: float) -> "Plan":
        """This plan with `scale` times the load in each trial, or of the budget."""
        return replace(self, cells=tuple(_scaled(cell, scale) for cell in self.cells), budget=self.budget * scale)

    def repeated(self, blocks: int) -> "Plan":
        """This plan with that many blocks."""
        return replace(self, repeats=blocks, within=0.0, budget=0.0)

    def limited(self, budget: float) -> "Plan":
        """This plan with that many seconds for its blocks. Raises ValueError where it has no live blocks."""
        if self.design != LIVE:
            raise ValueError("a budget is divided among live blocks, and these cells are measured apart")
        return replace(self, repeats=MOST_BLOCKS, budget=budget)

    def only(self, cell: int) -> "Plan":
        """The plan of one of its cells alone, which nothing is compared with."""
        return replace(self, cells=(self.cells[cell - 1],), within=0.0, claims=(), probes=(), baseline={})

    def text(self) -> str:
        """The plan as an experiment file, of which load_plan() makes the same plan again."""
        document: dict[str, Any] = {
            "question": self.question,
            "cells": [dataclasses.asdict(cell) for cell in self.cells],
            "baseline": dict(self.baseline),
            "claims": [dataclasses.asdict(claim) for claim in self.claims],
            "probes": list(self.probes),
            "seed": self.seed,
            "live": self.live,
            "design": self.design,
        }
        if slices := {name: value for name, value in self.slicing._asdict().items() if value}:
            document["slices"] = slices
        if self.within:
            document["until"] = {"within": f"{self.within * 100:g}%", "at_least": self.least, "at_most": self.repeats}
        elif not self.budget:
            document["repeats"] = self.repeats
        if self.budget:
            document["budget"] = f"{self.budget:g}s"
        text = io.StringIO()
        yaml: Any = YAML(typ="safe", pure=True)  # its methods have no annotations
        yaml.dump(document, text)
        return text.getvalue()

    def varying(self) -> list[str]:
        """The factors of which there is more than one level."""
        return varying(self.cells)


def varying(cells: Sequence[Spec]) -> list[str]:
    """The factors of which these cells have more than one level."""
    return [name for name in OFFERED if len({getattr(cell, name) for cell in cells}) > 1]


def matches(cell: Spec, levels: Mapping[str, Any]) -> bool:
    """Whether a cell has these levels; each a value, or a list of which it has one."""
    return all(
        getattr(cell, name) in level if isinstance(level, list) else getattr(cell, name) == level
        for name, level in levels.items()
    )


def no_cell(cells: Sequence[Spec], levels: Mapping[str, Any]) -> str:
    """What to say where none of these cells has these levels: the levels that no cell has, and what there is."""
    if not cells:
        return "no cell is left"
    missing = [name for name, level in levels.items() if not any(matches(cell, {name: level}) for cell in cells)]
    if not missing:
        return f"no cell has {' and '.join(_written(name, level) for name, level in levels.items())} together"
    there = {name: dict.fromkeys(FACTORS[name].kind.show(getattr(cell, name)) for cell in cells) for name in missing}
    return "; ".join(f"no cell has {_written(name, levels[name])}, only {', '.join(there[name])}" for name in missing)


def _written(name: str, level: Any) -> str:
    some = level if isinstance(level, list) else [level]
    return f"{name} {' or '.join(FACTORS[name].kind.show(one) for one in some)}"


def cell_label(cell: Spec, factors: list[str]) -> str:
    """`data=fifo files=1024`, as `harness run --only` takes it."""
    return " ".join(f"{name}={getattr(cell, name)}" for name in factors) or "the only cell"


def find_cell(plan: Plan, text: str) -> int:
    """The number of the cell that `text` names: a number, or as cell_label() has it. Raises ValueError."""
    if text.isdecimal():
        if not 1 <= int(text) <= len(plan.cells):
            raise ValueError(f"cell {text}: there are cells from 1 to {len(plan.cells)}")
        return int(text)
    levels = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r}: write factor=value, or the number of a cell")
        if name not in FACTORS:
            raise ValueError(unknown("factor", name, OFFERED))
        levels[name] = convert(name, _scalar(value), os.getcwd())
    found = [number for number, cell in enumerate(plan.cells, 1) if matches(cell, levels)]
    if len(found) != 1:
        which = f"{len(found)} cells are like that" if found else no_cell(plan.cells, levels)
        raise ValueError(f"{text}: {which}; `harness experiment check` lists them")
    return found[0]


def _scalar(text: str) -> Any:
    """A value as an experiment file would have it."""
    yaml: Any = YAML(typ="safe", pure=True)  # its methods have no annotations
    return yaml.load(text) if text else ""


def _scaled(cell: Spec, scale: float) -> Spec:
    """The cell with `scale` times the load, and its fault at the same place in it."""
    if cell.requests:
        return replace(cell, requests=max(1, round(cell.requests * scale)))
    seconds = max(_LEAST_SECONDS, cell.seconds * scale)
    return replace(cell, seconds=seconds, fault_at=cell.fault_at * seconds / cell.seconds)


def needs_apart(cells: Sequence[Spec], live: bool) -> str:
    """Why cells need a time of their own; empty where they can be measured live."""
    if live:
        return "`live: true` shows each second of a load"
    if any(cell.page_cache == "cold" for cell in cells):
        return "`page_cache: cold` drops pages that other cells would share"
    if any(cell.fault for cell in cells):
        return "a fault ends programs that others would share"
    if any(cell.origin_latency or cell.origin_bandwidth for cell in cells):
        return "an origin that is slow on purpose leaves no short slices"
    return ""


def better_apart(cells: Sequence[Spec]) -> str:
    """Why cells are measured apart unless the file says `design: live`; empty where they are not."""
    if any(cell.rate for cell in cells):
        return "a queue at a given rate takes long to settle"
    if any(not cell.files.isdecimal() for cell in cells):
        return "slices of files of several sizes would not be of the same files"
    return ""
