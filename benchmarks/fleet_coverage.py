"""How often intervals over hosts hold: simulated hosts whose true ratios are known, the analysis of fleets as it is.

    python benchmarks/fleet_coverage.py --fleets 2000

Prints the table of docs/decisions/0028-fleet-analysis.md. Each host has a true log ratio, normal with standard
deviation tau, and blocks that scatter by 3 % about it. A column is a number of hosts: how many % of the intervals of
the mean hold, and how many % of the true ratios of one more host lie in the prediction interval.

    python benchmarks/fleet_coverage.py --pooled

prints the table of what mode `share` does not do, and why: how many % of the intervals hold where all blocks are pooled
unless an F test at 5 % says that hosts differ, and how many of those that are reported. Then how many % miss at the
worst where blocks are pooled unless host means scatter more than blocks do, alone and at the level of 12 ratios.
"""

import argparse
import math
import sys

import numpy as np
from scipy.special import stdtrit

from harness.analysis.fleet.over_hosts import alike, over_hosts
from harness.analysis.intervals import corrected

SCATTER = 0.03  # of a block's log ratio
HOSTS = (3, 5, 10, 30)
FEW = (2, 3, 5, 10, 30)
NESTED = (0, 0.5, 1, 1.5, 2, 3, 5, 10)
TAUS = (0.0, 0.01, 0.03, 0.1, 0.3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", type=int, default=2000, help="simulated fleets a figure (%(default)d)")
    parser.add_argument("--pooled", action="store_true", help="what pooling after a test would do")
    args = parser.parse_args()
    if args.pooled:
        return pooled(args.fleets)
    print(f"| mode, blocks | scatter of hosts | tau | {' | '.join(f'{hosts} hosts' for hosts in HOSTS)} |")
    print(f"|---|---|--:|{'---|' * len(HOSTS)}")
    for share, blocks, unlike in ((False, 3, 1), (False, 3, 3), (False, 6, 1), (False, 6, 3), (False, 12, 1),
                                  (False, 12, 3), (True, 1, 1), (True, 2, 1)):  # fmt: skip
        for tau in TAUS:
            figures = []
            for hosts in HOSTS:
                mean, following = coverage(args.fleets, hosts, blocks, tau, unlike, share)
                figures.append(f"{100 * mean:.1f} / {100 * following:.1f}")
            alike = "alike" if unlike == 1 else f"up to {unlike**2} times"
            print(
                f"| {'share' if share else 'each'}, {blocks} | {alike} | {tau:g} | {' | '.join(figures)} |", flush=True
            )
    return 0


def coverage(
    fleets: int, hosts: int, blocks: int, tau: float, unlike: float = 1, share: bool = False, seed: int = 1
) -> tuple[float, float]:
    """The share of fleets whose interval of the mean holds, and of next hosts that lie in the prediction interval.
    unlike: a host's blocks scatter by up to so many times more or less than SCATTER. share: one host has a block more,
    as a fleet that shares blocks has, or there would be no scatter to see with one block a host."""
    random = np.random.default_rng([seed, hosts, blocks, round(1000 * tau), round(10 * unlike)])
    held, within = 0, 0
    for _ in range(fleets):
        logs = simulated(random, hosts, blocks, tau, unlike, share)
        summary = over_hosts(logs, share, 1).summary
        assert summary
        held += summary.ratio.low <= 1 <= summary.ratio.high
        within += summary.prediction.low <= math.exp(random.normal(0, tau)) <= summary.prediction.high
    return held / fleets, within / fleets


def simulated(
    random: np.random.Generator, hosts: int, blocks: int, tau: float, unlike: float, share: bool
) -> dict[str, list[float]]:
    """The log ratios of the blocks of each host."""
    truth = random.normal(0, tau, hosts)
    scatter = SCATTER * np.exp(random.uniform(-math.log(unlike), math.log(unlike), hosts))
    sizes = [blocks + (share and host < hosts // 2 + 1) for host in range(hosts)]
    return {str(host): (truth[host] + random.normal(0, scatter[host], sizes[host])).tolist() for host in range(hosts)}


def pooled(fleets: int) -> int:
    """Print how often intervals hold: pooled after an F test / as reported."""
    print(f"| blocks | tau | {' | '.join(f'{hosts} hosts' for hosts in FEW)} |")
    print(f"|--:|--:|{'---|' * len(FEW)}")
    for blocks in (1, 2, 4):
        for tau in (*TAUS, 1.0):
            figures = [after_a_test(fleets, hosts, blocks, tau) for hosts in FEW]
            shown = " | ".join(f"{100 * tested:.1f} / {100 * reported:.1f}" for tested, reported in figures)
            print(f"| {blocks} | {tau:g} | {shown} |", flush=True)
    for comparisons in (1, 12):
        misses = [max(nested(50 * fleets, hosts, tau, corrected(comparisons)) for tau in NESTED) for hosts in FEW]
        print(f"{comparisons} ratios: {', '.join(f'{100 * one:.1f} %' for one in misses)}")
    return 0


def nested(fleets: int, hosts: int, tau: float, level: float, seed: int = 1) -> float:
    """The share of fleets whose interval misses: Student's t of all blocks, 4 a host, or of the hosts' means where
    these scatter more than blocks do. tau: as a multiple of the scatter of blocks."""
    random, blocks = np.random.default_rng([seed, hosts, round(10 * tau)]), 4
    freedom = hosts * (blocks - 1)
    means = random.normal(0, math.sqrt(tau**2 + 1 / blocks), (fleets, hosts))
    within, between = random.chisquare(freedom, fleets) / freedom, blocks * means.var(axis=1, ddof=1)
    every = (between * (hosts - 1) + within * freedom) / (hosts * blocks - 1)
    of_all = stdtrit(hosts * blocks - 1, (1 + level) / 2) * np.sqrt(every)
    of_hosts = stdtrit(hosts - 1, (1 + level) / 2) * np.sqrt(between)
    half = np.where(between <= within, of_all, of_hosts) / math.sqrt(hosts * blocks)
    return float((abs(means.mean(axis=1)) > half).mean())


def after_a_test(fleets: int, hosts: int, blocks: int, tau: float, seed: int = 1) -> tuple[float, float]:
    """The share of fleets whose interval holds, of hosts that shared a study: Student's t of all blocks unless the F
    test denies that hosts are alike, and what is reported."""
    random = np.random.default_rng([seed, hosts, blocks, round(1000 * tau)])
    tested, reported = 0, 0
    for _ in range(fleets):
        logs = simulated(random, hosts, blocks, tau, 1, True)
        found = over_hosts(logs, True, 1)
        assert found.summary
        ratio = found.summary.ratio
        held = ratio.low <= 1 <= ratio.high
        reported += held
        if alike(found, 1):
            every = np.concatenate([*logs.values()])
            half = stdtrit(len(every) - 1, 0.975) * every.std(ddof=1) / math.sqrt(len(every))
            held = abs(every.mean()) <= half
        tested += held
    return tested / fleets, reported / fleets


if __name__ == "__main__":
    sys.exit(main())
