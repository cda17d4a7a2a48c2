"""The analysis of live blocks: a block says one thing of two cells, by its rounds, and blocks make the interval."""

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import special
from support import chance, studies

from harness import results
from harness.analysis import claims_command, intervals, precision, run_files, show, slices, study
from harness.results import Slice


def one_slice(trial, number, requests=100, seconds=0.01, latency=50.0, cpu=0.001):
    return Slice(
        trial=trial,
        round=number,
        place=1,
        seconds=seconds,
        requests=requests,
        content_bytes=1024 * requests,
        latency_p50_us=latency,
        all_requests=2 * requests,
        proxy_cpu_s=cpu,
        cache_cpu_s=cpu,
    )


def test_the_values_of_a_slice_are_rates_of_its_window_and_cpu_time_of_all_its_requests():
    found = slices.of_rows([one_slice(1, 1), one_slice(2, 1, requests=200, cpu=0.003)])
    values = {metric: tuple(float(one[0]) for one in found.paired(1, 2, metric)) for metric in slices.METRICS}
    assert values == {
        "requests_per_s": pytest.approx((10_000, 20_000)),
        "content_bytes_per_s": pytest.approx((10_240_000, 20_480_000)),
        "cpu_us_per_request": pytest.approx((10, 15)),
        "latency_p50_us": (50, 50),
    }


def test_only_rounds_that_both_trials_have_with_a_value_are_paired():
    rows = [one_slice(1, number, requests=number) for number in (3, 1, 2)]
    rows += [one_slice(2, number, requests=10 * number) for number in (2, 3, 4)]
    rows += [one_slice(2, 1, requests=0)]
    own, base = slices.of_rows(rows).paired(1, 2, "requests_per_s")
    assert (own.tolist(), base.tolist()) == ([200, 300], [2000, 3000])


def test_the_centre_of_rounds_is_that_of_those_in_the_middle():
    # The middle half of five: 2 and 5 count for three quarters.
    assert slices.centre(np.array([5.0, 1, 2, 3, 1000])) == pytest.approx((0.75 * 2 + 3 + 0.75 * 5) / 2.5)
    assert slices.centre(np.array([4.0])) == 4
    assert slices.centre(np.array([4.0, 6])) == 5


def live_trials(blocks=4, rounds=60, **noise):
    """Two cells, one 1.5 times as fast as the other, and their slices."""
    rows = studies.trials([({"data": "posix_shm"}, 10_000), ({"data": "sendfile"}, 15_000)], blocks)
    for row in rows:  # equal but for what the slices say
        row.requests_per_s, row.cpu_us_per_request = (10_000, 20.0) if row.data == "posix_shm" else (15_000, 16.0)
        row.latency_p50_us = 8e6 / row.requests_per_s
    return rows, studies.slices_of(rows, rounds, np.random.default_rng(5), **noise)


def ratios(rows, found):
    (context,) = study.analyse(rows, {"baseline": {"data": "posix_shm"}}, found).contexts
    (cell,) = (cell for cell in context.cells if not cell.baseline)
    return cell.measurements


def test_the_ratio_of_a_block_is_the_centre_of_the_log_ratios_of_its_rounds():
    rows, some = live_trials()
    by_trial = {row.trial: row for row in rows}
    expected = []
    for block in range(1, 5):
        times = {
            (by_trial[one.trial].data, one.round): one.seconds / one.requests
            for one in some
            if by_trial[one.trial].block == block
        }
        logs = [math.log(times["posix_shm", number] / times["sendfile", number]) for number in range(1, 61)]
        expected.append(slices.centre(np.array(logs)))
    ratio = ratios(rows, slices.of_rows(some))["requests_per_s"].ratio
    assert math.log(ratio.value) == pytest.approx(np.mean(expected))
    assert ratio.n == 4


def test_rounds_that_something_hit_move_a_ratio_of_rows_and_not_one_of_slices():
    rows, some = live_trials(spread=0.02, spikes=0.0)
    hit = {row.trial for row in rows if row.data == "sendfile"}
    for one in some:
        if one.trial in hit and one.round % 10 == 0:
            object.__setattr__(one, "seconds", one.seconds * 30)
    for row in rows:
        row.requests_per_s = row.requests_ended / sum(one.seconds for one in some if one.trial == row.trial)
    assert ratios(rows, None)["requests_per_s"].ratio.value < 0.5
    assert ratios(rows, slices.of_rows(some))["requests_per_s"].ratio.value == pytest.approx(1.5, rel=0.01)


def test_a_metric_that_slices_do_not_have_is_that_of_the_rows():
    rows, some = live_trials()
    found, by_rows = ratios(rows, slices.of_rows(some)), ratios(rows, None)
    assert found["latency_p99_us"] == by_rows["latency_p99_us"]
    assert found["latency_p50_us"].ratio != by_rows["latency_p50_us"].ratio


def test_beside_a_ratio_stands_how_many_microseconds_more_a_request_takes():
    rows, some = live_trials(spread=0.02)
    for found in (ratios(rows, slices.of_rows(some)), ratios(rows, None)):
        more = found["requests_per_s"].difference
        assert more.value == pytest.approx(1e6 / 15_000 - 1e6 / 10_000, rel=0.05)
        assert more.low <= more.value <= more.high
        assert more.level == found["requests_per_s"].ratio.level
        assert found["cpu_us_per_request"].difference.value == pytest.approx(-4, rel=0.05)
        assert found["latency_p50_us"].difference.value == pytest.approx(8e6 / 15_000 - 800, rel=0.05)
        assert found["content_bytes_per_s"].difference is None


def test_two_blocks_have_no_interval_however_many_rounds():
    rows, some = live_trials(blocks=2)
    measured = ratios(rows, slices.of_rows(some))["requests_per_s"]
    assert not measured.ratio.bounded
    assert (measured.difference.low, measured.difference.high) == (-math.inf, math.inf)
    assert measured.verdict == "cannot tell"


# Scatter, and what more would buy


def rounds_of(blocks, rounds, round_sd, restart_sd, seed=1):
    random = np.random.default_rng(seed)
    return list(random.normal(0, round_sd, (blocks, rounds)) + random.normal(0, restart_sd, (blocks, 1)))


def test_the_variance_of_a_centre_is_that_which_centres_of_independent_rounds_have():
    random = np.random.default_rng(2)
    for noise in (random.normal(0, 1, (4000, 40)), random.standard_t(3, (4000, 40))):
        true = np.var([slices.centre(one) for one in noise])
        assert np.mean([slices.centre_variance(one) for one in noise]) == pytest.approx(true, rel=0.1)
    assert slices.centre_variance(np.array([1.0, 3])) == pytest.approx(1)


def test_scatter_has_a_part_within_restarts_and_one_between_them():
    found = precision.scatter(rounds_of(400, 50, 0.1, 0.03))
    assert (found.blocks, found.rounds) == (400, pytest.approx(50))
    assert found.round_sd == pytest.approx(0.1, rel=0.03)
    assert found.centre_sd == pytest.approx(0.1 / math.sqrt(50) * 1.09, rel=0.05)
    assert found.between_sd == pytest.approx(0.03, rel=0.15)
    assert abs(found.neighbours) < 0.05
    assert precision.scatter(rounds_of(3, 50, 0.1, 0.0, seed=4)).between_sd >= 0
    assert precision.scatter(rounds_of(1, 50, 0.1, 0.0)) is None


def test_blocks_of_unequal_rounds_say_the_same_of_a_round():
    random = np.random.default_rng(3)
    unequal = [random.normal(0, 0.1, 5 if block % 2 else 50) for block in range(400)]
    assert precision.scatter(unequal).of_one_round == pytest.approx(0.109, rel=0.1)


def test_the_expected_half_width_is_what_studies_have():
    one = precision.Scatter(6, 50, 0.1, 0.1 / math.sqrt(50), 0.02, 0.0)
    random = np.random.default_rng(6)
    centres = random.normal(0, math.hypot(one.centre_sd, one.between_sd), (2000, 6))
    widths = [intervals.reach(found) for found in intervals.means(list(centres), intervals.corrected(10))]
    assert precision.expected_half_width(one, 6, 50, 10) == pytest.approx(np.median(widths), rel=0.1)
    assert precision.expected_half_width(one, 6, 50, 10, alike=10) < precision.expected_half_width(one, 6, 50, 10)
    assert precision.expected_half_width(one, 2, 50) == math.inf


def test_a_time_is_divided_so_that_intervals_are_the_narrowest():
    one = precision.Scatter(3, 100, 0.1, 0.01, 0.02, 0.0)
    use = precision.best_use(one, seconds=100, restart_s=4, round_s=0.1)
    assert use.blocks * (4 + 0.1 * use.rounds) <= 100
    widths = {blocks: precision.expected_half_width(one, blocks, (100 / blocks - 4) / 0.1) for blocks in range(3, 24)}
    assert use.blocks == min(widths, key=widths.get)
    assert precision.best_use(one, seconds=11, restart_s=4, round_s=0.1) is None


def test_a_run_that_has_begun_says_how_its_ratios_scatter():
    rows, some = live_trials(blocks=2, spread=0.1, restart=0.02)
    (one,) = precision.of_run(rows, {"data": "posix_shm"}, slices.of_rows(some))
    assert (one.cells, one.scatter.blocks, one.scatter.rounds) == (1, 2, 60)
    assert one.scatter.round_sd == pytest.approx(0.1 * math.sqrt(2), rel=0.6)
    assert precision.of_run(rows, {}, None) == []


# Comparisons that scatter alike


def test_scatter_is_moderated_as_by_smyth():
    from scipy import optimize  # here, as every process that another test forks would copy it

    variances = np.array([1.0, 20, 4, 80, 3, 5, 0.2, 6, 1])
    logs = np.log(variances) - special.digamma(2) + math.log(2)
    prior = optimize.brentq(
        lambda d: special.polygamma(1, d / 2) - logs.var(ddof=1) + special.polygamma(1, 2), 0.1, 1e4
    )
    common = math.exp(logs.mean() + special.digamma(prior / 2) - math.log(prior / 2))
    used, freedom = intervals.moderated(variances, np.full(9, 4))
    added = min(prior, 4)
    assert freedom == pytest.approx(4 + added)
    assert used == pytest.approx(np.maximum(variances, (added * common + 4 * variances) / (added + 4)))


def test_scatter_is_not_moderated_where_there_is_nothing_to_compare_it_with():
    for variances in ([3.0], [3.0, 0.0], [0.0, 0.0]):
        used, freedom = intervals.moderated(np.array(variances), np.full(len(variances), 4))
        assert (used.tolist(), freedom.tolist()) == (variances, [4] * len(variances))


@pytest.mark.parametrize("loud", [1, 3])
@pytest.mark.parametrize("blocks", [3, 6])
def test_intervals_of_ten_ratios_hold_at_once_also_where_one_cell_scatters_more(blocks, loud):
    random = np.random.default_rng(blocks)
    level, missed, narrower = intervals.corrected(10), 0, 0.0
    for number in range(600):
        values = random.normal(0, 1, (11, blocks))
        values[3] *= loud
        logs = values[1:] - values[0]
        found = intervals.differences(logs, level, [0] * 10)
        missed += any(one.low > 0 or one.high < 0 for one in found)
        if number % 10 == 0:
            apart = intervals.differences(logs, level)
            narrower += np.median([one.high - one.low for one in found]) / np.median(
                [one.high - one.low for one in apart]
            )
    assert chance.at_least(missed, 600, 0.05) > 0.001, missed
    assert narrower / 60 < 0.85


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_intervals_of_live_blocks_hold_at_once_however_rounds_depend_on_each_other(rho):
    random = np.random.default_rng(7)
    missed, studies = 0, 200
    for _ in range(studies):
        noise = random.normal(0, 1, (3, 4, 30))
        for place in range(1, 30):
            noise[..., place] = rho * noise[..., place - 1] + math.sqrt(1 - rho**2) * noise[..., place]
        centres = np.array([[slices.centre(one) for one in cell - noise[0]] for cell in noise[1:]])
        found = intervals.means(list(centres), intervals.corrected(2), [0, 0])
        missed += any(one.low > 1 or one.high < 1 for one in found)
    assert chance.at_least(missed, studies, 0.05) > 0.001, missed


# What is shown


def test_the_resolution_stands_first_where_it_is_coarse(tmp_path, capsys):
    coarse, fine = tmp_path / "coarse", tmp_path / "fine"
    for place, spread in ((coarse, 0.5), (fine, 0.01)):
        rows, some = live_trials(spread=spread, spikes=0.0)
        studies.write(place, rows, {"baseline": {"data": "posix_shm"}})
        results.append(f"{place}/{results.SLICES}", *some)
        assert show.main([str(place)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("Resolution") == (place is coarse)
        assert sum(line.startswith("Resolution") for line in lines) == 1
        assert "(live, 4 blocks)" in " ".join(" ".join(lines).split())
    (head,) = (line.split() for line in lines if "us more  verdict" in line)
    (row,) = (line.split() for line in lines if line.startswith(" sendfile"))
    assert head[:5] == ["data", "requests/s", "ratio", "interval", "us"]
    assert row[row.index("\u00b1") - 1].startswith("-33.")


def test_a_study_says_how_its_ratios_scatter_and_what_more_would_buy():
    rows, some = live_trials()
    notes = study.analyse(rows, {"baseline": {"data": "posix_shm"}}, slices.of_rows(some)).notes
    (said,) = (note for note in notes if note.startswith("Scatter, 1 KiB files: a round's ratio scatters by "))
    assert "with twice the rounds" in said
    assert "mean of the middle half" in notes[0]
    assert not any(note.startswith("Scatter") for note in study.analyse(rows, {}).notes)


# JSON

NUMBER, MAYBE, TEXT, FLAG = (int, float), (int, float, type(None)), (str,), (bool,)


def paths(value, at=""):
    """All paths to values that are no objects or lists. The keys of levels and metrics are those of the study."""
    if isinstance(value, dict):
        for key, one in value.items():
            name = "*" if at.endswith(("levels", "metrics", "test", "baseline", "facts", "common", "verdicts")) else key
            yield from paths(one, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for one in value:
            yield from paths(one, f"{at}[]")
    else:
        yield at, value


def documented(of="run"):
    """path -> the types that docs/statistics.md names for it. of: `run`, or `fleet`, which has a section of its own."""
    text = (Path(__file__).parent.parent / "docs/statistics.md").read_text()
    text = dict(zip(("run", "fleet"), text.split("### Of a fleet"), strict=True))[of]
    kinds = {"number": NUMBER, "number or null": MAYBE, "text": TEXT, "true or false": FLAG, "value": (object,)}
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \| ", text, re.MULTILINE)
    return {path: kinds[kind] for path, kind in rows if kind in kinds}


@pytest.mark.parametrize("blocks", [2, 4])
def test_the_json_of_a_study_has_the_keys_that_are_documented_and_no_others(tmp_path, capsys, blocks):
    directory = str(studies.live(tmp_path / "run", blocks=blocks, rounds=5))
    seen = set()
    assert show.main(["--json", directory]) == 0
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    claims_command.main(["--json", directory])
    answered = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert answered["claims"] == shown["claims"]
    assert answered["control"] == shown["control"]
    known = documented()
    for path, value in paths(shown):
        if path in known:
            assert isinstance(value, known[path]), path
            seen.add(path)
        else:
            assert value is None, path
            assert path.rpartition(".")[2] in {"ratio", "difference_us", "above_floor"}, path
    unseen = {"missing[].label", "missing[].reason"}  # and those of crossings, which tests/test_ipc.py has
    assert {path for path in known if not path.startswith("crossings[]")} == seen | unseen
    for context in shown["contexts"]:
        for cell in context["cells"]:
            ratio = cell["ratio"]
            assert (ratio is None) == cell["baseline"]
            assert blocks > 2 or not ratio or (ratio["low"], ratio["high"]) == (None, None)
            assert blocks == 2 or not ratio or ratio["low"] <= ratio["value"] <= ratio["high"]


# Files


def test_slices_are_read_from_the_files_of_a_run(tmp_path, capsys):
    run = run_files.load_run(str(studies.live(tmp_path / "run")))
    assert len(run.slices) == 4 * 60 * 14
    (small, _) = study.analyse(*run).contexts
    blocks = {cell.measurements["requests_per_s"].ratio.n for cell in small.cells if not cell.baseline}
    assert blocks == {4}
    assert show.main([str(tmp_path / "run")]) == 0
    assert "faster" in capsys.readouterr().out


def test_the_line_that_a_killed_run_left_torn_is_not_read(tmp_path):
    path = str(tmp_path / results.SLICES)
    results.append(path, *(one_slice(1, number) for number in (1, 2, 3)))
    text = (tmp_path / results.SLICES).read_bytes()
    for cut in range(1, len(text.splitlines()[-1]) + 1):
        (tmp_path / results.SLICES).write_bytes(text[:-cut])
        assert len(slices.read(path)) == 2
    (tmp_path / results.SLICES).write_bytes(text.splitlines(keepends=True)[0])
    assert len(slices.read(path)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trial,block\n1,1\n", "not the columns of schema"),
        ("", "not the columns of schema"),
        ("trial,round,place\n1,1\n", "rows of 2 numbers, where there are 3 columns"),
        ("trial,round,place\n1,1,1\n1,2\n", "number of columns changed"),
        ("trial,round,place\n1,x,1\n", "'x'"),
    ],
)
def test_a_file_that_has_no_slices_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / results.SLICES).write_text(text)
    with pytest.raises(ValueError, match=rf"^[^\n]*slices.csv[^\n]*{message}[^\n]*$"):
        slices.read(str(tmp_path / results.SLICES))


def test_fifty_thousand_slices_are_read_in_a_second(tmp_path):
    path = tmp_path / results.SLICES
    results.append(str(path), *(one_slice(1, number) for number in range(1, 501)))
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(head + "".join(lines) * 100)
    begun = time.process_time()
    assert len(slices.read(str(path))) == 50_000
    assert time.process_time() - begun < 1
