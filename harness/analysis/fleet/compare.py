"""Two runs of a fleet compared: `harness compare` on each host that both have, then over hosts.

On a host the ratio is Welch's, of two runs that share no blocks, as for single runs. Over hosts there is the same
random-effects summary as everywhere: what the change did on machines like these. The variances of hosts are moderated,
as those of their ratios are (harness.analysis.fleet.over_hosts). Of two shared studies, blocks have one variance,
pooled, a host with one block counts, and the verdict is that on the mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.analysis import compare, naming, run_files
from harness.analysis.cells import Levels
from harness.analysis.fleet import facts
from harness.analysis.fleet.files import SHARE, Fleet, load_host
from harness.analysis.fleet.over_hosts import SMALLEST, TOGETHER, outcome
from harness.analysis.fleet.random_effects import Summary, summary
from harness.analysis.intervals import corrected, moderated, unpaired, welch
from harness.analysis.verdicts import CANNOT_TELL, WITHHELD, verdict


@dataclass(frozen=True)
class ComparedCell:
    """A cell over the hosts that both fleets have. there: host -> its two runs compared. verdict: on the mean over
    hosts. outcome: what became of the verdict over hosts. silent: how many hosts that both fleets have are not among
    `there`."""

    label: str
    levels: Levels
    there: Mapping[str, compare.Pair]
    summary: Summary | None
    verdict: str
    outcome: str
    silent: int


@dataclass(frozen=True)
class FleetComparison:
    """Two fleets compared. unlike: differences of the machines, host by host. share: whether the hosts of each shared
    a study, so that the verdict on the mean counts."""

    metric: str
    cells: list[ComparedCell]
    unlike: list[str]
    withheld: bool
    notes: list[str]
    share: bool = False

    @property
    def verdicts(self) -> set[str]:
        """Those that count: on the means over hosts that shared a study, else those of each host."""
        if self.share:
            return {cell.verdict for cell in self.cells}
        return {pair.verdict for cell in self.cells for pair in cell.there.values()}


def compare_fleets(first: Fleet, second: Fleet, metric: str) -> FleetComparison:
    """Compare the hosts that two fleets share. Raises OSError, and ValueError where they share none with good
    trials."""
    if first.mode != second.mode:
        raise ValueError(f"{first.directory} is of mode {first.mode}, {second.directory} of mode {second.mode}")
    share = first.mode == SHARE
    shared = [host for host in first.hosts if host in second.hosts]
    found, skipped, unlike = {}, [], []
    for host in shared:
        try:
            found[host] = compare.compare(load_host(first, host).trials, load_host(second, host).trials, metric)
        except ValueError as error:
            skipped.append(f"{host}: {error}")
            continue
        unlike += [f"{host}: {one}" for one in found[host].unlike]
    if not found:
        reason = skipped[0] if skipped else "they have no host in common"
        raise ValueError(f"the fleets cannot be compared: {reason}")
    labels: dict[str, dict[str, compare.Pair]] = {}
    for host, comparison in found.items():
        for pair in comparison.pairs:
            labels.setdefault(naming.label(pair.levels) or "all trials", {})[host] = pair
    asked = _Asked(
        metric,
        max(len(one.pairs) for one in found.values()),
        share,
        len(shared),
        facts.apart({host: facts.machine(run_files.environment(second.path(host))) for host in found}),
    )
    comparisons = asked.comparisons
    cells = [_cell(label, there, asked) for label, there in labels.items()]
    notes = [
        f"Ratios of B to A on {len(found)} hosts, unpaired, each host by itself. Over hosts: the mean of machines like "
        f"these, each of {comparisons} intervals at {100 * corrected(comparisons):.4g} %; next: the next such machine, "
        "95 %. Whatever else changed between the runs is part of these ratios."
    ]
    if not asked.apart:
        notes.append("Some hosts are one machine, as environment.json says: nothing is predicted of the next one.")
    if only := sorted(set(first.hosts) ^ set(second.hosts)):
        notes.append(f"In one of the fleets only: {', '.join(only[:8])}{' and more' if len(only) > 8 else ''}.")
    notes += [f"Left out: {one}." for one in skipped[:8]]
    notes += [f"{host}: {note}" for host, one in found.items() for note in one.notes if note.startswith("A/A")][:8]
    return FleetComparison(metric, cells, unlike, any(one.withheld for one in found.values()), notes, share)


class _Asked(NamedTuple):
    """hosts: how many both fleets have. apart: whether each is a machine of its own."""

    metric: str
    comparisons: int
    share: bool
    hosts: int
    apart: bool


def _cell(label: str, there: Mapping[str, compare.Pair], asked: _Asked) -> ComparedCell:
    metric, comparisons, share, hosts, apart = asked
    silent = hosts - len(there)
    counting = {
        host: pair for host, pair in there.items() if pair.verdict != WITHHELD and (share or pair.ratio.bounded)
    }
    first = next(iter(there.values()))
    errors = errors_of([*counting.values()], share)
    if errors is None:
        withheld = any(pair.verdict == WITHHELD for pair in there.values())
        return ComparedCell(label, first.levels, there, None, "", WITHHELD if withheld else CANNOT_TELL, silent)
    logs = np.array([math.log(pair.ratio.value) for pair in counting.values()])
    found = summary(logs, errors, corrected(comparisons), apart)
    level = corrected(comparisons * len(counting))
    at_once = {host: unpaired(pair.logs[1], pair.logs[0], level) for host, pair in counting.items()}
    verdicts = {host: pair.verdict for host, pair in counting.items()}
    became = TOGETHER if share else outcome(verdicts, at_once, hosts - len(counting))
    said = verdict(found.ratio, metric) if found else ""
    return ComparedCell(label, first.levels, there, found, said, became, silent)


def errors_of(pairs: Sequence[compare.Pair], share: bool) -> NDArray[Any] | None:
    """The variances of hosts' log ratios, from that of a block: moderated over hosts, or, where they shared a study,
    pooled. None where it is not known how blocks scatter."""
    sizes = np.array([[len(logs) for logs in pair.logs] for pair in pairs]).reshape(-1, 2)
    means = (1 / sizes).sum(axis=1)  # the variance of a difference of means, where that of a block is 1
    if share:
        freedom = int((sizes - 1).sum())
        squares = sum(len(logs) * float(np.var(logs)) for pair in pairs for logs in pair.logs)
        used = np.full(len(pairs), squares / freedom) if freedom else None
    elif pairs:
        own = [welch(pair.logs[1], pair.logs[0]) for pair in pairs]
        freedoms = np.minimum([freedom for _, _, freedom in own], sizes.sum(axis=1) - 2.0)
        used = moderated(np.array([variance for _, variance, _ in own]) / means, freedoms)[0]
    else:
        used = None
    return None if used is None else np.maximum(used, SMALLEST) * means
