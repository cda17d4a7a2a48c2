"""How often confidence intervals miss, and how wide they are, by simulation through the analysis of the project: the
figures of docs/decisions/0009 (trials apart) and docs/decisions/0016 (live blocks, many comparisons, unbeaten cells).

    .venv/bin/python benchmarks/coverage.py                     # all that follows: an hour
    .venv/bin/python benchmarks/coverage.py coverage stopping widths                 # 0009
    .venv/bin/python benchmarks/coverage.py recorded centres live families unbeaten stopped budgets  # 0016

Noise of trials apart is like that of kept results: 3.5 % from trial to trial within a block. `outliers`: besides, each
20th trial is slower by 10 to 45 %. `skewed`: lognormal. In `one-sided` cases the baseline has plain noise of its own,
so that the log ratios are as skewed as the noise is. The noise of slices is at `slice_noise`.
"""

import collections
import csv
import gzip
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.special import stdtrit

from harness.analysis import intervals, slices
from harness.analysis.cells import StudyTrials
from harness.analysis.leaders import leaders
from harness.analysis.ratios import more_micros, ratios, to_baselines
from harness.experiment import budget
from harness.results import Trial

STUDIES = 4000
BLOCKS = (3, 4, 5, 6, 8, 10, 12, 20, 30, 50)
SPREAD = 0.035
FAMILY = 33
RECORDED = Path(__file__).parent / "live-rounds.csv.gz"

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


def student(logs, level):
    """Student's intervals for the mean of each row: 2 x rows."""
    n = logs.shape[1]
    half = stdtrit(n - 1, (1 + level) / 2) * logs.std(axis=1, ddof=1) / np.sqrt(n)
    return logs.mean(axis=1) + np.outer([-1, 1], half)


def coverage():
    for level in (0.95, intervals.corrected(FAMILY)):
        print(f"\nintervals at {100 * level:.2f} % miss, in %: t / BCa / the wider of both, on each side")
        print("".join(f"{name:>22}" for name in ("blocks", *CASES)))
        for blocks in BLOCKS:
            row = [f"{blocks:22}"]
            for make, truth in CASES.values():
                logs = make((STUDIES, blocks))
                ends, bca = student(logs, level), intervals.bca(logs, level)
                places = 1 if level < 0.99 else 2
                missed_text = (f"{missed(one, truth):.{places}f}" for one in (ends, bca, wider(ends, bca)))
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
                    low, high = student(logs[:, :blocks], level)
                    narrow = np.exp((high - low) / 2) - 1 <= percent / 100
                    now = ~done & (narrow | (blocks == 40))
                    missing[now] = ((low > 0) | (high < 0))[now]
                    used[now] = blocks
                    done |= now
                row.append(f"{100 * missing.mean():6.2f} ({np.median(used):.0f}) from {least}".rjust(20))
        print("".join(row), flush=True)


def widths():
    print("\nhow far an interval reaches to each side of a ratio, in %, with 3.5 % noise a trial, t alone / moderated")
    families = (1, 5, 11, 33)
    print("    blocks" + "".join(f"{family:14}" for family in families))
    for blocks in BLOCKS:
        row = []
        for family in families:
            freedom = np.array([blocks - 1, (blocks - 1) * (1 + min(1, (family - 1) / intervals.ALIKE))])
            half = stdtrit(freedom, 1 - 0.025 / family) * SPREAD * np.sqrt(2 / blocks)
            row.append(" / ".join(f"{100 * np.expm1(one):.1f}" for one in half).rjust(14))
        print(f"{blocks:10}" + "".join(row))


# Centres of the rounds of a block


def trimmed(share):
    def of(values):
        cut = int(share * values.shape[-1])
        return np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1)

    return of


def hodges_lehmann(values):
    first, second = np.triu_indices(values.shape[-1])
    rows = values.reshape(-1, values.shape[-1])
    found = [np.median((row[first] + row[second]) / 2) for row in rows]
    return np.array(found).reshape(values.shape[:-1])


def huber(values, bend=1.345):
    at = np.median(values, axis=-1, keepdims=True)
    scale = 1.4826 * np.median(abs(values - at), axis=-1, keepdims=True)
    for _ in range(20):
        weights = np.minimum(1, bend * scale / np.maximum(abs(values - at), 1e-12))
        at = (weights * values).sum(axis=-1, keepdims=True) / weights.sum(axis=-1, keepdims=True)
    return at[..., 0]


CENTRES = {
    "mean": lambda values: values.mean(axis=-1),
    "trimmed 10 %": trimmed(0.1),
    "trimmed 20 %": trimmed(0.2),
    "trimmed 25 %": trimmed(0.25),
    "median": lambda values: np.median(values, axis=-1),
    "Hodges-Lehmann": hodges_lehmann,
    "Huber": huber,
}


def recorded():
    """Rounds of a first sketch of live blocks, 8 cells with the A/A control, on a 2-core virtual machine."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    with gzip.open(RECORDED, "rt", newline="") as file:
        for row in csv.DictReader(file):
            context = f"{row['placement']}, {int(row['file_size_bytes']) // 1024} KiB"
            found[context][row["transport"], row["restart"]].append(float(row["log_ratio_to_posix_shm"]))
    print("\nrecorded rounds: standard deviation of a block's centre, in %, root mean square over 8 cells")
    print(f"{'':16}" + "".join(f"{name:>20}" for name in found))
    values = {}
    for name, cells in found.items():
        restarts = sorted({restart for _, restart in cells})
        values[name] = np.array([[cells[one, restart] for restart in restarts] for one in {one for one, _ in cells}])
    for name, centre in CENTRES.items():
        deviations = (100 * np.sqrt(centre(one).var(axis=1, ddof=1).mean()) for one in values.values())
        print(f"{name:16}" + "".join(f"{one:20.2f}" for one in deviations))


def autocorrelated(shape, rho):
    noise = random.normal(0, 1, shape)
    for place in range(1, shape[-1]):
        noise[..., place] = rho * noise[..., place - 1] + np.sqrt(1 - rho**2) * noise[..., place]
    return noise


def bursts(shape):
    """Stretches of 12 rounds, one of 10 in time, in which noise is five times as large."""
    begun = random.random(shape) < 1 / 120
    so_far = np.concatenate([np.zeros((*shape[:-1], 12)), np.cumsum(begun, axis=-1)], axis=-1)
    within = so_far[..., 12:] - so_far[..., :-12]
    return np.where(within > 0, 5, 1) * random.normal(0, 1, shape)


def spikes(shape):
    """Two slices of a hundred take much longer: the kurtosis of log ratios is about 20, as was measured."""
    return 0.45 * random.normal(0, 1, shape) + (random.random(shape) < 0.02) * random.uniform(2, 8, shape)


# The noise of the log time of slices (blocks x rounds), in units of 0.1; and what a restart adds to a cell, as a share.
SLICE_NOISE = {
    "independent": (lambda shape: random.normal(0, 1, shape), 0),
    "AR(1) 0.5": (lambda shape: autocorrelated(shape, 0.5), 0),
    "AR(1) 0.9": (lambda shape: autocorrelated(shape, 0.9), 0),
    "bursts": (bursts, 0),
    "spikes": (spikes, 0),
    "skew": (lambda shape: random.lognormal(0, 0.75, shape), 0),
    "restarts differ": (lambda shape: random.normal(0, 1, shape), 0.03),
    "spikes, restarts": (spikes, 0.03),
}
ROUNDS = 60


def slice_noise(name, shape):
    """Logarithms of the time of slices: shape is (..., blocks, rounds)."""
    noise, restart = SLICE_NOISE[name]
    return 0.1 * noise(shape) + random.normal(0, restart, (*shape[:-1], 1))


def centres(studies=600):
    print(f"\n{ROUNDS} rounds a block: % missed at 95 % (median half-width in %)")
    print(f"{'':18}{'blocks':>7}" + "".join(f"{name:>16}" for name in CENTRES))
    for name in SLICE_NOISE:
        for blocks in (3, 6, 20):
            shape = studies, blocks, ROUNDS
            logs = slice_noise(name, shape) - slice_noise(name, shape)
            row = []
            for centre in CENTRES.values():
                low, high = student(centre(logs), 0.95)
                row.append(f"{missed((low, high), 0):.1f} ({50 * np.median(high - low):.2f})".rjust(16))
            print(f"{name:18}{blocks:7}" + "".join(row), flush=True)


def live(studies=500):
    """Whole studies: trials with slices, analysed as a run's are."""
    effects = np.log([1, 1.3, 1, 0.8, 1])
    cells = len(effects)
    print(
        f"\n{cells} cells, {ROUNDS} rounds a block: % of studies in which an interval misses; largest half-width in %"
    )
    print(f"{'':18}" + "".join(f"{blocks:>16}" for blocks in (3, 4, 6, 10, 20)))
    for name in SLICE_NOISE:
        row = []
        for blocks in (3, 4, 6, 10, 20):
            wrong, reached = 0, []
            for _ in range(studies):
                found = _live_study(name, effects, blocks)
                wrong += not all(one.low <= np.exp(truth) <= one.high for one, truth in found)
                reached.append(max(intervals.reach(one) for one, _ in found))
            row.append(f"{100 * wrong / studies:.1f} ({100 * np.median(reached):.1f})".rjust(16))
        print(f"{name:18}" + "".join(row), flush=True)


class LiveStudy:
    """Trials of live blocks with slices, one block after another, analysed as a run's are."""

    def __init__(self, name, effects):
        self._name, self._effects = name, effects
        self._columns = {column: [] for column in slices.COLUMNS}
        self.trials, self.blocks = [], 0

    def add(self, blocks, rounds=ROUNDS):
        """More blocks, of so many rounds each."""
        cells = len(self._effects)
        common = random.normal(0, 0.2, (1, blocks, rounds))
        times = np.exp(common + slice_noise(self._name, (cells, blocks, rounds)) - self._effects[:, None, None])
        numbers = len(self.trials) + np.arange(cells * blocks).reshape(cells, blocks, 1)
        values = dict.fromkeys(slices.COLUMNS, np.zeros(times.shape))
        values |= {"trial": np.broadcast_to(numbers, times.shape).astype(float), "seconds": times}
        values |= {"round": np.broadcast_to(np.arange(rounds, dtype=float), times.shape)}
        values |= {"requests": np.full(times.shape, 100.0)}
        for column, some in values.items():
            self._columns[column].append(some.ravel())
        self.trials += [
            Trial(trial=int(numbers[cell, block, 0]), block=self.blocks + block, cell=cell, status="ok",
                  data=f"d{cell}", files="1024", requests_per_s=100 / times[cell, block].mean())
            for cell in range(cells) for block in range(blocks)
        ]  # fmt: skip
        self.blocks += blocks

    @property
    def slices(self):
        return slices.Slices({column: np.concatenate(some) for column, some in self._columns.items()})

    def estimates(self, of=ratios):
        """of: ratios or more_micros. By the number of the cell."""
        (context,) = StudyTrials(self.trials, self.slices).contexts(["data"])
        pairs = to_baselines([context], [context.baseline({})])
        return {int(pair.cell.design["data"][1:]): one for pair, one in zip(pairs, of(pairs), strict=True)}


def _live_study(name, effects, blocks):
    """(ratio, true log ratio) of each cell but the baseline."""
    study = LiveStudy(name, effects)
    study.add(blocks)
    return [(one, effects[cell] - effects[0]) for cell, one in study.estimates().items()]


def _true_micros(name, effects):
    """By the number of the cell: the mean of what many blocks say."""
    study = LiveStudy(name, effects)
    study.add(4000)
    return {cell: one.value for cell, one in study.estimates(more_micros).items()}


def stopped(studies=400):
    """Live runs that stop when all intervals are narrow, from 8 blocks on and at 30 at most."""
    print("\nlive runs that stop: % of studies in which an interval misses, ratios / microseconds (median blocks), and")
    print("the largest half-width in %")
    _of_live_runs(studies, {f"within {percent} %": (_until, percent) for percent in (2, 3, 5)})


def budgets(studies=400):
    """Live runs whose time a Budget divides, by what it has learnt from the blocks before."""
    print("\nlive runs of a budget: as above")
    _of_live_runs(studies, {f"{seconds} s": (_of_budget, seconds) for seconds in (15, 30, 90)})


def _of_live_runs(studies, ways):
    """ways: name -> a function that makes a study, and what it gets beside the name of the noise and the effects."""
    print(f"{'':18}" + "".join(f"{way:>24}" for way in ways))
    effects = np.log([1, 1.3, 1, 0.8, 1])
    truths = {cell: np.exp(effects[cell] - effects[0]) for cell in range(1, len(effects))}
    for name in SLICE_NOISE:
        micros, row = _true_micros(name, effects), []
        for make, asked in ways.values():
            made = [make(name, effects, asked) for _ in range(studies)]
            found = [study.estimates() for study in made]
            wrong = 100 * np.mean([_misses(one, truths) for one in found])
            wrong_micros = 100 * np.mean([_misses(study.estimates(more_micros), micros) for study in made])
            blocks = np.median([study.blocks for study in made])
            reached = np.median([max(100 * intervals.reach(one) for one in some.values()) for some in found])
            row.append(f"{wrong:.1f} / {wrong_micros:.1f} ({blocks:.0f}) {reached:.1f}".rjust(24))
        print(f"{name:18}" + "".join(row), flush=True)


def _misses(found, truths):
    return not all(one.low <= truths[cell] <= one.high for cell, one in found.items())


def _until(name, effects, percent):
    """A study that ends when all its intervals reach no further than that."""
    study = LiveStudy(name, effects)
    study.add(8)
    while study.blocks < 30 and any(100 * intervals.reach(one) > percent for one in study.estimates().values()):
        study.add(1)
    return study


def _of_budget(name, effects, seconds, restart_s=1.0, round_s=0.2):
    """A study of blocks that a Budget has had run, on a clock of its own."""
    clock = [0.0]
    budget.time = SimpleNamespace(monotonic=lambda: clock[0])
    study = LiveStudy(name, effects)
    plan = SimpleNamespace(budget=seconds, cells=effects, baseline={})
    left = budget.Budget(plan)
    while rounds := left.rounds():
        study.add(1, rounds)
        clock[0] += restart_s + rounds * round_s
        left.block(rounds, round_s, restart_s + rounds * round_s, len(effects))
        left.learn(study.trials, study.slices)
    return study


# Many comparisons

UNLIKE = {
    "alike": np.ones,
    "sd of log sd 0.3": lambda shape: np.exp(random.normal(0, 0.3, shape)),
    "sd of log sd 0.6": lambda shape: np.exp(random.normal(0, 0.6, shape)),
    "one 3 times": lambda shape: np.where(np.arange(shape[-1]) == 1, 3.0, 1.0) * np.ones(shape),
    "one 6 times": lambda shape: np.where(np.arange(shape[-1]) == 1, 6.0, 1.0) * np.ones(shape),
    "heavy tails": np.ones,
    "one of two states": np.ones,
}


def families(studies=2000):
    print("\n% of studies in which an interval misses, Bonferroni's t / moderated; (width of the second to the first)")
    print(f"{'contexts x cells':>16}{'blocks':>7}" + "".join(f"{name:>22}" for name in UNLIKE))
    for contexts, cells in ((1, 2), (1, 5), (2, 5), (2, 11), (4, 15)):
        level = intervals.corrected(contexts * cells)
        for blocks in (3, 4, 6, 10):
            row = []
            for name in UNLIKE:
                logs = _log_ratios(name, studies * contexts, cells, blocks)
                own = logs.var(axis=-1, ddof=1), np.full((len(logs), cells), blocks - 1)
                used = zip(*(intervals.moderated(*one) for one in zip(*own, strict=True)), strict=True)
                wrong, halves = [], []
                for variances, freedom in (own, map(np.array, used)):
                    half = stdtrit(freedom, (1 + level) / 2) * np.sqrt(variances / blocks)
                    missing = (abs(logs.mean(axis=-1)) > half).reshape(studies, -1).any(axis=1)
                    wrong.append(f"{100 * missing.mean():.1f}")
                    halves.append(np.median(half))
                row.append(f"{' / '.join(wrong)} ({halves[1] / halves[0]:.2f})".rjust(22))
            print(f"{f'{contexts} x {cells}':>16}{blocks:7}" + "".join(row), flush=True)


def _log_ratios(name, contexts, cells, blocks):
    """The log ratios of cells to the baseline that they share: contexts x cells x blocks."""
    shape = contexts, cells + 1, blocks
    values = random.standard_t(3, shape) if name == "heavy tails" else random.normal(0, 1, shape)
    values *= UNLIKE[name](shape[:2])[..., None]
    if name == "one of two states":
        values[:, 1] += 4 * ((random.random((contexts, blocks)) < 0.3) - 0.3)
    return values[:, 1:] - values[:, :1]


def unbeaten(studies=1000):
    print("\nunbeaten: % of studies that leave out the best cell / at least one of those equal to it")
    print(f"{'equal cells':>12}{'others':>8}" + "".join(f"{f'{blocks} blocks':>16}" for blocks in (3, 6, 12)))
    for equal, others in ((1, 4), (2, 3), (3, 2), (5, 0), (10, 0)):
        row = []
        for blocks in (3, 6, 12):
            best = one_of = 0
            for _ in range(studies):
                logs = (
                    random.normal(0, SPREAD, (equal + others, blocks))
                    - 0.1 * (np.arange(equal + others) >= equal)[:, None]
                )
                trials = [
                    Trial(trial=cell * blocks + block, block=block, cell=cell, status="ok", data=f"d{cell}",
                          files="1024", requests_per_s=float(np.exp(logs[cell, block])))
                    for cell in range(equal + others) for block in range(blocks)
                ]  # fmt: skip
                (named,) = leaders(StudyTrials(trials).contexts(["data"]))
                numbers = {cell.number[0] for cell in named}
                best += 0 not in numbers
                one_of += not numbers >= set(range(equal))
            row.append(f"{100 * best / studies:.1f} / {100 * one_of / studies:.1f}".rjust(16))
        print(f"{equal:12}{others:8}" + "".join(row), flush=True)


ALL = (coverage, stopping, widths, recorded, centres, live, families, unbeaten, stopped, budgets)


if __name__ == "__main__":
    for one in ALL:
        if len(sys.argv) == 1 or one.__name__ in sys.argv[1:]:
            one()
