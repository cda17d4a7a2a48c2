"""What gfclient and lane share: the dialogue with the program that starts them, their progress, their result."""

import json
import os
import select
import subprocess
import sys
import time

import pytest

from harness.load import totals, workload
from harness.load.sinks import Checksum, Compare, Copy, Save, checksums
from harness.load.tally import FAILED, OK, OUTCOMES, Usage, check_all_ok, shared_tallies

RESULT = [
    "requests",
    *OUTCOMES,
    *"seconds requests_per_s content_bytes latency_p50_us latency_p90_us latency_p99_us latency_p99.9_us".split(),
    *"latency_p99.99_us first_byte_p50_us latency_max_us others_p50_us others_max_us".split(),
    *"user_s kernel_s busy switches peak_rss_bytes histogram".split(),
]
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.fixture(params=["gfclient", "lane"])
def program(request, pipeline):
    """The start of a command: one of the programs, over a running pipeline with one file of 7 bytes."""
    file = pipeline.directory / "workload.txt"
    file.write_text(pipeline.write("file", b"content") + "\n")
    pipeline.cache()
    port = ["-p", str(pipeline.proxy().port)] if request.param == "gfclient" else []
    command = [sys.executable, "-m", "harness", request.param, "-w", str(file), "--processes", "1", *port]
    return request.param, command


# The dialogue of --gate


def dialogue(command):
    """Run a program to its end and answer all that it asks: the lines that it printed."""
    with subprocess.Popen(command, text=True, bufsize=1, **PIPES) as process:
        process.stdin.write("go\nend\n")
        lines = process.stdout.read().splitlines()  # standard input is open until then
        assert (process.wait(10), process.stderr.read()) == (0, "")
    return lines


def test_at_the_gate_it_prints_one_json_object_a_line_and_waits_for_an_answer(program):
    name, command = program
    arguments = ["--seconds", "0.3", "--warmup", "0.1", "--gate", "--json"]
    with subprocess.Popen([*command, *arguments], text=True, bufsize=1, **PIPES) as process:
        assert process.stdout.readline() == f'{{"ready": "{name}"}}\n'
        assert not select.select([process.stdout], [], [], 0.5)[0]  # longer than its requests take
        begun = time.monotonic()
        process.stdin.write("go\n")
        assert process.stdout.readline() == '{"done": true}\n'
        assert 0.25 < time.monotonic() - begun < 2
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
            (worker,) = children.read().split()
        # Its threads are still there, for a probe to read.
        assert len(os.listdir(f"/proc/{worker}/task")) == (1 if name == "gfclient" else 3)
        assert not select.select([process.stdout], [], [], 0.1)[0]
        process.stdin.write("end\n")
        result = json.loads(process.stdout.readline())
        assert process.stdout.read() == ""
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    assert list(result) == RESULT  # of both programs
    assert 0.25 < result["seconds"] < 1
    assert result["OK"] == result["requests"] > 0
    assert result["content_bytes"] == 7 * result["requests"]


def test_with_live_it_prints_each_second_what_has_come(program):
    _, command = program
    lines = dialogue([*command, "--seconds", "2.5", "--gate", "--live", "--json"])
    ready, *ticks, done, result = map(json.loads, lines)
    assert (list(ready), done) == (["ready"], {"done": True})
    assert len(ticks) >= 2
    assert all(list(line) == ["tick"] for line in ticks)
    seen = [line["tick"] for line in ticks]
    assert all(list(tick) == ["seconds", "requests", "content_bytes"] for tick in seen)
    assert all(tick["content_bytes"] == 7 * tick["requests"] for tick in seen)
    assert [tick["requests"] for tick in seen] == sorted({tick["requests"] for tick in seen})
    assert [tick["seconds"] for tick in seen] == sorted({tick["seconds"] for tick in seen})
    assert 0 < seen[0]["requests"] < seen[-1]["requests"] <= result["requests"]
    assert 0.5 < seen[0]["seconds"] < seen[-1]["seconds"] < 3


def test_the_result_at_the_gate_is_to_be_read_by_people_without_json(program):
    name, command = program
    ready, done, *text = dialogue([*command, "-r", "3", "--gate"])
    assert (json.loads(ready), json.loads(done)) == ({"ready": name}, {"done": True})
    assert text[0].startswith("3 requests in ")
    assert text[1].startswith("latency of replies OK in us: p50 ")
    assert text[2] == "OK 3  FILE_NOT_FOUND 0  ERROR 0  INVALID 0  short 0  wrong 0  failed 0"


def test_without_a_gate_it_prints_nothing_but_its_result(program):
    _, command = program
    output = subprocess.check_output([*command, "-r", "3", "--warmup", "0.05"], text=True)
    assert output.startswith("3 requests in ")
    assert "{" not in output
    (line,) = subprocess.check_output([*command, "-r", "3", "--json"], text=True).splitlines()
    assert json.loads(line)["OK"] == 3


@pytest.mark.parametrize("begun", [False, True])
def test_it_ends_early_where_the_program_with_the_gate_has_ended(program, begun):
    _, command = program
    with subprocess.Popen([*command, "--seconds", "60", "--gate"], text=True, **PIPES) as process:
        assert list(json.loads(process.stdout.readline())) == ["ready"]
        if begun:
            process.stdin.write("go\n")
        process.stdin.close()
        assert process.wait(10) == 1
        assert "standard input ended before" in process.stderr.read()
        assert process.stdout.read() == ""


@pytest.mark.processes
@pytest.mark.parametrize("name", ["gfclient", "lane"])
def test_live_without_a_gate_is_refused(name):
    command = [sys.executable, "-m", "harness", name, "-w", "workload.txt", "-r", "1", "--live"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].endswith(
        "error: --live needs --gate, which has a program read what this one prints"
    )


# Tallies and what they add up to


def counted(latencies, requests=100):
    """A tally of requests that were all OK and had 3 bytes each."""
    (tally,) = shared_tallies(1, requests)
    tally.begin()
    for latency in latencies:
        tally.add(OK, 3, 0, latency)
    return tally


def test_progress_is_that_of_the_latest_flush_of_each_tally():
    one, other = counted([10, 20]), counted([30])
    one.flush(3_000_000_000)
    other.flush(5_000_000_000)
    one.add(OK, 3, 0, 40)  # not flushed
    assert totals.progress([one, other], 1_000_000_000) == {"seconds": 3.0, "requests": 3, "content_bytes": 9}


def test_the_result_adds_up_all_tallies_and_percentiles_are_exact():
    one, other = counted([1000]), counted([2000])
    one.add(OK, 3, 5000, 8000, 5500)
    other.add(FAILED, 0, 0, 9000, 700)
    one.end(2_000_000_000, Usage(100_000_000, 300_000_000, 5, 100))
    other.end(3_000_000_000, Usage(200_000_000, 1_700_000_000, 7, 50))
    result = totals.summarise([one, other], 1_000_000_000)
    assert {outcome: result[outcome] for outcome in OUTCOMES if result[outcome]} == {"OK": 3, "failed": 1}
    assert (result["requests"], result["content_bytes"], result["seconds"]) == (4, 9, 2.0)
    assert (result["requests_per_s"], result["first_byte_p50_us"]) == (1.5, 0.5)
    assert [result[f"latency_{name}_us"] for name in ("p50", "p90", "max")] == [2.0, 3.0, 3.0]
    assert (result["user_s"], result["kernel_s"], result["switches"]) == (0.3, 2.0, 12)
    assert (result["busy"], result["peak_rss_bytes"]) == (0.95, 150 * 1024)
    assert [count for _, count in result["histogram"]] == [1, 1, 1]


def test_requests_that_all_failed_have_no_rate_and_no_latency(capsys):
    (tally,) = shared_tallies(1, 10)
    tally.begin()
    for ended in range(10):
        tally.add(FAILED, 0, 0, 990 if ended < 6 else 2000)
    tally.end(2_000_000_000, Usage())
    result = totals.summarise([tally], 1_000_000_000)
    assert (result["requests"], result["requests_per_s"], result["latency_p50_us"], result["histogram"]) == (
        10,
        0,
        0,
        [],
    )
    assert totals.print_result(result, False, asked=0.5) == 1
    assert capsys.readouterr().out.splitlines() == [
        "10 requests in 1.000 s: 0 replies OK/s, 0.0 MB/s",
        "latency of replies OK in us: p50 0  p90 0  p99 0  p99.9 0  p99.99 0  max 0",
        "OK 0  FILE_NOT_FOUND 0  ERROR 0  INVALID 0  short 0  wrong 0  failed 10",
        "latency of the others: p50 1  max 2",
    ]


def test_a_tally_that_begins_again_has_forgotten_the_warm_up():
    tally = counted([10, 20, 30])
    tally.add(OK, 3, 0, 40, 5)
    tally.begin()
    tally.add(OK, 7, 0, 40)
    tally.end(2000, Usage())
    result = totals.summarise([tally], 1000)
    assert (result["requests"], result["content_bytes"]) == (1, 7)
    assert (result["latency_max_us"], result["first_byte_p50_us"]) == (0.04, 0.0)


def test_a_warm_up_with_any_reply_that_is_not_ok_is_refused_with_its_counts():
    good, bad = counted([10]), counted([10, 20])
    check_all_ok([good, good], "warm-up")
    bad.add(FAILED, 0, 0, 30)
    with pytest.raises(OSError, match=r"^warm-up: not every reply was OK: 3 OK, 1 failed$"):
        check_all_ok([good, bad], "warm-up")


def test_the_usage_of_two_times_adds_up_and_the_peak_is_the_larger_one():
    assert Usage(1, 2, 3, 90).plus(Usage(10, 20, 30, 80)) == Usage(11, 22, 33, 90)


# Sinks and workloads


def replies(sink, path, pieces, complete=True):
    """Give a sink one reply, as the loader does: whether it was as expected."""
    sink.open(path)
    right = all(sink.write(memoryview(piece)) for piece in pieces)
    return sink.close(complete=complete and right) and right


@pytest.fixture
def files(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    return str(tmp_path)


@pytest.mark.parametrize("kind", ["compare", "checksum"])
def test_a_sink_that_verifies_finds_content_that_is_wrong_short_or_too_long(files, kind):
    sink = Compare(files, Copy()) if kind == "compare" else Checksum(checksums(files, ["/file"]))
    for _ in range(2):
        assert replies(sink, "/file", [b"cont", b"ent"])
        assert not replies(sink, "/file", [b"cont", b"enT"])
        assert not replies(sink, "/file", [b"conten"])
        assert not replies(sink, "/file", [b"content", b"s"])
        assert replies(sink, "/file", [b"cont"], complete=False)  # that it is short is for the loader to report


def test_a_file_is_saved_whole_and_right_or_not_at_all(files, tmp_path):
    sink = Compare(files, Save(f"{files}/kept", "1"))
    assert not replies(sink, "/file", [b"contenT"])
    assert not replies(sink, "/file", [b"conten"])
    assert replies(sink, "/file", [b"con"], complete=False)
    assert os.listdir(tmp_path / "kept") == []
    sink.open("/file")
    sink.write(memoryview(b"content"))
    assert os.listdir(tmp_path / "kept") == ["file.1"]
    assert sink.close(complete=True)
    assert os.listdir(tmp_path / "kept") == ["file"]
    assert (tmp_path / "kept/file").read_bytes() == b"content"


def test_content_larger_than_the_memory_of_copy_is_copied_in_parts():
    sink, content = Copy(), os.urandom((2 << 20) + 5)
    assert replies(sink, "/file", [content])
    assert bytes(sink._memory[:5]) == content[-5:]
    assert bytes(sink._memory[5:]) == content[(1 << 20) + 5 : 2 << 20]


def test_files_apart_must_be_different_and_enough():
    workload.check_apart("w.txt", ["/a", "/b"], 2)
    for paths in (["/a"], ["/a", "/b", "/a"]):
        with pytest.raises(ValueError, match=r"--apart: w\.txt must name 2 different files or more, each once"):
            workload.check_apart("w.txt", paths, 2)
