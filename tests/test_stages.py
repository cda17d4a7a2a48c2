"""Where requests spend their time: what programs note, what the probe makes of it, and the trace."""

import json
import os
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from support.programs import start_run

from harness import registry, results
from harness.analysis import stages as analysis
from harness.api import Moments
from harness.factors import Spec
from harness.measure import apart
from harness.pipeline import stages
from harness.report import trace

SMALL = Spec(
    files="1024", copies=1, clients=2, client_processes=1, proxy_processes=1, proxy_threads=2, cache_processes=1,
    cache_threads=2, lanes=2, warmup=0.05, requests=400,
)  # fmt: skip
CHAIN = list(analysis.STAGES)
IN_LANE = ["sent", "received", "found", "published", "taken", "delivered"]


def noted(spec):
    """The trial of the probe in a cell, and what it noted."""
    seen = {}
    row = apart.run(spec, results.Trial(trial=5, cell=1, probe="stages"), [registry.probe("stages")], seen)
    assert (row.status, row.reason, row.probe, row.swept) == ("ok", "", "stages", 0)
    assert set(seen) == {"latency", "stages"}
    return row, seen["stages"]


def check_chain(requests, names):
    """All have these moments, in this order in time, so that no stage is negative and all add up to the whole."""
    assert 30 < len(requests) <= 300
    for one in requests:
        times = analysis.moments(one)
        assert list(times) == names
        assert list(times.values()) == sorted(times.values())
        assert sum(analysis.durations(one).values()) == times[names[-1]] - times[names[0]]


@pytest.mark.processes
@pytest.mark.parametrize("data", ["posix_shm", "fifo", "sendfile", "handoff", "memfd"])
def test_the_stages_of_a_request_follow_each_other_through_proxy_and_cache_and_add_up_to_all_of_its_time(base, data):
    row, requests = noted(replace(SMALL, data=data))
    check_chain(requests, CHAIN)
    whole = [one.closed_ns - one.accepted_ns for one in requests]
    assert max(whole) < row.measured_s * 1e9
    for one in requests:  # two clients ask, each for one file at a time
        assert sum(other.accepted_ns <= one.accepted_ns < other.taken_ns for other in requests) <= 2
    for one in requests:
        assert one.answered_ns >= one.published_ns
        assert one.proxy_pid != one.cache_pid
    assert len({one.request for one in requests}) == len(requests)
    spreads = analysis.spreads(requests)
    assert list(spreads) == [*CHAIN[1:], analysis.WHOLE]
    means = [spread.mean for name, spread in spreads.items() if name != analysis.WHOLE]
    assert sum(means) == pytest.approx(spreads[analysis.WHOLE].mean)
    assert all(one.low <= one.median <= one.high for one in spreads.values())


@pytest.mark.processes
@pytest.mark.parametrize(
    ("data", "lanes", "batch"), [("posix_shm", 2, 1), ("posix_shm", 8, 4), ("sendfile", 2, 1), ("handoff", 2, 1)]
)
def test_lanes_alone_have_the_stages_from_command_to_content(base, data, lanes, batch):
    spec = replace(SMALL, scope="lane", data=data, lanes=lanes, batch=batch)
    check_chain(noted(spec)[1], IN_LANE)


@pytest.mark.processes
def test_a_proxy_without_a_cache_has_the_stages_of_its_own(base):
    requests = noted(replace(SMALL, source="direct"))[1]
    check_chain(requests, ["accepted", "read", "delivered", "closed"])
    assert {(one.cache_pid, one.answered_ns) for one in requests} == {(0, 0)}


@pytest.mark.processes
def test_a_reply_in_many_pieces_is_delivered_with_its_last_one(base):
    spec = replace(SMALL, files=str(1 << 20), chunk=1 << 16, requests=100)
    requests = noted(replace(spec, clients=1))[1]
    check_chain(requests, CHAIN)
    # The cache publishes the last piece before the proxy has it, and asks for the next command after that.
    assert all(one.answered_ns > one.taken_ns for one in requests)


@pytest.mark.processes
def test_a_long_load_is_sampled_evenly_and_by_proxy_and_cache_alike(base):
    spec = replace(SMALL, requests=3000, proxy_threads=1, cache_threads=1, clients=1, lanes=1, warmup=0.01)
    row, requests = noted(spec)
    check_chain(requests, CHAIN)
    numbers = sorted(one.request for one in requests)
    assert row.requests_ended == 3000 > 2 * stages._ROOM
    assert max(after - before for before, after in pairwise([numbers[-1] - 3000, *numbers])) < 400


@pytest.mark.processes
def test_programs_that_are_not_asked_note_nothing_replace_nothing_and_load_no_server():
    script = (
        "import sys\nfrom harness import registry\nfrom harness.pipeline import stages\n"
        "assert 'harness.pipeline.gfserver' not in sys.modules\n"
        "build = registry.data_transport\nassert stages.begin() is None and registry.data_transport is build\n"
        "transport = registry.data_transport('posix_shm')\nassert 'sender' not in vars(transport)"
    )
    environment = {name: value for name, value in os.environ.items() if name != stages.VARIABLE}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)


def test_rows_that_a_thread_has_no_room_for_are_those_of_a_sample_that_only_their_numbers_decide(tmp_path):
    rows = [[number, zlib.crc32(b"%d" % number), *range(1, 11)] for number in range(1, 5001)]
    kept = {}
    for name, some in (("1-1", rows), ("1-2", rows[::2])):
        one = stages._Kept(f"{tmp_path}/{name}")
        for row in some:
            one.keep(row)
            one.keep(row)  # once more, with what has come since
        kept[name] = {row.request for row in stages.read(str(tmp_path)) if f"{row.pid}-{row.thread}" == name}
        assert 256 < len(kept[name]) <= 1024
    assert kept["1-1"] & {row[0] for row in rows[::2]} <= kept["1-2"]


def test_a_probe_whose_programs_noted_nothing_says_so(tmp_path):
    probe = registry.probe("stages")
    assert probe.environment(str(tmp_path)) == {stages.VARIABLE: str(tmp_path)}
    probe.begin({}, str(tmp_path))
    with pytest.raises(OSError, match="noted no whole request"):
        probe.end()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The files of a run of two probed cells, from real trials: a request over sendfile, and batches over a lane."""
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="th-test-", dir="/tmp") as base:
        patch.setenv("TRANSPORT_HARNESS_DIR", base)  # short, as it goes into the names of sockets
        cells = [replace(SMALL, data="sendfile"), replace(SMALL, scope="lane", lanes=8, batch=4)]
        for number, spec in enumerate(cells, 1):
            seen = {}
            row = results.Trial(experiment="traced", trial=number, cell=number)
            apart.run(spec, row, [registry.probe("stages")], seen)
            results.append(f"{place}/{results.TRIALS}", row)
            results.append(f"{place}/{results.STAGES}", *seen["stages"])
    return str(place)


def balanced(events):
    """Whether slices, as (begin, end) in ns, nest: two that overlap lie one in the other."""
    open_ends = []
    for begin, end in sorted(events, key=lambda one: (one[0], -one[1])):
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        if open_ends and end > open_ends[-1]:
            return False
        open_ends.append(end)
    return True


@pytest.mark.processes
def test_the_trace_is_one_that_chrome_and_perfetto_read(run, capsys):
    assert trace.main([run]) == 0
    assert capsys.readouterr().out == f"{run}/trace.json\n"
    with open(f"{run}/trace.json") as file:
        text = json.load(file)
    assert text["displayTimeUnit"] == "ns"
    events = text["traceEvents"]
    assert {one["ph"] for one in events} == set("MXbesf")
    for one in events:
        assert {"ph", "name", "pid", "tid"} <= one.keys()
        assert isinstance(one["pid"], int)
        if one["ph"] != "M":
            assert one["cat"] == "request"
            assert one["ts"] > 0
        assert (one["ph"] in "sf") == ("id" in one)
        assert (one["ph"] in "be") == ("id2" in one)
        assert (one["ph"] == "X") == ("dur" in one)
    names = {one["pid"]: one["args"]["name"] for one in events if one["name"] == "process_name"}
    assert Counter(name.rpartition(": ")[2] for name in names.values()) == {"proxy": 2, "cache": 2}
    assert sum("sendfile" in name for name in names.values()) == 2
    threads = {(one["pid"], one["tid"]) for one in events if one["name"] == "thread_name"}
    assert {(one["pid"], one["tid"]) for one in events if one["ph"] in "Xsf"} <= threads


@pytest.mark.processes
def test_slices_of_a_thread_and_stages_of_a_request_nest_and_arrows_begin_and_end_in_slices(run):
    events = trace.of_run(run)["traceEvents"]
    by_thread, stacks, opened = defaultdict(list), defaultdict(list), Counter()
    for one in events:
        where = one["pid"], one["tid"]
        if one["ph"] == "X":
            begin = round(one["ts"] * 1000)
            by_thread[where].append((begin, begin + round(one["dur"] * 1000)))
        elif one["ph"] == "b":
            stacks[one["id2"]["local"]].append((one["name"], one["ts"]))
            opened[one["id2"]["local"]] += 1
        elif one["ph"] == "e":
            name, begin = stacks[one["id2"]["local"]].pop()
            assert name == one["name"]
            assert begin <= one["ts"]
    assert not any(stacks.values())
    assert set(opened.values()) == {len(CHAIN), len(IN_LANE)}  # the request, and what follows its first moment
    assert all(balanced(slices) for slices in by_thread.values())
    arrows = [one for one in events if one["ph"] in "sf"]
    assert arrows
    for one in arrows:
        at = round(one["ts"] * 1000)
        assert any(begin <= at <= end for begin, end in by_thread[one["pid"], one["tid"]])
    starts = {one["id"]: one for one in arrows if one["ph"] == "s"}
    for one in arrows:
        if one["ph"] == "f":
            assert starts[one["id"]]["ts"] <= one["ts"]
            assert starts[one["id"]]["pid"] != one["pid"]


@pytest.mark.processes
def test_a_trace_can_be_of_one_cell_and_of_a_run_without_stages_there_is_none(run, tmp_path, capsys):
    assert trace.main([run, "--cell", "1", "-o", str(tmp_path / "one.json")]) == 0
    one = json.loads((tmp_path / "one.json").read_text())["traceEvents"]
    assert 0 < len(one) < len(trace.of_run(run)["traceEvents"])
    assert trace.main([run, "--cell", "9", "-o", str(tmp_path / "none.json")]) == 2
    results.append(f"{tmp_path}/{results.TRIALS}", results.Trial())
    assert trace.main([str(tmp_path)]) == 2
    assert not (tmp_path / "none.json").exists()
    complaints = capsys.readouterr().err.splitlines()
    assert complaints[0].endswith("has no request of cell 9")
    assert "stages.csv" in complaints[1]


def test_a_request_that_failed_before_it_had_a_lane_is_left_out_of_the_stages_of_the_others():
    times = {f"{name}_ns": 1000 * place for place, name in enumerate(CHAIN, 1)}
    good = [results.Request(trial=1, request=number, **times) for number in range(3)]
    failed = results.Request(trial=1, request=3, accepted_ns=1000, read_ns=2000, closed_ns=9_000_000)
    silent = results.Request(trial=1, request=4, accepted_ns=1000)
    alone = analysis.spreads(good)
    assert analysis.spreads([failed, *good]) == analysis.spreads([*good, failed]) == alone
    assert analysis.spreads([silent, silent, silent, silent, *good]) == alone
    assert analysis.spreads([silent]) == analysis.spreads([]) == {}
    assert list(analysis.spreads([failed])) == ["read", "closed", analysis.WHOLE]


def test_moments_are_columns_of_the_table_in_their_order():
    columns = [name.removesuffix("_ns") for name in results.Request.__dataclass_fields__]
    assert columns == ["trial", *Moments._fields]
    assert columns[6:-1] == CHAIN


STUDY = """\
design: apart
factors:
  data: [posix_shm]
settings:
  {files: 1KiB, clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2, warmup: 20ms,
   requests: 300}
repeats: 1
probes: [stages]
"""


@pytest.mark.processes
def test_a_study_that_asks_for_stages_keeps_them_prints_them_and_draws_them(base, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    out = tmp_path / "out"
    process = start_run(str(tmp_path / "study.yaml"), "-o", str(out), "--beside", "--quiet", "0")
    printed, errors = process.communicate(timeout=110)
    assert process.returncode == 0, errors
    timed, probed = results.read(f"{out}/{results.TRIALS}")
    assert (timed.probe, probed.probe) == ("", "stages")
    kept = list(results.read_requests(f"{out}/{results.STAGES}"))
    assert {one.trial for one in kept} == {probed.trial}
    check_chain(kept, CHAIN)
    assert re.search(r"^ *first piece published +\d+\.\d \(\d+\.\d to \d+\.\d\) *$", printed, re.MULTILINE)
    assert 'id="figure-stages"' in (out / "report.html").read_text()
    package = json.loads((out / results.DATAPACKAGE).read_text())
    fields = next(one["schema"]["fields"] for one in package["resources"] if one["path"] == results.STAGES)
    assert [one["name"] for one in fields] == list(results.Request.__dataclass_fields__)
