"""The probes of one trial: begun at the go-ahead, ended after the last reply, their readings put where they belong."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from harness.api import Moments, Probe
from harness.measure.probes import proc
from harness.results import PROBED, STAGES, Bucket, Observation, Request, Trial

# From this share of the CPU time on, foreign load or steal disturbs a trial. It is half of the differences, of 10 %,
# that a study is to find; the services of an idle machine stay well below.
DISTURBED = 0.05
# Seconds a CPU that are nothing at all in a short trial: idle and stolen time are counted in steps of 10 ms.
UNSURE = 0.02

Seen = dict[str, list[Bucket | Observation | Request]]  # by table


class ProbeFailed(Exception):
    """Why a trial is no good without a probe that did not work, in one line."""


class Probing:
    """The probes asked for, and those of every trial.

    Where a probe raises, the trial's `reason` says so, and its figures are good all the same. Two kinds of probes
    fail the trial, by ProbeFailed: those of every trial, without which a row is not whole, and a costly one, for
    which the trial ran.
    """

    def __init__(self, trial: Trial, asked: Sequence[Probe], seen: Seen) -> None:
        """seen: gets the readings that have no column. Raises ValueError for two costly ones."""
        costly = [probe.name for probe in asked if probe.costly]
        if len(costly) > 1:
            raise ValueError(f"{' and '.join(costly)}: a costly probe needs trials of its own")
        trial.probe = "".join(costly)
        self._trial, self._seen = trial, seen
        # Costly ones begin first and end last, so that those of every trial see the load alone.
        others = [probe for probe in asked if type(probe) not in proc.ALWAYS]
        self._probes = [*sorted(others, key=lambda probe: not probe.costly), *(kind() for kind in proc.ALWAYS)]
        self._needed = {*costly, *(kind.name for kind in proc.ALWAYS)}
        self._problems: list[tuple[Probe, str]] = []
        self._filled: set[str] = set()

    def environment(self, directory: str) -> dict[str, str]:
        """The variables that the costly probe wants the programs to be started with. Raises ProbeFailed.

        directory: as in looking().
        """
        wanted: dict[str, str] = {}
        for probe in self._probes:
            if probe.costly:
                with self._noting_problems(probe):
                    wanted |= probe.environment(_room(directory, probe))
        self._check()
        return wanted

    @contextmanager
    def looking(self, processes: Mapping[str, Sequence[int]], directory: str) -> Iterator[None]:
        """Look at the processes (pids by role), while the body has the load run. Raises ProbeFailed.

        Each probe has a directory of its own below `directory`. All are stopped after an exception.
        """
        begun: list[Probe] = []
        try:
            for probe in self._probes:
                with self._noting_problems(probe):
                    probe.begin(processes, _room(directory, probe))
                    begun.append(probe)
            self._check()
            yield
        finally:
            while begun:
                probe = begun.pop()
                with self._noting_problems(probe):
                    self._keep(probe)
        self._check()

    def _keep(self, probe: Probe) -> None:
        for reading in probe.end():
            if isinstance(reading, Moments):
                self._seen.setdefault(STAGES.removesuffix(".csv"), []).append(Request(self._trial.trial, *reading))
                continue
            column = f"{reading.role}_{reading.metric}" if reading.role else reading.metric
            if column in PROBED and column not in self._filled:
                setattr(self._trial, column, PROBED[column](reading.value))
                self._filled.add(column)
            else:
                seen = Observation(self._trial.trial, probe.name, *reading)
                self._seen.setdefault(probe.table, []).append(seen)

    @contextmanager
    def _noting_problems(self, probe: Probe) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever a stranger's probe raises
            text = f"probe {probe.name}: {type(error).__name__}: {error}"
            self._problems.append((probe, " ".join(text.split())))

    def _check(self) -> None:
        self._trial.reason = "; ".join(problem for _, problem in self._problems)
        if any(probe.name in self._needed for probe, _ in self._problems):
            raise ProbeFailed(self._trial.reason)


def _room(directory: str, probe: Probe) -> str:
    """The directory of a probe's own files, which is made where it is missing."""
    os.makedirs(room := f"{directory}/probe-{probe.name}", exist_ok=True)
    return room


def disturbance(trial: Trial) -> str:
    """What disturbed a trial, and how much of it there was; empty where nothing did."""
    least = trial.cpus * max(DISTURBED * trial.measured_s, UNSURE)
    seen = {"steal": trial.steal_s, "foreign load": trial.foreign_cpu_s}
    return ", ".join(f"{what} {seconds:.2f} s" for what, seconds in seen.items() if seconds > least)
