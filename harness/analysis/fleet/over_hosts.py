"""One figure over hosts: its summary, intervals of the hosts that hold at once, and what became of the verdict.

The blocks of a host say how surely it measured its ratio. Few blocks say little of that, so the variances of hosts are
moderated as those of the cells of a context are (harness.analysis.intervals).

In mode `share` the hosts were chosen to be alike. Their blocks have one variance, pooled: so a host with one block
counts as well. A host is one value all the same: docs/decisions/0028-fleet-analysis.md has what became of blocks as
the unit. A separate test asks whether the hosts were alike; no verdict rests on it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

from harness.analysis.fleet.random_effects import Summary, summary
from harness.analysis.intervals import CONFIDENCE, LEAST, Estimate, corrected, moderated
from harness.analysis.verdicts import CANNOT_TELL, WITHHELD

EVERYWHERE, TURNS, PARTLY, UNSURE = "holds everywhere", "turns round", "holds on some", "unsure whether it turns round"
TOGETHER, DIFFER = "measured together", "hosts differ"
SMALLEST = 1e-12  # a variance: blocks that agree to a millionth are not surer than that

_Array = NDArray[Any]


@dataclass(frozen=True)
class OverHosts:
    """summary: None where no host has blocks enough. at_once: host -> its interval, at the level at which those of all
    hosts, of all ratios, hold at once. freedom: of the variance that hosts share."""

    summary: Summary | None
    at_once: Mapping[str, Estimate]
    freedom: float = 0.0


def over_hosts(logs: Mapping[str, Sequence[float]], share: bool, comparisons: int, apart: bool = True) -> OverHosts:
    """logs: host -> the log ratios of its blocks. share: whether the hosts are alike. comparisons: ratios a host.
    apart: whether each host is a machine of its own, so that they say something of the next one."""
    least = 1 if share else LEAST
    hosts = [host for host, own in logs.items() if len(own) >= least]
    sizes = np.array([len(logs[host]) for host in hosts])
    if not hosts or sizes.max() < 2:
        return OverHosts(None, {})
    means = np.array([np.mean(logs[host]) for host in hosts])
    variances = np.array([np.var(logs[host], ddof=1) if len(logs[host]) > 1 else 0.0 for host in hosts])
    if share:
        freedom = np.full(len(hosts), float((sizes - 1).sum()))
        used = np.full(len(hosts), (variances * (sizes - 1)).sum() / freedom[0])
    else:
        used, freedom = moderated(variances, sizes - 1.0)
    errors = np.maximum(used, SMALLEST) / sizes
    level = corrected(comparisons * len(hosts))
    half = stdtrit(freedom, (1 + level) / 2) * np.sqrt(errors)
    ends = np.exp(np.clip([means - half, means + half], -700, 700)).tolist()
    at_once = {
        host: Estimate(float(np.exp(mean)), low, high, int(size), level)
        for host, mean, low, high, size in zip(hosts, means, *ends, sizes, strict=True)
    }
    return OverHosts(summary(means, errors, corrected(comparisons), apart), at_once, float(freedom[0]))


def alike(found: OverHosts, comparisons: int) -> bool:
    """Whether hosts that shared a study may have the same ratio: the F test of an analysis of variance does not deny
    it, at the level corrected for all ratios of the study. True where it cannot be asked."""
    if not found.summary or len(found.at_once) < 2:
        return True
    hosts = len(found.at_once)
    p = fdtrc(hosts - 1, found.freedom, found.summary.q / (hosts - 1))
    return bool(p >= (1 - CONFIDENCE) / max(1, comparisons))


def outcome(verdicts: Mapping[str, str], at_once: Mapping[str, Estimate], silent: int = 0) -> str:
    """What became of a verdict over hosts that are compared. verdicts: host -> what its own interval says. silent: how
    many hosts more there are, which say nothing.

    It holds everywhere where each host says so by itself, and none is silent: then the chance that it is wrong on some
    host is no larger than that of one interval (an intersection-union test, Berger 1982). It turns round where one host
    is above 1 and another below, by intervals that hold on all hosts at once.
    """
    said = Counter(verdicts.values())
    decided = [one for one in said if one not in (CANNOT_TELL, WITHHELD)]
    if said[WITHHELD] == len(verdicts):
        return WITHHELD
    if not decided:
        return CANNOT_TELL
    if len(decided) == 1:
        return EVERYWHERE if len(said) == 1 and not silent else PARTLY
    above = any(one.low > 1 for host, one in at_once.items() if host in verdicts)
    below = any(one.high < 1 for host, one in at_once.items() if host in verdicts)
    return TURNS if above and below else UNSURE
