"""Claims over the hosts of a fleet.

Mode `each`: a claim is supported where every host supports it, refuted where some host refutes it by intervals that
hold on all hosts at once. Mode `share`: the hosts measured one study together, and all its blocks decide.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis import claims
from harness.analysis.cells import Levels
from harness.analysis.claims import REFUTED, SUPPORTED, UNDECIDED, Claim
from harness.analysis.fleet.hosts import Host
from harness.analysis.fleet.over_hosts import alike, over_hosts
from harness.analysis.fleet.random_effects import Summary
from harness.analysis.intervals import Estimate
from harness.analysis.judgements import Finding


@dataclass(frozen=True)
class FleetFinding:
    """The answer to a claim in one context. hosts: outcome -> the hosts that have it by themselves. together: the ratio
    of all blocks, where hosts shared a study. summary: over hosts; None where no host has blocks enough."""

    levels: Levels
    label: str
    outcome: str
    hosts: dict[str, list[str]]
    together: Estimate | None
    summary: Summary | None
    reason: str


@dataclass(frozen=True)
class FleetAnswer:
    """The answer to a claim. outcome: `supported` where every finding is, `refuted` where one is, else `undecided`."""

    claim: Claim
    findings: list[FleetFinding]
    outcome: str
    reason: str


def judge(asked: Sequence[Claim], hosts: Sequence[Host], together: Host | None) -> list[FleetAnswer]:
    """Answer each claim. hosts: those that count, with their own answers. together: all as one, where they shared a
    study."""
    places: list[dict[str, dict[str, Finding]]] = [{} for _ in asked]  # of each claim: context -> host -> finding
    for host in hosts:
        for number, answer in enumerate(host.answers):
            for finding in answer.findings:
                places[number].setdefault(finding.label, {})[host.name] = finding
    whole = [{one.label: one for one in answer.findings} for answer in together.answers] if together else []
    comparisons = sum(map(len, places))
    answers = []
    for number, (claim, found) in enumerate(zip(asked, places, strict=True)):
        of_all = whole[number] if together and whole else {}
        findings = [
            _finding(claim, there, of_all.get(label), together is not None, comparisons)
            for label, there in found.items()
        ]
        outcomes = {one.outcome for one in findings}
        outcome = SUPPORTED if outcomes == {SUPPORTED} else REFUTED if REFUTED in outcomes else UNDECIDED
        reasons = dict.fromkeys(one.reason for one in findings if one.outcome == UNDECIDED)
        reason = ("; ".join(reasons) or "no such trials") if outcome == UNDECIDED else ""
        answers.append(FleetAnswer(claim, findings, outcome, reason))
    return answers


def _finding(
    claim: Claim, there: dict[str, Finding], whole: Finding | None, share: bool, comparisons: int
) -> FleetFinding:
    first = next(iter(there.values()))
    found = over_hosts({host: one.logs for host, one in there.items() if one.logs}, share, comparisons)
    own = Counter(one.outcome for one in there.values())
    hosts = {outcome: [host for host, one in there.items() if one.outcome == outcome] for outcome in own}
    outcome, reason = UNDECIDED, _counted(own)
    if share and not alike(found, comparisons):
        reason = "the hosts differ, and are not those of one study"
    elif share and whole:
        outcome, reason = whole.outcome, whole.reason
    elif not share and own[SUPPORTED] == len(there):
        outcome = SUPPORTED
    elif not share and any(
        claims.outcome(claim.expect, one.low, one.high) == REFUTED for one in found.at_once.values()
    ):
        outcome = REFUTED
    return FleetFinding(
        first.levels,
        first.label,
        outcome,
        hosts,
        whole.ratio if whole else None,
        found.summary,
        reason if outcome == UNDECIDED else "",
    )


def _counted(own: Counter[str]) -> str:
    total = sum(own.values())
    return ", ".join(f"{outcome} on {count} of {total} hosts" for outcome, count in own.most_common())


def lines(answer: FleetAnswer) -> list[str]:
    """A claim and its findings over hosts, as lines of text."""
    said = [f"{answer.outcome}: {answer.claim.text}"]
    for one in answer.findings:
        parts = [one.outcome, *(f"{outcome} on {_named(hosts)}" for outcome, hosts in one.hosts.items())]
        for what, ratio in (("all blocks", one.together), ("over hosts", one.summary and one.summary.ratio)):
            if ratio:
                interval = f", interval {ratio.low:.3f} to {ratio.high:.3f}" if ratio.bounded else ""
                parts.append(f"{what} {ratio.value:.3f}{interval}")
        said.append(f"  {one.label or 'all trials'}: {'; '.join(parts)}")
    return said if answer.findings else [*said, f"  {answer.reason}"]


def _named(hosts: Sequence[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts"
