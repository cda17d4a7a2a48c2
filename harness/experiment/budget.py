"""Divides the time of a run among blocks and rounds, so that the intervals come out as narrow as it allows.

The first two blocks show what a restart of the programs costs and what a round costs, and how both scatter. From then
on each block has as many rounds as serve the context whose intervals would be the widest.
"""

import time
from collections.abc import Iterable, Sequence

from harness.analysis import precision
from harness.analysis.precision import Outlook, Use
from harness.analysis.slices import Slices
from harness.experiment.plan import Plan
from harness.results import Trial

_FIRST = 5  # rounds of the first block, at most: enough to see what a round costs
_SLICE = 0.01  # seconds that a slice is guessed to take before one has been seen
_LEAST = 3  # rounds of a block that is worth a restart
_SOUND = 8  # rounds of which the middle half is steady, where spikes are as frequent as on virtual machines
_FEW = 5  # blocks that are to fit before a block has fewer rounds than that
_SECOND = 1 / 8  # share of the time that the second block takes


class Budget:
    """The time of a run, from construction on.

    spent: seconds of it that an earlier part of the run has used. costs: what that part has found a restart and a round
    to cost all cells together, in seconds, and the cells of its largest block.
    """

    def __init__(self, plan: Plan, spent: float = 0.0, costs: Sequence[float] = ()) -> None:
        self._plan = plan
        self._begun = time.monotonic() - spent
        self._restart_s, self._round_s, cells = costs or (0.0, 0.0, 0)
        self._cells = int(cells)
        self._use: Use | None = None

    @property
    def passed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._begun

    def block(self, rounds: int, round_s: float, seconds: float, cells: int) -> None:
        """A block of so many rounds and cells has taken `seconds` in all.

        Cells that the machine does not hold beside the others come in a block of their own. Where that is less than
        half as large, it belongs to the one before it, and its costs are added. Otherwise blocks that follow each other
        cost alike, also where a cell has been left out.
        """
        restart_s = seconds - rounds * round_s
        if 2 * cells >= self._cells:
            self._restart_s, self._round_s = restart_s, round_s
            self._cells = max(self._cells, cells)
        else:
            self._restart_s += restart_s
            self._round_s += round_s

    @property
    def costs(self) -> list[float]:
        """For the part of the run that follows."""
        return [self._restart_s, self._round_s, self._cells]

    def learn(self, rows: Iterable[Trial], slices: Slices | None) -> None:
        """Divide what is left by how the ratios of all blocks so far scatter."""
        found = precision.of_run(rows, self._plan.baseline, slices)
        comparisons = sum(one.cells for one in found)

        def best(outlook: Outlook) -> Use | None:
            costs = self._plan.budget, self._restart_s, self._round_s
            return precision.best_use(outlook.scatter, *costs, comparisons, outlook.cells)

        uses = [use for outlook in found if (use := best(outlook))]
        self._use = max(uses, key=lambda use: use.half_width, default=None)

    def rounds(self) -> int:
        """How many rounds the next block is to have; 0 where no block fits any more."""
        left = self._plan.budget - self.passed
        if not self._round_s:
            fitting = int(_SECOND * self._plan.budget / (_SLICE * len(self._plan.cells)))
            return max(_LEAST, min(_FIRST, fitting)) if left > 0 else 0
        if self._use:
            sound = (self._plan.budget / _FEW - self._restart_s) / self._round_s
            wanted = max(self._use.rounds, min(_SOUND, sound))
        else:
            wanted = (_SECOND * self._plan.budget - self._restart_s) / self._round_s
        blocks = max(1, int(left / (self._restart_s + max(_LEAST, wanted) * self._round_s)))
        fitting = int((left / blocks - self._restart_s) / self._round_s)
        return fitting if fitting >= _LEAST else 0

    @property
    def line(self) -> str:
        """How precise the run will be."""
        if not self._use:
            return "learning what restarts and rounds cost"
        return f"widest intervals expected: +-{100 * self._use.half_width:.2g} % after {self._use.blocks} blocks"
