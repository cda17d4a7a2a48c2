"""How a budget divides the time of a run: the runs are made up, and so is the clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from support import studies

from harness.analysis import slices
from harness.experiment import budget
from harness.experiment.plan import Plan
from harness.factors import Spec

CELLS = (Spec(), Spec(data="sendfile"))


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


def run(seconds, restart_s, round_s, learn=lambda blocks: (), patience=0.0):
    """(rounds of each block, seconds that all took) of a run whose blocks cost exactly this."""
    clock, made = Clock(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "time", clock)
        one = budget.Budget(Plan("made up", "", CELLS, 1000, budget=seconds, baseline={"data": "posix_shm"}))
        while rounds := one.rounds():
            cost = restart_s + rounds * round_s
            clock.now += cost + patience
            made.append(rounds)
            one.block(rounds, round_s, cost, len(CELLS))
            for use in learn(len(made)):
                one._use = use
        return made, one.passed


@given(some.floats(5, 600), some.floats(0.01, 5), some.floats(0.001, 2), some.floats(0, 3), some.integers(1, 200))
def test_a_run_takes_its_time_and_no_more(seconds, restart_s, round_s, patience, rounds):
    made, passed = run(
        seconds, restart_s, round_s, lambda blocks: [budget.Use(6, rounds, 0.1)] if blocks > 1 else [], patience
    )
    assert made[0] == 5
    assert min(made) >= 3
    first = restart_s + 5 * round_s + patience
    assert passed <= max(seconds, first) + patience + 1e-6
    assert seconds - passed < restart_s + 4 * round_s + 1e-6, "what is left is too short for another block"


def test_the_first_blocks_show_what_things_cost_and_the_second_takes_an_eighth_of_the_time():
    made, _ = run(80.0, restart_s=2.0, round_s=0.5)
    # 10 of 80 s would be 2 s + 16 * 0.5 s; the rest is divided evenly.
    assert made[0] == 5
    assert 13 <= made[1] <= 20


def test_blocks_have_rounds_enough_to_withstand_spikes_where_five_such_blocks_fit():
    made, _ = run(100.0, 2.0, 0.5, lambda _: [budget.Use(30, 1, 0.1)])
    assert min(made[2:]) >= 8
    made, _ = run(20.0, 2.0, 0.5, lambda _: [budget.Use(8, 1, 0.1)])
    assert max(made[2:]) < 8


def test_the_time_goes_to_the_context_whose_intervals_would_be_the_widest():
    one = budget.Budget(Plan("made up", "", CELLS, 1000, budget=60.0, baseline={"data": "posix_shm"}))
    one.block(20, 0.5, 12.0, len(CELLS))
    assert one.line == "learning what restarts and rounds cost"
    rows = studies.trials([({"data": "posix_shm"}, 10_000), ({"data": "sendfile"}, 15_000)], 3)
    one.learn(rows, slices.of_rows(studies.slices_of(rows, 20, np.random.default_rng(5), spread=0.2)))
    assert one.line.startswith("widest intervals expected: +-")
    narrow = one._use.half_width
    rows = studies.trials([({"data": "posix_shm"}, 10_000), ({"data": "sendfile"}, 15_000)], 3)
    one.learn(rows, slices.of_rows(studies.slices_of(rows, 20, np.random.default_rng(5), spread=0.6)))
    assert one._use.half_width > 2 * narrow


def test_cells_that_come_in_a_small_block_of_their_own_do_not_make_a_round_of_all_look_cheap():
    """Of 73 cells one did not fit beside the others: a round of the 72 costs 6 s, one of it and its baseline 0.2 s."""
    clock, made = Clock(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "time", clock)
        one = budget.Budget(Plan("made up", "", CELLS, 1000, budget=150.0, baseline={"data": "posix_shm"}))
        while rounds := one.rounds():
            for cells, restart_s, round_s in ((72, 10.0, 6.0), (3, 1.0, 0.2)):
                clock.now += restart_s + rounds * round_s
                one.block(rounds, round_s, restart_s + rounds * round_s, cells)
                rounds = rounds if cells == 3 else one.rounds() or rounds
            made.append(rounds)
        assert one.passed < 165
    assert max(made) < 20
