"""`harness claims`: what became of what an experiment expected."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis import claims, naming, run_files
from harness.analysis.cells import Levels, Run, Table
from harness.analysis.claims import REFUTED, SUPPORTED, UNDECIDED, Claim
from harness.analysis.intervals import LEAST, Estimate, corrected, interval, means
from harness.analysis.verdicts import controls
from harness.results import Trial

_CODES = {SUPPORTED: 0, REFUTED: 1, UNDECIDED: 3}


@dataclass(frozen=True)
class Finding:
    """A claim in one context. ratio: None where there are no such trials. reason: why it is undecided, or what else
    to know; may be empty."""

    levels: Levels
    label: str
    ratio: Estimate | None
    outcome: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """What became of a claim: `supported` by all its findings, `refuted` by one at least, else `undecided`.
    reason: why it is undecided; else empty."""

    claim: Claim
    findings: list[Finding]
    outcome: str
    reason: str


def main(argv: Sequence[str]) -> int:
    """Print what became of the claims of a run. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="harness claims",
        description="Say of each claim of an experiment whether its trials support or refute it, and how sure that is.",
        epilog="Exit codes: 0 all are supported, 1 some are refuted, 3 none is refuted and some are undecided, 2 there "
        "are no claims or no such files.",
    )
    parser.add_argument("directory", metavar="DIR", help="a directory that `harness run` wrote")
    args = parser.parse_args(argv)
    return run_files.main("claims", lambda: _show(*run_files.load(args.directory)))


def _show(trials: list[Trial], experiment: Mapping[str, Any]) -> int:
    asked = [claims.read(one) for one in experiment.get("claims") or []]
    if not asked:
        raise ValueError("the experiment makes no claims")
    control, off = controls(Table(trials))
    answers = judge_all(asked, trials, off)
    for answer in answers:
        print("\n".join(lines(answer)))
    print(control.line)
    outcomes = {answer.outcome for answer in answers}
    return _CODES[next(one for one in (REFUTED, UNDECIDED, SUPPORTED) if one in outcomes)]


def lines(answer: Answer) -> Iterable[str]:
    """A claim and its findings for people."""
    claim = answer.claim
    yield f"{answer.outcome}: {claim.text}"
    sides = f"{naming.design(claim.test)} to {naming.design(claim.baseline)}"
    yield f"  {claim.metric} of {sides}; expected: {claim.expect}"
    for finding in answer.findings:
        told = [finding.outcome]
        if ratio := finding.ratio:
            told.append(f"{ratio.value:.3f}, {100 * ratio.level:.4g} % interval {interval(ratio)}, {ratio.n} blocks")
        yield f"  {finding.label or 'all trials'}: {'; '.join(filter(None, (*told, finding.reason)))}"
    if not answer.findings:
        yield f"  {answer.reason}"


def judge(claim: Claim, trials: Iterable[Trial], comparisons: int = 0) -> Answer:
    """What the trials say of one claim. comparisons: how many the intervals are corrected for; 0: for the contexts of
    this claim. (`judge_all` corrects for those of all claims.)"""
    trials = list(trials)
    return judge_all([claim], trials, controls(Table(trials))[1], comparisons)[0]


def judge_all(asked: list[Claim], trials: list[Trial], off: Callable[[str], str], comparisons: int = 0) -> list[Answer]:
    """What the trials say of all claims of an experiment. off: why verdicts in a metric are withheld, or ""."""
    sides = [_sides(claim, trials) for claim in asked]
    logs = [
        test.log_ratios(base, claim.metric) if test and base else []
        for claim, found in zip(asked, sides, strict=True)
        for _, test, base in found
    ]
    there = [one for one in logs if one]
    ratios = iter(means(there, corrected(comparisons or len(there))))
    estimates = iter([next(ratios) if one else None for one in logs])
    return [
        _answer(claim, [_finding(claim, *one, next(estimates), off(claim.metric)) for one in found])
        for claim, found in zip(asked, sides, strict=True)
    ]


def _sides(claim: Claim, trials: list[Trial]) -> list[tuple[Levels, Run | None, Run | None]]:
    """The contexts of a claim: their levels, the cell that is tested and its baseline. A context in which only one of
    them was ever tried is none of the claim's."""
    table = Table(
        trial for trial in trials if all(getattr(trial, name) in levels for name, levels in claim.where.items())
    )
    compared = tuple(dict.fromkeys((*claim.test, *claim.baseline)))
    found: list[tuple[Levels, Run | None, Run | None]] = []
    for group in table.groups(compared, always=("files", *claim.where)):
        test = next((run for run in group.runs if run.matches(claim.test)), None)
        base = next((run for run in group.runs if run.matches(claim.baseline)), None)
        if test and base:
            found.append((group.levels, test, base))
    wanted = [(name, level) for name, levels in claim.where.items() for level in levels]
    for name, level in wanted:
        if not any(levels.get(name) == level for levels, _, _ in found):
            found.append(({name: level}, None, None))
    return found


def _finding(
    claim: Claim, levels: Levels, test: Run | None, base: Run | None, ratio: Estimate | None, off: str
) -> Finding:
    reasons = []
    outcome = UNDECIDED
    if ratio is None:
        reasons.append("no such trials" if test is None else f"no block has {claim.metric} over 0 of both")
    elif off:
        reasons.append(f"the A/A control is off: {off}")
    elif not ratio.bounded:
        reasons.append(f"too few blocks: {ratio.n}, and {LEAST} are the least")
    else:
        outcome = claims.outcome(claim.expect, ratio.low, ratio.high)
        if outcome == UNDECIDED:
            reasons.append("the interval straddles the bound")
    if test and base and test.trials and base.trials and test.wait != base.wait:
        reasons.append(f"waiting differs: {test.wait} against {base.wait}")
    return Finding(levels, naming.label(levels), ratio, outcome, "; ".join(reasons))


def _answer(claim: Claim, findings: list[Finding]) -> Answer:
    outcomes = {finding.outcome for finding in findings}
    if outcomes == {SUPPORTED}:
        return Answer(claim, findings, SUPPORTED, "")
    if REFUTED in outcomes:
        return Answer(claim, findings, REFUTED, "")
    reasons = dict.fromkeys(finding.reason for finding in findings if finding.outcome == UNDECIDED)
    return Answer(claim, findings, UNDECIDED, "; ".join(reasons) or "no such trials")
