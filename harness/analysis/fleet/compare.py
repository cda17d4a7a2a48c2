"""Two runs of a fleet compared: `harness compare` on each host that both have, then over hosts.

On a host the ratio is Welch's, of two runs that share no blocks, as for single runs. Over hosts there is the same
random-effects summary as everywhere: what the change did on machines like these.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.analysis import compare, naming
from harness.analysis.cells import Levels
from harness.analysis.fleet.files import Fleet, load_host
from harness.analysis.fleet.over_hosts import SMALLEST, outcome
from harness.analysis.fleet.random_effects import Summary, summary
from harness.analysis.intervals import corrected, unpaired, welch
from harness.analysis.verdicts import CANNOT_TELL, WITHHELD, verdict


@dataclass(frozen=True)
class ComparedCell:
    """A cell over the hosts that both fleets have. there: host -> its two runs compared. verdict: on the mean over
    hosts. outcome: what became of the verdict over hosts."""

    label: str
    levels: Levels
    there: Mapping[str, compare.Pair]
    summary: Summary | None
    verdict: str
    outcome: str


@dataclass(frozen=True)
class FleetComparison:
    """Two fleets compared. unlike: differences of the machines, host by host."""

    metric: str
    cells: list[ComparedCell]
    unlike: list[str]
    withheld: bool
    notes: list[str]


def compare_fleets(first: Fleet, second: Fleet, metric: str) -> FleetComparison:
    """Compare the hosts that two fleets share. Raises OSError, and ValueError where they share none with good
    trials."""
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
    comparisons = max(len(one.pairs) for one in found.values())
    cells = [_cell(label, there, comparisons, metric) for label, there in labels.items()]
    notes = [
        f"Ratios of B to A on {len(found)} hosts, unpaired, each host by itself. Over hosts: the mean of machines like "
        f"these, each of {comparisons} intervals at {100 * corrected(comparisons):.4g} %; next: the next such machine, "
        "95 %. Whatever else changed between the runs is part of these ratios."
    ]
    if only := sorted(set(first.hosts) ^ set(second.hosts)):
        notes.append(f"In one of the fleets only: {', '.join(only[:8])}{' and more' if len(only) > 8 else ''}.")
    notes += [f"Left out: {one}." for one in skipped[:8]]
    notes += [f"{host}: {note}" for host, one in found.items() for note in one.notes if note.startswith("A/A")][:8]
    return FleetComparison(metric, cells, unlike, any(one.withheld for one in found.values()), notes)


def _cell(label: str, there: Mapping[str, compare.Pair], comparisons: int, metric: str) -> ComparedCell:
    counting = {host: pair for host, pair in there.items() if pair.verdict != WITHHELD and pair.ratio.bounded}
    first = next(iter(there.values()))
    if not counting:
        withheld = any(pair.verdict == WITHHELD for pair in there.values())
        return ComparedCell(label, first.levels, there, None, "", WITHHELD if withheld else CANNOT_TELL)
    logs = np.array([math.log(pair.ratio.value) for pair in counting.values()])
    errors = np.array([max(welch(pair.logs[1], pair.logs[0])[1], SMALLEST) for pair in counting.values()])
    found = summary(logs, errors, corrected(comparisons))
    level = corrected(comparisons * len(counting))
    at_once = {host: unpaired(pair.logs[1], pair.logs[0], level) for host, pair in counting.items()}
    became = outcome({host: pair.verdict for host, pair in counting.items()}, at_once)
    return ComparedCell(label, first.levels, there, found, verdict(found.ratio, metric) if found else "", became)
