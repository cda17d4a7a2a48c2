"""What the trials of a study say: one analysis, which tables, claims and reports only render.

One cell of each context is its baseline, and each other one has its ratio to it, taken within blocks. The floors
(`direct`, and a `null` transport where transports are compared) have a ratio, too, but no verdict: they do not
compete. Left out, and counted: trials that failed or were refused, and those run for a probe. Disturbed trials are
kept, and flagged. docs/statistics.md says what the intervals mean.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis import claims, naming
from harness.analysis.cells import ORIGIN, THROUGHPUT, Group, Levels, Run, Table
from harness.analysis.intervals import CONFIDENCE, LEAST, Estimate, corrected, means
from harness.analysis.judgements import Answer, judge_all
from harness.analysis.verdicts import METRICS, MORE_IS_BETTER, WITHHELD, Control, controls, verdict
from harness.results import Trial

# Blocks before which narrow intervals do not end a run: docs/decisions/0009.
LEAST_TO_STOP = 8
_SHOWN = 4  # of the cells that lead a range of file sizes: who reads of forty reads nothing


@dataclass(frozen=True)
class Figure:
    """One metric of one cell, in the unit of its column.

    value: geometric mean over blocks, with the 95 % interval that it has by itself. least, most: of its trials.
    ratio: to the baseline's, at the level corrected for all ratios of the study in this metric; None for the baseline,
    and where no block has both. verdict: `faster` or `slower` (throughput, latency), `less` or `more` (others),
    `cannot tell`, `withheld`; empty for the baseline, for floors, and where there is no ratio.
    """

    value: Estimate
    least: float
    most: float
    ratio: Estimate | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Cell:
    """design: its compared factors. trials: how many are behind the figures; of these, `disturbed` are flagged.
    rows: their numbers in trials.csv.
    wait: how its data transport waits. client_busy: mean share of the time that the busiest client process ran.
    figures: by column, of METRICS; a metric that was 0 in all its trials is missing."""

    number: int
    design: Levels
    label: str
    trials: int
    disturbed: int
    floor: bool
    baseline: bool
    wait: str
    client_busy: float
    figures: Mapping[str, Figure]
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Context:
    """levels: the factors that set it apart from other contexts. metric: what its order and its leaders are about:
    requests_per_s, or in an open loop, whose throughput is given, latency_p50_us. cells: best first, floors last.

    leaders: the best cell, and those that cannot be told from it. With 95 % probability the truly best cells of all
    contexts of the study are among them (Gupta 1965: each cell against the best, one-sided, at 0.05 over the
    number of all such comparisons). Empty where the control is off.
    """

    levels: Levels
    label: str
    file_size_bytes: int
    metric: str
    cells: list[Cell]
    leaders: list[Cell]

    @property
    def baseline(self) -> Cell | None:
        """The cell that the others are compared with, where it has a good trial."""
        return next((cell for cell in self.cells if cell.baseline), None)


@dataclass(frozen=True)
class Segment:
    """What to use in a range of file sizes. files: file sets, the smallest first. designs: labels of the cells that
    lead at all of them: more than one where they cannot be told apart."""

    files: list[str]
    designs: list[str]


@dataclass(frozen=True)
class Crossover:
    """levels: those of contexts without the file set, e.g. a number of clients. segments: by growing file size."""

    levels: Levels
    label: str
    segments: list[Segment]

    @property
    def line(self) -> str:
        """In a sentence: `up to 64 KiB: fifo or unix; from 1 MiB on: sendfile`."""
        parts = []
        for number, segment in enumerate(self.segments):
            first, last = (naming.value("files", segment.files[end]) for end in (0, -1))
            where = first if first == last else f"{first} to {last}"
            if len(self.segments) > 1 and segment.files[0].isdecimal():
                where = f"up to {last}" if number == 0 else where
                where = f"from {first} on" if number == len(self.segments) - 1 else where
            told = " (cannot be told apart)" if len(segment.designs) > 1 else ""
            shown, rest = segment.designs[:_SHOWN], len(segment.designs) - _SHOWN
            more = [f"one of {rest} more"] if rest > 0 else []
            parts.append(f"{where}: {' or '.join(shown + more)}{told}")
        return "; ".join(parts)

    @property
    def sentence(self) -> str:
        """The same with where it holds: `Unbeaten (8 clients): up to 64 KiB: fifo.`"""
        return f"Unbeaten{f' ({self.label})' if self.label else ''}: {self.line}."


@dataclass(frozen=True)
class Counts:
    """Trials of each kind. ok: what figures are made of; disturbed: of these. probes: those run for a probe."""

    trials: int
    ok: int
    failed: int
    refused: int
    probes: int
    disturbed: int


@dataclass(frozen=True)
class Study:
    """What a study's trials say. compared: the factors in which cells of a context differ. comparisons: how many
    ratios there are in each metric; their intervals hold all at once with 95 % probability. missing: cells without a
    good trial, (label, reason). notes: sentences that belong beside the figures."""

    name: str
    contexts: list[Context]
    compared: tuple[str, ...]
    comparisons: int
    control: Control
    answers: list[Answer]
    crossovers: list[Crossover]
    counts: Counts
    missing: list[tuple[str, str]]
    notes: list[str]


def analyse(trials: Iterable[Trial], experiment: Mapping[str, Any]) -> Study:
    """The whole analysis. experiment: the resolved experiment; `baseline` (column -> value) and `claims` are what is
    used of it, and may be missing. Raises ValueError where one of them is wrong."""
    trials = list(trials)
    table = Table(trials)
    given = claims.levels("baseline", experiment.get("baseline") or {})
    compared = table.compared(given)
    groups = table.groups(compared)
    bases = [group.baseline(given) for group in groups]
    based = [(group, base) for group, base in zip(groups, bases, strict=True) if base]
    pairs = [(run, base) for group, base in based for run in group.good if run is not base]
    control, off = controls(table)
    figures = {metric: _figures(groups, pairs, metric, off(metric)) for metric in METRICS}
    leaders = _leaders(groups) if not control.off else [[] for _ in groups]

    contexts = []
    for group, base, leading in zip(groups, bases, leaders, strict=True):
        cells = {}
        for run in group.good:
            own = {metric: figures[metric][run] for metric in METRICS if run in figures[metric]}
            cells[run] = _cell(run, run is base, own)
        if cells:
            ranked = sorted(cells.values(), key=_best_first(group.metric))
            contexts.append(
                Context(
                    group.levels,
                    naming.label(group.levels),
                    group.one.file_size_bytes,
                    group.metric,
                    ranked,
                    [cells[run] for run in leading],
                )
            )
    counts = _counts(trials)
    machines = {tuple(getattr(trial, name) for name in ORIGIN) for trial in trials}
    origins = sorted({trial.origin for trial in trials if trial.origin})
    return Study(
        name=trials[0].experiment if trials else "",
        contexts=contexts,
        compared=compared,
        comparisons=len(pairs),
        control=control,
        answers=judge_all([claims.read(one) for one in experiment.get("claims") or []], trials, off),
        crossovers=_crossovers(contexts),
        counts=counts,
        missing=_missing(groups),
        notes=_notes(contexts, counts, len(pairs), len(machines), origins),
    )


def narrow_enough(
    trials: Iterable[Trial], baseline: Levels, percent: float, metric: str = THROUGHPUT, least: int = LEAST_TO_STOP
) -> bool:
    """Whether a run may stop: each ratio to the baseline, in each context, has an interval, corrected for all of
    them, of which no end is further from the ratio than `percent` % of it.

    False while a ratio rests on fewer than `least` blocks, since to stop at intervals that are narrow by chance makes
    them miss more often than they say; and where nothing is compared. baseline: as in the experiment, {}: the first
    cell of each context.
    """
    table = Table(trials)
    baseline = claims.levels("baseline", baseline)
    pairs = [
        run.log_ratios(base, metric)
        for group in table.groups(table.compared(baseline))
        if (base := group.baseline(baseline))
        for run in group.good
        if run is not base
    ]
    if not pairs or min(map(len, pairs)) < max(least, LEAST):
        return False
    ratios = means(pairs, corrected(len(pairs)))
    return all(max(one.high - one.value, one.value - one.low) <= percent / 100 * one.value for one in ratios)


def _cell(run: Run, baseline: bool, figures: Mapping[str, Figure]) -> Cell:
    return Cell(
        number=run.number[0],
        design=run.design,
        label=naming.design(run.design),
        trials=len(run.trials),
        disturbed=sum(bool(trial.disturbed) for trial in run.trials),
        floor=run.floor,
        baseline=baseline,
        wait=run.wait,
        client_busy=sum(trial.client_busy for trial in run.trials) / len(run.trials),
        figures=figures,
        rows=tuple(trial.trial for trial in run.trials),
    )


def _figures(groups: list[Group], pairs: list[tuple[Run, Run]], metric: str, off: str) -> dict[Run, Figure]:
    """The figures of all cells in one metric."""
    ratios = {}
    paired = {run: logs for run, base in pairs if (logs := run.log_ratios(base, metric))}
    for run, ratio in zip(paired, means(list(paired.values()), corrected(len(pairs))), strict=True):
        said = "" if run.floor else WITHHELD if off else verdict(ratio, metric)
        ratios[run] = ratio, said
    runs = [run for group in groups for run in group.good if run.logs(metric)]
    values = means([list(run.logs(metric).values()) for run in runs])
    ends = [[getattr(trial, metric) for trial in run.trials] for run in runs]
    return {
        run: Figure(value, min(own), max(own), *ratios.get(run, ()))
        for run, value, own in zip(runs, values, ends, strict=True)
    }


def _leaders(groups: list[Group]) -> list[list[Run]]:
    """For each context its best cell, and those that cannot be told from it, best first; floors do not compete."""
    best_first = []
    for group in groups:
        rivals = [run for run in group.good if not run.floor and run.logs(group.metric)]
        best_first.append(sorted(rivals, key=lambda run: _goodness(run, group.metric), reverse=True))
    rest = [(group, rivals[0], run) for group, rivals in zip(groups, best_first, strict=True) for run in rivals[1:]]
    logs = [run.log_ratios(best, group.metric) for group, best, run in rest]
    there = [index for index, one in enumerate(logs) if one]
    # One-sided: whether a cell is worse than the best. A two-sided interval at 1 - 2a has a on each side.
    ratios = means([logs[index] for index in there], 1 - 2 * (1 - CONFIDENCE) / max(1, len(rest)))
    worse = set()
    for index, ratio in zip(there, ratios, strict=True):
        group, _, run = rest[index]
        if ratio.high < 1 if group.metric in MORE_IS_BETTER else ratio.low > 1:
            worse.add((id(group), run))
    return [
        [run for run in rivals if (id(group), run) not in worse]
        for group, rivals in zip(groups, best_first, strict=True)
    ]


def _goodness(run: Run, metric: str) -> float:
    logs = run.logs(metric).values()
    return sum(logs) / len(logs) * (1 if metric in MORE_IS_BETTER else -1)


def _best_first(metric: str) -> Callable[[Cell], tuple[bool, bool, float]]:
    def key(cell: Cell) -> tuple[bool, bool, float]:
        figure = cell.figures.get(metric)
        value = figure.value.value if figure else 0.0
        return cell.floor, not figure, -value if metric in MORE_IS_BETTER else value

    return key


def _crossovers(contexts: list[Context]) -> list[Crossover]:
    """Contexts that differ in the file set only, in order of its size, and what leads there. Neighbours in which the
    same cells lead are one segment; file sets of several sizes stay by themselves."""
    alike: dict[tuple[tuple[str, Any], ...], list[Context]] = defaultdict(list)
    for context in contexts:
        if context.leaders and sum(not cell.floor for cell in context.cells) > 1:
            alike[tuple((name, level) for name, level in context.levels.items() if name != "files")].append(context)
    crossovers = []
    for levels, some in alike.items():
        segments: list[Segment] = []
        for context in some:
            files = str(context.levels.get("files", ""))
            leading = [cell.label for cell in context.leaders]
            last = segments[-1] if segments else None
            if last and files.isdecimal() and last.files[-1].isdecimal():
                common = [label for label in last.designs if label in leading]
                if common:
                    segments[-1] = Segment([*last.files, files], common)
                    continue
            segments.append(Segment([files], leading))
        crossovers.append(Crossover(dict(levels), naming.label(dict(levels)), segments))
    return crossovers


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


def _missing(groups: list[Group]) -> list[tuple[str, str]]:
    return [
        (f"{naming.design(run.design)}, {naming.label(group.levels)}", f"{run.bad[-1].status}: {run.bad[-1].reason}")
        for group in groups
        for run in group.runs
        if not run.trials
    ]


def _notes(contexts: list[Context], counts: Counts, comparisons: int, machines: int, origins: list[str]) -> list[str]:
    cells = [cell for context in contexts for cell in context.cells]
    notes = []
    if comparisons:
        notes.append(
            f"Ratios to the baseline within blocks, geometric means; each of {comparisons} intervals at "
            f"{100 * corrected(comparisons):.4g} %, so that all hold at once with 95 % probability."
        )
    if any(cell.trials < LEAST for cell in cells):
        notes.append(f"Cells with fewer than {LEAST} blocks have no interval, and nothing can be told of them.")
    lost = [f"{count} {kind}" for kind, count in (("failed", counts.failed), ("refused", counts.refused)) if count]
    lost += [f"{counts.probes} for probes"] if counts.probes else []
    if lost:
        notes.append(f"Of {counts.trials} trials left out: {', '.join(lost)}; `reason` in the CSV says why.")
    if counts.disturbed:
        notes.append(
            f"{counts.disturbed} of {counts.ok} trials were disturbed (column `disturbed`); they are in the figures."
        )
    waits = {
        f"{cell.wait} against {context.baseline.wait}"
        for context in contexts
        for cell in context.cells
        if context.baseline and cell.wait != context.baseline.wait
    }
    if waits:
        notes.append(f"* waits in another way than its baseline ({', '.join(sorted(waits))}): that is compared, too.")
    if origins:
        notes.append(f"HTTP origin: {', '.join(origins)} (column `origin`).")
    if machines > 1:
        notes.append(f"The trials are of {machines} machines or versions ({', '.join(ORIGIN)}), which are not pooled.")
    if any(cell.client_busy > 0.9 for cell in cells):
        notes.append("In some cells the client was busy over 90 % of the time: it may be the limit there.")
    return notes
