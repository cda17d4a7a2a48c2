"""The analysis of live blocks: a block says one thing of two cells, by its rounds, and blocks make the interval."""

import math
import time

import numpy as np
import pytest
from support import studies

from harness import results
from harness.analysis import run_files, show, slices, study
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
    assert slices.centre(np.array([5.0, 1, 2, 3, 1000])) == pytest.approx(10 / 3)
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


def test_half_a_million_slices_are_read_in_seconds(tmp_path):
    path = tmp_path / results.SLICES
    results.append(str(path), *(one_slice(trial, number) for trial in range(1, 11) for number in range(1, 501)))
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(head + "".join(lines) * 100)
    begun = time.process_time()
    assert len(slices.read(str(path))) == 500_000
    assert time.process_time() - begun < 10
