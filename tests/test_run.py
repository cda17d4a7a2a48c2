"""`harness run`: durable rows, resuming, one study at a time, and what becomes of trials that fail."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from support.programs import eventually, start_run

from harness import rendezvous, results
from harness.console import Failure
from harness.experiment import machine_lock, planner
from harness.experiment.run import main

SMALL = """\
question: Does it run?
design: apart
factors:
  data: [posix_shm, fifo]
  files: [1KiB, 64KiB]
settings:
  {clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2, warmup: 20ms, seconds: 50ms}
repeats: 3
control: true
seed: 7
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.yaml").write_text(SMALL)
    return tmp_path / "study.yaml"


def run(*arguments, timeout=220):
    process = start_run(*arguments)
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def trial_under_way(base):
    return eventually(lambda: any(Path(base).glob("trial-*")), 60)


def rows_of(directory):
    return list(results.read(str(directory / "trials.csv")))


@pytest.mark.timeout(300)
def test_a_run_killed_twenty_times_at_random_and_resumed_has_every_trial_once(base, study, tmp_path):
    planned = planner.load_plan(str(study))
    expected = {(slot.number, slot.block, slot.cell) for block in planned.blocks() for slot in block}
    kills, chance = 0, random.Random(3)
    process = start_run(study, "-o", tmp_path / "out")
    while kills < 20:
        time.sleep(chance.uniform(0.05, 0.9))
        if process.poll() is not None:  # it was done: begin another
            os.rename(tmp_path / "out", tmp_path / f"out{kills}")
            process = start_run(study, "-o", tmp_path / "out")
            continue
        process.kill()
        process.communicate()
        kills += 1
        begun = (tmp_path / "out/experiment.yaml").exists()
        if not begun:
            subprocess.run(["rm", "-rf", tmp_path / "out"], check=True)
        process = start_run(*(["--resume", tmp_path / "out"] if begun else [study, "-o", tmp_path / "out"]))
    _, errors = process.communicate(timeout=220)
    assert process.returncode == 0, errors
    for directory in tmp_path.glob("out*"):
        rows = rows_of(directory)
        assert sorted((row.trial, row.block, row.cell) for row in rows) == sorted(expected)
        assert all(row.status == "ok" for row in rows)
        with open(directory / "latency.csv") as file:
            counts = {}
            for line in list(file)[1:]:
                trial, _, count, _ = line.split(",")
                counts[int(trial)] = counts.get(int(trial), 0) + int(count)
        assert counts == {row.trial: row.requests_ended for row in rows}
    # The programs of the last trial that was killed notice, and end; then no living process owns what is left.
    assert eventually(lambda: rendezvous.sweep() == [] and not os.path.exists(base))


def test_a_torn_last_line_is_mended_and_its_trial_run_again(base, study, tmp_path):
    out = tmp_path / "out"
    assert run(study, "-o", out, "--repeat", 1)[0] == 0
    whole = (out / "trials.csv").read_bytes()
    (out / "trials.csv").write_bytes(whole[:-30])
    with open(out / "latency.csv", "a") as file:
        file.write("6,12")
    code, _, errors = run("--resume", out)
    assert code == 0, errors
    assert [row.trial for row in rows_of(out)] == [1, 2, 3, 4, 5, 6]
    assert (out / "trials.csv").read_bytes().startswith(whole[: whole[:-30].rfind(b"\n")])
    assert all(line.count(",") == 3 for line in (out / "latency.csv").read_text().splitlines())


def test_a_run_is_not_resumed_where_the_machine_or_the_code_is_another(base, study, tmp_path, capfd):
    out = tmp_path / "out"
    assert run(study, "-o", out, "--only", 1, "--repeat", 1)[0] == 0
    facts = json.loads((out / "environment.json").read_text())
    before = (out / "trials.csv").read_bytes()
    for path, name in (
        (("host",), "host"),
        (("kernel", "release"), "kernel"),
        (("software", "python"), "Python"),
        (("software", "commit"), "commit"),
        (("cpu", "model"), "processor"),
    ):
        another = json.loads(json.dumps(facts))
        (another if len(path) == 1 else another[path[0]])[path[-1]] = "another"
        (out / "environment.json").write_text(json.dumps(another))
        assert (main(["--resume", str(out)]), before) == (2, (out / "trials.csv").read_bytes())
        errors = capfd.readouterr().err
        assert f"{name} was 'another' and is " in errors
        assert errors.count("\n") == 1


def test_a_run_is_not_resumed_where_a_plugin_has_other_code_of_the_same_version(base, study, tmp_path, plugins):
    working = FAILING.replace('raise OSError("this one never works")', "super().publish(count)")
    plugins("failing", working)
    out = tmp_path / "out"
    study.write_text(SMALL.replace("[posix_shm, fifo]", "[posix_shm, failing]"))
    assert run(study, "-o", out, "--only", 1, "--repeat", 1)[0] == 0
    (before,) = {row.code for row in rows_of(out)}
    (tmp_path / "failing.py").write_text(working + "# changed\n")
    code, _, errors = run("--resume", out)
    assert code == 2
    assert re.search(r"cannot resume .*: the code of failing 1\.0 was '\w{12}' and is '\w{12}': run", errors), errors
    assert run(study, "-o", tmp_path / "anew", "--only", 1, "--repeat", 1)[0] == 0
    assert {row.code for row in rows_of(tmp_path / "anew")}.isdisjoint({before})


def test_a_run_is_not_resumed_where_the_experiment_is_another(base, study, tmp_path, capfd):
    out = tmp_path / "out"
    assert run(study, "-o", out, "--only", 1, "--repeat", 1)[0] == 0
    study.write_text(SMALL.replace("seed: 7", "seed: 8"))
    assert main([str(study), "--resume", str(out)]) == 2
    assert "has other seed than when the run began" in capfd.readouterr().err
    assert main(["--resume", str(out)]) == 2, "the file that the run was begun with is looked at, too"


def test_nothing_is_resumed_where_nothing_is(base, tmp_path):
    code, _, errors = run("--resume", tmp_path)
    assert code == 2
    assert errors.count("\n") == 1
    assert "nothing to resume" in errors


def test_one_cell_is_run_again_by_itself(base, study, tmp_path):
    code, _, errors = run(study, "--only", "data=fifo files=1KiB", "--repeat", 2, "-o", tmp_path / "out")
    assert code == 0, errors
    assert [(row.data, row.files, row.block) for row in rows_of(tmp_path / "out")] == [
        ("fifo", "1024", 1),
        ("fifo", "1024", 2),
    ]


def test_the_results_folder_describes_itself(base, study, tmp_path):
    out = tmp_path / "out"
    assert run(study, "-o", out, "--only", 1, "--repeat", 1)[0] == 0
    package = json.loads((out / "datapackage.json").read_text())
    for resource in package["resources"]:
        with open(out / resource["path"]) as file:
            assert next(file).strip().split(",") == [field["name"] for field in resource["schema"]["fields"]]
        assert all(field["description"] for field in resource["schema"]["fields"])
    assert {resource["path"] for resource in package["resources"]} >= {"trials.csv", "latency.csv"}
    assert package["name"] == study.stem
    assert study.stem in package["title"]
    assert package["licenses"] == [{"name": "CC0-1.0", "title": "CC0 1.0 Universal"}]
    facts = json.loads((out / "environment.json").read_text())
    assert facts["kernel"]["release"] == os.uname().release
    assert facts["experiment"]["file"] == str(study)


FAILING = """
from dataclasses import dataclass
from harness.api import DataTransport, hookimpl
from transports.fifo import FifoData, FifoSender
from harness.api import Sender

class Broken(FifoSender):
    def publish(self, count):
        raise OSError("this one never works")

@dataclass(frozen=True)
class Failing(FifoData):
    name = "failing"

    def sender(self, scope) -> Sender:
        return Broken(scope, self)

@hookimpl
def data_transports():
    return [Failing]
"""


def test_a_trial_that_fails_is_tried_once_more_kept_with_reason_and_logs_and_the_run_goes_on(
    base, study, tmp_path, plugins
):
    plugins("failing", FAILING)
    text = SMALL.replace("[posix_shm, fifo]", "[posix_shm, failing]").replace("repeats: 3", "repeats: 1")
    study.write_text(text.replace("{clients: 2", "{timeout: 2s, clients: 2"))
    out = tmp_path / "out"
    code, _, errors = run(study, "-o", out)
    assert code == 1, errors
    rows = rows_of(out)
    failed = [row for row in rows if row.data == "failing"]
    assert [(row.status, row.attempt) for row in failed] == [("failed", 1), ("failed", 2)] * 2
    assert all("ERROR" in row.reason or "warm" in row.reason for row in failed)
    assert all(row.status == "ok" for row in rows if row.data == "posix_shm")
    logs = os.listdir(out / "logs")
    assert {name.split("-attempt")[0] for name in logs} == {f"trial-{row.trial}" for row in failed}
    assert "this one never works" in "".join((out / "logs" / name).read_text() for name in logs)


# As FAILING; its process is killed under load.
KILLED = FAILING.replace(
    'raise OSError("this one never works")',
    "Broken.left -= 1\n        Broken.left or os.kill(os.getpid(), 9)\n        super().publish(count)",
)
KILLED = "import os\n" + KILLED.replace("class Broken(FifoSender):", "class Broken(FifoSender):\n    left = 10\n")


def test_where_a_program_dies_the_reason_begins_with_its_role_and_the_signal(base, study, tmp_path, plugins):
    plugins("failing", KILLED)
    text = SMALL.replace("[posix_shm, fifo]", "[failing]").replace("repeats: 3", "repeats: 1")
    # So many requests, whatever the machine: in a time, a slow minute may serve fewer than it takes to be killed. The
    # rest of them waits for a cache in vain.
    study.write_text(text.replace("{clients: 2", "{timeout: 2s, clients: 2").replace("seconds: 50ms", "requests: 12"))
    run(study, "-o", tmp_path / "out", "--only", 1)
    for row in rows_of(tmp_path / "out"):
        assert row.status == "failed"
        assert row.reason.startswith("cache: simplecached ended with exit code 1; its last words: "), row.reason
        assert "SIGKILL" in row.reason.partition("; so ")[0]


def test_what_a_transport_refuses_is_a_row_and_not_tried_again(base, study, tmp_path):
    study.write_text(SMALL.replace("[posix_shm, fifo]", "[posix_shm, 'fifo:pipe_size=1GiB']").replace("s: 3", "s: 1"))
    code, _, errors = run(study, "-o", tmp_path / "out")
    assert code == 1
    assert "2 of 6 cells cannot run here" in errors
    rows = rows_of(tmp_path / "out")
    assert [(row.attempt, row.requests_ended) for row in rows if row.status == "refused"] == [(1, 0), (1, 0)]
    assert all("pipe_size=1073741824" in row.reason for row in rows if row.status == "refused")
    assert {row.status for row in rows if row.data == "posix_shm"} == {"ok"}


def test_ctrl_c_ends_after_the_trial_that_runs_and_a_second_one_at_once(base, study, tmp_path):
    study.write_text(SMALL.replace("seconds: 50ms", "seconds: 2, rate: 200/s"))  # which leaves the CPUs to other tests
    out = tmp_path / "out"
    process = start_run(study, "-o", out)
    assert eventually((out / "trials.csv").exists, 60)
    assert trial_under_way(base)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "ending after this trial" in errors
    rows = rows_of(out)
    assert 1 <= len(rows) <= 3
    assert all(row.status == "ok" for row in rows)
    assert "files" in output
    process = start_run("--resume", out)
    assert eventually(lambda: len(rows_of(out)) > len(rows), 60)
    assert trial_under_way(base)
    process.send_signal(signal.SIGINT)
    assert any("ending after this trial" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert time.monotonic() - begun < 20


def test_a_second_study_waits_or_refuses_saying_who_measures(base, study, tmp_path):
    with machine_lock.alone(60, f"\0transport-harness-measures{os.environ['TRANSPORT_HARNESS_LOCK']}"):
        code, _, errors = run(study, "-o", tmp_path / "out", "--patience", 0)
        assert code == 1
        assert f"pid {os.getpid()} of " in errors
        code, _, errors = run(study, "-o", tmp_path / "beside", "--only", 1, "--repeat", 1, "--beside")
        assert code == 0, errors
        process = start_run(study, "-o", tmp_path / "waits", "--only", 1, "--repeat", 1)
        assert "another study measures on this machine" in process.stderr.readline()
        assert not (tmp_path / "waits/trials.csv").exists()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


@pytest.mark.processes
def test_the_lock_goes_with_its_holder(tmp_path):
    name = f"\0test-{os.getpid()}"
    program = (
        "from harness.experiment.machine_lock import alone\n"
        f"with alone(0, {name!r}): print('held', flush=True); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Failure, match=f"pid {holder.pid}"), machine_lock.alone(0.1, name):
        pass
    holder.kill()
    holder.communicate()
    with machine_lock.alone(1, name):
        pass


def test_a_run_stops_when_every_ratio_is_known_well_enough(base, study, tmp_path):
    text = SMALL.replace("[1KiB, 64KiB]", "[1KiB]").replace("control: true\n", "")  # one ratio
    study.write_text(text.replace("repeats: 3", "until: {within: 99%, at_least: 8, at_most: 40}"))
    code, _, errors = run(study, "-o", tmp_path / "out")
    assert code == 0, errors
    assert 8 <= max(row.block for row in rows_of(tmp_path / "out")) < 40


SHOWN = """
from harness.experiment.progress import progress
with progress(30, each=1, unit="s") as shown:
    shown.begin(1, "block 1 of 84 cells; learning what restarts and rounds cost")
    shown.within(3, 12)
    shown.say("waited 3.0 s")
    shown.begin(9, "block 3 of 84 cells; widest intervals expected: +-12 % after 8 blocks")
    shown.within(11, 12)
    shown.begin(10, "posix_mq + posix_shm:sync=semaphore, 1 MiB files, 64 clients, placement same-core")
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("columns", "there", "missing"),
    [
        (60, ["8/30 s, ", "s left, block 3 of 84 cells"], ["widest"]),
        (80, ["8/30 s, ", "s left, block 3 of 84 cells, round 11 of 12"], ["widest"]),
        (140, ["block 3 of 84 cells, widest intervals expected: +-12 % after 8 blocks, round 11 of 12"], []),
    ],
)
def test_the_progress_fits_the_terminal_and_leaves_out_whole_parts(columns, there, missing):
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, columns))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    subprocess.run([sys.executable, "-c", SHOWN], stderr=end, env=environment, check=True)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: all is read
        while chunk := os.read(terminal, 65536):
            shown += chunk
    os.close(terminal)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))
    assert max(map(len, lines)) <= columns
    assert "\u2026" not in "".join(lines), "no text is cut"
    for text in there:
        assert any(text in line for line in lines), lines
    assert not any(text in line for text in missing for line in lines)
    assert any(line.rstrip() == "harness: waited 3.0 s" for line in lines), "a line of its own"
    assert any(line.endswith("30/30 s, done") for line in map(str.rstrip, lines))
