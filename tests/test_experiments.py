"""Experiment files, the run, and the rows that it keeps."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import eventually

from harness import rendezvous, results, trial
from harness.experiment import plan

EXPERIMENTS = sorted((Path(__file__).parent.parent / "experiments").glob("*.yaml"))
SMALL = """\
question: Does it run?
factors:
  command: [posix_mq, fifo]
  data: [posix_shm, null]
  files: [1KiB, 64KiB]
settings:
  {clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2, warmup: 0.05, seconds: 0.1}
repeats: 2
seed: 7
"""


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_the_experiments_that_come_along_are_right_and_open_with_their_question(path):
    experiment = plan.load(str(path))
    assert experiment.question.endswith("?")
    assert experiment.repeats >= 2


def load(tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return plan.load(str(file))


def test_a_plan_crosses_the_factors_and_shuffles_each_block_by_the_seed(tmp_path):
    experiment = load(tmp_path, SMALL)
    assert len(experiment.cells) == 8
    trials = list(experiment.trials())
    assert [block for block, _ in trials] == [1] * 8 + [2] * 8
    first, second = [cell for block, cell in trials if block == 1], [cell for block, cell in trials if block == 2]
    assert set(first) == set(second) == set(experiment.cells)
    assert first != second
    assert trials == list(load(tmp_path, SMALL).trials())
    assert trials != list(load(tmp_path, SMALL.replace("seed: 7", "seed: 8")).trials())


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "write `factors:`"),
        ("- a list\n", 1, "write `factors:`"),
        ("factors: {data: fifo\n", 2, "not YAML"),
        ("factors:\n  data: fifo\n  data: fifo\n", 3, "not YAML: found duplicate key"),
        ("facters:\n  data: fifo\n", 1, "facters: no such key; did you mean factors?"),
        ("factors: fifo\n", 1, "factors: write `name: value` lines"),
        ("factors:\n  dta: fifo\n", 2, "dta: no such factor; did you mean data?"),
        ("settings:\n  cleints: 2\n", 2, "cleints: no such setting; did you mean clients?"),
        ("factors:\n  data: [fifo, posix_smh]\n", 2, "did you mean posix_shm?"),
        ("factors:\n  data:\n    - posix_shm:dept=2\n", 2, "did you mean depth?"),
        ("factors:\n  data: []\n", 2, "at least one"),
        ("factors:\n  data: [fifo, fifo]\n", 2, "each level once"),
        ("factors:\n  files: [1KB]\n", 2, "files: '1KB': not a size"),
        ("factors:\n  files: -1\n", 2, "not a size"),
        ("settings:\n  chunk: 64\n", 2, "chunk: must be over 64 bytes"),
        ("settings:\n  clients: 0\n", 2, "clients: 0 is not a whole number from 1 on"),
        ("settings:\n  clients: yes\n", 2, "clients: 'yes' is not a whole number"),
        ("settings:\n  clients: true\n", 2, "clients: True is not a whole number"),
        ("settings:\n  seconds: 5s\n", 2, "seconds: '5s' is not a number of seconds"),
        ("settings:\n  sink: drop\n", 2, "drop: no such sink"),
        ("factors:\n  clients: [1]\nsettings:\n  clients: 2\n", 4, "clients: is a factor, too"),
        ("repeats: 0\n", 1, "repeats: 0 is not a whole number from 1 on"),
        ("seed: x\n", 1, "seed: 'x' is not a whole number"),
        ("settings:\n  lanes: 1\n  proxy_processes: 2\n", 1, "1 lanes: each proxy process needs one of its own"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_to_write_instead(tmp_path, text, line, message):
    with pytest.raises(plan.Mistakes) as told:
        load(tmp_path, text)
    assert str(told.value).startswith(f"{tmp_path}/study.yaml:{line}: ")
    assert message in str(told.value)


def test_all_mistakes_are_told_at_once(tmp_path):
    with pytest.raises(plan.Mistakes) as told:
        load(tmp_path, "factors:\n  data: x\n  files: y\nrepeats: z\n")
    assert len(str(told.value).splitlines()) == 3


def run(directory, *arguments, **options):
    (directory / "study.yaml").write_text(SMALL)
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "run", directory / "study.yaml", "-o", directory / "out", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_a_run_keeps_a_row_for_each_trial_and_prints_the_ranking(base, tmp_path):
    process = run(tmp_path)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert "1 KiB files" in output
    assert "64 KiB files" in output
    assert "16/16" in output
    rows = list(results.read(str(tmp_path / "out/trials.csv")))
    assert [row.trial for row in rows] == list(range(1, 17))
    for row in rows:
        assert (row.status, row.reason, row.swept, row.ok) == ("ok", "", 0, row.requests)
        assert row.requests > 10
        assert row.content_bytes == row.requests * row.file_size_bytes
        assert row.latency_p50_us <= row.latency_p90_us <= row.latency_p99_us <= row.latency_max_us
        assert 0 < row.cpu_us_per_request < 10_000
        assert min(row.client_switches, row.proxy_switches, row.cache_switches, row.cache_peak_rss_bytes) > 0
        assert row.data_effective.startswith(f"{row.data}:chunk=262144")
    again = run(tmp_path)
    assert again.communicate(timeout=60)[1].endswith("is there already: name another directory with -o\n")
    assert again.returncode == 2


def test_a_killed_run_keeps_its_rows_and_leaves_nothing_behind_after_a_sweep(base, tmp_path):
    process = run(tmp_path)
    file = tmp_path / "out/trials.csv"
    assert eventually(lambda: file.exists() and len(file.read_text().splitlines()) > 2, 60)
    process.kill()
    process.communicate()
    rows = list(results.read(str(file)))
    assert [row.trial for row in rows] == list(range(1, len(rows) + 1))
    # The programs of the trial notice, and end; then all that is left belongs to nobody.
    assert eventually(lambda: rendezvous.sweep() == [] and not os.path.exists(base))


def test_an_interrupted_run_says_what_it_has(base, tmp_path):
    process = run(tmp_path)
    assert eventually((tmp_path / "out/trials.csv").exists, 60)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; this is what was measured until then" in errors
    assert "files" in output


def test_a_trial_that_cannot_work_is_a_failed_row_with_the_reason(base):
    row = trial.run(trial.Spec(data="fifo:pipe_size=1GiB", seconds=0.1), results.Trial(trial=1))
    assert row.status == "failed"
    assert "webproxy" in row.reason
    assert "pipe_size=1073741824" in row.reason
    assert row.swept == 0


def test_every_setting_of_a_trial_is_a_factor_of_its_row():
    spec = trial.Spec(congestion="system", chunk=4096)
    row = results.Trial()
    trial._describe_spec(spec, row)
    assert set(results.FACTORS) <= {column.name for column in dataclasses.fields(results.Trial)}
    assert row.chunk_bytes == 4096
    assert row.congestion != "system"


def test_percentiles_are_nearest_rank():
    from harness.roles.gfclient import _percentile

    assert [_percentile(list(range(1, 1001)), p) for p in (50, 90, 99, 99.9)] == [500, 900, 990, 999]
    assert [_percentile([7], p) for p in (50, 99.9)] == [7, 7]
    assert _percentile([], 50) == 0
    assert _percentile(list(range(1, 41001)), 99.9) == 40959


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
    row = trial.run(trial.Spec(data="posix_shm", seconds=0.1), results.Trial(trial=1))
    assert row.status == "ok", row.reason
    command = [sys.executable, "-c", "from harness import trial, results\n"
               "row = trial.run(trial.Spec(data='leaky', seconds=0.1, lanes=4), results.Trial(trial=2))\n"
               "print(row.status, row.reason)"]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.startswith("failed webproxy ended with exit code 1"), told
    assert "removed 4 objects that were left behind" in told
    assert not [name for name in os.listdir("/dev/shm") if "forgotten" in name]


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
    row = trial.run(trial.Spec(seconds=0.5, warmup=0.05, clients=2, client_processes=1), results.Trial(trial=1))
    assert row.status == "ok", row.reason
    assert 0.45 < row.measured_s < time.monotonic() - begun
    assert row.requests_per_s == pytest.approx(row.requests / row.measured_s, rel=1e-6)
