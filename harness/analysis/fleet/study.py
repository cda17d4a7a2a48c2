"""The analysis of a fleet's results: in each context each cell on each host, then over hosts. Nothing is pooled.

A host's ratios are those of its own blocks, as `harness show` has them for its directory. Over hosts there is a
random-effects summary of them (harness.analysis.fleet.random_effects), and what became of the verdict. Hosts whose A/A
control is off say nothing of others: they are listed, and left out of summaries.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis.cells import Levels
from harness.analysis.fleet import hosts as of_hosts
from harness.analysis.fleet.claims import FleetAnswer, judge
from harness.analysis.fleet.facts import Split, same_everywhere, splits
from harness.analysis.fleet.files import SHARE, Fleet
from harness.analysis.fleet.hosts import CellThere, ContextThere, Host
from harness.analysis.fleet.over_hosts import EVERYWHERE, PARTLY, TOGETHER, TURNS, UNSURE, outcome, over_hosts
from harness.analysis.fleet.random_effects import LEAST_TO_PREDICT, Summary
from harness.analysis.intervals import Estimate, corrected
from harness.analysis.verdicts import CANNOT_TELL, WITHHELD, verdict


@dataclass(frozen=True)
class FleetCell:
    """A cell over hosts. there: host -> what it says, for the hosts that have good trials of it. summary: of the hosts
    that count; None for the baseline. at_once: as harness.analysis.fleet.over_hosts has it. verdict: on the mean over
    hosts. outcome: what became of the verdict over hosts; empty for baseline and floors. splits: the facts that split
    hosts as a verdict that turns round does."""

    label: str
    levels: Levels
    floor: bool
    baseline: bool
    there: Mapping[str, CellThere]
    summary: Summary | None = None
    at_once: Mapping[str, Estimate] | None = None
    verdict: str = ""
    outcome: str = ""
    splits: tuple[Split, ...] = ()

    @property
    def verdicts(self) -> dict[str, list[str]]:
        """verdict -> the hosts that have it, the most frequent first."""
        said = Counter(one.verdict for one in self.there.values() if one.verdict)
        return {
            name: [host for host, one in self.there.items() if one.verdict == name] for name, _ in said.most_common()
        }

    @property
    def ends(self) -> tuple[tuple[str, float], tuple[str, float]] | None:
        """The hosts with the smallest and the largest ratio, and these; None where there is none."""
        ratios = [(one.ratio.value, host) for host, one in self.there.items() if one.ratio]
        if not ratios:
            return None
        (least, of_least), (most, of_most) = min(ratios), max(ratios)
        return (of_least, least), (of_most, most)


@dataclass(frozen=True)
class FleetContext:
    """A context over hosts. cells: the baseline first, then in the order of the file, floors last."""

    levels: Levels
    label: str
    metric: str
    cells: list[FleetCell]


@dataclass(frozen=True)
class FleetStudy:
    """The whole analysis. hosts: in the order of fleet.json. common: the facts that all hosts share. comparisons: how
    many ratios a host has; as many summaries hold at once."""

    name: str
    question: str
    mode: str
    hosts: list[Host]
    refused: Mapping[str, str]
    common: Mapping[str, str]
    contexts: list[FleetContext]
    comparisons: int
    answers: list[FleetAnswer]
    notes: list[str]

    @property
    def rivals(self) -> list[tuple[FleetContext, FleetCell]]:
        """All cells that have an outcome, those that turn round first, then as in ORDER."""
        found = [(context, cell) for context in self.contexts for cell in context.cells if cell.outcome]
        return sorted(found, key=lambda pair: ORDER.index(pair[1].outcome))


ORDER = [TURNS, UNSURE, PARTLY, EVERYWHERE, TOGETHER, CANNOT_TELL, WITHHELD]


def analyse(fleet: Fleet) -> FleetStudy:
    """Read the results of all hosts, one after the other, and analyse them. Raises OSError, ValueError."""
    asked = of_hosts.question(fleet)
    hosts = [of_hosts.read(fleet, name, asked) for name in fleet.hosts]
    counting = [host for host in hosts if host.contexts and not host.off]
    share = fleet.mode == SHARE
    comparisons = max((host.comparisons for host in hosts), default=0)
    known = {host.name: host.facts for host in hosts}
    keys: dict[Any, ContextThere] = {}
    for host in hosts:
        for key, context in host.contexts.items():
            keys.setdefault(key, context)
    contexts = []
    for key, first in sorted(keys.items(), key=lambda pair: pair[1].files):
        there = {host.name: host.contexts[key].cells for host in hosts if key in host.contexts}
        count = {host.name for host in counting}
        cells: dict[Any, CellThere] = {}
        for own in there.values():
            for design, cell in own.items():
                cells.setdefault(design, cell)
        found = [
            _cell(
                cell,
                {host: own[design] for host, own in there.items() if design in own},
                count,
                share,
                comparisons,
                first.metric,
                known,
            )
            for design, cell in cells.items()
        ]
        found.sort(key=lambda cell: (cell.floor, not cell.baseline))
        contexts.append(FleetContext(first.levels, first.label, first.metric, found))
    return FleetStudy(
        name=str(fleet.experiment.get("name") or ""),
        question=str(fleet.experiment.get("question") or ""),
        mode=fleet.mode,
        hosts=hosts,
        refused=fleet.refused,
        common=same_everywhere(host.facts for host in hosts if host.contexts),
        contexts=contexts,
        comparisons=comparisons,
        answers=judge(asked.claims, counting, share),
        notes=_notes(hosts, counting, comparisons, share),
    )


def _cell(
    first: CellThere,
    there: Mapping[str, CellThere],
    counting: set[str],
    share: bool,
    comparisons: int,
    metric: str,
    facts: Mapping[str, Mapping[str, str]],
) -> FleetCell:
    base = any(one.baseline for one in there.values())
    if base:
        return FleetCell(first.label, first.levels, first.floor, True, there)
    compared = {host: one for host, one in there.items() if host in counting and one.ratio}
    found = over_hosts({host: one.logs for host, one in compared.items()}, share, comparisons)
    judged = bool(found.summary) and not first.floor
    said = verdict(found.summary.ratio, metric) if found.summary and judged else ""
    became, split = "", []
    if not first.floor:
        verdicts = {host: one.verdict for host, one in compared.items()}
        became = (TOGETHER if share else outcome(verdicts, found.at_once)) if verdicts else WITHHELD
        if became == TURNS:
            decided = {host: one for host, one in verdicts.items() if one != CANNOT_TELL}
            split = splits(decided, facts)
    return FleetCell(
        first.label, first.levels, first.floor, False, there, found.summary, found.at_once, said, became, tuple(split)
    )


def _notes(hosts: list[Host], counting: list[Host], comparisons: int, share: bool) -> list[str]:
    said = []
    if missing := [host for host in hosts if host.problem]:
        some = "; ".join(f"{host.name}: {host.problem}" for host in missing[:8])
        more = f"; and {len(missing) - 8} more" if len(missing) > 8 else ""
        said.append(f"{len(missing)} of {len(hosts)} hosts say nothing: {some}{more}.")
    if off := [host for host in hosts if host.off]:
        some = "; ".join(f"{host.name}: {host.off}" for host in off[:4])
        more = f"; and {len(off) - 4} more" if len(off) > 4 else ""
        said.append(
            f"A/A control: OFF on {len(off)} of {len(hosts)} hosts, which are left out of summaries: {some}{more}."
        )
    if comparisons:
        percent = f"{100 * corrected(comparisons):.4g} %"
        said.append(
            f"A host's ratios are its own, and never pooled with those of others; its {comparisons} intervals hold at "
            f"once. mean: of machines like these, each of {comparisons} intervals at {percent}, so that all hold at "
            "once with 95 % probability. next: where the ratio on the next such machine lies, 95 % each. tau: how far "
            "the ratios of hosts scatter. I2: the share of their scatter that is no error of measurement."
        )
        said.append(
            "The hosts shared the blocks of one study. They count as alike: one scatter of blocks for all of them."
            if share
            else "holds everywhere: each host says so by itself. turns round: hosts on both sides of 1, by intervals "
            "that hold on all hosts at once."
        )
    if 0 < len(counting) < LEAST_TO_PREDICT:
        said.append(f"With {len(counting)} hosts nothing can be said of the next one: that takes {LEAST_TO_PREDICT}.")
    return said
