"""Claims over the hosts of a fleet.

Mode `each`: a claim is supported where every host of the fleet supports it, refuted where some host refutes it by
intervals that hold on all hosts at once. Mode `share`: the mean over hosts decides.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.analysis import claims, naming
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
    of all blocks, where hosts shared a study. summary: over hosts; None where no host has blocks enough. silent: the
    hosts of the fleet that say nothing."""

    levels: Levels
    label: str
    outcome: str
    hosts: dict[str, list[str]]
    together: Estimate | None
    summary: Summary | None
    reason: str
    silent: tuple[str, ...]

    @property
    def silence(self) -> str:
        """How many hosts say nothing, in words; empty where all say something."""
        return naming.silence(len(self.silent), len(self.silent) + sum(map(len, self.hosts.values())))


@dataclass(frozen=True)
class FleetAnswer:
    """The answer to a claim. outcome: `supported` where every finding is, `refuted` where one is, else `undecided`."""

    claim: Claim
    findings: list[FleetFinding]
    outcome: str
    reason: str


def judge(
    asked: Sequence[Claim], fleet: Sequence[str], hosts: Sequence[Host], together: Host | None, apart: bool
) -> list[FleetAnswer]:
    """Answer each claim. fleet: the names of all hosts. hosts: those that count, with their own answers. together:
    these as one, where they shared a study. apart: whether each of them is a machine of its own."""
    places: list[dict[str, dict[str, Finding]]] = [{} for _ in asked]  # of each claim: context -> host -> finding
    for host in hosts:
        for number, answer in enumerate(host.answers):
            for finding in answer.findings:
                places[number].setdefault(finding.label, {})[host.name] = finding
    whole = [{one.label: one for one in answer.findings} for answer in together.answers] if together else []
    setting = _Setting(together, sum(map(len, places)), apart)
    answers = []
    for number, (claim, found) in enumerate(zip(asked, places, strict=True)):
        of_all = whole[number] if together and whole else {}
        findings = [
            _finding(claim, there, of_all.get(label), [host for host in fleet if host not in there], setting)
            for label, there in found.items()
        ]
        outcomes = {one.outcome for one in findings}
        outcome = SUPPORTED if outcomes == {SUPPORTED} else REFUTED if REFUTED in outcomes else UNDECIDED
        reasons = dict.fromkeys(one.reason for one in findings if one.outcome == UNDECIDED)
        reason = ("; ".join(reasons) or "no such trials") if outcome == UNDECIDED else ""
        answers.append(FleetAnswer(claim, findings, outcome, reason))
    return answers


class _Setting(NamedTuple):
    """As judge() has them. comparisons: findings of all claims."""

    together: Host | None
    comparisons: int
    apart: bool


def _finding(
    claim: Claim, there: dict[str, Finding], whole: Finding | None, silent: Sequence[str], setting: _Setting
) -> FleetFinding:
    first = next(iter(there.values()))
    together, comparisons, apart = setting
    logs = {host: one.logs for host, one in there.items() if one.logs}
    found = over_hosts(logs, together is not None, comparisons, apart)
    own = Counter(one.outcome for one in there.values())
    hosts = {outcome: [host for host, one in there.items() if one.outcome == outcome] for outcome in own}
    outcome, reason = UNDECIDED, _counted(own, silent)
    if together and together.off:
        reason = f"the A/A control of all blocks is off: {together.off}"
    elif together and found.summary:
        outcome = claims.outcome(claim.expect, found.summary.ratio.low, found.summary.ratio.high)
        differ = "" if alike(found, comparisons) else "the hosts differ; "
        reason = f"{differ}the interval over {found.summary.ratio.n} hosts straddles the bound"
    elif not together and own[SUPPORTED] == len(there) and not silent:
        outcome = SUPPORTED
    elif not together and any(
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
        tuple(silent),
    )


def _counted(own: Counter[str], silent: Sequence[str]) -> str:
    total = sum(own.values()) + len(silent)
    said = [f"{outcome} on {count} of {total} hosts" for outcome, count in own.most_common()]
    return ", ".join([*said, *filter(None, [naming.silence(len(silent), total)])])


def lines(answer: FleetAnswer) -> list[str]:
    """A claim and its findings over hosts, as lines of text."""
    said = [f"{answer.outcome}: {answer.claim.text}"]
    for one in answer.findings:
        parts = [one.outcome, *(f"{outcome} on {naming.hosts(hosts)}" for outcome, hosts in one.hosts.items())]
        for what, ratio in (("all blocks", one.together), ("over hosts", one.summary and one.summary.ratio)):
            if ratio:
                interval = f", interval {ratio.low:.3f} to {ratio.high:.3f}" if ratio.bounded else ""
                parts.append(f"{what} {ratio.value:.3f}{interval}")
        said.append(f"  {one.label or 'all trials'}: {'; '.join([*parts, *filter(None, [one.silence])])}")
    return said if answer.findings else [*said, f"  {answer.reason}"]
