"""Every factor of a cell is carried out, and its row tells what was really done."""

import dataclasses
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import registry, rendezvous, results
from harness.api import Probe
from harness.console import Refused
from harness.factors import Spec
from harness.load import tally, totals, workload
from harness.load.arrivals import arrivals
from harness.measure import apart, file_sets, record
from harness.measure.channels import channels
from harness.measure.placement import unschedulable
from harness.origin import nginx
from harness.pipeline.catalogue import open_source

CPUS = sorted(os.sched_getaffinity(0))
BRIEF = {
    "clients": 2,
    "client_processes": 1,
    "proxy_processes": 2,
    "cache_processes": 2,
    "lanes": 2,
    "warmup": 0.05,
    "seconds": 0.2,
}


def drops_pages(directory):
    try:
        (directory / "file").write_bytes(b"content")
        open_source(str(directory), cold=True)
    except Refused:
        return False
    finally:
        (directory / "file").unlink()
    return True


def run(_seen=None, _live=None, _probes=(), **factors):
    return apart.run(Spec(**{**BRIEF, **factors}), results.Trial(trial=1, block=1), _probes, _seen, live=_live)


def good(row):
    assert (row.status, row.reason, row.swept) == ("ok", "", 0)
    return row


# File sets


def test_the_classic_set_is_ten_files_from_nothing_to_16_mib_of_3_07_mb_on_average():
    sizes = file_sets.CLASSIC_SIZES
    assert (len(sizes), min(sizes), max(sizes)) == (10, 0, 16 << 20)
    assert round(sum(sizes) / len(sizes) / 1e6, 2) == 3.07


def test_sizes_are_served_in_turn_in_every_process(base):
    for scope in ("pipeline", "lane"):
        # Two processes and two sizes: were the processes to take turns, each would know one size, and the fast one win.
        row = good(run(files="0 65536", clients=4, client_processes=2, scope=scope))
        assert row.file_size_bytes == 32768
        assert row.content_bytes / row.requests_ended == pytest.approx(32768, rel=0.1)


@given(st.integers(1, 1000), st.integers(1, 50), st.integers(1, 16))
def test_the_processes_share_all_requests_and_each_goes_through_the_whole_workload(requests, paths, processes):
    shares = [workload.share(requests, paths, index, processes) for index in range(processes)]
    assert list(itertools.chain(*shares)) == list(range(requests))
    for index in range(processes):
        some = list(itertools.islice(workload.share(None, paths, index, processes), paths))
        assert sorted(one % paths for one in some) == list(range(paths))


def test_a_directory_is_asked_for_file_by_file(base, tmp_path):
    (tmp_path / "below/deep").mkdir(parents=True)
    for name, size in (("b", 10), ("a", 0), ("below/c", 20_000), ("below/deep/d", 7)):
        (tmp_path / name).write_bytes(os.urandom(size))
    (tmp_path / "link").symlink_to("b")
    row = good(run(files=f"directory:{tmp_path}", requests=40, sink="checksum"))
    assert row.file_size_bytes == round(20_017 / 4)
    assert (row.requests_ended, row.content_bytes) == (40, 200_170)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "below", "link"]


def test_a_file_set_that_cannot_be_asked_for_fails_in_one_line(base, tmp_path):
    assert "no files in it" in run(files=f"directory:{tmp_path}").reason
    (tmp_path / "a name").touch()
    row = run(files=f"directory:{tmp_path}")
    assert row.status == "failed"
    assert "a name': no request can ask for it" in row.reason
    row = run(files=str(1 << 60))
    assert row.status == "failed"
    assert "bytes of files, and room for" in row.reason
    row = run(files=f"directory:{tmp_path}", data="null")
    assert (row.status, "the null transport serves zeros" in row.reason) == ("refused", True)


# What becomes of content


def test_a_checksum_that_differs_is_wrong_content(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    port = pipeline.proxy().port
    other = pipeline.directory / "other"
    other.mkdir()
    for content, kind, code in ((b"content", "OK 4", 0), (b"contenT", "wrong 4", 1)):
        (other / "file").write_bytes(content)
        got = pipeline.client(port, [path], "-r", 4, "--verify", other, "--checksum")
        assert (got[0], kind in got[1]) == (code, True)


@pytest.mark.parametrize("sink", ["discard", "copy", "checksum"])
def test_a_trial_has_every_sink(base, sink):
    row = good(run(sink=sink, files="100000", requests=100))
    assert row.content_bytes == row.requests_ended * 100_000


# How the load comes


@given(st.floats(1, 1e5), st.integers(1, 8))
def test_fixed_arrivals_of_all_processes_are_at_equal_distances(rate, processes):
    parts = [itertools.islice(arrivals(rate, True, 1, index, processes), 20) for index in range(processes)]
    dues = sorted(itertools.chain(*parts))
    assert dues[0] == 0
    for before, due in itertools.pairwise(dues):
        assert due - before == pytest.approx(1e9 / rate, abs=2, rel=1e-6)


def test_random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process_and_are_those_of_their_seed():
    def dues(seed):
        parts = [itertools.islice(arrivals(1000, False, seed, index, 4), 20_000) for index in range(4)]
        end = 15_000_000_000
        return [due for due in sorted(itertools.chain(*parts)) if due < end]

    one = dues(1)
    assert one == dues(1) != dues(2)
    assert len(one) == pytest.approx(15_000, rel=0.05)
    distances = [due - before for before, due in itertools.pairwise(one)]
    assert sum(distance > 1e6 for distance in distances) / len(distances) == pytest.approx(0.368, abs=0.02)


def result_of(pipeline, port, path, *arguments):
    _, output = pipeline.client(port, [path], "--json", *arguments)
    return json.loads(output.splitlines()[0])


def test_in_an_open_loop_all_that_is_due_is_asked_for_at_its_time(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    result = result_of(
        pipeline,
        pipeline.proxy().port,
        path,
        "--rate",
        200,
        "--arrivals",
        "fixed",
        "--seconds",
        1,
        "-t",
        8,
        "--processes",
        2,
    )
    assert result["OK"] == result["requests"] == 200
    assert 0.98 < result["seconds"] < 5
    assert result["histogram"][0][0] < 20e6  # ns: the quickest did not wait for another


def test_the_wait_of_a_request_that_finds_no_room_counts(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache("-d", 20_000)
    port = pipeline.proxy().port
    result = result_of(pipeline, port, path, "--rate", 100, "--arrivals", "fixed", "--seconds", 1, "-t", 1)
    assert result["OK"] == result["requests"] == 100
    # A hundred requests of 20 ms each, due within 1 s: they take 2 s, and the last one waits for the second of them.
    assert result["seconds"] > 1.9
    assert result["latency_max_us"] > 900_000
    assert result["latency_p50_us"] > 400_000


def test_what_could_not_be_asked_for_in_time_has_failed_and_is_not_forgotten(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache("-d", 100_000)
    begun = time.monotonic()
    result = result_of(
        pipeline,
        pipeline.proxy().port,
        path,
        "--rate",
        50,
        "--arrivals",
        "fixed",
        "--seconds",
        1,
        "-t",
        1,
        "--timeout",
        0.5,
    )
    assert result["requests"] == 50
    assert 1 <= result["OK"] <= 20
    assert result["OK"] + result["failed"] == 50
    assert sum(count for _, count in result["histogram"]) == result["OK"]
    assert result["others_max_us"] > 1e5, "how long they waited stands apart"
    assert time.monotonic() - begun < 15


def test_a_trial_has_an_open_loop_and_its_cells_of_one_block_have_the_same_arrivals(base):
    rows = [good(run(rate=300.0, clients=32, seconds=0.5, data=data)) for data in ("posix_shm", "fifo")]
    assert rows[0].requests_ended == rows[1].requests_ended > 50
    assert (rows[0].rate, rows[0].arrivals) == (300, "poisson")
    assert rows[0].seed + rows[0].block == 1
    assert good(run()).arrivals == ""


def test_a_trial_may_be_a_number_of_requests(base):
    for scope in ("pipeline", "lane"):
        row = good(run(requests=77, scope=scope))
        assert (row.requests_ended, row.requests, row.seconds) == (77, 77, 0)


# Options of the data transport


def described(spec, row):
    record.fill_known(spec, row)
    record.fill_channels(row, channels(spec))


@pytest.mark.processes  # git, for the commit of the code
def test_chunk_depth_and_wait_are_set_where_the_transport_has_them_and_the_row_says_so():
    row = results.Trial()
    described(Spec(chunk=4096, depth=3, wait="spin"), row)
    assert "chunk=4096" in row.data_effective
    assert (row.chunk_effective_bytes, row.depth_effective, row.wait_effective) == (4096, 3, "spin")
    described(Spec(data="posix_shm:depth=9", chunk=4096, depth=3), row)
    assert (row.chunk_effective_bytes, row.depth_effective, row.wait_effective) == (4096, 9, "block")
    described(Spec(data="sendfile", chunk=4096, depth=3, wait="spin"), row)
    assert (row.chunk_effective_bytes, row.depth_effective, row.wait_effective) == (0, 0, "")
    assert (row.chunk, row.depth, row.wait) == (4096, 3, "spin")


@pytest.mark.parametrize("data", list(registry.installed().data))
def test_a_trial_of_every_transport_runs_with_these_options(base, data):
    row = good(run(data=data, chunk=8192, depth=2, wait="block", files="1024 50000", requests=100))
    assert (row.chunk, row.depth, row.wait) == (8192, 2, "block")
    has = {field.name for field in dataclasses.fields(registry.installed().data[data])}
    effective = [8192 if "chunk" in has else 0, 2 if "depth" in has else 0, "block" if "wait" in has else ""]
    assert [row.chunk_effective_bytes, row.depth_effective, row.wait_effective] == effective
    assert all(f"{name}=" in row.data_effective for name in has & {"chunk", "depth", "wait"})
    assert (row.requests_ended, row.content_bytes) == (100, 50 * (1024 + 50_000))


# Placement


def of_each_task(seen, fact):
    """A function that notes a fact of every thread of this process's trial: seen[program] is the set of these."""

    def look(_):
        for directory in os.scandir("/proc"):
            try:
                with open(f"{directory.path}/cmdline") as line:
                    words = line.read().split("\0")
                if f"trial-{os.getpid()}-1" in words:
                    for task in os.listdir(f"{directory.path}/task"):
                        seen.setdefault(words[3], set()).add(fact(int(task)))
            except OSError:
                continue

    return look


def test_every_process_and_thread_of_a_role_is_where_the_placement_says(base):
    seen = {}
    look = of_each_task(seen, lambda task: tuple(os.sched_getaffinity(task)))
    first, last = CPUS[0], CPUS[-1]
    row = good(run(placement=f"client={last} proxy={first} cache={last}", rate=200.0, seconds=1.5, _live=look))
    assert row.placement_effective == f"client={last} proxy={first} cache={last}"
    assert seen == {"webproxy": {(first,)}, "simplecached": {(last,)}}


@pytest.mark.parametrize(
    ("scheduling", "policy"), [("other", os.SCHED_OTHER), ("batch", os.SCHED_BATCH), ("fifo", os.SCHED_FIFO)]
)
def test_every_thread_of_proxy_and_cache_has_the_scheduling_policy_of_the_cell(base, scheduling, policy):
    if reason := unschedulable(scheduling):
        pytest.skip(reason)
    mine, seen = os.sched_getscheduler(0), {}
    row = good(run(scheduling=scheduling, rate=200.0, seconds=1.5, _live=of_each_task(seen, os.sched_getscheduler)))
    assert row.scheduling == scheduling
    assert seen == {"webproxy": {policy}, "simplecached": {policy}}
    assert os.sched_getscheduler(0) == mine


def test_a_policy_that_the_user_may_not_have_is_refused_with_the_limit_to_raise(base):
    """In a process without CAP_SYS_NICE and with RLIMIT_RTPRIO 0: an ordinary user's."""
    check = (
        "import os, resource\nfrom harness.factors import Spec\nfrom harness.measure.feasible import impossible\n"
        "impossible(Spec())  # loads the plugins, which another user may not be able to read\n"
        "resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))\n"
        "if not os.getuid(): os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "print(impossible(Spec(scheduling='batch')), impossible(Spec(scheduling='fifo')), sep='|')"
    )
    batch, fifo = subprocess.check_output([sys.executable, "-c", check], text=True).strip().split("|")
    assert batch == ""
    assert fifo.startswith(
        "scheduling fifo: the kernel refuses it here, sched(7): for `fifo` an ordinary user needs an RLIMIT_RTPRIO"
    )


def test_the_named_placements_are_shown_by_the_cpus_that_they_gave(base):
    everywhere = ",".join(map(str, CPUS))
    free = good(run(requests=10))
    assert free.placement_effective == f"client={everywhere} proxy={everywhere} cache={everywhere}"
    same = good(run(placement="same-core", requests=10))
    assert same.placement_effective == f"client={CPUS[0]} proxy={CPUS[0]} cache={CPUS[0]}"
    if len(CPUS) > 1:
        row = good(run(placement="spread", requests=10))
        spread = dict(part.split("=") for part in row.placement_effective.split())
        assert not set(spread["proxy"].split(",")) & set(spread["cache"].split(","))
    assert sorted(os.sched_getaffinity(0)) == CPUS


def test_a_cpu_that_is_not_there_is_refused_in_one_line(base):
    row = run(placement="client=0 proxy=0 cache=4095")
    assert row.status == "refused"
    assert "this run may not use CPU 4095" in row.reason


# The page cache


@pytest.mark.parametrize("data", ["posix_shm", "sendfile", "splice", "handoff"])
@pytest.mark.parametrize("scope", ["pipeline", "lane"])
def test_cold_content_comes_from_disks(base, tmp_path, data, scope):
    if not drops_pages(tmp_path):
        pytest.skip("no file system here that can drop pages")
    row = good(run(page_cache="cold", data=data, scope=scope, copies=64, requests=40, files="40000"))
    assert row.requests_ended == 40


def test_cold_content_of_a_proxy_without_a_cache_comes_from_disks(base, tmp_path):
    if not drops_pages(tmp_path):
        pytest.skip("no file system here that can drop pages")
    assert good(run(page_cache="cold", source="direct", copies=64, requests=40, files="40000")).requests_ended == 40


KEEPING = """
from dataclasses import dataclass
from harness.api import DataTransport, hookimpl
from transports.memfd import Memfd

@dataclass(frozen=True)
class Keeping(Memfd):
    name = "keeping"
    keeps_content = False  # which is not true

@hookimpl
def data_transports():
    return [Keeping]
"""


def test_a_trial_whose_content_did_not_come_from_disks_is_not_cold(base, tmp_path, plugins):
    if not drops_pages(tmp_path):
        pytest.skip("no file system here that can drop pages")
    plugins("keeping", KEEPING)
    factors = {**BRIEF, "data": "keeping", "page_cache": "cold", "copies": 8}
    program = f"""
from harness import results
from harness.factors import Spec
from harness.measure import apart
row = apart.run(Spec(**{factors}), results.Trial(trial=1))
print(row.status, row.reason)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.startswith("failed page_cache cold: only "), ended
    assert "% of the pages came from disks" in ended.stdout


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"data": "memfd"}, "memfd keeps content"),
        ({"data": "mmap"}, "mmap keeps content"),
        ({"clients": 5, "copies": 19}, "19 files for 5 requests at a time"),
        ({"scope": "lane", "proxy_threads": 3, "lanes": 6, "copies": 23}, "23 files for 6 requests at a time"),
    ],
)
def test_what_cannot_be_cold_is_refused(base, factors, message):
    row = run(page_cache="cold", **factors)
    assert (row.status, message in row.reason) == ("refused", True), row.reason


@pytest.mark.processes
def test_where_pages_cannot_be_dropped_the_way_out_is_named(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:  # a tmpfs everywhere
        monkeypatch.setenv(rendezvous.BASE_VARIABLE, directory)
        row = run(page_cache="cold", copies=8)
    assert row.status == "refused"
    assert "the page cache keeps this file system's files" in row.reason
    assert "TRANSPORT_HARNESS_DIR" in row.reason


def test_files_are_asked_for_apart_even_by_several_processes(pipeline):
    asked = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for _ in range(3):
            clients = [listener.accept()[0] for _ in range(4)]
            asked.append([client.recv(4096).split()[2] for client in clients])
            for client in clients:
                client.sendall(b"GETFILE OK 0\r\n\r\n")
                client.close()

    server = threading.Thread(target=serve)
    with listener:
        server.start()
        paths = [f"/{number}" for number in range(5)]
        arguments = ["-r", 12, "-t", 4, "--processes", 2, "--apart"]
        code, output = pipeline.client(listener.getsockname()[1], paths, *arguments)
        server.join(10)
    assert code == 0, output
    assert [len(set(four)) for four in asked] == [4, 4, 4]
    assert len(set(itertools.chain(*asked))) == 5
    code, output = pipeline.client(1, ["/a", "/b", "/a"], "-r", 1, "-t", 3, "--apart")
    assert (code, "must name 3 different files or more" in output) == (2, True)


# What comes of it


def test_latencies_come_as_a_histogram_of_all_requests_too(base):
    seen = {}
    row = good(run(_seen=seen))
    buckets = seen["latency"]
    assert sum(one.count for one in buckets) == row.requests_ended
    assert [one.latency_us for one in buckets] == sorted(one.latency_us for one in buckets)
    assert row.latency_max_us <= buckets[-1].latency_us <= row.latency_max_us * (1 + 1 / 128) + 0.001
    assert row.latency_p99_9_us <= row.latency_p99_99_us <= row.latency_max_us


def test_latencies_beyond_those_that_are_kept_are_counted_and_percentiles_are_nearly_right():
    (one,) = tally.shared_tallies(1, 100)
    one.begin()
    for latency in range(1, 10_001):
        one.add(tally.OK if latency % 2 else tally.ERROR, 3, 0, latency * 1000)
    one.end(10**9, tally.Usage(1, 2, 3, 4))
    result = totals.summarise([one, one], 0)
    assert (result["requests"], result["OK"], result["ERROR"]) == (20_000, 10_000, 10_000)
    assert result["content_bytes"] == 60_000
    assert sum(count for _, count in result["histogram"]) == 10_000
    assert 5000 <= result["others_p50_us"] < 5050
    for percent, exact in ((50, 4999), (99, 9899), (99.99, 9997)):
        assert exact <= result[f"latency_p{percent:g}_us"] < exact * (1 + 1 / 128)


@pytest.mark.serial
@pytest.mark.parametrize("load", [{"rate": 1000.0}, {"scope": "lane"}])
def test_a_trial_reports_what_it_does_each_second(base, load):
    ticks = []
    row = good(run(**load, proxy_processes=1, cache_processes=1, seconds=3.6, _live=ticks.append))
    assert len(ticks) >= 2
    assert 0 < ticks[0]["requests"] < ticks[1]["requests"] < row.requests_ended
    for now in ticks:
        assert now["requests_per_s"] == pytest.approx(row.requests_per_s, rel=0.8)
        assert now["bytes_per_s"] == pytest.approx(now["requests_per_s"] * 1024, rel=0.01)
        for role in ("proxy", "cache"):
            assert 0 < now[f"{role}_cpu"] == now[f"{role}_user"] + now[f"{role}_kernel"] < len(CPUS) + 0.1
            assert now[f"{role}_rss_mib"] > 5


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"data": "fifo:pipe_size=1GiB"}, "pipe_size=1073741824"),
        ({"congestion": "nonsense"}, "no congestion control 'nonsense' here"),
    ],
)
def test_what_a_transport_or_the_machine_says_no_to_is_refused_and_not_a_failure(base, factors, message):
    row = run(**factors)
    assert (row.status, message in row.reason) == ("refused", True), row.reason
    assert row.swept == 0


# An HTTP origin


class Looked(Probe):
    """Keeps the command lines of the processes that are the origin, all of whose work is to be known as its."""

    name = "looked"

    def begin(self, processes, directory):
        self.origin = [Path(f"/proc/{pid}/cmdline").read_text() for pid in processes["origin"]]

    def end(self):
        return []


@pytest.mark.parametrize(
    ("strategy", "server"),
    [("single-get", "auto"), ("single-get", "own"), ("head-then-get", "auto"), ("buffered", "own")],
)
def test_the_proxy_fetches_from_an_origin_that_the_trial_starts(base, strategy, server):
    looked = Looked()
    row = good(
        run(
            source="curl",
            strategy=strategy,
            reuse=strategy != "buffered",
            files="16384",
            requests=100,
            origin_server=server,
            _probes=[looked],
        )
    )
    assert (row.strategy, row.reuse, row.origin_server) == (strategy, strategy != "buffered", server)
    by_nginx = server == "auto" and not nginx.unable("/", slow=False)
    assert re.fullmatch(r"nginx/[\d.]+" if by_nginx else "harness origin", row.origin)
    parts = ["harness", "nginx: master", *["nginx: worker"] * os.cpu_count()]
    if by_nginx:
        assert all(part in line for part, line in zip(parts, looked.origin, strict=True)), looked.origin
    else:
        assert len(looked.origin) == 1 + os.cpu_count()
    assert (row.command, row.data, row.lanes) == ("", "", 0)
    assert row.content_bytes == row.requests_ended * 16384


def test_an_origin_is_as_slow_as_it_is_asked_to_be_and_a_collected_body_begins_late(base):
    slow = {"source": "curl", "files": str(1 << 20), "origin_latency": 0.02, "origin_bandwidth": 4 << 20}
    streamed = good(run(**slow, seconds=1.0))
    collected = good(run(**slow, seconds=1.0, strategy="buffered"))
    assert 20_000 < streamed.first_byte_p50_us < streamed.latency_p50_us
    assert collected.first_byte_p50_us > 2 * streamed.first_byte_p50_us


def test_the_first_bytes_of_a_reply_come_before_its_last(base):
    row = good(run(files=str(16 << 20), data="fifo"))
    assert 0 < row.first_byte_p50_us < row.latency_p50_us


def test_rows_of_an_older_version_have_defaults_for_columns_that_came_later(tmp_path):
    path = str(tmp_path / "trials.csv")
    results.append(path, results.Trial(experiment="old", trial=3))
    with open(path) as file:
        lines = [line.rstrip("\n").split(",") for line in file]
    at = lines[0].index("strategy")
    with open(path, "w") as file:
        file.writelines(",".join(line[:at] + line[at + 1 :]) + "\n" for line in lines)
    assert [row.strategy for row in results.read(path)] == [""]  # of a cell with a cache
    with open(path, "w") as file:
        file.writelines(
            ",".join(["1" if number == 1 and index == 0 else value for index, value in enumerate(line)]) + "\n"
            for number, line in enumerate(lines)
        )
    with pytest.raises(ValueError, match="schema 1, not 3"):
        list(results.read(path))
