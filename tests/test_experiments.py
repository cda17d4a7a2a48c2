"""Experiment files, the run, and the rows that it keeps."""

import csv
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.programs import eventually
from test_house import STUDIES

from harness import rendezvous, results
from harness.experiment import planner
from harness.factors import FACTORS, Spec
from harness.measure import apart, record

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
SMALL = """\
question: Does it run?
factors:
  command: [posix_mq, fifo]
  data: [posix_shm, null]
  files: [1KiB, 64KiB]
settings:
  {clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2, warmup: 0.05, requests: 200}
repeats: 2
seed: 7
"""


@pytest.mark.parametrize("study", STUDIES)
def test_the_experiments_that_come_along_are_right_and_open_with_their_question(study):
    experiment = planner.load_plan(str(EXPERIMENTS / f"{study}.yaml"))
    assert experiment.question.endswith("?")
    assert experiment.repeats >= 2 or experiment.live


def run(directory, *arguments, **options):
    (directory / "study.yaml").write_text(SMALL)
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "harness",
            "run",
            "--quiet",
            "0",
            directory / "study.yaml",
            "-o",
            directory / "out",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_run_keeps_a_row_for_each_trial_and_prints_the_ranking(base, tmp_path):
    process = run(tmp_path)
    output, errors = process.communicate(timeout=220)
    assert process.returncode == 0, errors
    assert "1 KiB files" in output
    assert "64 KiB files" in output
    assert "2/2 block 2 of 8 cells" in errors
    rows = list(results.read(str(tmp_path / "out/trials.csv")))
    assert [row.trial for row in rows] == list(range(1, 17))
    for row in rows:
        assert (row.status, row.reason, row.swept, row.ok) == ("ok", "", 0, row.requests_ended)
        assert (row.design, row.rounds > 0) == ("live", True)
        assert row.content_bytes == row.requests_ended * row.file_size_bytes
        assert row.latency_p50_us <= row.latency_p90_us <= row.latency_p99_us <= row.latency_max_us
        assert 0 < row.cpu_us_per_request < 10_000
        assert min(row.client_switches, row.proxy_switches, row.cache_switches, row.cache_peak_rss_bytes) > 0
        assert row.data_effective.startswith((f"{row.data}:chunk=262144", "null:chunk=4194304"))
    again = run(tmp_path)
    said = (
        f"is there already: name another directory with -o, or go on with it by `harness run --resume {tmp_path}/out`"
    )
    assert said in again.communicate(timeout=120)[1]
    assert again.returncode == 2


def test_a_killed_run_keeps_its_rows_and_leaves_nothing_behind_after_a_sweep(base, tmp_path):
    process = run(tmp_path)
    file = tmp_path / "out/trials.csv"
    assert eventually(lambda: file.exists() and len(file.read_text().splitlines()) > 2, 60)
    process.kill()
    process.communicate()
    rows = list(results.read(str(file)))
    assert [row.trial for row in rows] == list(range(1, len(rows) + 1))
    # The programs of the trial notice, and end; then no living process owns what is left.
    assert eventually(lambda: rendezvous.sweep() == [] and not os.path.exists(base))


def test_a_trial_that_cannot_work_is_a_refused_row_with_the_reason(base):
    row = apart.run(Spec(data="fifo:pipe_size=1GiB", seconds=0.1), results.Trial(trial=1))
    assert row.status == "refused"
    assert "webproxy" in row.reason
    assert "pipe_size=1073741824" in row.reason
    assert row.swept == 0


@pytest.mark.processes  # git, for the commit of the code
def test_every_setting_of_a_trial_is_a_factor_of_its_row():
    spec = Spec(congestion="system", chunk=4096)
    row = results.Trial()
    record.fill_known(spec, row)
    assert {*FACTORS} <= {column.name for column in dataclasses.fields(results.Trial)}
    assert row.chunk == 4096
    assert row.congestion != "system"


def test_percentiles_are_nearest_rank():
    from harness.load.totals import percentile

    def of(count, percents):
        return [percentile(range(1, count + 1), range(1, count + 1), p) for p in percents]

    assert of(1000, (50, 90, 99, 99.9, 100)) == [500, 900, 990, 999, 1000]
    assert of(1, (50, 99.99)) == [1, 1]
    assert of(41000, (99.9, 99.99)) == [40959, 40996]
    assert percentile([], [], 50) == 0
    assert [percentile([3, 5, 9], [8, 9, 10], p) for p in (50, 80, 81, 99, 100)] == [3, 3, 5, 9, 9]


LEAKY = """
from contextlib import contextmanager
from dataclasses import dataclass
import posix_ipc
from harness.api import DataTransport, hookimpl
from transports.posix_shm import PosixShm

@dataclass(frozen=True)
class Leaky(PosixShm):
    name = "leaky"

    @contextmanager
    def provision(self, scope):
        posix_ipc.Semaphore(scope.posix_name("forgotten"), posix_ipc.O_CREX).close()
        with super().provision(scope):
            yield

@hookimpl
def data_transports():
    return [Leaky]
"""


def test_a_transport_that_leaks_makes_its_trial_fail_and_what_it_leaked_is_removed(base, plugins):
    plugins("leaky", LEAKY)
    row = apart.run(Spec(data="posix_shm", seconds=0.1), results.Trial(trial=1))
    assert row.status == "ok", row.reason
    command = [
        sys.executable,
        "-c",
        "from harness import results\nfrom harness.factors import Spec\nfrom harness.measure import apart\n"
        "row = apart.run(Spec(data='leaky', seconds=0.1, lanes=4), results.Trial(trial=2))\n"
        "print(row.status, row.reason)",
    ]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert output.startswith("failed proxy: webproxy ended with exit code 1"), output
    assert "removed 4 objects that were left behind" in output
    assert not [name for name in os.listdir("/dev/shm") if "-trial-" in name and "forgotten" in name]


def test_rows_are_read_back_as_they_were_written(tmp_path):
    path = str(tmp_path / "trials.csv")
    rows = [results.Trial(trial=number, reason='a "quoted", reason', requests_per_s=1.5) for number in (1, 2)]
    for row in rows:
        results.append(path, row)
    assert list(results.read(path)) == rows
    with open(path) as file:
        assert next(csv.reader(file)) == results.COLUMNS
    with open(path, "a") as file:
        file.write("torn,li")
    with pytest.raises(ValueError, match=r"trials\.csv:4: "):
        list(results.read(path))


def test_throughput_is_the_time_that_passed_and_not_a_sleep(base):
    begun = time.monotonic()
    row = apart.run(Spec(seconds=0.5, warmup=0.05, clients=2, client_processes=1), results.Trial(trial=1))
    assert row.status == "ok", row.reason
    assert 0.45 < row.measured_s < time.monotonic() - begun
    assert row.requests_per_s == pytest.approx(row.requests_ended / row.measured_s, rel=1e-6)
