"""Claims over the hosts of a fleet.

Mode `each`: a claim is supported where every host supports it, refuted where some host refutes it by intervals that
hold on all hosts at once. Mode `share`: the hosts measured one study together, and the interval of the mean decides.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis import claims
from harness.analysis.cells import Levels
from harness.analysis.claims import REFUTED, SUPPORTED, UNDECIDED, Claim
from harness.analysis.fleet.hosts import Host
from harness.analysis.fleet.over_hosts import over_hosts
from harness.analysis.fleet.random_effects import Summary
from harness.analysis.judgements import Finding


@dataclass(frozen=True)
class FleetFinding:
    """The answer to a claim in one context. hosts: outcome -> the hosts that have it by themselves. summary: over
    hosts; None where no host has blocks enough."""

    levels: Levels
    label: str
    outcome: str
    hosts: dict[str, list[str]]
    summary: Summary | None
    reason: str


@dataclass(frozen=True)
class FleetAnswer:
    """The answer to a claim. outcome: `supported` where every finding is, `refuted` where one is, else `undecided`."""

    claim: Claim
    findings: list[FleetFinding]
    outcome: str
    reason: str


def judge(asked: Sequence[Claim], hosts: Sequence[Host], share: bool) -> list[FleetAnswer]:
    """Answer each claim. hosts: those that count, with their own answers."""
    places: list[dict[str, dict[str, Finding]]] = [{} for _ in asked]  # of each claim: context -> host -> finding
    for host in hosts:
        for number, answer in enumerate(host.answers):
            for finding in answer.findings:
                places[number].setdefault(finding.label, {})[host.name] = finding
    comparisons = sum(map(len, places))
    answers = []
    for claim, found in zip(asked, places, strict=True):
        findings = [_finding(claim, there, share, comparisons) for there in found.values()]
        outcomes = {one.outcome for one in findings}
        outcome = SUPPORTED if outcomes == {SUPPORTED} else REFUTED if REFUTED in outcomes else UNDECIDED
        reasons = dict.fromkeys(one.reason for one in findings if one.outcome == UNDECIDED)
        reason = ("; ".join(reasons) or "no such trials") if outcome == UNDECIDED else ""
        answers.append(FleetAnswer(claim, findings, outcome, reason))
    return answers


def _finding(claim: Claim, there: dict[str, Finding], share: bool, comparisons: int) -> FleetFinding:
    first = next(iter(there.values()))
    found = over_hosts({host: one.logs for host, one in there.items() if one.logs}, share, comparisons)
    own = Counter(one.outcome for one in there.values())
    hosts = {outcome: [host for host, one in there.items() if one.outcome == outcome] for outcome in own}
    outcome, reason = UNDECIDED, ""
    if share and found.summary and found.summary.ratio.bounded:
        outcome = claims.outcome(claim.expect, found.summary.ratio.low, found.summary.ratio.high)
    elif not share and own[SUPPORTED] == len(there):
        outcome = SUPPORTED
    elif not share and any(
        claims.outcome(claim.expect, one.low, one.high) == REFUTED for one in found.at_once.values()
    ):
        outcome = REFUTED
    if outcome == UNDECIDED:
        reason = "the interval straddles the bound" if share else _counted(own)
        reason = reason if found.summary or not share else "too few blocks"
    return FleetFinding(first.levels, first.label, outcome, hosts, found.summary, reason)


def _counted(own: Counter[str]) -> str:
    total = sum(own.values())
    return ", ".join(f"{outcome} on {count} of {total} hosts" for outcome, count in own.most_common())


def lines(answer: FleetAnswer) -> list[str]:
    """A claim and its findings over hosts, as lines of text."""
    said = [f"{answer.outcome}: {answer.claim.text}"]
    for one in answer.findings:
        parts = [one.outcome, *(f"{outcome} on {_named(hosts)}" for outcome, hosts in one.hosts.items())]
        if one.summary:
            ratio = one.summary.ratio
            interval = f", interval {ratio.low:.3f} to {ratio.high:.3f}" if ratio.bounded else ""
            parts.append(f"over hosts {ratio.value:.3f}{interval}")
        said.append(f"  {one.label or 'all trials'}: {'; '.join(parts)}")
    return said if answer.findings else [*said, f"  {answer.reason}"]


def _named(hosts: Sequence[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts"
