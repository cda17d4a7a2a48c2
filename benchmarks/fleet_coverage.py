"""How often intervals over hosts hold: simulated hosts whose true ratios are known, the analysis of fleets as it is.

    python benchmarks/fleet_coverage.py --fleets 2000

Prints the table of docs/decisions/0028-fleet-analysis.md. Each host has a true log ratio, normal with standard
deviation tau, and blocks that scatter by 3 % about it. A column is a number of hosts: how many % of the intervals of
the mean hold, and how many % of the true ratios of one more host lie in the prediction interval.
"""

import argparse
import math
import sys

import numpy as np

from harness.analysis.fleet.over_hosts import over_hosts

SCATTER = 0.03  # of a block's log ratio
HOSTS = (3, 5, 10, 30)
TAUS = (0.0, 0.01, 0.03, 0.1, 0.3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fleets", type=int, default=2000, help="simulated fleets a figure (%(default)d)")
    args = parser.parse_args()
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
        truth = random.normal(0, tau, hosts)
        scatter = SCATTER * np.exp(random.uniform(-math.log(unlike), math.log(unlike), hosts))
        sizes = [blocks + (share and host < hosts // 2 + 1) for host in range(hosts)]
        logs = {
            str(host): (truth[host] + random.normal(0, scatter[host], sizes[host])).tolist() for host in range(hosts)
        }
        summary = over_hosts(logs, share, 1).summary
        assert summary
        held += summary.ratio.low <= 1 <= summary.ratio.high
        within += summary.prediction.low <= math.exp(random.normal(0, tau)) <= summary.prediction.high
    return held / fleets, within / fleets


if __name__ == "__main__":
    sys.exit(main())
