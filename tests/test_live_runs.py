"""`harness run` of live blocks: what is tried again, what is left out, groups, and the rows that come of it."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise

import pytest
from support.programs import eventually, start_run
from support.users import as_an_ordinary_user

from harness import rendezvous, results
from harness.experiment import planner

SETTINGS = """\
settings:
  {clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2, warmup: 20ms, timeout: 2s}
slices: {rounds: 5, window: 5ms, lead_in: 2ms}
"""
STUDY = f"""\
factors:
  data: [posix_shm, fifo]
{SETTINGS}repeats: 3
"""
LONG = STUDY.replace("rounds: 5, window: 5ms", "rounds: 20, window: 20ms")  # 0.9 s, after a warm-up of 0.1 s


@pytest.fixture
def study(tmp_path):
    """Writes an experiment file: study(text)."""

    def write(text=STUDY):
        (tmp_path / "study.yaml").write_text(text)
        return tmp_path / "study.yaml"

    return write


def run(*arguments, **options):
    process = start_run(*arguments, **options)
    output, errors = process.communicate(timeout=220)
    return process.returncode, output, errors


def rows_of(directory):
    return list(results.read(str(directory / "trials.csv")))


def slices_of(directory):
    with open(directory / "slices.csv") as file:
        return list(csv.DictReader(file))


def check_whole(directory):
    """All tables are of the good rows, and sums over their slices are what the rows say."""
    rows = rows_of(directory)
    good = {row.trial: row for row in rows if row.status == "ok"}
    assert len(good) == sum(row.status == "ok" for row in rows), "a trial has two good rows"
    requests, content, seconds, rounds = Counter(), Counter(), Counter(), Counter()
    for one in slices_of(directory):
        trial = int(one["trial"])
        requests[trial] += int(one["requests"])
        content[trial] += int(one["content_bytes"])
        seconds[trial] += float(one["seconds"])
        rounds[trial] += 1
    latencies = Counter()
    for bucket in results.read_latencies(str(directory / "latency.csv")):
        latencies[bucket.trial] += bucket.count
    assert latencies == requests
    assert requests == {trial: row.requests_ended for trial, row in good.items()}
    assert content == {trial: row.content_bytes for trial, row in good.items()}
    assert rounds == {trial: row.rounds for trial, row in good.items()}
    for trial, row in good.items():
        assert seconds[trial] == pytest.approx(row.measured_s, rel=1e-5)
    return rows


DYING = """
import os
import signal
import time
from dataclasses import dataclass
from harness.api import DataTransport, Sender, hookimpl
from transports.fifo import FifoData, FifoSender

class Dying(FifoSender):
    begun = 0.0

    def publish(self, count):
        Dying.begun = Dying.begun or time.monotonic()
        if time.monotonic() > Dying.begun + 0.4 and not os.path.exists(MARK):
            if ONCE:
                open(MARK, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        super().publish(count)

@dataclass(frozen=True)
class DyingData(FifoData):
    name = "dying"

    def sender(self, scope) -> Sender:
        return Dying(scope, self)

@hookimpl
def data_transports():
    return [DyingData]
"""


def test_a_block_whose_program_is_killed_is_run_again_and_none_of_its_figures_is_used(base, study, tmp_path, plugins):
    plugins("dying", DYING.replace("MARK", repr(str(tmp_path / "mark"))).replace("ONCE", "True"))
    out = tmp_path / "out"
    code, _, errors = run(study(LONG.replace("fifo", "dying")), "-o", out, "--repeat", 2)
    assert code == 0, errors
    rows = check_whole(out)
    assert [(row.status, row.attempt) for row in rows] == [("failed", 1)] * 2 + [("ok", 2)] * 2 + [("ok", 1)] * 2
    assert [row.block for row in rows] == [1, 1, 2, 2, 3, 3]
    assert [row.trial for row in rows] == [1, 2, 1, 2, 3, 4]
    (reason,) = {row.reason for row in rows if row.status == "failed"}
    assert re.match(r"cell 2: cache: simplecached ended .*worker process \d+ was ended by SIGKILL; so ", reason)
    assert f"2 of 2 cells: {reason}" in errors
    assert any("simplecached" in name for name in os.listdir(out / "logs"))


def test_a_cell_that_fails_two_blocks_is_left_out_and_the_run_goes_on(base, study, tmp_path, plugins):
    plugins("dying", DYING.replace("MARK", "'/'+'none'").replace("ONCE", "False"))
    out = tmp_path / "out"
    code, _, errors = run(study(LONG.replace("fifo", "fifo, dying")), "-o", out, "--repeat", 2)
    assert code == 1, errors
    assert "cell 3 failed in 2 blocks: going on without it" in errors
    rows = check_whole(out)
    assert [row.status for row in rows if row.cell == 3] == ["failed"] * 2
    for cell in (1, 2):
        assert [row.status for row in rows if row.cell == cell] == ["failed"] * 2 + ["ok"] * 2


def test_where_every_cell_is_left_out_the_run_ends(base, study, tmp_path, plugins):
    plugins("dying", DYING.replace("MARK", "'/'+'none'").replace("ONCE", "False"))
    code, _, errors = run(study(LONG.replace("posix_shm, fifo", "dying")), "-o", tmp_path / "out")
    assert code == 1, errors
    assert [row.status for row in rows_of(tmp_path / "out")] == ["failed"] * 2


WRONG = """
import time
from dataclasses import dataclass
from harness.api import DataTransport, Sender, hookimpl
from transports.fifo import FifoData, FifoSender

class Wrong(FifoSender):
    begun = 0.0

    def publish(self, count):
        Wrong.begun = Wrong.begun or time.monotonic()
        if time.monotonic() > Wrong.begun + AFTER:
            self.loan()[max(0, count - 1)] ^= 1
        super().publish(count)

@dataclass(frozen=True)
class WrongData(FifoData):
    name = "wrong"

    def sender(self, scope) -> Sender:
        return Wrong(scope, self)

@hookimpl
def data_transports():
    return [WrongData]
"""


@pytest.mark.parametrize(
    ("after", "reason", "others"),
    [
        (0, "in the warm-up, compared with the files, not every reply was OK: ", "ok"),
        (0.4, "cell 2: after the rounds, compared with the files, not every reply was OK: ", "failed"),
    ],
)
def test_a_transport_that_corrupts_content_under_load_fails(base, study, tmp_path, plugins, after, reason, others):
    plugins("wrong", WRONG.replace("AFTER", str(after)))
    code, _, errors = run(study(LONG.replace("fifo", "wrong")), "-o", tmp_path / "out", "--repeat", 1)
    assert code == 1, errors
    wrong = [row for row in rows_of(tmp_path / "out") if row.data == "wrong"]
    assert [row.status for row in wrong] == ["failed"] * 2
    assert all(re.match(reason + r"\d+ wrong$", row.reason) for row in wrong), wrong[0].reason
    assert next(row.status for row in rows_of(tmp_path / "out") if row.data == "posix_shm") == others


@pytest.mark.parametrize("factors", ["sink: discard, rate: 300/s", "sink: copy, scope: lane"])
def test_a_trial_apart_finds_what_is_corrupted_after_its_warm_up(base, study, tmp_path, plugins, factors):
    plugins("wrong", WRONG.replace("AFTER", "0.4"))
    text = f"design: apart\nfactors: {{data: wrong, {factors}}}\n{SETTINGS}repeats: 1\n"
    text = text.replace("warmup: 20ms", "warmup: 50ms, seconds: 0.7s")
    if "lane" in factors:
        text = re.sub(r"client\w*: \d+, ", "", text)
    code, _, errors = run(study(text.replace("slices:", "# slices:")), "-o", tmp_path / "out")
    assert code == 1, errors
    rows = rows_of(tmp_path / "out")
    assert [row.status for row in rows] == ["failed"] * 2, "it is tried twice"
    assert all(re.search(r"after the load: not every reply was OK: \d+ wrong", row.reason) for row in rows), rows[0]


BUSY = """
import threading
import time
from dataclasses import dataclass
from harness.api import DataTransport, Receiver, hookimpl
from transports.fifo import FifoData

def burn():
    while True:
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass
        time.sleep(0.002)

@dataclass(frozen=True)
class BusyData(FifoData):
    name = "busy"

    def receiver(self, scope) -> Receiver:
        threading.Thread(target=burn, daemon=True).start()
        return super().receiver(scope)

@hookimpl
def data_transports():
    return [BusyData]
"""


def test_programs_that_are_busy_with_nothing_to_do_are_noticed(base, study, tmp_path, plugins):
    plugins("busy", BUSY)
    text = STUDY.replace("fifo", "busy").replace("rounds: 5", "rounds: 30")
    code, _, errors = run(study(text), "-o", tmp_path / "out", "--repeat", 1)
    assert code == 0, errors
    quiet, busy = rows_of(tmp_path / "out")
    assert quiet.idle_cpu_s < 0.01
    assert busy.idle_cpu_s > 0.05
    for row in (quiet, busy):  # it takes CPU time from all cells of the block
        assert re.search(r"idle programs \d+\.\d\d s$", row.disturbed), row
    code, _, errors = run(study(STUDY.replace("rounds: 5", "rounds: 30")), "-o", tmp_path / "idle", "--repeat", 1)
    assert code == 0, errors
    assert not any("idle" in row.disturbed for row in rows_of(tmp_path / "idle"))
    assert all(row.idle_cpu_s < 0.01 for row in rows_of(tmp_path / "idle"))


@pytest.mark.timeout(240)
def test_a_killed_runner_is_resumed_with_whole_blocks(base, study, tmp_path):
    chance, out = random.Random(5), tmp_path / "out"
    study(STUDY.replace("repeats: 3", "repeats: 4"))
    process = start_run(tmp_path / "study.yaml", "-o", out)
    for _ in range(8):
        time.sleep(chance.uniform(0.3, 2.5))
        process.kill()
        process.communicate()
        begun = (out / "experiment.yaml").exists()
        if not begun:
            shutil.rmtree(out, ignore_errors=True)
        process = start_run(*(["--resume", out] if begun else [tmp_path / "study.yaml", "-o", out]))
    _, errors = process.communicate(timeout=220)
    assert process.returncode == 0, errors
    rows = check_whole(out)
    assert sorted((row.trial, row.cell) for row in rows) == [(number + 1, number % 2 + 1) for number in range(8)]
    assert {row.status for row in rows} == {"ok"}
    assert len({row.block for row in rows}) == 4
    assert eventually(lambda: rendezvous.sweep() == [] and not os.path.exists(base))


def test_a_runner_that_is_stopped_for_a_while_in_the_rounds_goes_on(base, study, tmp_path):
    text = STUDY.replace("rounds: 5, window: 5ms", "rounds: 60, window: 10ms")  # longer than it runs between two stops
    process = start_run(study(text), "-o", tmp_path / "out", "--repeat", 1)
    while process.poll() is None:
        time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        process.send_signal(signal.SIGCONT)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert {row.status for row in check_whole(tmp_path / "out")} == {"ok"}
    starts = sorted(float(one["start_s"]) for one in slices_of(tmp_path / "out"))
    assert max(after - before for before, after in pairwise(starts)) > 0.25, "no stop fell into the rounds"


def test_torn_tables_are_mended_also_those_of_a_trial_that_failed_before(base, study, tmp_path):
    out = tmp_path / "out"
    assert run(study(), "-o", out, "--repeat", 2)[0] == 0
    failed = [row for row in rows_of(out) if row.block == 2]
    whole = {name: (out / name).read_text() for name in ("slices.csv", "latency.csv")}
    # As a run leaves it that is killed while it keeps the second attempt of block 2: all of it but the rows.
    lines = (out / "trials.csv").read_text().splitlines(keepends=True)
    (out / "trials.csv").write_text("".join(lines[:3]))
    for row in failed:
        row.status, row.reason = "failed", "the first attempt"
    results.append(str(out / "trials.csv"), *failed)
    for name in whole:
        (out / name).write_text(whole[name][:-3])
    code, _, errors = run("--resume", out)
    assert code == 0, errors
    rows = check_whole(out)
    assert [(row.trial, row.attempt, row.status) for row in rows] == [
        (1, 1, "ok"),
        (2, 1, "ok"),
        (3, 1, "failed"),
        (4, 1, "failed"),
        (3, 2, "ok"),
        (4, 2, "ok"),
    ]


# Of RLIMIT_MSGQUEUE the cells take about 46, 54, 73, 0, 0 and 37 %; the last one is the baseline.
LIMITED = f"""\
factors: {{data: ['posix_mq:depth=5', 'posix_mq:depth=6', 'posix_mq:depth=8', fifo, unix, posix_mq]}}
{SETTINGS.replace("lanes: 2", "lanes: 9")}repeats: 2
baseline: {{data: posix_mq}}
"""


def run_as_an_ordinary_user(text, tmp_path):
    """Exit code, errors, and the directory with the results, of an ordinary user with the limits that most have."""
    out = tmp_path / "theirs"
    out.mkdir()
    out.chmod(0o777)
    script = f"""\
ulimit -n 1024
export TRANSPORT_HARNESS_DIR=$PWD
cat > study.yaml <<'END'
{text}END
$HARNESS run --quiet 0 study.yaml -o {out}/out
! ls -d transport-harness-*
"""
    done = as_an_ordinary_user(script, 200, TRANSPORT_HARNESS_LOCK=str(tmp_path))
    return done.returncode, done.stderr, out / "out"


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_cells_that_cannot_live_at_once_form_groups_that_each_have_the_baseline(tmp_path):
    code, errors, out = run_as_an_ordinary_user(LIMITED, tmp_path)
    assert code == 1, errors
    rows = check_whole(out)
    blocks = {row.block: [one.cell for one in rows if one.block == row.block] for row in rows}
    assert all(cells[0] == 6 for cells in blocks.values()), "the baseline is in each, and starts first"
    assert not any({1, 2} <= {*cells} for cells in blocks.values()), blocks
    assert Counter(row.cell for row in rows if row.cell != 6) == dict.fromkeys(range(1, 6), 2)
    assert {row.cell for row in rows if row.status != "ok"} == {3}
    for row in rows:
        if row.cell == 3:
            assert row.status == "refused"
            assert row.reason.startswith("no room for it on this machine: proxy: webproxy ")
            assert "RLIMIT_MSGQUEUE" in row.reason


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_26_cells_live_at_once_for_an_ordinary_user(tmp_path):
    transports = "posix_shm, sysv_shm, posix_mq, sysv_mq, fifo, unix, sendfile, splice, mmap, memfd, handoff, null"
    text = f"factors: {{command: [posix_mq, unix], data: [{transports}, 'posix_shm:depth=2']}}\n{SETTINGS}repeats: 1\n"
    code, errors, out = run_as_an_ordinary_user(text, tmp_path)
    assert code == 0, errors
    rows = check_whole(out)
    assert [(row.cell, row.block, row.status) for row in rows] == [(number, 1, "ok") for number in range(1, 27)]


MIXED = """\
factors: {placement: [free, same-core], files: [1KiB, 64KiB], sink: discard}
include:
  - {source: direct, placement: free, files: 1KiB}
  - {scope: lane, placement: free, files: 1KiB}
  - {rate: 500/s, placement: free, files: 1KiB}
  - {sink: checksum, placement: free, files: 64KiB}
CURL"""
CURL = "  - {source: curl, origin_server: own, placement: free, files: 1KiB}\n" if find_spec("pycurl") else ""
COUNTING = """
from harness.api import Probe, Reading, hookimpl

class Counting(Probe):
    name = "counting"

    def begin(self, processes, directory):
        self._count = sum(map(len, processes.values()))

    def end(self):
        return [Reading("", "processes", self._count, "1")]

class Costly(Counting):
    name = "costly"
    costly = True

@hookimpl
def probes():
    return [Counting, Costly]
"""


@pytest.mark.timeout(240)
def test_cells_of_all_kinds_live_in_one_block_and_their_rows_are_right(base, study, tmp_path, plugins):
    plugins("counting", COUNTING)
    settings = SETTINGS.replace("timeout: 2s", "timeout: 2s, seconds: 100ms")
    text = MIXED.replace("CURL", CURL) + settings + "design: live\nrepeats: 2\nprobes: [counting, costly]\n"
    code, _, errors = run(study(text), "-o", tmp_path / "out")
    assert code == 0, errors
    live = [row for row in check_whole_of_live(tmp_path / "out") if not row.probe]
    cells = 9 if CURL else 8
    assert sorted((row.block, row.cell) for row in live) == [(b, c) for b in (1, 2) for c in range(1, cells + 1)]
    for row in live:
        check_row(row)
    slices = slices_of(tmp_path / "out")
    for block in (1, 2):
        trials = {row.trial for row in live if row.block == block}
        places = [(one["round"], one["place"]) for one in slices if int(one["trial"]) in trials]
        assert sorted(places) == sorted((str(r), str(p)) for r in range(1, 6) for p in range(1, cells + 1))
        own = sorted((one for one in slices if int(one["trial"]) in trials), key=lambda one: int(one["place"]))
        orders = [tuple(one["trial"] for one in own if one["round"] == str(number)) for number in range(1, 6)]
        assert {len(one) for one in orders} == {cells}
        assert len(set(orders)) > 1, "the order is drawn anew each round"
    check_probes(tmp_path / "out", live, cells)


def check_whole_of_live(directory):
    """check_whole() of the rows that are no costly probe's; these have latencies, too."""
    rows = rows_of(directory)
    live = {row.trial for row in rows if not row.probe}
    (directory / "live").mkdir()
    for name in ("trials.csv", "slices.csv", "latency.csv"):
        with open(directory / name, newline="") as file:
            head, *lines = list(csv.reader(file))
        with open(directory / "live" / name, "w", newline="") as file:
            csv.writer(file).writerows([head, *(line for line in lines if int(line[head.index("trial")]) in live)])
    check_whole(directory / "live")
    return rows


def check_row(row):
    assert (row.status, row.reason, row.swept, row.design, row.rounds) == ("ok", "", 0, "live", 5)
    assert row.ok == row.requests_ended > 0
    assert row.content_bytes == row.requests_ended * row.file_size_bytes
    assert row.requests_per_s == pytest.approx(row.requests_ended / row.measured_s, rel=1e-5)
    assert 0 < row.latency_p50_us <= row.latency_p90_us <= row.latency_p99_us <= row.latency_max_us
    assert 0 < row.cpu_us_per_request < 100_000
    assert min(row.proxy_user_s + row.proxy_kernel_s, row.proxy_switches, row.proxy_peak_rss_bytes) > 0
    assert (row.client_user_s + row.client_kernel_s > 0) == (row.scope == "pipeline")
    assert (row.cache_user_s + row.cache_kernel_s > 0) == (row.source == "cache")
    if len(os.sched_getaffinity(0)) > 1:
        roles = dict(part.split("=") for part in row.placement_effective.split())
        counts = {len(cpus.replace("-", ",").split(",")) for cpus in roles.values()}
        assert counts == {1} if row.placement == "same-core" else counts == {2}, row.placement_effective


def check_probes(directory, live, cells):
    """A cheap probe looks at one slice of each trial; a costly one has trials apart, after the blocks."""
    seen = list(results.read_observations(str(directory / "probes.csv")))
    for row in live:
        own = {(one.probe, one.metric): one.value for one in seen if one.trial == row.trial}
        assert own["counting", "processes"] >= 3 - (row.source == "direct")
        assert own["slice", "requests"] > 0
    costly = [row for row in rows_of(directory) if row.probe]
    assert [row.trial for row in costly] == list(range(2 * cells + 1, 3 * cells + 1))
    assert {(row.design, row.block, row.probe, row.status) for row in costly} == {("apart", 0, "costly", "ok")}


def test_a_part_of_a_plan_runs_live_as_well(base, study, tmp_path):
    text = STUDY.replace("rounds: 5, ", "")
    code, _, errors = run(study(text), "-o", tmp_path / "one", "--only", "data=fifo", "--scale", 0.1, "--repeat", 1)
    assert code == 0, errors
    (row,) = check_whole(tmp_path / "one")
    assert (row.data, row.design, row.seconds) == ("fifo", "live", 0.1)
    assert 5 <= row.rounds <= 20, "a load of 0.1 s"


def test_a_live_run_stops_when_its_intervals_are_narrow_enough(base, study, tmp_path):
    code, _, errors = run(
        study(STUDY.replace("repeats: 3", "until: {within: 99%, at_least: 8, at_most: 20}")), "-o", tmp_path / "out"
    )
    assert code == 0, errors
    assert 8 <= max(row.block for row in check_whole(tmp_path / "out")) < 20


FOUR_FILES = "{clients: 1, page_cache: cold, copies: 8, client_processes: 1, warmup: 20ms, seconds: 50ms}"


@pytest.mark.parametrize(
    ("text", "design"),
    [
        ("settings: {seconds: 1}\n", "live, all cells of a block alive at once, in slices of load"),
        ("settings: {seconds: 1}\ndesign: apart\n", "apart, as the file says"),
        (f"settings: {FOUR_FILES}\n", "apart, `page_cache: cold` drops pages that other cells would share"),
        ("settings: {seconds: 1}\nlive: true\n", "apart, `live: true` shows each second of a load"),
        ("settings: {source: curl, origin_latency: 5ms}\n", "apart, an origin that is slow on purpose leaves no short"),
    ],
)
def test_a_plan_has_a_design_and_says_why(study, text, design):
    plan = planner.load_plan(str(study(text)))
    assert f"{plan.design}, {plan.design_reason}".startswith(design)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (f"settings: {FOUR_FILES}\ndesign: live\n", "drops pages that other cells would share: write `apart`, or"),
        ("design: apart\nslices: {rounds: 3}\n", "there are none, the design is apart; leave it out"),
        ("live: true\nslices: {rounds: 3}\n", "there are none, `live: true` shows each second of a load"),
        ("design: together\n", "live"),
        ("slices: {rounds: 0}\n", "rounds"),
        ("slices: {window: soon}\n", "window"),
        ("slices: {windows: 3ms}\n", "window"),
    ],
)
def test_a_mistake_about_the_design_has_one_line(study, text, mistake):
    with pytest.raises(planner.Mistakes) as mistakes:
        planner.load_plan(str(study(text)))
    assert "\n" not in str(mistakes.value)
    assert mistake in str(mistakes.value)
    assert "study.yaml:" in str(mistakes.value)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("settings: {seconds: 1}\n", 0, "design: live, all cells of a block alive at once, in slices of load"),
        ("design: apart\nslices: {rounds: 3}\n", 2, "there are none, the design is apart; leave it out"),
    ],
)
def test_a_check_says_the_design_or_what_is_wrong_with_it(study, text, code, said):
    command = [sys.executable, "-m", "harness", "experiment", "check", study(text)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert said in (done.stderr if code else done.stdout)
    assert done.stderr.count("\n") == bool(code), done.stderr


def test_cells_are_measured_apart_where_the_file_says_so(base, study, tmp_path):
    text = "factors: {data: [posix_shm, fifo]}\nsettings: {warmup: 20ms, seconds: 50ms}\ndesign: apart\nrepeats: 1\n"
    code, _, errors = run(study(text), "-o", tmp_path / "out")
    assert code == 0, errors
    assert [(row.design, row.rounds, row.status) for row in rows_of(tmp_path / "out")] == [("apart", 0, "ok")] * 2
    assert not (tmp_path / "out/slices.csv").exists()


FLOORS = """\
factors: {FACTOR: [REAL, "null"]}
settings: {scope: lane, SETTING: "null", files: 64, lanes: 1, proxy_threads: 1, cache_threads: 1, proxy_processes: 1,
  cache_processes: 1, placement: same-core, warmup: 10ms, timeout: 5s}
slices: {rounds: 12, window: 4ms, lead_in: 1ms}
repeats: 5
baseline: {FACTOR: "null"}
"""


@pytest.mark.processes
@pytest.mark.serial
@pytest.mark.parametrize(("factor", "real"), [("command", "posix_mq, shm_ring"), ("data", "posix_shm, fifo")])
def test_no_transport_is_faster_than_the_floor(study, tmp_path, factor, real):
    """By a tenth, with intervals that hold at once: a machine that is busy makes them wider. A floor that is none, as
    one that waits with a timer, or takes a lock, is seen; benchmarks/floors.py looks at all transports and sizes."""
    text = FLOORS.replace("FACTOR", factor).replace("REAL", real)
    file = study(text.replace("SETTING", {"command": "data", "data": "command"}[factor]))
    code, _, errors = run(file, "-o", tmp_path / "out", "--quiet", 0)
    assert code == 0, errors
    shown = subprocess.run(
        [sys.executable, "-m", "harness", "show", "--json", tmp_path / "out"], check=True, capture_output=True
    )
    (context,) = json.loads(shown.stdout)["contexts"]
    ratios = {cell["label"]: cell["ratio"] for cell in context["cells"] if not cell["floor"]}
    assert len(ratios) == 2
    assert all(one["low"] is not None and one["low"] < 1.1 for one in ratios.values()), ratios
    assert all(cell["above_floor"]["floor"] == "null" for cell in context["cells"] if not cell["floor"])
