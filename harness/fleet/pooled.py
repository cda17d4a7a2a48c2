"""What like hosts that share the blocks of one study have resolved together, if their blocks are taken for one run.

It says when to stop. What the study says rests on hosts, and is wider: harness/analysis/fleet.
"""

import math
import os
import tempfile
import time
from typing import TYPE_CHECKING

from harness import results
from harness.analysis import run_files
from harness.experiment.plan import Plan
from harness.fleet.fleet_directory import FleetDirectory
from harness.results import Trial

if TYPE_CHECKING:
    from harness.analysis.slices import Slices

_SHARE = 0.1  # of the coordinator's time that may go into looking


class Pooled:
    """widest: how far the widest interval reaches, a share; None: not known. precise: whether that ends the study."""

    def __init__(self, directory: FleetDirectory, plan: Plan) -> None:
        self._directory, self._plan = directory, plan
        self._next = 0.0
        self.widest: float | None = None
        self.precise = False
        if directory.kept:
            self.look()

    def look(self) -> None:
        """Compute both anew, unless that was done a short time ago for what it costs."""
        blocks = len(self._directory.owners)
        if not self._plan.baseline or blocks < max(2, self._plan.least) or time.monotonic() < self._next:
            return
        from harness.analysis.study import widest  # noqa: PLC0415  it loads numpy, for a study that is under way

        begun = time.monotonic()
        rows, slices = _together(
            [self._directory.of_host(host) for host, kept in self._directory.kept.items() if kept.rows]
        )
        far, fewest = widest(rows, self._plan.baseline, slices=slices)
        self.widest = far if math.isfinite(far) else None
        self.precise = bool(self._plan.within) and fewest >= self._plan.least and far <= self._plan.within
        now = time.monotonic()
        self._next = now + (now - begun) / _SHARE


def _together(directories: list[str]) -> "tuple[list[Trial], Slices | None]":
    """Rows and slices of several run directories in which no number of a trial comes twice, as those of one host: rows
    of other hosts would be contexts of their own."""
    rows = [row for one in directories for row in results.read(f"{one}/{results.TRIALS}")]
    for row in rows:
        row.host = ""
    texts = [results.read_slices(path) for one in directories if os.path.exists(path := f"{one}/{results.SLICES}")]
    if not texts:
        return rows, None
    with tempfile.TemporaryDirectory(prefix="transport-harness-") as place:
        with open(f"{place}/{results.SLICES}", "wb") as file:
            file.write(",".join(texts[0][0]).encode() + b"\n" + b"".join(text for _, text in texts))
        return rows, run_files.slices_of(place)
