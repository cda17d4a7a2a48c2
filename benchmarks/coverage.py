"""How often confidence intervals miss, by simulation: the figures of docs/decisions/0009.

    .venv/bin/python benchmarks/coverage.py        # two minutes

Noise is like that of kept results: 3.5 % from trial to trial within a block. `outliers`: besides, each 20th trial is
slower by 10 to 45 %. `skewed`: lognormal. In `one-sided` cases the baseline has plain noise of its own, so that the
log ratios are as skewed as the noise is.
"""

import numpy as np
from scipy.special import stdtrit

from harness.analysis import intervals

STUDIES = 4000
BLOCKS = (3, 4, 5, 6, 8, 10, 12, 20, 30, 50)
SPREAD = 0.035
FAMILY = 33

random = np.random.default_rng(1)


def plain(shape, spread=SPREAD):
    return random.normal(0, spread, shape)


def outliers(shape):
    return plain(shape) - (random.random(shape) < 0.05) * random.uniform(0.1, 0.6, shape)


def skewed(shape):
    return (np.exp(0.75**2 / 2) - random.lognormal(0, 0.75, shape)) * SPREAD


# name -> (log ratios of shape, their true mean)
CASES = {
    "normal": (lambda shape: plain(shape) - plain(shape), 0),
    "outliers": (lambda shape: outliers(shape) - outliers(shape), 0),
    "skewed": (lambda shape: skewed(shape) - skewed(shape), 0),
    "one-sided outliers": (lambda shape: outliers(shape) - plain(shape), -0.05 * 0.35),
    "one-sided skewed": (lambda shape: skewed(shape) - plain(shape, 0.01), 0),
}


def missed(ends, truth):
    return 100 * np.mean((truth < ends[0]) | (truth > ends[1]))


def wider(one, other):
    return np.minimum(one[0], other[0]), np.maximum(one[1], other[1])


def coverage():
    for level in (0.95, intervals.corrected(FAMILY)):
        print(f"\nintervals at {100 * level:.2f} % miss, in %: t / BCa / the wider of both, on each side")
        print("".join(f"{name:>22}" for name in ("blocks", *CASES)))
        for blocks in BLOCKS:
            row = [f"{blocks:22}"]
            for make, truth in CASES.values():
                logs = make((STUDIES, blocks))
                student, bca = intervals.student(logs, level), intervals.bca(logs, level)
                places = 1 if level < 0.99 else 2
                missed_text = (f"{missed(ends, truth):.{places}f}" for ends in (student, bca, wider(student, bca)))
                row.append(f"{' / '.join(missed_text):>22}")
            print("".join(row), flush=True)


def stopping():
    print("\nruns that stop when the interval is narrow: % missed (median blocks), at 95 % and for one of 11 ratios")
    for percent in (2, 2.5, 5, 10):
        row = [f"+-{percent:g} %".rjust(10)]
        for level in (0.95, intervals.corrected(11)):
            for least in (3, 5, 8):
                logs = CASES["normal"][0]((STUDIES * 5, 40))
                done, missing, used = np.zeros(len(logs), bool), np.zeros(len(logs), bool), np.full(len(logs), 40)
                for blocks in range(least, 41):
                    low, high = intervals.student(logs[:, :blocks], level)
                    narrow = np.exp((high - low) / 2) - 1 <= percent / 100
                    now = ~done & (narrow | (blocks == 40))
                    missing[now] = ((low > 0) | (high < 0))[now]
                    used[now] = blocks
                    done |= now
                row.append(f"{100 * missing.mean():6.2f} ({np.median(used):.0f}) from {least}".rjust(20))
        print("".join(row), flush=True)


def widths():
    print("\nhow far an interval reaches to each side of a ratio, in %, with 3.5 % noise a trial")
    families = (1, 5, 11, 33)
    print("    blocks" + "".join(f"{family:8}" for family in families))
    for blocks in BLOCKS:
        row = []
        for family in families:
            quantile = stdtrit(blocks - 1, 1 - 0.025 / family)
            row.append(f"{100 * (np.exp(quantile * SPREAD * np.sqrt(2 / blocks)) - 1):8.1f}")
        print(f"{blocks:10}" + "".join(row))


if __name__ == "__main__":
    coverage()
    stopping()
    widths()
