"""Scope lane: the two channels alone, with real processes: right content, failed lanes, killed peers, clean ends."""

import json
import os
import re
import secrets
import signal
import time
from pathlib import Path

import pytest
from support.programs import eventually
from support.transports import COMMAND, DATA
from test_pipeline import CHUNK, SIZES
from test_programs import harness

from harness import registry, rendezvous, results
from harness.factors import FACTORS, Spec
from harness.load.lane import main
from harness.measure import apart
from harness.measure.probes.proc import cpu_clock

CHANNELS = [("posix_mq", data) for data in DATA]
CHANNELS += [(command, "posix_shm") for command in COMMAND if command != "posix_mq"]
CONTENTS = {f"/{size}": os.urandom(size) for size in (*SIZES, 3 << 20)}
ZEROS = {f"/zeros-{size}": bytes(size) for size in (*SIZES, 3 << 20)}
# A lane that is copied from, and one for each shape that needs a client's socket.
SHAPES = ("posix_shm", "sendfile", "handoff")


def start(pipeline, paths, *arguments):
    workload = pipeline.directory / f"{secrets.token_hex(4)}.txt"
    workload.write_text("\n".join(paths) + "\n")
    return pipeline.start("lane", "-w", workload, "--json", *arguments)


def ask(pipeline, paths, *arguments):
    """Run it to its end: (exit code, its result or None, what it said on standard error)."""
    program = start(pipeline, paths, *arguments)
    output = program.process.stdout.read().decode()
    return program.wait(60), json.loads(output) if output else None, program.errors


@pytest.fixture(scope="module")
def stored(shared):
    """A pipeline for several tests, with the files of which they know the content."""
    for path, content in (CONTENTS | ZEROS).items():
        shared.write(path[1:], content)
    return shared


@pytest.mark.parametrize("data", ["posix_shm", "sendfile", "fifo"])
def test_in_batches_each_reply_is_right_and_so_many_are_under_way(stored, data):
    meeting = ["--name", f"batch-{data}"]
    stored.cache(*meeting, "-t", 1)
    common = ["--data", data, "--verify", stored.files, "--sink", "checksum", *meeting]
    for requests in (1, 7, 64):  # the last batch may be a part of one
        code, result, errors = ask(stored, list(CONTENTS), "--batch", 8, "-r", requests, *common)
        assert (code, errors) == (0, "")
        assert result["OK"] == result["requests"] == requests
    code, _, errors = ask(stored, list(CONTENTS), "--batch", 8, "-n", 7, "-r", 8, *common)
    assert (code, "-n 7: each of the 1 workers needs 8 lanes of its own" in errors) == (2, True)


def test_the_commands_of_a_batch_are_under_way_at_the_same_time(shared):
    shared.write("one", b"1")
    meeting = ["--name", "together"]
    shared.cache(*meeting, "-t", 8, "-d", 300_000)  # microseconds
    code, result, _ = ask(shared, ["/one"], "--batch", 8, "-r", 8, *meeting)
    assert (code, result["OK"]) == (0, 8)
    assert result["seconds"] < 8 * 0.3, "as long as one after the other takes at least"


def test_a_batch_whose_cache_has_gone_ends_after_one_wait_and_not_after_one_for_each(pipeline):
    pipeline.write("one", b"1")
    cache = pipeline.cache("-t", 1, "-d", 600_000)
    program = start(pipeline, ["/one"], "--batch", 8, "-r", 8, "--timeout", 1)
    time.sleep(0.5)
    cache.process.kill()
    result = json.loads(program.process.stdout.read())
    assert program.wait(60) == 1
    assert result["content_bytes"] == result["OK"] < result["requests"]
    assert result["seconds"] < 5, "of the 8 that a wait for each would take"
    rendezvous.sweep()  # what the cache would have removed itself


def test_a_lane_that_gives_its_client_away_takes_no_batches(stored):
    code, _, errors = ask(stored, list(CONTENTS), "--data", "handoff", "--batch", 2, "-r", 4)
    assert (code, errors.count("\n")) == (2, 1)
    assert "--batch 2: handoff gives its client away for one request at a time" in errors


@pytest.mark.parametrize(
    ("command", "data"), [pytest.param(*pair, marks=pytest.mark.xdist_group(f"lane, {pair[0]}")) for pair in CHANNELS]
)
def test_every_transport_serves_right_content_to_every_sink(stored, command, data):
    paths = list(CONTENTS if registry.data_transport(data).moves_content else ZEROS)
    meeting = ["--name", command, "--command", command]
    stored.cache(*meeting, "--processes", 2)
    common = ["--data", data, "--verify", stored.files, "-t", 2, "--processes", 2, *meeting]
    for sink, chunk in (("checksum", ["-z", CHUNK]), ("copy", []), ("discard", [])):
        code, result, errors = ask(stored, paths, "-r", 51, "--warmup", 0.05, "--sink", sink, *chunk, *common)
        assert (code, errors) == (0, ""), errors
        assert result["OK"] == result["requests"] == 51
        assert result["content_bytes"] == 5 * (sum(SIZES) + (3 << 20))  # and once the file that is empty
        assert 0 < result["latency_p50_us"] <= result["latency_p99_us"] <= result["latency_max_us"] < 5e6
        needs_a_reader = registry.shape(DATA[data])[1] != "copy"
        assert (result["peak_rss_bytes"] > 0) == needs_a_reader


@pytest.mark.parametrize("data", SHAPES)
def test_one_wrong_byte_is_found_by_the_checksum_and_by_the_warm_up(pipeline, data):
    content = bytearray(os.urandom(100_000))
    paths = [pipeline.write("right", content), pipeline.write("wrong", content)]
    other = pipeline.directory / "other"
    other.mkdir()
    (other / "right").write_bytes(content)
    content[77_777] ^= 1
    (other / "wrong").write_bytes(content)
    pipeline.cache()
    code, result, errors = ask(pipeline, paths, "--data", data, "--verify", other, "--sink", "checksum", "-r", 10)
    assert (code, errors) == (1, "")
    assert (result["OK"], result["wrong"]) == (5, 5)
    code, result, errors = ask(pipeline, paths, "--data", data, "--verify", other, "--warmup", 0.3, "-r", 10)
    assert (code, result) == (1, None)
    right, wrong = map(int, re.search(r"warm-up: not every reply was OK: (\d+) OK, (\d+) wrong\n", errors).groups())
    assert right - 1 <= wrong <= right  # the two files in turn, of which one is wrong


@pytest.mark.parametrize("data", SHAPES)
def test_a_file_that_is_not_there_costs_no_other_request_anything(pipeline, data):
    path = pipeline.write("file", os.urandom(5000))
    pipeline.cache()
    (pipeline.directory / "other").mkdir()
    for directory in (pipeline.files, pipeline.directory / "other"):
        (directory / "missing").write_bytes(b"x")
        (directory / "file").write_bytes((pipeline.files / "file").read_bytes())
    os.unlink(pipeline.files / "missing")
    for sink in ("discard", "checksum"):
        arguments = ["--sink", sink, *(["--verify", pipeline.directory / "other"] if sink == "checksum" else [])]
        code, result, errors = ask(pipeline, [path, "/missing"], "--data", data, "-r", 20, *arguments)
        assert (code, errors) == (1, "")
        assert (result["OK"], result["FILE_NOT_FOUND"]) == (10, 10)
        assert result["content_bytes"] == 50_000


def serves(cache, sleeps=300):
    """Whether the cache gets to serve requests: its workers go to sleep more often from now on than without any."""

    def slept(pid):
        counts = [Path(f"/proc/{pid}/task/{task}/status").read_text() for task in os.listdir(f"/proc/{pid}/task")]
        return sum(int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", one)[1]) for one in counts)

    before = sum(map(slept, cache.children()))
    return eventually(lambda: sum(map(slept, cache.children())) > before + sleeps)


@pytest.mark.parametrize("data", [*SHAPES, "fifo", "splice"])
def test_a_killed_cache_is_counted_as_errors_and_the_end_comes_in_time(pipeline, base, data):
    path = pipeline.write("file", os.urandom(1 << 20))
    cache = pipeline.cache("--processes", 2)
    lane = start(pipeline, [path], "--data", data, "-t", 2, "--seconds", 60, "--timeout", 0.5)
    assert serves(cache)
    cache.kill_all()
    begun = time.monotonic()
    result = json.loads(lane.line())  # no other cache takes its place, so the lane ends
    assert time.monotonic() - begun < 5
    assert lane.wait() == 1
    assert result["OK"] > 10
    assert 2 <= result["ERROR"] == result["requests"] - result["OK"] <= 20
    assert "no cache at rendezvous 'default' for 0.5 s" in lane.errors
    assert "Traceback" not in lane.errors
    assert os.listdir(f"{base}/default") == ["cache"]
    rendezvous.sweep()  # what the cache would have removed itself


@pytest.mark.parametrize("data", SHAPES)
def test_a_lane_that_failed_is_replaced_and_the_next_cache_serves_the_next_request(pipeline, data):
    path = pipeline.write("file", os.urandom(1 << 20))
    cache = pipeline.cache()
    arguments = ["--sink", "checksum", "--verify", pipeline.files, "--timeout", 2, "--seconds", 60]
    lane = start(pipeline, [path], "--data", data, *arguments)
    assert serves(cache)
    (worker,) = cache.children()
    os.kill(worker, signal.SIGSTOP)  # most likely with a reply under way
    time.sleep(2.3)
    os.kill(worker, signal.SIGCONT)
    assert serves(cache)  # over the lane that replaced the one that failed
    time.sleep(1.5)  # a thread may still wait for the one that failed, until its timeout, and hold up the end
    assert cache.stop() == 0
    following = pipeline.cache()
    assert serves(following, sleeps=100), lane.errors  # idle, it sleeps 4 times a second
    assert following.stop() == 0  # no other cache takes its place, so the lane ends
    result = json.loads(lane.line())
    assert lane.wait() == 1
    assert 1 <= result["ERROR"] == result["requests"] - result["OK"], lane.errors  # a cache that ends refuses, too
    assert result["OK"] > 100
    assert 1.9e6 < result["others_max_us"] < 5e6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("data", SHAPES)
def test_a_signal_ends_it_in_time_with_requests_under_way(pipeline, base, data, number):
    path = pipeline.write("file", b"content")
    cache = pipeline.cache("-d", 30_000_000)
    lane = start(pipeline, [path], "--data", data, "-t", 2, "--processes", 2, "--seconds", 60, "--timeout", 30)
    assert eventually(lambda: len(lane.children()) == 2)
    time.sleep(0.5)
    begun = time.monotonic()
    assert lane.stop(number) == 130
    assert time.monotonic() - begun < 4
    assert lane.errors == ""
    cache.stop()
    assert not os.path.exists(base)


def processes_of(pid):
    """A process and all below it."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [pid, *(one for child in children.read().split() for one in processes_of(int(child)))]


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("data", SHAPES)
def test_whichever_of_its_processes_is_killed_the_others_end_in_time(pipeline, base, data):
    path = pipeline.write("file", os.urandom(1 << 20))
    pipeline.cache()
    levels = 2 if data == "posix_shm" else 3  # the program, a process that asks, and one that reads from a socket
    for victim in range(levels):
        lane = start(pipeline, [path], "--data", data, "--seconds", 60, "--timeout", 1)
        assert eventually(lambda lane=lane: len(processes_of(lane.pid)) == levels)
        everyone = processes_of(lane.pid)
        # It asks for a minute: what has used so much CPU time is not warming up any more, however busy the machine is.
        assert eventually(lambda asking=everyone[1]: cpu_clock(asking) > 300_000_000), lane.errors
        os.kill(everyone[victim], signal.SIGKILL)
        assert lane.wait() == (-signal.SIGKILL if victim == 0 else 1)
        assert eventually(lambda everyone=everyone: all(map(gone, everyone)), 4)
        assert "Traceback" not in lane.errors
        if victim:
            how = r"was ended by SIGKILL|ended with exit code 1"
            assert re.search(rf"worker process \d+ ({how}) before it could finish\n", lane.errors), lane.errors
        else:  # what the program would have removed itself, once the last thread has ended
            assert eventually(lambda: rendezvous.sweep() or os.listdir(f"{base}/default") == ["cache"], 2)
        assert os.listdir(f"{base}/default") == ["cache"]


SHORT = """
from dataclasses import dataclass
from harness.api import DataTransport, SocketReceiver, hookimpl
from transports.sendfile import FileReceiver, Sendfile

class Receiver(FileReceiver):
    def deliver(self, sink, count):
        super().deliver(sink, count - 1)

@dataclass(frozen=True)
class Short(Sendfile):
    name = "short"

    def receiver(self, scope) -> SocketReceiver:
        return Receiver(scope)

@hookimpl
def data_transports():
    return [Short]
"""


def test_bytes_that_a_transport_says_it_has_delivered_and_has_not_are_missed(pipeline, plugins):
    plugins("short", SHORT)
    path = pipeline.write("file", os.urandom(5000))
    pipeline.cache()
    code, result, errors = ask(pipeline, [path], "--data", "short", "-r", 10)
    assert (code, result) == (1, None)
    assert "50000 bytes were reported as delivered to the socket, but 49990 came out of it" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("-r 1", 2, "required: -w"),
        ("-w WORKLOAD", 2, "one of the arguments -r --seconds --slices is required"),
        ("-w WORKLOAD -r 1 -n 3 -t 2 --processes 2", 2, "-n 3: each of the 4 workers needs"),
        ("-w WORKLOAD -r 1 --sink drop", 2, "invalid choice: 'drop'"),
        ("-w WORKLOAD -r 1 --sink checksum", 2, "--sink checksum needs files to compare with: --verify"),
        ("-w WORKLOAD -r 1 --verify .", 2, "unless there is a --warmup to do it in"),
        ("-w WORKLOAD -r 1 --warmup 1 --verify .", 2, "./nowhere: no such file to compare with"),
        ("-w WORKLOAD -r 1 --data posix_smh", 2, "did you mean posix_shm?"),
        ("-w WORKLOAD -r 1 --name a/b", 2, "use 1 to 32 letters"),
        ("-w WORKLOAD -r 1 --wait 0.1", 1, "no cache at rendezvous 'default' after 0.1 s"),
        ("-w /nowhere.txt -r 1", 1, "/nowhere.txt"),
    ],
)
def test_bad_arguments_get_one_clear_line(base, tmp_path, capfd, arguments, code, message):
    (tmp_path / "workload.txt").write_text("/nowhere\n")
    try:
        ended = main(arguments.replace("WORKLOAD", str(tmp_path / "workload.txt")).split())
    except SystemExit as end:
        ended = end.code
    output, errors = capfd.readouterr()
    assert (ended, output) == (code, "")
    lines = [line for line in errors.splitlines() if line.startswith(("lane: ", "harness lane: "))]
    (line,) = (line for line in lines if "waiting for a cache" not in line)
    assert message in line


@pytest.mark.processes
def test_bad_arguments_end_the_program():
    result = harness("lane", "-w", "/nowhere.txt", "-r", 1)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)


def test_a_lane_that_cannot_be_made_is_reported_in_one_line(pipeline):
    pipeline.cache()
    code, result, errors = ask(pipeline, ["/x"], "--data", "fifo:pipe_size=1GiB", "-r", 1)
    assert (code, result) == (1, None)
    (line,) = (line for line in errors.splitlines() if "ended with exit code 1 before it could warm up" not in line)
    assert line.startswith("lane: lane 1 of 1 over fifo: pipe_size=1073741824")


@pytest.mark.parametrize("data", SHAPES)
def test_a_trial_of_scope_lane_is_a_row_without_what_belongs_to_tcp(base, data):
    spec = Spec(scope="lane", data=data, seconds=0.2, warmup=0.05, lanes=2, proxy_processes=2, sink="checksum")
    row = apart.run(spec, results.Trial(trial=1))
    assert (row.status, row.reason, row.swept) == ("ok", "", 0)
    assert row.requests_ended == row.ok > 0
    assert row.content_bytes == row.requests_ended * 1024
    assert row.scope == "lane"
    only_with_tcp = [name for name, factor in FACTORS.items() if factor.only == {"scope": "pipeline"}]
    assert {"clients", "client_processes", "congestion", "rate", "arrivals"} <= {*only_with_tcp}
    for name in only_with_tcp:
        assert getattr(row, name) in ("", 0), name
    assert 0 < row.latency_p50_us < row.latency_max_us < 1e6
    assert min(row.proxy_switches, row.cache_switches, row.proxy_peak_rss_bytes) > 0
    assert 0 < row.cpu_us_per_request < 10_000
    assert (row.client_switches > 0) == (data != "posix_shm")


@pytest.mark.parametrize("bad", [{"source": "direct"}, {"rate": 100.0}])
def test_what_a_lane_has_none_of_is_refused_in_one_line(base, bad):
    row = apart.run(Spec(scope="lane", **bad), results.Trial(trial=1))
    assert (row.status, row.requests_ended) == ("refused", 0)
    assert re.match("(source: a lane leads to a cache|rate: in a lane each request waits for its reply)", row.reason)
    assert "\n" not in row.reason
