"""Judges claims by the trials of a study: each claim in each of its contexts, then as a whole."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from harness.analysis import claims, naming
from harness.analysis.cells import Levels, StudyTrials
from harness.analysis.claims import REFUTED, SUPPORTED, UNDECIDED, Claim
from harness.analysis.intervals import LEAST, Estimate, interval
from harness.analysis.ratios import Pair, ratios
from harness.analysis.slices import Slices
from harness.analysis.verdicts import controls
from harness.results import Trial


@dataclass(frozen=True)
class Finding:
    """The answer to a claim in one context. ratio: of test to baseline; None where no block has both. reason: why the
    claim is undecided, or what the reader should know besides; may be empty. logs: the log ratio of each block."""

    levels: Levels
    label: str
    ratio: Estimate | None
    outcome: str
    reason: str
    logs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer to a claim. outcome: `supported` where every finding supports it, `refuted` where at least one
    refutes it, else `undecided`. reason: why it is undecided, else empty."""

    claim: Claim
    findings: list[Finding]
    outcome: str
    reason: str


def lines(answer: Answer) -> Iterable[str]:
    """A claim and its findings, as lines of text."""
    claim = answer.claim
    yield f"{answer.outcome}: {claim.text}"
    sides = f"{naming.design(claim.test)} to {naming.design(claim.baseline)}"
    yield f"  {claim.metric} of {sides}; expected: {claim.expect}"
    for finding in answer.findings:
        parts = [finding.outcome]
        if ratio := finding.ratio:
            parts.append(f"{ratio.value:.3f}, {100 * ratio.level:.4g} % interval {interval(ratio)}, {ratio.n} blocks")
        yield f"  {finding.label or 'all trials'}: {'; '.join(filter(None, (*parts, finding.reason)))}"
    if not answer.findings:
        yield f"  {answer.reason}"


def judge(claim: Claim, trials: Iterable[Trial], comparisons: int = 0) -> Answer:
    """Judge one claim. comparisons: how many the intervals are corrected for; 0: as many as the claim has contexts."""
    trials = list(trials)
    return judge_all([claim], trials, controls(StudyTrials(trials))[1], comparisons=comparisons)[0]


def judge_all(
    asked: list[Claim],
    trials: list[Trial],
    off: Callable[[str], str],
    slices: Slices | None = None,
    comparisons: int = 0,
) -> list[Answer]:
    """Judge all claims of an experiment.

    off: metric -> why verdicts in it are withheld, or an empty string, as harness.analysis.verdicts.controls gives it.
    slices: those of live blocks. comparisons: how many the intervals are corrected for; 0: as many as all these claims
    have contexts.
    """
    places = [_places(claim, trials, slices) for claim in asked]
    pairs = [one.pair for found in places for one in found if one.pair]
    estimates = dict(zip(pairs, ratios(pairs, comparisons), strict=True))
    return [
        _answer(
            claim, [_finding(claim, one, estimates[one.pair] if one.pair else None, off(claim.metric)) for one in found]
        )
        for claim, found in zip(asked, places, strict=True)
    ]


class _Place(NamedTuple):
    """Where a claim is answered: the levels of a context, and its two cells there; None where there are no such
    trials."""

    levels: Levels
    pair: Pair | None


def _places(claim: Claim, trials: list[Trial], slices: Slices | None) -> list[_Place]:
    """The contexts of a claim. A context that has only one of the two cells is left out. A level of `where` that no
    context has is listed without cells."""
    chosen = StudyTrials(
        (trial for trial in trials if all(getattr(trial, name) in levels for name, levels in claim.where.items())),
        slices,
    )
    compared = tuple(dict.fromkeys((*claim.test, *claim.baseline)))
    found = []
    for context in chosen.contexts(compared, always=("files", *claim.where)):
        test = next((cell for cell in context.cells if cell.matches(claim.test)), None)
        base = next((cell for cell in context.cells if cell.matches(claim.baseline)), None)
        if test and base:
            found.append(_Place(context.levels, Pair(context, test, base, claim.metric)))
    wanted = [(name, level) for name, levels in claim.where.items() for level in levels]
    for name, level in wanted:
        if not any(place.levels.get(name) == level for place in found):
            found.append(_Place({name: level}, None))
    return found


def _finding(claim: Claim, place: _Place, ratio: Estimate | None, off: str) -> Finding:
    reasons = []
    outcome = UNDECIDED
    if ratio is None:
        reasons.append(
            "no such trials" if not place.pair else f"no block has good trials of both with {claim.metric} above 0"
        )
    elif off:
        reasons.append(f"the A/A control is off: {off}")
    elif not ratio.bounded:
        reasons.append(f"too few blocks: {ratio.n}, and an interval needs {LEAST}")
    else:
        outcome = claims.outcome(claim.expect, ratio.low, ratio.high)
        if outcome == UNDECIDED:
            reasons.append("the interval straddles the bound")
    if place.pair:
        test, base = place.pair.cell, place.pair.base
        if test.trials and base.trials and test.wait != base.wait:
            reasons.append(f"wait strategies differ: {test.wait} against {base.wait}")
    logs = tuple(place.pair.cell.log_ratios(place.pair.base, claim.metric).values()) if place.pair and ratio else ()
    return Finding(place.levels, naming.label(place.levels), ratio, outcome, "; ".join(reasons), logs)


def _answer(claim: Claim, findings: list[Finding]) -> Answer:
    outcomes = {finding.outcome for finding in findings}
    if outcomes == {SUPPORTED}:
        return Answer(claim, findings, SUPPORTED, "")
    if REFUTED in outcomes:
        return Answer(claim, findings, REFUTED, "")
    reasons = dict.fromkeys(finding.reason for finding in findings if finding.outcome == UNDECIDED)
    return Answer(claim, findings, UNDECIDED, "; ".join(reasons) or "no such trials")
