"""The analysis of a study: intervals cover, verdicts hold, and claims are answered from files alone."""

import dataclasses
import math
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from support import chance
from support.studies import floor_of

from harness import results
from harness.analysis import (
    claims,
    claims_command,
    compare,
    crossovers,
    intervals,
    judgements,
    show,
    study,
    verdicts,
)
from harness.analysis.claims import Claim

BLOCK, OWN = 0.02, 0.035  # spread of blocks, which all cells share, and of single trials; as in kept results


def outliers(random, shape):
    """Each 30th trial is slower by 10 to 45 %."""
    return (random.random(shape) < 1 / 30) * random.uniform(-0.6, -0.1, shape)


def trial(block=1, speed=1000.0, **other):
    """A good trial of 1 KiB files."""
    size = int(other.get("files", "1024").split()[0])
    return results.Trial(
        **{
            "experiment": "study",
            "status": "ok",
            "block": block,
            "scope": "pipeline",
            "source": "cache",
            "command": "posix_mq",
            "data": "posix_shm",
            "files": "1024",
            "file_size_bytes": size,
            "clients": 8,
            "requests_per_s": speed,
            "content_bytes_per_s": speed * size,
            "cpu_us_per_request": 5e4 / speed,
            "latency_p50_us": 2e5 / speed,
            "latency_p99_us": 9e5 / speed,
            "host": "here",
            "floor": floor_of(other),
            **other,
        }
    )


def trials(speeds, blocks=6, spread=0.02, seed=1, **other):
    """The trials of a study, from (factors, speed) of each cell; every trial has noise of its own."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, spread, (blocks, len(speeds)))
    return [
        trial(
            block + 1,
            speed * math.exp(noise[block, cell]),
            cell=cell + 1,
            trial=block * len(speeds) + cell + 1,
            **{**other, **factors},
        )
        for block in range(blocks)
        for cell, (factors, speed) in enumerate(speeds)
    ]


TWO = [({"data": "a"}, 1000), ({"data": "b"}, 2000)]


def by_label(context):
    return {cell.label: cell for cell in context.cells}


def ratio_of(cell):
    return cell.measurements["requests_per_s"].ratio


def verdict_of(cell):
    return cell.measurements["requests_per_s"].verdict


# Intervals


@pytest.mark.parametrize("blocks", [3, 4, 5, 8, 12, 20])
@pytest.mark.parametrize("level", [0.95, intervals.corrected(10)])
def test_intervals_of_a_ratio_miss_no_more_often_than_they_say_however_few_the_blocks(blocks, level):
    random = np.random.default_rng(blocks)
    studies, truth = 4000, math.log(1.1)
    noise = random.normal(0, OWN, (2, studies, blocks)) + outliers(random, (2, studies, blocks))
    found = intervals.means(list(truth + noise[0] - noise[1]), level)
    missed = sum(not one.low <= 1.1 <= one.high for one in found)
    assert chance.at_least(missed, studies, 1 - level) > 0.001, missed


@pytest.mark.parametrize("blocks", [3, 5, 12, 30])
def test_intervals_are_no_wider_than_they_need_be_where_noise_is_plain(blocks):
    logs = np.random.default_rng(7).normal(0, OWN, (4000, blocks))
    covered = sum(one.low <= 1 <= one.high for one in intervals.means(list(logs)))
    assert abs(covered / 4000 - 0.95) < 0.013


def simulated(random, effects, blocks):
    """The trials of one study with known effects (contexts x cells): noise of blocks, noise of trials, and outliers."""
    shape = blocks, *np.shape(effects)
    logs = np.log(1000) + effects + random.normal(0, BLOCK, (blocks, 1, 1)) + random.normal(0, OWN, shape)
    logs += outliers(random, shape)
    for (block, context, cell), log in np.ndenumerate(logs):
        row = SKELETON[context, cell].copy()
        row.block, row.requests_per_s = block + 1, math.exp(log)
        yield row


class Skeleton(results.Trial):
    """A trial that is quick to copy."""

    def copy(self):
        other = object.__new__(results.Trial)
        other.__dict__.update(self.__dict__)
        return other


SKELETON = {
    (context, cell): Skeleton(**{**vars(trial(data=f"d{cell}", files=str(1024 << 10 * context))), "cell": cell + 1})
    for context in range(2)
    for cell in range(4)
}


def test_five_hundred_studies_all_of_whose_intervals_hold_at_once_as_often_as_is_said():
    """With the true effects, all intervals of a study cover, no verdict is wrong, the best is among the leaders."""
    random = np.random.default_rng(4)
    effects = np.log([[1, 1.2, 0.9, 1], [1, 1, 0.5, 1.05]])
    covered = wrong = led = found = 0
    begun = time.process_time()
    for _ in range(500):
        one = study.analyse(simulated(random, effects, 6), {})
        held = right = best = True
        for number, context in enumerate(one.contexts):
            cells = {cell.design["data"]: cell for cell in context.cells}
            for index, effect in enumerate(effects[number][1:], 1):
                cell = cells[f"d{index}"]
                held &= ratio_of(cell).low <= math.exp(effect) <= ratio_of(cell).high
                true = "cannot tell" if effect == 0 else "faster" if effect > 0 else "slower"
                right &= verdict_of(cell) in ("cannot tell", true)
                found += effect == math.log(0.5) and verdict_of(cell) == "slower"
            best &= f"d{np.argmax(effects[number])}" in {cell.design["data"] for cell in context.leaders}
        covered, wrong, led = covered + held, wrong + (not right), led + best
    assert chance.at_least(500 - covered, 500, 0.05) > 0.001, covered
    assert chance.at_least(wrong, 500, 0.05) > 0.001, wrong
    assert chance.at_least(500 - led, 500, 0.05) > 0.001, led
    assert found > 475, "an effect of a half is seen, mostly"
    assert time.process_time() - begun < 30


def test_five_hundred_studies_of_equal_cells_give_no_more_verdicts_than_is_said():
    random = np.random.default_rng(5)
    effects = np.zeros((2, 4))
    given_verdicts = 0
    for _ in range(500):
        one = study.analyse(simulated(random, effects, 6), {})
        found = {verdict_of(cell) for context in one.contexts for cell in context.cells if not cell.baseline}
        given_verdicts += found != {"cannot tell"}
    assert chance.at_least(given_verdicts, 500, 0.05) > 0.001, given_verdicts


def test_runs_that_stop_when_intervals_are_narrow_still_cover():
    random = np.random.default_rng(6)
    missed, studies = 0, 500
    for _ in range(studies):
        rows = list(simulated(random, np.log([[1, 1.1, 0.9, 1]]), 19))
        for blocks in range(8, 20):
            some = rows[: 4 * blocks]
            if study.narrow_enough(some, {}, 7):
                break
        (context,) = study.analyse(some, {}).contexts
        cells = {cell.design["data"]: ratio_of(cell) for cell in context.cells if not cell.baseline}
        truths = {"d1": 1.1, "d2": 0.9, "d3": 1}
        missed += not all(cells[name].low <= truth <= cells[name].high for name, truth in truths.items())
    assert chance.at_least(missed, studies, 0.05) > 0.001, missed


@pytest.fixture
def stats():
    """Imported for the tests that need it only: every process that another test forks would copy its 50 MB."""
    from scipy import stats

    return stats


def test_the_bootstrap_is_that_of_scipy(stats):
    logs = np.random.default_rng(3).gamma(1.5, 0.05, (3, 25))
    ours = intervals.bca(logs, 0.95)
    for row in range(3):
        theirs = stats.bootstrap((logs[row],), np.mean, method="BCa", n_resamples=20000, rng=1).confidence_interval
        assert np.allclose(ours[:, row], theirs, atol=0.03 * (theirs.high - theirs.low))


def test_student_and_welch_are_those_of_scipy(stats):
    random = np.random.default_rng(3)
    first, second = random.normal(0.2, 0.1, 5), random.normal(0, 0.3, 8)
    (one,) = intervals.means([first], 0.99)
    assert np.allclose(np.log([one.low, one.high]), stats.ttest_1samp(first, 0).confidence_interval(0.99))
    welch = intervals.unpaired(first, second, 0.9)
    theirs = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    assert np.allclose(np.log([welch.low, welch.high]), theirs)


def test_from_twenty_blocks_on_each_end_is_the_farther_one_of_both_intervals(stats):
    logs = np.random.default_rng(3).gamma(0.5, 0.05, (1, 20))
    student, bca = stats.ttest_1samp(logs[0], 0).confidence_interval(0.95), intervals.bca(logs, 0.95)
    (one,) = intervals.means(list(logs))
    assert math.log(one.low) == pytest.approx(min(student.low, bca[0, 0]))
    assert math.log(one.high) == pytest.approx(max(student.high, bca[1, 0]))
    assert bca[1, 0] > student.high


@pytest.mark.parametrize("sample", [[0.5], [0.5, 0.6]])
def test_one_or_two_blocks_have_no_interval_and_no_verdict(sample):
    (one,) = intervals.means([sample])
    assert (one.low, one.high, one.bounded) == (0, math.inf, False)
    assert verdicts.verdict(one, "requests_per_s") == "cannot tell"
    assert intervals.unpaired(sample, [0.1] * 9).high == math.inf


LOGS = st.lists(st.floats(-3, 3).map(lambda log: round(log, 6)), min_size=3, max_size=30)


@given(LOGS)
def test_to_swap_test_and_baseline_inverts_the_interval(logs):
    one, other = intervals.means([logs])[0], intervals.means([[-log for log in logs]])[0]
    assert other.value == pytest.approx(1 / one.value)
    assert (other.low, other.high) == pytest.approx((1 / one.high, 1 / one.low))


@given(LOGS, st.floats(-5, 5))
@example([0.0] * 19 + [0.5], 1.0)  # many resamples have the mean of the sample, but for rounding
def test_a_factor_on_all_values_moves_the_interval_by_this_factor(logs, shift):
    one, other = intervals.means([logs])[0], intervals.means([[log + shift for log in logs]])[0]
    moved = [end * math.exp(shift) for end in (one.value, one.low, one.high)]
    assert [other.value, other.low, other.high] == pytest.approx(moved)


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
def test_a_factor_on_all_cells_of_a_block_leaves_every_ratio_as_it_is(factors):
    rows = trials([({"data": "a"}, 1000), ({"data": "b"}, 1100)])
    shaken = [dataclasses.replace(row, requests_per_s=row.requests_per_s * factors[row.block - 1]) for row in rows]
    one, other = (ratio_of(by_label(study.analyse(some, {}).contexts[0])["b"]) for some in (rows, shaken))
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


@given(st.permutations(range(12)))
def test_the_order_of_rows_changes_nothing(order):
    rows = trials([({"data": "a"}, 1000), ({"data": "b"}, 1100)])
    assert study.analyse([rows[index] for index in order], {}) == study.analyse(rows, {})


# Contexts, baselines, floors


def test_cells_are_compared_within_a_file_size_and_cells_that_differ_in_any_factor_are_not_pooled():
    sizes = ("1024", "4096")
    rows = trials(
        [
            ({"data": data, "files": size, "chunk": chunk}, speed)
            for size in sizes
            for data, speed in (("a", 1000), ("b", 1500))
            for chunk in (0, 512)
        ]
    )
    one = study.analyse(rows, {})
    assert [context.label for context in one.contexts] == [
        "1 KiB files, chunk 0",
        "1 KiB files, chunk 512 B",
        "4 KiB files, chunk 0",
        "4 KiB files, chunk 512 B",
    ]
    for context in one.contexts:
        assert [(cell.label, cell.trials, cell.baseline) for cell in context.cells] == [("b", 6, False), ("a", 6, True)]
        assert verdict_of(context.cells[0]) == "faster"
        assert ratio_of(context.cells[0]).value == pytest.approx(1.5, rel=0.1)
    assert one.comparisons == 4
    assert ratio_of(one.contexts[0].cells[0]).level == pytest.approx(1 - 0.05 / 4)


def test_a_ratio_is_the_geometric_mean_of_ratios_within_blocks_that_have_both():
    rows = [
        trial(1, 100, data="a"),
        trial(1, 50, data="b"),
        trial(2, 10, data="a"),
        trial(2, 20, data="b"),
        trial(3, 900, data="a"),
        trial(4, 7, data="b"),
    ]
    (context,) = study.analyse(rows, {"baseline": {"data": "a"}}).contexts
    ratio = ratio_of(by_label(context)["b"])
    assert (ratio.value, ratio.n) == (pytest.approx(1), 2)


def test_the_baseline_is_that_of_the_experiment_else_the_first_cell_that_is_no_floor():
    rows = trials([({"data": data}, 1000) for data in ("null", "a", "b")])
    assert study.analyse(rows, {}).contexts[0].baseline.label == "a"
    assert study.analyse(rows, {"baseline": {"data": "b"}}).contexts[0].baseline.label == "b"
    assert study.analyse(rows, {"baseline": {"data": "c"}}).contexts[0].baseline is None
    with pytest.raises(ValueError, match="dat: no such factor; did you mean data"):
        study.analyse(rows, {"baseline": {"dat": "b"}})


def test_a_baseline_of_one_factor_compares_cells_that_are_equal_in_all_others():
    rows = trials([({"command": command, "data": data}, 1000) for command in ("c", "d") for data in ("a", "b")])
    one = study.analyse(rows, {"baseline": {"data": "a"}})
    assert [context.label for context in one.contexts] == ["1 KiB files, c", "1 KiB files, d"]
    assert [cell.label for cell in one.contexts[0].cells if cell.baseline] == ["a"]


def test_the_floors_stand_beside_every_figure_last_without_a_verdict_and_lead_nothing():
    cells = []
    for clients in (1, 8):
        cells += [
            ({"command": command, "data": data, "clients": clients, "lanes": 4}, speed)
            for command in ("c", "d")
            for data, speed in (("null", 3000), ("a", 1000))
        ]
        cells.append(({"source": "direct", "command": "", "data": "", "clients": clients}, 5000))
    rows = trials(cells)
    for experiment, contexts in (({}, 2), ({"baseline": {"data": "a"}}, 4)):
        one = study.analyse(rows, experiment)
        assert len(one.contexts) == contexts
        for context in one.contexts:
            assert [cell.floor for cell in context.cells] == sorted(cell.floor for cell in context.cells)
            floors = [cell for cell in context.cells if cell.floor]
            assert {cell.design["source"] for cell in floors} == {"direct", "cache"}
            assert {verdict_of(cell) for cell in floors} == {""}
            assert all(ratio_of(cell).value > 2 for cell in floors)
            assert not any(cell.floor for cell in context.leaders)


def test_a_study_of_commands_over_the_null_data_transport_has_no_floor_but_the_null_command():
    speeds = {"a": 100, "null": 200, "b": 50}
    rows = trials([({"command": name, "data": "null"}, speed) for name, speed in speeds.items()])
    (context,) = study.analyse(rows, {}).contexts
    assert [(cell.label, cell.floor) for cell in context.cells] == [("a", False), ("b", False), ("null", True)]


def above(rows):
    """label -> (label of its floor, microseconds above it, rounded) of each cell of the one context, or None."""
    (context,) = study.analyse(rows, {}).contexts
    found = {cell.label: cell.above_floor for cell in context.cells}
    return {label: one and (one.floor, round(one.micros.value)) for label, one in found.items()}


def test_a_cell_is_compared_with_the_floor_of_its_own_shape():
    copying = [("null", 10_000), ("shm", 8_000), ("fifo", 5_000)]
    others = [("nothing", 20_000), ("sendfile", 12_500)]
    cells = [({"data": name, "proxy_end": "copy"}, speed) for name, speed in copying]
    cells += [({"data": name, "proxy_end": "zero-copy"}, speed) for name, speed in others]
    cells += [({"data": "handoff", "proxy_end": "hand-off"}, 10_000)]
    for factors, _ in cells:
        factors["floor"] = "data" if factors["data"] in {"null", "nothing"} else ""
    assert above(trials(cells, spread=0)) == {
        "shm": ("null", 25),
        "fifo": ("null", 100),
        "sendfile": ("nothing", 30),
        "handoff": ("nothing", 50),
        "null": None,
        "nothing": None,
    }
    without = [one for one in cells if one[0]["data"] != "nothing"]
    assert above(trials(without, spread=0))["sendfile"] is None, "there is no floor of its shape"


def test_where_both_channels_are_compared_the_floor_of_both_is_the_floor():
    speeds = {("mq", "shm"): 5_000, ("null", "shm"): 6_250, ("mq", "null"): 8_000, ("null", "null"): 10_000}
    cells = [
        ({"command": command, "data": data, "proxy_end": "copy"}, speed) for (command, data), speed in speeds.items()
    ]
    found = above(trials(cells, spread=0))
    assert {one for one in found.values() if one} == {("null + null", 100)}, found
    found = above(trials(cells[:-1], spread=0))
    assert {one for one in found.values() if one} == {("null + shm", 40)}, "of floors of one channel the first one"


def test_the_interval_above_the_floor_holds_the_truth():
    cells = [({"data": "null", "proxy_end": "copy"}, 10_000), ({"data": "shm", "proxy_end": "copy"}, 8_000)]
    (context,) = study.analyse(trials(cells), {}).contexts
    one = next(cell.above_floor.micros for cell in context.cells if cell.above_floor)
    assert one.low < 25 < one.high < 50
    assert one.low > 0


def test_rows_of_unlike_hosts_kernels_or_code_are_not_pooled():
    halves = [trials([({"data": "a"}, 1000), ({"data": "b"}, 1200)], commit=commit) for commit in ("old", "old+dirty")]
    one = study.analyse([*halves[0], *halves[1]], {})
    assert [context.label for context in one.contexts] == ["1 KiB files, commit old", "1 KiB files, commit old+dirty"]
    assert {cell.trials for context in one.contexts for cell in context.cells} == {6}
    assert any("not pooled" in note for note in one.notes)


def test_trials_whose_http_origin_was_another_server_are_not_pooled_and_the_levels_say_which():
    curl = {"source": "curl", "command": "", "data": "", "origin_server": "auto"}
    cells = [({**curl, "strategy": name}, speed) for name, speed in (("single-get", 1000), ("buffered", 500))]
    rows = [row for origin in ("nginx/1.22.1", "harness origin 0.1.0") for row in trials(cells, origin=origin)]
    rows[0].status, rows[0].origin = "refused", ""
    one = study.analyse(rows, {})
    assert {context.label for context in one.contexts} == {
        "1 KiB files, nginx/1.22.1",
        "1 KiB files, harness origin 0.1.0",
    }
    assert "HTTP origin: harness origin 0.1.0, nginx/1.22.1 (column `origin`)." in one.notes
    assert not any("not pooled" in note for note in one.notes)
    with pytest.raises(ValueError, match="the runs share no cell"):
        compare.compare(rows[:12], rows[12:])
    assert len(compare.compare(rows, rows).pairs) == 4


def test_http_origins_can_be_compared_with_each_other():
    curl = {"source": "curl", "command": "", "data": ""}
    servers = {"own": ("harness origin", 1000), "nginx": ("nginx/1.22.1", 1500)}
    rows = trials([({**curl, "origin_server": name, "origin": was}, speed) for name, (was, speed) in servers.items()])
    (context,) = study.analyse(rows, {}).contexts
    assert [(cell.label, cell.baseline) for cell in context.cells] == [
        ("origin_server nginx", False),
        ("origin_server own", True),
    ]


def test_a_trial_that_never_ran_is_missed_in_its_context_whatever_it_says_of_its_machine():
    rows = trials([({"data": "a"}, 1000), ({"data": "b"}, 1200)])
    rows[0].status, rows[0].host = "refused", ""
    (context,) = study.analyse(rows, {}).contexts
    assert (context.label, by_label(context)["a"].trials) == ("1 KiB files", 5)


def test_lanes_by_themselves_are_a_context_of_their_own():
    lane = {"scope": "lane", "clients": 0, "congestion": ""}
    rows = trials([({"data": data, "congestion": "reno", **scope}, 1000) for scope in ({}, lane) for data in "ab"])
    one = study.analyse(rows, {})
    assert [(context.label, len(context.cells)) for context in one.contexts] == [
        ("1 KiB files, pipeline", 2),
        ("1 KiB files, lane", 2),
    ]


def test_what_is_left_out_is_counted_and_what_is_disturbed_is_flagged_and_kept():
    rows = trials([({"data": "a"}, 1000), ({"data": "b"}, 1200), ({"data": "c"}, 1)])
    for row in rows:
        if row.data == "c":
            row.status, row.reason = "refused", "no such kernel"
    rows[0].status = "failed"
    rows[3].disturbed = "steal"
    rows += [trial(0, 9e9, data="b", probe="syscalls"), trial(0, 9e9, data="d", probe="syscalls")]
    one = study.analyse(rows, {})
    assert one.counts == study.Counts(trials=20, ok=11, failed=1, refused=6, probes=2, disturbed=1)
    assert one.missing == [("c, 1 KiB files", "refused: no such kernel")]
    cells = by_label(one.contexts[0])
    assert {name: (cell.trials, cell.disturbed) for name, cell in cells.items()} == {"a": (5, 1), "b": (6, 0)}
    assert any("1 failed, 6 refused, 2 for probes" in note for note in one.notes)
    assert any(note.startswith("1 of 11 trials were disturbed") for note in one.notes)


def test_ways_of_waiting_are_not_compared_without_saying_so():
    rows = trials(
        [
            ({"data": "a", "wait_effective": "spin"}, 1000),
            ({"data": "b", "wait_effective": "block"}, 1000),
            ({"data": "c"}, 1000),
        ]
    )
    notes = [note for note in study.analyse(rows, {"baseline": {"data": "b"}}).notes if "waits" in note]
    assert notes == [
        "* waits in another way than its baseline (spin against block), so its ratio is that of the wait strategies as "
        "well."
    ]


def test_an_open_loop_is_about_latency_since_its_throughput_is_given():
    rows = trials([({"data": "a", "rate": 900.0}, 1000), ({"data": "b", "rate": 900.0}, 2000)])
    for row in rows:
        row.requests_per_s = 900
    (context,) = study.analyse(rows, {}).contexts
    assert context.metric == "latency_p50_us"
    assert [cell.label for cell in context.cells] == ["b", "a"]
    assert context.cells[0].measurements["latency_p50_us"].verdict == "faster"
    assert context.leaders == context.cells[:1]


def test_the_words_of_a_verdict_say_which_way_is_better():
    more = intervals.Estimate(1.2, 1.1, 1.3, 5, 0.95)
    less = intervals.Estimate(0.8, 0.7, 0.9, 5, 0.95)
    words = {
        metric: (verdicts.verdict(more, metric), verdicts.verdict(less, metric))
        for metric in ("requests_per_s", "latency_p99_us", "cpu_us_per_request")
    }
    assert words == {
        "requests_per_s": ("faster", "slower"),
        "latency_p99_us": ("slower", "faster"),
        "cpu_us_per_request": ("more", "less"),
    }


def test_the_metrics_of_verdicts_are_columns_of_numbers():
    assert verdicts.MORE_IS_BETTER | set(verdicts.METRICS) <= set(claims.METRICS)


def test_a_study_without_a_good_trial_says_what_happened():
    rows = [trial(1, status="failed", reason="no port", data=data) for data in ("a", "b")]
    one = study.analyse(rows, {})
    assert one.contexts == []
    assert [label for label, _ in one.missing] == ["a, 1 KiB files", "b, 1 KiB files"]
    assert study.analyse([], {}).contexts == []


# Which is the fastest


def test_crossovers_name_the_fastest_transports_of_each_range_of_sizes():
    speeds = {"1024": (1000, 1000, 500), "4096": (1000, 1000, 700), "65536": (500, 600, 1000), "1024 65536": (9, 9, 9)}
    rows = trials(
        [
            ({"data": data, "files": files}, speed)
            for files, some in speeds.items()
            for data, speed in zip("abc", some, strict=True)
        ]
    )
    (one,) = study.analyse(rows, {}).crossovers
    assert [(one_range.files, sorted(one_range.designs)) for one_range in one.ranges] == [
        (["1024"], ["a", "b"]),
        (["1024 65536"], ["a", "b", "c"]),
        (["4096"], ["a", "b"]),
        (["65536"], ["c"]),
    ]
    rows = [row for row in rows if " " not in row.files]
    (one,) = study.analyse(rows, {}).crossovers
    assert [(one_range.files, sorted(one_range.designs)) for one_range in one.ranges] == [
        (["1024", "4096"], ["a", "b"]),
        (["65536"], ["c"]),
    ]
    a_or_b = " or ".join(one.ranges[0].designs)
    assert one.line == f"up to 4 KiB: {a_or_b} (no difference found); from 64 KiB on: c"
    assert one.sentence == f"Unbeaten: {one.line}."


def test_a_range_of_sizes_says_in_words_where_it_lies_among_the_others():
    def ranges(*leading):
        (one,) = crossovers.crossovers(({"files": files, "clients": 8}, list(designs)) for files, designs in leading)
        return [(size_range.where, size_range.designs) for size_range in one.ranges]

    assert ranges(("1024", "a")) == [("1 KiB", ["a"])]
    assert ranges(("1024", "a"), ("2048", "ab")) == [("1 KiB to 2 KiB", ["a"])]
    assert ranges(("1024", "a"), ("2048", "b"), ("4096", "b"), ("8192", "c")) == [
        ("up to 1 KiB", ["a"]),
        ("2 KiB to 4 KiB", ["b"]),
        ("from 8 KiB on", ["c"]),
    ]
    assert ranges(("1024", "a"), ("classic", "a"), ("2048", "a")) == [
        ("up to 1 KiB", ["a"]),
        ("classic", ["a"]),
        ("from 2 KiB on", ["a"]),
    ]


def test_a_sentence_names_four_designs_and_counts_the_others():
    (one,) = crossovers.crossovers([({"files": "1024", "clients": 1}, list("abcdef"))])
    assert one.sentence == "Unbeaten (1 client): 1 KiB: a or b or c or d or one of 2 more (no difference found)."


def test_there_is_advice_for_each_number_of_clients():
    speeds = {(1, "a"): 1, (1, "b"): 2, (64, "a"): 2, (64, "b"): 1}
    rows = trials([({"data": data, "clients": clients}, speed) for (clients, data), speed in speeds.items()])
    assert [(one.label, one.line) for one in study.analyse(rows, {}).crossovers] == [
        ("1 client", "1 KiB: b"),
        ("64 clients", "1 KiB: a"),
    ]


# The control


def controlled(ratio):
    return trials([({"data": "a"}, 1000), ({"data": "b"}, 2000), ({"data": "a", "control": 1}, 1000 * ratio)])


def test_a_control_that_is_on_is_no_cell_and_leaves_verdicts_alone():
    one = study.analyse(controlled(1), {})
    assert [cell.label for cell in one.contexts[0].cells] == ["b", "a"]
    assert (one.control.off, len(one.control.checks), one.comparisons) == ("", 1, 1)
    assert verdict_of(one.contexts[0].cells[0]) == "faster"
    assert "control: on" in one.control.line


def test_a_control_that_is_off_withholds_every_verdict_and_says_why():
    experiment = {
        "claims": [
            {
                "text": "t",
                "metric": "requests_per_s",
                "test": {"data": "b"},
                "baseline": {"data": "a"},
                "expect": "higher",
            }
        ]
    }
    one = study.analyse(controlled(1.2), experiment)
    assert {figure.verdict for figure in by_label(one.contexts[0])["b"].measurements.values()} == {"withheld"}
    assert one.contexts[0].leaders == one.crossovers == []
    assert "two equal cells (a, 1 KiB files) differ in requests_per_s, ratio 1.2" in one.control.line
    assert one.answers[0].outcome == "undecided"
    assert one.answers[0].reason.startswith("the A/A control is off")


def test_an_open_loop_that_does_not_keep_its_rate_is_said_to_be_saturated():
    rows = trials([({"data": "a"}, 480), ({"data": "b"}, 312)], rate=500.0, seconds=1.0, measured_s=1.02)
    for row in rows:
        row.latency_p50_us, row.measured_s = (250_000.0, 1.6) if row.data == "b" else (100.0, 1.02)
    (said,) = [note for note in study.analyse(rows, {}).notes if "Saturated" in note]
    assert said.startswith("Saturated: b (1 KiB files). The rate is more than was served")


def test_a_cell_that_failed_in_some_blocks_is_named_with_their_number():
    rows = trials([({"data": "a"}, 480), ({"data": "b"}, 700)], blocks=6)
    for row in rows:
        if row.data == "b" and row.block > 3:
            row.status, row.reason = "failed", "too slow"
    (said,) = [note for note in study.analyse(rows, {}).notes if "failed in" in note]
    assert said == "b, 1 KiB files: failed in 3 of 6 blocks. Its figures are of the others."


def test_a_run_that_is_not_finished_says_so_and_names_nothing_unbeaten():
    rows = trials([({"data": "a"}, 480), ({"data": "b"}, 700)])
    whole = study.analyse(rows, {"cells": [{}, {}]})
    assert whole.crossovers
    assert not any("Unfinished" in note for note in whole.notes)
    cut = study.analyse(rows, {"cells": [{}, {}, {}, {}]})
    assert not cut.crossovers
    assert cut.notes[0].startswith("Unfinished: 2 of 4 cells have no trial yet.")


def test_a_study_without_a_control_says_so():
    assert study.analyse(trials(TWO), {}).control.line.startswith("A/A control: none")


def test_a_control_seldom_is_off_where_cells_are_equal():
    pair = [({"data": "a"}, 1000), ({"data": "a", "control": 1}, 1000)]
    off = sum(bool(study.analyse(trials(pair, seed=seed), {}).control.off) for seed in range(500))
    assert chance.at_least(off, 500, 0.05) > 0.001, off
    assert chance.at_least(500 - off, 500, 0.95) > 0.001, off


# When to stop


def test_a_run_may_stop_where_no_interval_reaches_further_than_asked_from_its_ratio():
    rows = trials([({"data": "a"}, 1000), ({"data": "b"}, 1200), ({"data": "c"}, 500)], blocks=10)
    ends = [
        (ratio.low / ratio.value, ratio.high / ratio.value)
        for cell in study.analyse(rows, {}).contexts[0].cells
        if (ratio := ratio_of(cell))
    ]
    furthest = max(max(1 - low, high - 1) for low, high in ends) * 100
    assert study.narrow_enough(rows, {}, furthest + 0.001)
    assert not study.narrow_enough(rows, {}, furthest - 0.001)
    assert not study.narrow_enough(rows, {}, 100, least=11)
    assert not study.narrow_enough([row for row in rows if row.block < 8], {}, 100)
    assert not study.narrow_enough([row for row in rows if row.data == "a"], {}, 100)
    assert study.narrow_enough(rows, {"data": "c"}, 50)


# Claims


def claim(**other):
    return {
        "text": "b is faster",
        "metric": "requests_per_s",
        "test": {"data": "b"},
        "baseline": {"data": "a"},
        "expect": "higher",
        **other,
    }


@pytest.mark.parametrize(
    ("expect", "region"),
    [
        ("higher", (1, math.inf)),
        ("lower", (0, 1)),
        ("> 1.05", (1.05, math.inf)),
        (">2", (2, math.inf)),
        ("< 0.9", (0, 0.9)),
        ("within 5%", (1 / 1.05, 1.05)),
        ("within 12.5 %", (1 / 1.125, 1.125)),
    ],
)
def test_an_expectation_is_a_region_of_ratios(expect, region):
    assert claims.region(expect) == region


@pytest.mark.parametrize(
    ("expect", "low", "high", "outcome"),
    [
        ("higher", 1.01, 1.5, "supported"),
        ("higher", 0.8, 0.99, "refuted"),
        ("higher", 0.9, 1.1, "undecided"),
        ("lower", 0.8, 0.99, "supported"),
        ("lower", 1.01, 1.5, "refuted"),
        ("lower", 0.9, 1.1, "undecided"),
        ("> 1.05", 1.06, 2, "supported"),
        ("> 1.05", 1.01, 1.04, "refuted"),
        ("> 1.05", 1.01, 1.06, "undecided"),
        ("within 5%", 0.97, 1.03, "supported"),
        ("within 5%", 1.06, 1.2, "refuted"),
        ("within 5%", 1, 1.2, "undecided"),
        *[(expect, 0, math.inf, "undecided") for expect in ("higher", "lower", "> 1.05", "< 0.9", "within 5%")],
    ],
)
def test_an_interval_supports_or_refutes_or_straddles(expect, low, high, outcome):
    assert claims.outcome(expect, low, high) == outcome


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expect": "faster"}, "expect: 'faster': write higher, lower"),
        ({"expect": "> 0"}, "expect: '> 0'"),
        ({"expect": "within 0%"}, "expect: 'within 0%'"),
        ({"metric": "request_per_s"}, "request_per_s: no such metric; did you mean requests_per_s?"),
        ({"metric": "data"}, "data: no such metric"),
        ({"test": {"dta": "b"}}, "dta: no such factor; did you mean data?"),
        ({"test": {"control": 1}}, "control: no such factor"),
        ({"test": {}}, "test: is missing"),
        ({"test": {"data": "a"}}, "test and baseline are the same"),
        ({"test": {"command": "a"}}, "test and baseline must name the same factors; command, data: only in one"),
        ({"test": {"clients": "few"}, "baseline": {"clients": 1}}, "test: clients: 'few' is no whole number"),
        ({"test": {"clients": 1.5}, "baseline": {"clients": 1}}, "test: clients: 1.5 is no whole number"),
        ({"test": {"lanes": [4]}, "baseline": {"lanes": 1}}, "test: lanes: [4] is no whole number"),
        ({"test": {"rate": float("inf")}, "baseline": {"rate": 1}}, "test: rate: inf is no number"),
        ({"test": {"reuse": "false"}, "baseline": {"reuse": True}}, "test: reuse: 'false' is no true or false"),
        ({"test": {"reuse": None}, "baseline": {"reuse": True}}, "test: reuse: None is no true or false"),
        ({"where": {"files": 1024}}, "where: files: write a list of values"),
        ({"where": {"data": ["a"]}}, "where: data: is in test or baseline, too"),
        ({"where": [1]}, "where: write `name: value` lines"),
        ({"expects": "higher"}, "expects: no such key; did you mean expect?"),
    ],
)
def test_a_claim_that_no_trials_could_answer_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        claims.read(claim(**change))
    assert str(refused.value).startswith(message)


def test_a_claim_has_the_columns_and_values_of_the_csv_and_is_read_back_as_it_was_written():
    sides = {"test": {"data": None, "rate": 5}, "baseline": {"data": "a", "rate_per_s": 5}}
    one = claims.read(claim(**sides, where={"files": [1024]}))
    assert (one.test, one.where) == ({"data": "null", "rate": 5.0}, {"files": ["1024"]})
    assert claims.read(dataclasses.asdict(one)) == one
    assert claims.of_experiment({"claims": [dataclasses.asdict(one)]}) == [one]
    assert claims.read(claim(metric="requests")).metric == "requests_ended"  # as schema 2 called it
    assert claims.of_experiment({}) == claims.of_experiment({"claims": None}) == []


def answer(rows, **change):
    return judgements.judge(claims.read(claim(**change)), rows)


def test_a_claim_is_supported_where_all_contexts_support_it_and_refuted_where_one_refutes_it():
    def rows(small, large):
        return trials(
            [
                ({"data": data, "files": files}, speed)
                for files, some in (("1024", small), ("4096", large))
                for data, speed in zip("ab", some, strict=True)
            ]
        )

    supported = answer(rows((1000, 2000), (1000, 1500)))
    assert (supported.outcome, supported.reason) == ("supported", "")
    assert [(one.label, one.outcome) for one in supported.findings] == [
        ("1 KiB files", "supported"),
        ("4 KiB files", "supported"),
    ]
    assert supported.findings[0].ratio.level == pytest.approx(0.975)
    assert answer(rows((1000, 2000), (1000, 500))).outcome == "refuted"
    half = answer(rows((1000, 2000), (1000, 1000)))
    assert (half.outcome, half.reason) == ("undecided", "the interval straddles the bound")
    assert answer(rows((1000, 2000), (1000, 1000)), where={"files": [1024]}).outcome == "supported"
    assert answer(rows((1000, 2000), (1000, 2000)), metric="latency_p50_us").outcome == "refuted"


def test_a_claim_that_is_undecided_says_why():
    rows = trials([({"data": "a"}, 1000), ({"data": "b"}, 2000)])
    assert answer(rows, test={"data": "z"}).reason == "no such trials"
    gone = answer(rows, where={"files": [1024, 4096]})
    reasons = [(one.label, one.reason) for one in gone.findings]
    assert reasons == [("1 KiB files", ""), ("4 KiB files", "no such trials")]
    assert (gone.outcome, gone.reason) == ("undecided", "no such trials")
    assert answer([row for row in rows if row.block < 3]).reason == "too few blocks: 2, and an interval needs 3"
    assert answer(rows, metric="swept").reason == "no block has good trials of both with swept above 0"
    for row in rows:
        row.status = "failed" if row.data == "b" else row.status
    assert answer(rows).reason == "no block has good trials of both with requests_per_s above 0"


def test_a_claim_across_ways_of_waiting_is_decided_and_says_so():
    rows = trials([({"data": "a", "wait_effective": "spin"}, 1000), ({"data": "b"}, 2000)])
    (finding,) = answer(rows).findings
    assert (finding.outcome, finding.reason) == ("supported", "wait strategies differ: block against spin")


def test_a_claim_about_the_floor_without_a_cache_holds_in_each_context_of_the_others():
    rows = trials(
        [
            ({"data": "a", "command": "c"}, 100),
            ({"data": "a", "command": "d"}, 100),
            ({"source": "direct", "data": "", "command": ""}, 300),
        ]
    )
    found = answer(rows, test={"source": "direct"}, baseline={"source": "cache", "data": "a"})
    assert [one.label for one in found.findings] == ["1 KiB files, c", "1 KiB files, d"]
    assert found.outcome == "supported"


def test_intervals_of_claims_are_corrected_for_all_claims_of_the_experiment():
    rows = trials([({"data": "a"}, 1000), ({"data": "b"}, 2000)])
    asked = [claim(), claim(expect="> 1.5"), claim(metric="latency_p50_us", expect="lower")]
    one = study.analyse(rows, {"claims": asked})
    assert {finding.ratio.level for each in one.answers for finding in each.findings} == {intervals.corrected(3)}
    assert [each.outcome for each in one.answers] == ["supported"] * 3


@pytest.mark.processes
def test_the_claims_need_no_library_to_be_checked():
    command = [
        sys.executable,
        "-c",
        "import sys\nfrom harness.analysis import claims, show\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'scipy')))",
    ]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


# Commands


def keep(directory, rows, experiment=None):
    directory.mkdir(exist_ok=True)
    for row in rows:
        results.append(f"{directory}/trials.csv", row)
    if experiment is not None:
        with open(directory / "experiment.yaml", "w") as file:
            YAML(typ="safe", pure=True).dump(experiment, file)
    return str(directory)


@pytest.mark.parametrize(
    ("expects", "code"), [(["higher"], 0), (["higher", "lower"], 1), (["lower", "< 2"], 1), (["higher", "> 2"], 3)]
)
def test_the_exit_code_of_claims_is_that_of_the_worst_one(tmp_path, capsys, expects, code):
    directory = keep(tmp_path / "run", trials(TWO), {"claims": [claim(expect=expect) for expect in expects]})
    assert claims_command.main([directory]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("refuted" if expects[0] == "lower" else "supported") + ": b is faster"
    assert lines[1] == f"  requests_per_s of b to a; expected: {expects[0]}"
    assert "1 KiB files: " in lines[2]
    assert "interval 1." in lines[2]


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (None, "claims: the experiment makes no claims"),
        ({"claims": [claim(expect="x")]}, "claims: expect: 'x': write higher"),
        ([1], "experiment.yaml: not an experiment"),
    ],
)
def test_claims_that_cannot_be_read_are_misuse(tmp_path, capsys, experiment, message):
    assert claims_command.main([keep(tmp_path / "run", trials(TWO), experiment)]) == 2
    assert message in capsys.readouterr().err
    assert claims_command.main([str(tmp_path / "nowhere")]) == 2


def test_show_prints_the_tables_from_the_files_in_120_columns(tmp_path, capsys):
    cells = [
        ({"command": command, "data": data, "files": files}, 10_000.0)
        for files in ("1024", "3145728")
        for command in ("posix_mq", "fifo")
        for data in ("posix_shm", "sendfile", "null")
    ]
    rows = trials(cells, wait_effective="block")
    rows[0].disturbed = "steal"
    assert show.main([keep(tmp_path / "run", rows, {"claims": [claim(test={"data": "sendfile"})]})]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    for text in (
        "1 KiB files (6 trials a cell)",
        "3 MiB files",
        "baseline !1",
        "floor",
        "cannot tell",
        "A/A control: none",
        "Claim undecided: b is faster",
        "Unbeaten: 1 KiB to 3 MiB: ",
        "1 of 72 trials were disturbed",
    ):
        assert text in printed
    assert show.main([str(tmp_path / "nowhere")]) == 2


def test_compare_finds_the_cells_that_became_slower(tmp_path, capsys):
    before = keep(tmp_path / "a", trials(TWO, commit="x"))
    after = keep(tmp_path / "b", trials([TWO[0], (TWO[1][0], 1000)], seed=2, commit="y"))
    assert compare.main([before, before]) == 0
    assert compare.main([before, after]) == 1
    printed = capsys.readouterr().out
    assert "slower" in printed
    assert "commit: x against y." in printed
    assert compare.main([after, before]) == 0
    assert "faster" in capsys.readouterr().out
    assert compare.main([before, after, "--metric", "latency_p99_us"]) == 1
    assert compare.main([before, after, "--metric", "data"]) == 2


def test_compare_refuses_runs_of_unlike_machines_unless_forced(tmp_path, capsys):
    before = keep(tmp_path / "a", trials(TWO, kernel="6.1"))
    after = keep(tmp_path / "b", trials(TWO, kernel="6.2", python="3.12"))
    assert compare.main([before, after]) == 2
    assert "the runs are not alike: kernel: 6.1 against 6.2; python: unknown against 3.12" in capsys.readouterr().err
    assert compare.main([before, after, "--force"]) == 0
    assert "The machines differ" in capsys.readouterr().out


def test_compare_withholds_verdicts_where_a_control_is_off_and_counts_what_it_leaves_out():
    found = compare.compare(controlled(1.3), controlled(1))
    assert found.withheld
    assert {pair.verdict for pair in found.pairs} == {"withheld"}
    first = trials([*TWO, ({"data": "c"}, 1)])
    first[0].status = "failed"
    found = compare.compare(first, trials(TWO))
    assert [pair.first.n for pair in found.pairs] == [5, 6]
    assert "1 cells have no counterpart and are left out." in found.notes
    assert "1 trials failed or were refused and are left out." in found.notes
    with pytest.raises(ValueError, match="share no cell"):
        compare.compare(trials(TWO), trials([({"data": "z"}, 1)]))


def test_ten_thousand_rows_are_analysed_in_a_few_seconds():
    cells = [({"data": f"d{data}", "clients": clients}, 1000) for data in range(10) for clients in range(1, 51)]
    rows = trials(cells, blocks=20)
    begun = time.process_time()
    assert study.analyse(rows, {}).comparisons == 450
    assert time.process_time() - begun < 6


def test_figures_without_spread_make_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for blocks in (3, 25):
            rows = [trial(block, data=data) for block in range(blocks) for data in "ab"]
            (context,) = study.analyse(rows, {}).contexts
            assert ratio_of(by_label(context)["b"]).value == 1
            assert verdict_of(by_label(context)["b"]) == "cannot tell"


def test_a_claim_is_a_plain_record():
    assert [field.name for field in dataclasses.fields(Claim)] == [
        "text",
        "metric",
        "test",
        "baseline",
        "where",
        "expect",
    ]
