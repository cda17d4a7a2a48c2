"""The live blocks of a plan: which cells are in the next one, and what becomes of those that failed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from harness import console, results
from harness.api import Probe
from harness.experiment.plan import Plan, matches
from harness.experiment.run_directory import RunDirectory
from harness.factors import OFFERED, Spec
from harness.measure import apart, live
from harness.results import LIVE, Trial

_PACE = "pace_requests_per_s"  # what environment.json has of it: cells keep their slices where a run is resumed
_FAILED = "failed_blocks"  # what environment.json has of them, where a run is measured in parts
_TRIES = 2  # blocks that a cell may fail before it is left out
_FAILURES = 4  # blocks without a good trial, one after another and due to no cell, that end the run


class LiveBlocks:
    """Runs the blocks of a plan that have no rows yet. rows: those so far; new ones are added.

    A block holds the cells that have been in the fewest blocks, and the baselines that they are compared with. Where
    the machine does not hold all of them at once, those that were crowded out are in the next block, with theirs.

    block: the number of the next one; 0: the one that follows. in_parts: go on from what the part before has noted of
    failures; else a run that is resumed gives each cell a fresh chance.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        rows: list[Trial],
        refused: Mapping[Spec, str],
        block: int = 0,
        in_parts: bool = False,
    ) -> None:
        self._plan, self._directory, self._rows, self._refused = plan, directory, rows, dict(refused)
        last = {row.trial: row for row in rows if not row.probe}
        self._done = Counter(row.cell for row in last.values() if row.status in {"ok", "refused"})
        # Numbers of trials that are to be tried again, with how often they have failed.
        self._again = {row.cell: (row.trial, row.attempt) for row in last.values() if row.status == "failed"}
        self._next_trial = max((row.trial for row in rows), default=0) + 1
        self._block = max((row.block for row in rows), default=0)
        if block:
            self._block, self._next_trial = block - 1, (block - 1) * len(plan.cells) + 1
        self._noted: dict[str, float] = directory.environment().get(_PACE, {})
        self._pace = {self._spec(int(cell)): pace for cell, pace in self._noted.items()}
        noted = directory.environment().get(_FAILED, {}) if in_parts else {}
        self._in_parts = in_parts
        self._failures: int = noted.get("blocks", 0)
        self._guilty = Counter(
            {int(cell): count for cell, count in noted.get("cells", {}).items()}
        )  # cell -> blocks that it failed
        self._crowded: list[int] = []
        self._in_turn = False  # whether cells start one after another
        self._beside = _baselines(plan)

    @property
    def done(self) -> int:
        """Blocks that all cells have been in that are still measured."""
        return min((self._done[cell] for cell in self._cells()), default=self._plan.repeats)

    def run_one(
        self,
        quiet: Callable[[], float],
        probes: Callable[[], Sequence[Probe]],
        progress: Callable[[int, int], None],
        rounds: int = 0,
    ) -> live.Outcome | None:
        """Run the next block, and keep what came of it. Returns None where there was none left to run.

        quiet: waits for the machine to be quiet, and returns for how long. probes: makes those asked for afresh.
        progress: called before each round, with its number and how many there are. rounds: of this block; 0: what the
        plan says.
        """
        if self.done >= self._plan.repeats:
            return None
        chosen, first = self._choose(), self._next_trial
        self._block += 1
        rows = {cell: self._row(cell) for cell in chosen}
        members = [cell for cell in chosen if self._spec(cell) not in self._refused]
        for cell in chosen:
            if cell not in members:
                apart.refuse(self._spec(cell), rows[cell], self._refused[self._spec(cell)])
                rows[cell].design = LIVE
        outcome = live.Outcome()
        if members:
            waited = quiet()
            for cell in members:
                rows[cell].quiet_wait_s = waited
            outcome = live.run(
                [(self._spec(cell), rows[cell]) for cell in members],
                self._plan.slicing._replace(rounds=rounds or self._plan.slicing.rounds),
                self._pace,
                probes,
                self._directory.logs,
                progress,
                self._in_turn,
            )
        if outcome.crowded and not self._in_turn:
            self._in_turn = True
            self._block, self._next_trial = self._block - 1, first
            return self.run_one(quiet, probes, progress, rounds)
        crowded = [members[place] for place in outcome.crowded]
        alone = len(crowded) == 1 and self._beside[crowded[0]] >= {*members} - {*crowded}
        if crowded and (alone or len(crowded) == len(members)):  # fewer cannot be tried beside it
            reason = outcome.crowded[members.index(cell := crowded.pop(0))]
            rows[cell].status, rows[cell].reason = "refused", f"no room for it on this machine: {reason}"
            self._refused[self._spec(cell)] = rows[cell].reason
        self._keep([row for cell, row in rows.items() if cell not in crowded], outcome)
        self._judge(rows, {members[place] for place in outcome.guilty}, crowded)
        return outcome

    def _cells(self) -> list[int]:
        """The numbers of the cells that are still measured."""
        return [number for number, _ in enumerate(self._plan.cells, 1) if self._guilty[number] < _TRIES]

    def _spec(self, cell: int) -> Spec:
        return self._plan.cells[cell - 1]

    def _choose(self) -> list[int]:
        """The cells of the next block; baselines first, as what starts first is not crowded out."""
        cells = self._cells()
        chosen = self._crowded or [cell for cell in cells if self._done[cell] == self.done]
        beside = set().union(*(self._beside[cell] for cell in chosen)).intersection(cells)
        return [*sorted(beside), *sorted({*chosen} - beside)]

    def _row(self, cell: int) -> Trial:
        number, attempts = self._again.get(cell, (0, 0))
        if not number:
            number, self._next_trial = self._next_trial, self._next_trial + 1
        return Trial(
            experiment=self._plan.name,
            trial=number,
            block=self._block,
            cell=cell,
            seed=self._plan.seed,
            attempt=attempts + 1,
        )

    def _keep(self, rows: list[Trial], outcome: live.Outcome) -> None:
        """Keep all that a block leaves; its rows come last, together."""
        self._directory.keep(results.SLICES, outcome.slices)
        for table, observations in outcome.seen.items():
            self._directory.keep(f"{table}.csv", observations)
        paces = {str(number): self._pace[cell] for number, cell in enumerate(self._plan.cells, 1) if cell in self._pace}
        if paces != self._noted:
            self._directory.note(_PACE, paces)
            self._noted = paces
        self._directory.keep_block(rows)
        self._rows += rows
        for reason, count in Counter(row.reason for row in rows if row.reason).items():
            console.say(f"{count} of {len(rows)} cells: {reason}")
        for row in rows:
            if row.swept:
                console.say(f"cell {row.cell}: {row.swept} objects had to be swept")

    def _judge(self, rows: Mapping[int, Trial], guilty: set[int], crowded: list[int]) -> None:
        """Note what is to be tried again, and what is not."""
        for cell, row in rows.items():
            if row.status in {"ok", "refused"}:
                self._done[cell] += 1
                self._again.pop(cell, None)
            else:
                self._again[cell] = row.trial, row.attempt if row.status else row.attempt - 1
        failed = {cell for cell, row in rows.items() if row.status == "failed"}
        guilty &= failed
        lost = failed and not guilty and all(row.status != "ok" for row in rows.values())
        self._failures = self._failures + 1 if lost else 0
        if self._failures == _FAILURES:
            reasons = "; ".join(dict.fromkeys(row.reason for row in rows.values() if row.reason))
            raise console.Failure(f"{_FAILURES} blocks without a good trial: {reasons}")
        self._guilty.update(guilty)
        for cell in guilty:
            if self._guilty[cell] == _TRIES:
                console.say(f"cell {cell} failed in {_TRIES} blocks: going on without it")
        if self._in_parts and (lost or guilty):
            failures = {"blocks": self._failures, "cells": {str(cell): count for cell, count in self._guilty.items()}}
            self._directory.note(_FAILED, failures)
        # Where nothing but baselines fitted, fewer are tried beside theirs.
        fitted = rows.keys() - {*crowded} - set().union(*self._beside.values())
        self._crowded = crowded if fitted else crowded[: max(1, len(crowded) // 2)]


def _baselines(plan: Plan) -> dict[int, set[int]]:
    """The number of each cell -> those of the baselines that it is compared with: they differ from it the least."""
    cells = dict(enumerate(plan.cells, 1))
    baselines = {number: cell for number, cell in cells.items() if matches(cell, plan.baseline)}
    found = {}
    for number, cell in cells.items():
        unlike = {
            one: sum(getattr(cell, name) != getattr(base, name) for name in OFFERED) for one, base in baselines.items()
        }
        found[number] = {one for one, count in unlike.items() if count == min(unlike.values())}
    return found
