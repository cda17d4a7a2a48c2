"""The analysis of a fleet's results: in each context each cell on each host, then over hosts. Nothing is pooled.

A host's ratios are those of its own blocks, as `harness show` has them for its directory. Over hosts there is a
random-effects summary of them (harness.analysis.fleet.random_effects), and what became of the verdict. Hosts whose A/A
control is off say nothing of others: they are listed, and left out of summaries. Where like hosts shared the blocks of
one study, the ratio of all blocks describes these hosts, and no verdict rests on it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.analysis import naming
from harness.analysis.cells import Levels
from harness.analysis.fleet import facts
from harness.analysis.fleet import hosts as of_hosts
from harness.analysis.fleet.claims import FleetAnswer, judge
from harness.analysis.fleet.files import SHARE, Fleet, load_together
from harness.analysis.fleet.hosts import CellThere, ContextThere, Host, Key
from harness.analysis.fleet.over_hosts import (
    DIFFER,
    EVERYWHERE,
    PARTLY,
    TOGETHER,
    TURNS,
    UNSURE,
    alike,
    outcome,
    over_hosts,
)
from harness.analysis.fleet.random_effects import LEAST_TO_PREDICT, Summary
from harness.analysis.intervals import Estimate, corrected
from harness.analysis.verdicts import CANNOT_TELL, WITHHELD, verdict


@dataclass(frozen=True)
class FleetCell:
    """A cell over hosts. there: host -> what it says, for the hosts that have good trials of it. together: the ratio of
    all blocks of hosts that count, where they shared a study. summary: of the hosts that count; None for the baseline.
    at_once: as harness.analysis.fleet.over_hosts has it. verdict: on `mean`. outcome: what became of the verdict over
    hosts; empty for baseline and floors. splits: the facts that split hosts as a verdict that turns round does. silent:
    the hosts of the fleet that say nothing: missing, unreadable, without such trials, or with an A/A control that is
    off."""

    label: str
    levels: Levels
    floor: bool
    baseline: bool
    there: Mapping[str, CellThere]
    together: Estimate | None = None
    summary: Summary | None = None
    at_once: Mapping[str, Estimate] | None = None
    verdict: str = ""
    outcome: str = ""
    splits: tuple[facts.Split, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def silence(self) -> str:
        """How many hosts say nothing, in words; empty where all say something."""
        return naming.silence(len(self.silent), len({*self.there, *self.silent}))

    @property
    def verdicts(self) -> dict[str, list[str]]:
        """verdict -> the hosts that have it, the most frequent first."""
        said = Counter(one.verdict for one in self.there.values() if one.verdict)
        return {
            name: [host for host, one in self.there.items() if one.verdict == name] for name, _ in said.most_common()
        }

    @property
    def mean(self) -> Estimate | None:
        """What stands for the cell: the mean of hosts like these."""
        return self.summary.ratio if self.summary else None

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
    many ratios a host has; as many summaries hold at once. apart: whether each host is a machine of its own."""

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
    apart: bool = True

    @property
    def like(self) -> str:
        """What the means over hosts are of."""
        return _like(self.apart)

    @property
    def rivals(self) -> list[tuple[FleetContext, FleetCell]]:
        """All cells that have an outcome, those that turn round first, then as in ORDER."""
        found = [(context, cell) for context in self.contexts for cell in context.cells if cell.outcome]
        return sorted(found, key=lambda pair: ORDER.index(pair[1].outcome))


_MOST_NAMED = 8  # hosts in a note
ORDER = [TURNS, DIFFER, UNSURE, PARTLY, EVERYWHERE, TOGETHER, CANNOT_TELL, WITHHELD]


def analyse(fleet: Fleet) -> FleetStudy:
    """Read the results of all hosts, one after the other, and analyse them. Raises OSError, ValueError."""
    asked = of_hosts.question(fleet)
    hosts = [of_hosts.read(fleet, name, asked) for name in fleet.hosts]
    counting = [host for host in hosts if host.contexts and not host.off]
    apart = facts.apart({host.name: host.machine for host in counting})
    together = None
    if fleet.mode == SHARE:
        trials, _, slices = load_together(fleet, [host.name for host in counting])
        together = of_hosts.analysed("", {}, trials, slices, asked)
    comparisons = max((host.comparisons for host in (*hosts, *([together] if together else []))), default=0)
    setting = _Setting(fleet.hosts, {host.name: host.facts for host in counting}, together, comparisons, apart)
    firsts: dict[Any, ContextThere] = {}
    for host in hosts:
        for key, context in host.contexts.items():
            firsts.setdefault(key, context)
    contexts = [
        _context(key, first, {host.name: host.contexts[key] for host in hosts if key in host.contexts}, setting)
        for key, first in sorted(firsts.items(), key=lambda pair: pair[1].files)
    ]
    return FleetStudy(
        name=fleet.name,
        question=str(fleet.experiment.get("question") or ""),
        mode=fleet.mode,
        hosts=hosts,
        refused=fleet.refused,
        common=facts.same_everywhere(host.facts for host in hosts if host.contexts),
        contexts=contexts,
        comparisons=comparisons,
        answers=judge(asked.claims, fleet.hosts, counting, together, apart),
        notes=_notes(fleet, hosts, counting, setting),
        apart=apart,
    )


class _Setting(NamedTuple):
    """hosts: all of the fleet. facts: those of the hosts that count. together: these as one, where they shared a
    study. apart: whether each of them is a machine of its own."""

    hosts: list[str]
    facts: Mapping[str, Mapping[str, str]]
    together: Host | None
    comparisons: int
    apart: bool


def _context(key: Key, first: ContextThere, there: Mapping[str, ContextThere], setting: _Setting) -> FleetContext:
    cells: dict[Key, CellThere] = {}
    for own in there.values():
        for design, cell in own.cells.items():
            cells.setdefault(design, cell)
    whole = setting.together.contexts.get(key) if setting.together else None
    found = []
    for design, cell in cells.items():
        on = {host: own.cells[design] for host, own in there.items() if design in own.cells}
        found.append(_cell(cell, on, whole.cells.get(design) if whole else None, first.metric, setting))
    found.sort(key=lambda cell: (cell.floor, not cell.baseline))
    return FleetContext(first.levels, first.label, first.metric, found)


def _cell(
    first: CellThere, there: Mapping[str, CellThere], whole: CellThere | None, metric: str, setting: _Setting
) -> FleetCell:
    if any(one.baseline for one in there.values()):
        silent = tuple(host for host in setting.hosts if host not in there or host not in setting.facts)
        return FleetCell(first.label, first.levels, first.floor, True, there, silent=silent)
    together = setting.together
    compared = {host: one for host, one in there.items() if host in setting.facts and one.ratio}
    silent = tuple(host for host in setting.hosts if host not in compared)
    logs = {host: one.logs for host, one in compared.items()}
    found = over_hosts(logs, together is not None, setting.comparisons, setting.apart)
    said = verdict(found.summary.ratio, metric) if found.summary and not first.floor else ""
    verdicts = {host: one.verdict for host, one in compared.items()}
    split: list[facts.Split] = []
    if first.floor:
        became = ""
    elif together and together.off:
        became, said = WITHHELD, WITHHELD
    elif together and verdicts:
        became = CANNOT_TELL if not found.summary else TOGETHER if alike(found, setting.comparisons) else DIFFER
    elif verdicts:
        became = outcome(verdicts, found.at_once, len(silent))
        if became == TURNS:
            split = facts.splits({host: one for host, one in verdicts.items() if one != CANNOT_TELL}, setting.facts)
    else:
        became = WITHHELD
    return FleetCell(
        first.label,
        first.levels,
        first.floor,
        False,
        there,
        whole.ratio if whole else None,
        found.summary,
        found.at_once,
        said,
        became,
        tuple(split),
        silent,
    )


def _like(apart: bool) -> str:
    return "machines like these" if apart else "hosts like these, some of which are one machine"


def _notes(fleet: Fleet, hosts: list[Host], counting: list[Host], setting: _Setting) -> list[str]:
    said, together, comparisons, like = [], setting.together, setting.comparisons, _like(setting.apart)
    problems = {**fleet.missing, **{host.name: host.problem for host in hosts if host.problem}}
    off = {host.name: host.off for host in hosts if host.off}
    for what, of in (
        (f"{len(problems)} of {len(hosts)} hosts did not do their part", problems),
        (f"A/A control: OFF on {len(off)} of {len(hosts)} hosts, which are left out of summaries", off),
    ):
        if of:
            some = "; ".join(f"{name}: {reason}" for name, reason in list(of.items())[:_MOST_NAMED])
            said.append(f"{what}: {some}{f'; and {len(of) - _MOST_NAMED} more' if len(of) > _MOST_NAMED else ''}.")
    percent = f"{100 * corrected(comparisons):.4g} %"
    over = "next: where the ratio on the next such machine lies, 95 % each. " if setting.apart else ""
    over += "tau: how far the ratios of hosts scatter. I2: the share of their scatter that is no error of measurement."
    if comparisons and together:
        control = f" A/A control of all blocks: OFF: {together.off}." if together.off else ""
        said.append(
            f"The hosts shared the blocks of one study. mean: of {like}, each of {comparisons} intervals at {percent}, "
            f"so that all hold at once with 95 % probability. A host is one value, however many blocks it has: few "
            f"hosts give wide intervals. {over}{control}"
        )
    elif comparisons:
        said += [
            f"A host's ratios are its own, and never pooled with those of others; its {comparisons} intervals hold at "
            f"once. mean: of {like}, each of {comparisons} intervals at {percent}, so that all hold at "
            f"once with 95 % probability. {over}",
            "holds everywhere: each host of the fleet says so by itself. turns round: hosts on both sides of 1, by "
            "intervals that hold on all hosts at once.",
        ]
    if not setting.apart:
        machines = len({host.machine for host in counting})
        said.append(
            f"{len(counting)} hosts are on {machines} machine{'s' * (machines > 1)}, as environment.json says: that "
            "says nothing of the next machine, so there is no prediction."
        )
    elif 0 < len(counting) < LEAST_TO_PREDICT:
        said.append(f"With {len(counting)} hosts nothing can be said of the next one: that takes {LEAST_TO_PREDICT}.")
    return said
