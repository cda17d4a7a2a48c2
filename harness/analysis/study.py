"""The analysis of a study's trials. Tables, claims and reports only render what it returns.

In each context one cell is the baseline. Every other cell has its ratio to the baseline, taken within blocks. The
floors (`direct`, and transports that say they are one, where transports are compared) have a ratio, but no verdict:
they do not compete. Trials that failed, were refused, or were run for a probe are left out and counted. Disturbed
trials are kept and flagged. docs/statistics.md says what the intervals mean.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import units
from harness.analysis import claims, naming
from harness.analysis.above_floor import AboveFloor, above_floors
from harness.analysis.cells import MICROSECONDS, PROVENANCE, CellTrials, ContextTrials, Levels, StudyTrials
from harness.analysis.crossings import Crossing, crossings
from harness.analysis.crossovers import Crossover, crossovers
from harness.analysis.intervals import LEAST, Estimate, means, reach
from harness.analysis.judgements import Answer, judge_all
from harness.analysis.leaders import leaders
from harness.analysis.notes import after_faults, disturbances, notes
from harness.analysis.precision import Outlook, of_context
from harness.analysis.ratios import more_micros, ratios, to_baselines
from harness.analysis.resolution import Resolution, resolution
from harness.analysis.resolution import line as resolution_line
from harness.analysis.slices import Slices
from harness.analysis.verdicts import METRICS, MORE_IS_BETTER, WITHHELD, Control, controls, verdict
from harness.results import Trial

# With fewer blocks, narrow intervals do not end a run: docs/decisions/0009.
LEAST_TO_STOP = 8


@dataclass(frozen=True)
class Measurement:
    """One metric of one cell, in the unit of its column.

    value: geometric mean over blocks, with its own 95 % interval. least, most: the smallest and the largest trial.
    ratio: to the baseline, at the level corrected for all ratios of the study in this metric; None for the baseline,
    and where no block has both cells. verdict: `faster` or `slower` (throughput, latency), `less` or `more` (other
    metrics), `cannot tell`, `withheld`; empty for the baseline, for floors, and where there is no ratio. difference:
    microseconds that a request takes more than with the baseline, at the same level as the ratio; only in the metrics
    of harness.analysis.cells.MICROSECONDS.
    """

    value: Estimate
    least: float
    most: float
    ratio: Estimate | None = None
    verdict: str = ""
    difference: Estimate | None = None


@dataclass(frozen=True)
class Cell:
    """What the good trials of a cell say.

    design: its compared factors. trials: how many good trials it has; `disturbed` of them are flagged. wait: the wait
    strategy of its data transport. client_busy: mean share of the time that the busiest client process ran, 0 to 1.
    saturated: whether most trials did not keep up with the rate of their open loop.
    measurements: metric -> measurement, for METRICS; a metric that was 0 in all trials is missing. rows: the numbers of
    its trials in trials.csv. above_floor: None where no floor of its shape is in the context.
    """

    number: int
    design: Levels
    label: str
    trials: int
    disturbed: int
    floor: bool
    baseline: bool
    wait: str
    client_busy: float
    saturated: bool
    measurements: Mapping[str, Measurement]
    rows: tuple[int, ...] = ()
    above_floor: AboveFloor | None = None


@dataclass(frozen=True)
class Context:
    """The cells of a context that have good trials.

    levels: the factors that separate it from other contexts. metric: what its cells are ranked by, requests_per_s, or
    latency_p50_us in an open loop, where the throughput is given. messages: whether all trials of the study are of
    lanes alone, which carry messages between two processes. cells: best first, floors last. leaders: the best
    cell and those that are not measurably worse (harness.analysis.leaders); empty where the A/A control is off.
    resolution: how far the intervals of its ratios reach. outlook: how these scatter, and what more would buy, where
    they are of slices.
    """

    levels: Levels
    label: str
    file_size_bytes: int
    metric: str
    cells: list[Cell]
    leaders: list[Cell]
    resolution: Resolution | None = None
    outlook: Outlook | None = None
    messages: bool = False

    @property
    def baseline(self) -> Cell | None:
        """The cell that the others are compared with; None where it has no good trial."""
        return next((cell for cell in self.cells if cell.baseline), None)


@dataclass(frozen=True)
class Counts:
    """How many trials there are of each kind. ok: the good ones, of which `disturbed` are flagged. probes: those that
    were run for a probe, good or not."""

    trials: int
    ok: int
    failed: int
    refused: int
    probes: int
    disturbed: int


@dataclass(frozen=True)
class Study:
    """The whole analysis.

    compared: the factors in which cells of a context differ. comparisons: how many ratios there are in each metric; all
    their intervals hold at once with 95 % probability. missing: (label, reason) of each cell without a good trial.
    cautions: sentences about figures that are not there, are those of fewer blocks, or were disturbed. notes: all
    sentences to show beside the values, the cautions first.
    """

    name: str
    contexts: list[Context]
    compared: tuple[str, ...]
    comparisons: int
    control: Control
    answers: list[Answer]
    crossovers: list[Crossover]
    crossings: list[Crossing]
    counts: Counts
    missing: list[tuple[str, str]]
    cautions: list[str]
    notes: list[str]

    @property
    def coarse(self) -> bool:
        """Whether a reader has to know before all else how little the study could resolve."""
        return any(context.resolution and context.resolution.coarse for context in self.contexts)

    @property
    def resolution_line(self) -> str:
        """What the study could resolve, in a sentence; empty where nothing was compared."""
        return resolution_line([(context.label, one) for context in self.contexts if (one := context.resolution)])


def analyse(trials: Iterable[Trial], experiment: Mapping[str, Any], slices: Slices | None = None) -> Study:
    """Analyse the trials of a study.

    experiment: the resolved experiment, {} where there is none; only its `baseline` (column -> value), `claims`, and
    how many `cells` it has are used. slices: those of its live blocks, where it has any. Raises ValueError where the
    baseline or a claim is wrong.
    """
    trials = list(trials)
    sorted_trials = StudyTrials(trials, slices)
    given = claims.levels("baseline", experiment.get("baseline") or {})
    compared = sorted_trials.compared(given)
    context_trials = sorted_trials.contexts(compared)
    bases = [context.baseline(given) for context in context_trials]
    comparisons = len(to_baselines(context_trials, bases))
    control, off = controls(sorted_trials)
    measured = {metric: _measurements(context_trials, bases, metric, off(metric)) for metric in METRICS}
    above = above_floors(context_trials)
    messages = all(trial.scope == "lane" for trial in trials)
    not_run = _not_run(trials, experiment)
    leading = [[] for _ in context_trials] if control.off or not_run else leaders(context_trials)

    contexts = []
    for context, base, best in zip(context_trials, bases, leading, strict=True):
        cells = {}
        for cell in context.good:
            own = {metric: measured[metric][cell] for metric in METRICS if cell in measured[metric]}
            cells[cell] = _cell(cell, cell is base, own, above.get(cell))
        if cells:
            ratios_there = [
                one.ratio
                for cell in context.good
                if not cell.floor and (one := measured[context.metric].get(cell)) and one.ratio
            ]
            contexts.append(
                Context(
                    levels=context.levels,
                    label=naming.of_messages(context.levels) if messages else naming.label(context.levels),
                    file_size_bytes=context.any_trial.file_size_bytes,
                    metric=context.metric,
                    cells=sorted(
                        cells.values(),
                        key=_best_first(context.metric, measured[context.metric].get(base) if base else None),
                    ),
                    leaders=[cells[cell] for cell in best],
                    resolution=resolution(
                        ratios_there, {trial.design for cell in context.good for trial in cell.trials}
                    ),
                    outlook=of_context(to_baselines([context], [base])),
                    messages=messages,
                )
            )
    counts = _counts(trials)
    cautions = [*not_run, *_lost(context_trials), *after_faults(trials), *disturbances(contexts, counts)]
    machines = {tuple(getattr(trial, name) for name in PROVENANCE) for trial in trials}
    origins = sorted({trial.origin for trial in trials if trial.origin})
    return Study(
        name=trials[0].experiment if trials else "",
        contexts=contexts,
        compared=compared,
        comparisons=comparisons,
        control=control,
        answers=judge_all(claims.of_experiment(experiment), trials, off, slices),
        crossovers=crossovers(
            (context.levels, [cell.label for cell in context.leaders])
            for context in contexts
            if context.leaders and sum(not cell.floor for cell in context.cells) > 1
        ),
        crossings=crossings(context_trials, leading),
        counts=counts,
        missing=_missing(context_trials),
        cautions=cautions,
        notes=cautions + notes(contexts, counts, comparisons, len(machines), origins, _versions(trials)),
    )


def narrow_enough(
    trials: Iterable[Trial],
    baseline: Levels,
    percent: float,
    metric: str = "",
    least: int = LEAST_TO_STOP,
    slices: Slices | None = None,
) -> bool:
    """Whether a run may stop because its intervals are narrow.

    True where every ratio to the baseline, in every context, has an interval, corrected for all of them, neither end of
    which is further from the ratio than `percent` % of the ratio. False while a ratio rests on fewer than `least`
    blocks: to stop at intervals that are narrow by chance makes them miss more often than they say. False where nothing
    is compared. baseline: as in the experiment; {}: the first cell of each context. metric: "": what each context is
    ranked by, as for its verdicts. slices: those of live blocks.
    """
    far, blocks = widest(trials, baseline, metric, slices)
    return blocks >= max(least, LEAST) and far <= percent / 100


def widest(
    trials: Iterable[Trial], baseline: Levels, metric: str = "", slices: Slices | None = None
) -> tuple[float, int]:
    """How far the widest interval of a run's ratios to the baseline reaches, as a share of its ratio, and how many
    blocks the ratio with the fewest rests on. Infinite, and 0, where nothing is compared or a ratio has no interval.

    Arguments as those of narrow_enough().
    """
    sorted_trials = StudyTrials(trials, slices)
    baseline = claims.levels("baseline", baseline)
    contexts = sorted_trials.contexts(sorted_trials.compared(baseline))
    pairs = to_baselines(contexts, [context.baseline(baseline) for context in contexts], metric)
    found = ratios(pairs, len(pairs))
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return math.inf, 0
    return max(map(reach, known)), min(one.n for one in known)


def floors_of(contexts: Iterable[Context]) -> list[str]:
    """The labels of the floors above which the time of cells of these contexts is measured, sorted."""
    return sorted({cell.above_floor.floor for context in contexts for cell in context.cells if cell.above_floor})


def _saturated(trial: Trial) -> bool:
    if not trial.rate:
        return False
    asked = trial.seconds or trial.requests / trial.rate
    return units.saturated(asked, trial.measured_s, trial.latency_p50_us / 1e6)


def _cell(
    cell: CellTrials, baseline: bool, measurements: Mapping[str, Measurement], above_floor: AboveFloor | None
) -> Cell:
    return Cell(
        number=cell.number[0],
        design=cell.design,
        label=naming.design(cell.design),
        trials=len(cell.trials),
        disturbed=sum(bool(trial.disturbed) for trial in cell.trials),
        floor=cell.floor,
        baseline=baseline,
        wait=cell.wait,
        client_busy=sum(trial.client_busy for trial in cell.trials) / len(cell.trials),
        saturated=2 * sum(map(_saturated, cell.trials)) > len(cell.trials),
        measurements=measurements,
        rows=tuple(trial.trial for trial in cell.trials),
        above_floor=above_floor,
    )


def _measurements(
    contexts: list[ContextTrials], bases: list[CellTrials | None], metric: str, off: str
) -> dict[CellTrials, Measurement]:
    """The measurements of all cells in one metric. off: why verdicts are withheld, or an empty string."""
    pairs = to_baselines(contexts, bases, metric)
    judged = dict(zip([pair.cell for pair in pairs], ratios(pairs, len(pairs)), strict=True))
    more = {}
    if metric in MICROSECONDS:
        more = dict(zip(judged, more_micros(pairs, len(pairs)), strict=True))
    cells = [cell for context in contexts for cell in context.good if cell.logs(metric)]
    values = means([list(cell.logs(metric).values()) for cell in cells])
    measured = {}
    for cell, value in zip(cells, values, strict=True):
        own = [getattr(trial, metric) for trial in cell.trials]
        ratio = judged.get(cell)
        said = "" if cell.floor or not ratio else WITHHELD if off else verdict(ratio, metric)
        measured[cell] = Measurement(value, min(own), max(own), ratio, said, more.get(cell))
    return measured


def _best_first(metric: str, base: Measurement | None) -> Callable[[Cell], tuple[bool, bool, float]]:
    """The order of cells. They are ranked by their ratios to the baseline, whose measurement is `base`."""

    def key(cell: Cell) -> tuple[bool, bool, float]:
        measured = cell.measurements.get(metric)
        value = measured.value.value if measured else 0.0
        if measured and measured.ratio and base:
            value = measured.ratio.value * base.value.value
        return cell.floor, not measured, -value if metric in MORE_IS_BETTER else value

    return key


def _counts(trials: list[Trial]) -> Counts:
    timed = [trial for trial in trials if not trial.probe]
    return Counts(
        trials=len(trials),
        ok=sum(trial.status == "ok" for trial in timed),
        failed=sum(trial.status not in ("ok", "refused") for trial in timed),
        refused=sum(trial.status == "refused" for trial in timed),
        probes=len(trials) - len(timed),
        disturbed=sum(trial.status == "ok" and bool(trial.disturbed) for trial in timed),
    )


def _versions(trials: list[Trial]) -> dict[str, str]:
    """interpreter -> what it ran, where some trials had another one than the run itself."""
    if not any(trial.version for trial in trials):
        return {}
    return {
        trial.interpreter: trial.version or f"transport-harness {trial.harness} {trial.commit}, Python {trial.python}"
        for trial in trials
        if trial.status == "ok"
    }


def _not_run(trials: list[Trial], experiment: Mapping[str, Any]) -> list[str]:
    """A sentence where a run has ended before each of its cells had a trial; else none."""
    planned = len(experiment.get("cells") or [])
    left = planned - len({trial.cell for trial in trials if not trial.probe})
    if left <= 0:
        return []
    return [
        f"Unfinished: {left} of {planned} cells have no trial yet. What is said is of the others, and which design is "
        "unbeaten is not said."
    ]


def _lost(contexts: list[ContextTrials]) -> list[str]:
    """A sentence for each cell that failed in some blocks only: those that did not may have been the easier ones."""
    said = []
    for context in contexts:
        for cell in context.good:
            good = {trial.block for trial in cell.trials}
            if lost := {trial.block for trial in cell.bad} - good:
                label = ", ".join(filter(None, (naming.design(cell.design), naming.label(context.levels))))
                said.append(
                    f"{label}: failed in {len(lost)} of {len(lost | good)} blocks. Its figures are of the others."
                )
    return said


def _missing(contexts: list[ContextTrials]) -> list[tuple[str, str]]:
    return [
        (
            f"{naming.design(cell.design)}, {naming.label(context.levels)}",
            f"{cell.bad[-1].status}: {cell.bad[-1].reason}",
        )
        for context in contexts
        for cell in context.cells
        if not cell.trials
    ]
