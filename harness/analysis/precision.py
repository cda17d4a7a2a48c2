"""How the ratios of live blocks scatter, within restarts and between them, and what more of each would buy.

A block's value scatters because its rounds do, and because each restart of the programs is a little different. More
rounds average out the first only. So the best number of rounds in a block follows from both parts, and from what a
restart and a round cost. Source: Kalibera and Jones 2013, "Rigorous Benchmarking in Reasonable Time", section 6.
Nothing here changes an interval: those rest on blocks alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from harness.analysis import claims
from harness.analysis.cells import Levels, StudyTrials
from harness.analysis.intervals import ALIKE, LEAST, corrected
from harness.analysis.ratios import Pair, to_baselines
from harness.analysis.slices import Slices, centre, centre_variance
from harness.results import Trial

_Array = NDArray[Any]


@dataclass(frozen=True)
class Scatter:
    """How the log ratio of two cells scatters; as shares: 0.01 is 1 %.

    blocks: how many there are. rounds: in a block, harmonic mean, as variances add up. round_sd: standard deviation of
    a round's ratio. centre_sd: what the value of a block would scatter by if its rounds were independent and restarts
    alike. between_sd: what restarts add to that, slow noise as well; at least 0. neighbours: correlation of a round
    with the next one.
    """

    blocks: int
    rounds: float
    round_sd: float
    centre_sd: float
    between_sd: float
    neighbours: float

    @property
    def of_one_round(self) -> float:
        """What a round contributes: centre_sd is this over the root of the number of rounds."""
        return self.centre_sd * math.sqrt(self.rounds)


@dataclass(frozen=True)
class Use:
    """A way to use a time: so many blocks, of so many rounds. half_width: how far the intervals of ratios will reach,
    as a share of the ratio."""

    blocks: int
    rounds: int
    half_width: float


def scatter(blocks: Sequence[_Array]) -> Scatter | None:
    """The scatter of a ratio. blocks: the log ratios of the rounds of each block, in their order. None where no two
    blocks have two rounds each."""
    usable = [rounds for rounds in blocks if len(rounds) > 1]
    if len(usable) < 2:
        return None
    centre_variances = [centre_variance(rounds) for rounds in usable]
    own = float(np.var([centre(rounds) for rounds in usable], ddof=1))
    left = [rounds - rounds.mean() for rounds in usable]
    squares = sum(float(rounds @ rounds) for rounds in left)
    within = float(np.mean(centre_variances))
    return Scatter(
        blocks=len(usable),
        rounds=len(usable) / sum(1 / len(rounds) for rounds in usable),
        round_sd=math.sqrt(squares / sum(len(rounds) - 1 for rounds in left)),
        centre_sd=math.sqrt(within),
        between_sd=math.sqrt(max(0.0, own - within)),
        neighbours=sum(float(rounds[1:] @ rounds[:-1]) for rounds in left) / squares if squares else 0.0,
    )


def pooled(scatters: Iterable[Scatter]) -> Scatter | None:
    """One scatter for several ratios: means of their variances. It is surer than each of them, which after two or three
    blocks says little of restarts. None where there are none."""
    all_of_them = list(scatters)
    if not all_of_them:
        return None

    def root_mean_square(name: str) -> float:
        return math.sqrt(sum(getattr(one, name) ** 2 for one in all_of_them) / len(all_of_them))

    return Scatter(
        blocks=min(one.blocks for one in all_of_them),
        rounds=len(all_of_them) / sum(1 / one.rounds for one in all_of_them),
        round_sd=root_mean_square("round_sd"),
        centre_sd=root_mean_square("centre_sd"),
        between_sd=root_mean_square("between_sd"),
        neighbours=sum(one.neighbours for one in all_of_them) / len(all_of_them),
    )


@dataclass(frozen=True)
class Outlook:
    """The scatter of the ratios of a context, pooled. cells: how many ratios these are."""

    scatter: Scatter
    cells: int


def of_context(pairs: Sequence[Pair]) -> Outlook | None:
    """The outlook of the pairs of a context; None where no two blocks have slices of both cells of one."""
    found = [
        one
        for pair in pairs
        if (one := scatter([np.log(own / of_base) for _, own, of_base in pair.cell.paired(pair.base, pair.metric)]))
    ]
    one = pooled(found)
    return Outlook(one, len(found)) if one else None


def of_run(trials: Iterable[Trial], baseline: Levels, slices: Slices | None) -> list[Outlook]:
    """The outlooks of all contexts of a run that has begun, for those that have one. baseline: as in the experiment."""
    sorted_trials = StudyTrials(trials, slices)
    wanted = claims.levels("baseline", baseline)
    contexts = sorted_trials.contexts(sorted_trials.compared(wanted))
    found = [of_context(to_baselines([context], [context.baseline(wanted)])) for context in contexts]
    return [one for one in found if one]


def expected_half_width(one: Scatter, blocks: int, rounds: float, comparisons: int = 1, alike: int = 1) -> float:
    """How far an interval will reach from its ratio, as a share of it: infinite with fewer blocks than an interval
    needs. comparisons: how many intervals have to hold at once. alike: how many of them are in one context."""
    if blocks < LEAST:
        return math.inf
    freedom = (blocks - 1) * (1 + min(1.0, (alike - 1) / ALIKE))
    quantile = float(stdtrit(freedom, (1 + corrected(comparisons)) / 2))
    return math.expm1(quantile * math.sqrt((one.between_sd**2 + one.of_one_round**2 / rounds) / blocks))


def best_use(
    one: Scatter, seconds: float, restart_s: float, round_s: float, comparisons: int = 1, alike: int = 1
) -> Use | None:
    """The blocks and rounds that promise the narrowest intervals within a time, by expected_half_width(). None where
    not even LEAST blocks of a round fit."""
    uses = []
    for blocks in range(LEAST, int(seconds / (restart_s + round_s)) + 1):
        rounds = int((seconds / blocks - restart_s) / round_s)
        if rounds >= 1:
            uses.append(Use(blocks, rounds, expected_half_width(one, blocks, rounds, comparisons, alike)))
    return min(uses, key=lambda use: use.half_width, default=None)


def reaches(outlook: Outlook, comparisons: int) -> list[float]:
    """expected_half_width() of a context as it ran, with twice the rounds, and with twice the blocks."""
    one = outlook.scatter
    uses = (one.blocks, one.rounds), (one.blocks, 2 * one.rounds), (2 * one.blocks, one.rounds)
    return [expected_half_width(one, blocks, rounds, comparisons, outlook.cells) for blocks, rounds in uses]


def line(outlook: Outlook, comparisons: int) -> str:
    """Both parts of the scatter of a context, and what more rounds and more restarts would each buy."""
    one = outlook.scatter
    as_it_ran, more_rounds, more_blocks = (
        f"{100 * width:.2g} %" if math.isfinite(width) else "no interval" for width in reaches(outlook, comparisons)
    )
    added = "nothing" if one.between_sd == 0 else f"{100 * one.between_sd:.2g} %"
    return (
        f"a round's ratio scatters by {100 * one.round_sd:.2g} %, the centre of a block's {one.rounds:.0f} rounds by "
        f"{100 * one.centre_sd:.2g} %, and restarts add {added}; a round correlates with the next by "
        f"{one.neighbours:+.1f}. With {one.blocks} blocks an interval is expected to "
        f"reach {as_it_ran} to each side; with twice the rounds {more_rounds}, with twice the blocks {more_blocks}."
    )
