"""What each host of a fleet says by itself: the ratios and verdicts that `harness show` prints of its own directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from harness.analysis import claims, naming, run_files
from harness.analysis.cells import CellTrials, ContextTrials, Levels, StudyTrials
from harness.analysis.claims import Claim
from harness.analysis.fleet import facts
from harness.analysis.fleet.files import Fleet, load_host
from harness.analysis.intervals import Estimate
from harness.analysis.judgements import Answer, judge_all
from harness.analysis.ratios import ratios, to_baselines
from harness.analysis.slices import Slices
from harness.analysis.verdicts import WITHHELD, controls, verdict
from harness.results import Trial

Key = tuple[tuple[str, Any], ...]  # levels, as a key of a dictionary


@dataclass(frozen=True)
class CellThere:
    """A cell on a host. ratio, verdict: to the baseline of the context, as in harness.analysis.study. logs: the log
    ratio of each block."""

    label: str
    levels: Levels
    floor: bool
    baseline: bool
    ratio: Estimate | None = None
    verdict: str = ""
    logs: tuple[float, ...] = ()


@dataclass(frozen=True)
class ContextThere:
    """A context on a host. cells: by their levels."""

    levels: Levels
    label: str
    metric: str
    files: tuple[int, int]
    cells: dict[Key, CellThere]


@dataclass(frozen=True)
class Host:
    """A host and what its results say. problem: why it has nothing to say; else empty. off: why its verdicts are
    withheld. controlled: whether it has an A/A control. comparisons: how many ratios it has. machine: the same on
    hosts that are one machine; empty where that is not known."""

    name: str
    facts: Mapping[str, str]
    trials: int = 0
    ok: int = 0
    began: str = ""
    off: str = ""
    controlled: bool = False
    problem: str = ""
    comparisons: int = 0
    contexts: dict[Key, ContextThere] = field(default_factory=dict)
    answers: Sequence[Answer] = ()
    machine: str = ""

    @property
    def control(self) -> str:
        """The state of its A/A control in a word: `OFF`, `on` or `none`."""
        return "OFF" if self.off else "on" if self.controlled else "none"


class Question(NamedTuple):
    """What a fleet's experiment asks, read once for all hosts. baseline: as levels."""

    baseline: Levels
    claims: list[Claim]


def question(fleet: Fleet) -> Question:
    """Raises ValueError, one line."""
    experiment = fleet.experiment
    return Question(claims.levels("baseline", experiment.get("baseline") or {}), claims.of_experiment(experiment))


def read(fleet: Fleet, name: str, asked: Question) -> Host:
    """Read and analyse the results of a host. One that cannot be read has that as its problem."""
    environment = run_files.environment(fleet.path(name))
    known = facts.of_environment(environment)
    try:
        trials, _, slices = load_host(fleet, name)
        return replace(analysed(name, known, trials, slices, asked), machine=facts.machine(environment))
    except (OSError, ValueError) as error:
        return Host(name, known, problem=f"cannot be read: {error}")


def analysed(name: str, known: Mapping[str, str], trials: list[Trial], slices: Slices | None, asked: Question) -> Host:
    """What these trials say, as those of one host. Raises ValueError."""
    good = [trial for trial in trials if trial.status == "ok" and not trial.probe]
    if not good:
        return Host(name, known, len(trials), problem="no good trial" if trials else "no results")
    sorted_trials = StudyTrials(trials, slices)
    contexts = sorted_trials.contexts(sorted_trials.compared(asked.baseline))
    control, off = controls(sorted_trials)
    bases = [context.baseline(asked.baseline) for context in contexts]
    pairs = to_baselines(contexts, bases)
    found = dict(zip([pair.cell for pair in pairs], ratios(pairs, len(pairs)), strict=True))
    there = {}
    for context, base in zip(contexts, bases, strict=True):
        withheld = bool(off(context.metric))
        cells = {_key(cell.design): _there(context, cell, base, found.get(cell), withheld) for cell in context.good}
        if cells:
            one = context.any_trial
            place = one.file_size_bytes, one.cell
            label = naming.label(context.levels)
            there[_key(context.levels)] = ContextThere(context.levels, label, context.metric, place, cells)
    metrics = {context.metric for context in there.values()}
    return Host(
        name,
        known,
        len(trials),
        len(good),
        min(trial.started_utc for trial in good),
        next(filter(None, map(off, sorted(metrics))), ""),
        controlled=bool(control.checks),
        comparisons=len(pairs),
        contexts=there,
        answers=judge_all(asked.claims, trials, off, slices) if asked.claims else (),
    )


def _there(
    context: ContextTrials, cell: CellTrials, base: CellTrials | None, ratio: Estimate | None, withheld: bool
) -> CellThere:
    said = ""
    if ratio and not cell.floor:
        said = WITHHELD if withheld else verdict(ratio, context.metric)
    logs = tuple(cell.log_ratios(base, context.metric).values()) if ratio and base else ()
    return CellThere(naming.design(cell.design), cell.design, cell.floor, cell is base, ratio, said, logs)


def _key(levels: Levels) -> Key:
    return tuple(levels.items())
