"""The programs in C: right content by each mechanism and by the pipeline, and live blocks beside the harness's own."""

import importlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli, results
from harness.measure import live
from harness.protocol import getfile

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not all(map(shutil.which, ("cc", "make"))), reason="on Debian: apt-get install gcc libc6-dev make"
    ),
    pytest.mark.xdist_group("native"),  # it is compiled once
]
NATIVE = Path(__file__).parent.parent / "benchmarks/native"
COMMANDS = ("posix_mq", "fifo", "unix", "sysv_mq")
MECHANISMS = {
    "posix_shm": "posix_shm:chunk=4096,depth=2",
    "sysv_shm": "sysv_shm",
    "posix_mq": "posix_mq",
    "sysv_mq": "sysv_mq",
    "fifo": "fifo:chunk=262144,pipe_size=65536",
    "unix": "unix:buffer=100000",
    "sendfile": "sendfile",
    "memfd": "memfd",
    "splice": "splice",
}
SIZES = (0, 1, 64, 4032, 4096, 100_000, 3_000_001)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The directory of the programs in C, and of what stands for a Python."""
    place = tmp_path_factory.mktemp("native")
    subprocess.run(["make", "-s", "-C", NATIVE.parent.parent, "native", f"NATIVE_TO={place}"], check=True)
    for kind in ("bare", "bounded", "workers", "load"):
        shutil.copy(NATIVE / "in_c", place / kind)
    return place


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    root = tmp_path_factory.mktemp("content")
    for size in SIZES:
        (root / str(size)).write_bytes(os.urandom(size))
    (root / "workload").write_text("".join(f"/{size}\n" for size in SIZES))
    return root


class Program:
    def __init__(self, *command):
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.greeting = json.loads(self.process.stdout.readline())

    def ask(self, **asked):
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["slice"]

    def end(self):
        _, said = self.process.communicate(timeout=10)
        return self.process.returncode, said


PAIRS = [*itertools.product(["posix_mq"], MECHANISMS), *itertools.product(COMMANDS, ["unix"])]


@pytest.mark.parametrize("kind", ["bare", "bounded"])
@pytest.mark.parametrize(("command", "data"), PAIRS)
def test_each_mechanism_in_c_serves_right_content_in_slices(native, content, kind, command, data):
    meeting = ["--name", f"{os.getpid()}-{kind}-{command}-{data}", "--timeout", 10]
    program = [native / "native", kind]
    cache = Program(*program, "simplecached", "-c", content, "--command", command, *meeting)
    assert cache.greeting == {"ready": "simplecached"}
    load = ["-w", content / "workload", "--verify", content, "--slices"]
    lane = Program(*program, "lane", "--data", MECHANISMS[data], *meeting, *load)
    assert lane.greeting == {"ready": "lane"}
    compared = lane.ask(workload=0, lead_in=0, window=0.3, verify=True)
    measured = lane.ask(workload=0, lead_in=0.002, window=0.005, verify=False)
    assert [lane.end(), cache.end()] == [(0, "")] * 2
    for answer in (compared, measured):
        assert answer["wrong"] == 0
        assert answer["OK"] == answer["all_requests"] >= answer["requests"] > 0
        assert sum(count for _, count in answer["histogram"]) == answer["requests"]
        assert answer["seconds"] > 0
    assert compared["all_requests"] > len(SIZES), "each file was compared"


@pytest.mark.parametrize("data", ["posix_shm", "sendfile"])
def test_wrong_content_in_c_is_seen(native, content, tmp_path, data):
    other = tmp_path / "other"
    shutil.copytree(content, other)
    (other / "100000").write_bytes(bytes(100_000))
    meeting = ["--name", f"{os.getpid()}-wrong-{data}"]
    program = [native / "native", "bounded"]
    cache = Program(*program, "simplecached", "-c", content, *meeting)
    lane = Program(
        *program, "lane", "--data", data, *meeting, "-w", content / "workload", "--verify", other, "--slices"
    )
    answer = lane.ask(workload=0, lead_in=0, window=0.3, verify=True)
    assert answer["wrong"] == sum(
        number % len(SIZES) == SIZES.index(100_000) for number in range(answer["all_requests"])
    )
    assert answer["OK"] == answer["all_requests"] - answer["wrong"] > 0
    assert [lane.end(), cache.end()] == [(0, "")] * 2


def test_a_peer_in_c_that_is_killed_ends_the_bounded_kind_in_time(native, content):
    meeting = ["--name", f"{os.getpid()}-killed", "--timeout", 0.5]
    program = [native / "native", "bounded"]
    cache = Program(*program, "simplecached", "-c", content, *meeting)
    lane = Program(*program, "lane", *meeting, "-w", content / "workload", "--verify", content, "--slices")
    cache.process.kill()
    lane.process.stdin.write('{"workload": 0, "lead_in": 0, "window": 0.02, "verify": false}\n')
    code, said = lane.end()
    assert code == 1
    assert "sem_clockwait: Connection timed out" in said
    cache.end()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "unix:wait=spin"], "unix:wait=spin: there is no option wait"),
        (["--data", "fifo:chunk=64"], "fifo:chunk=64: chunk must be over 64"),
        (["--data", "fifo:chunk=1kb"], "chunk must be a whole number from 1 on, with KiB or MiB"),
        (["--data", "shm_ring"], "no content over shm_ring here"),
        (["-n", 2], "-n 2: not here; there is one worker and one lane"),
        (["--sink", "checksum"], "--sink checksum: not here"),
    ],
)
def test_what_the_programs_in_c_do_not_have_they_refuse(native, content, arguments, message):
    meeting = ["--name", f"{os.getpid()}-refused-{message[:9]}"]
    program = [native / "native", "bare"]
    cache = Program(*program, "simplecached", "-c", content, *meeting)
    command = [*program, "lane", *meeting, *arguments, "-w", content / "workload", "--verify", content, "--slices"]
    refused = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 1
    assert message in refused.stderr
    cache.process.kill()
    cache.end()


class Pipeline:
    """A proxy and a cache in C. port: the proxy's."""

    def __init__(self, native, content, name, *, kind="workers", timeout=10, threads=3):
        meeting = ["--name", f"{os.getpid()}-{name}", "--timeout", timeout, "--until-eof", "--json"]
        program = [native / "pipeline", kind]
        self.cache = Program(*program, "simplecached", "-c", content, "-t", threads, *meeting)
        lanes = ["-n", 2, "--data", "posix_shm:chunk=4096,depth=2"]
        self.proxy = Program(*program, "webproxy", "-p", 0, "-t", threads, *lanes, *meeting)
        self.port = self.proxy.greeting["port"]

    def reply(self, *pieces):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.sendall(piece)
            return b"".join(iter(lambda: client.recv(1 << 16), b""))

    def end(self):
        return [self.proxy.end(), self.cache.end()]


def slices_of(program, content, port, *, root=None, command=(), clients=3):
    """What a client says of one slice that is compared and one that is not."""
    load = ["--copy", "-w", content / "workload", "--verify", root or content, "--slices", "--json"]
    client = Program(*program, "gfclient", *load, *command)
    asked = {"workload": 0, "lead_in": 0.002, "port": port, "clients": clients, "rate": 0, "arrivals": "fixed"}
    answers = [
        client.ask(**asked, window=0.2, verify=True, seed=1),
        client.ask(**asked, window=0.02, verify=False, seed=1),
    ]
    assert client.end() == (0, "")
    return answers


@pytest.mark.parametrize("kind", ["workers", "boss"])
def test_the_pipeline_in_c_speaks_getfile(native, content, kind):
    pipeline = Pipeline(native, content, f"speaks-{kind}", kind=kind)
    for size in SIZES:
        data = (content / str(size)).read_bytes()
        assert pipeline.reply(b"GETFILE GET /%d\r\n\r\n" % size) == getfile.OK_HEADER % size + data
    assert pipeline.reply(b"GETF", b"ILE GET /6", b"4\r\n", b"\r\n").startswith(b"GETFILE OK 64\r\n\r\n")
    assert pipeline.reply(b"GETFILE GET /none\r\n\r\n") == getfile.refusal_header(getfile.FILE_NOT_FOUND)
    too_long = b"/" + b"n" * 500
    assert pipeline.reply(b"GETFILE GET %b\r\n\r\n" % too_long) == getfile.refusal_header(getfile.ERROR)
    for wrong in (
        b"GET / HTTP/1.1",
        b"GETFILE GET no",
        b"GETFILE GET /a b",
        b"GETFILE GET /a\r\nb",
        b"GETFILE GET /" + b"n" * 4083,
    ):
        assert pipeline.reply(wrong) == getfile.refusal_header(getfile.INVALID), wrong
    assert pipeline.end() == [(0, "")] * 2


def test_a_client_that_goes_away_costs_the_pipeline_in_c_nothing(native, content):
    pipeline = Pipeline(native, content, "gone")
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", pipeline.port)) as client:
            client.sendall(b"GETFILE GET /3000001\r\n\r\n")
            client.recv(1)
    assert pipeline.reply(b"GETFILE GET /64\r\n\r\n").endswith((content / "64").read_bytes())
    assert pipeline.end() == [(0, "")] * 2


@pytest.mark.parametrize("client", ["C", "Python"])
def test_the_pipeline_in_c_serves_right_content_under_load_to_both_clients(native, content, client):
    pipeline = Pipeline(native, content, f"load-{client}")
    program = {"C": [native / "gfclient", "load"], "Python": [sys.executable, "-m", "harness"]}[client]
    for answer in slices_of(program, content, pipeline.port, command=["--processes", 1]):
        assert answer["OK"] == answer["all_requests"] >= answer["requests"] > 0
        assert sum(count for _, count in answer["histogram"]) == answer["requests"]
        assert 0 < answer["first_byte_p50_us"] <= answer["latency_p50_us"]
        assert answer["seconds"] > 0
    assert pipeline.end() == [(0, "")] * 2


def test_the_client_in_c_sees_wrong_content_and_missing_files(native, content, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(content, other)
    (other / "100000").write_bytes(bytes(100_000))
    (other / "4096").unlink()
    pipeline = Pipeline(native, other, "wrong")
    compared, _ = slices_of([native / "gfclient", "load"], content, pipeline.port)
    assert compared["wrong"] > 0
    assert compared["FILE_NOT_FOUND"] > 0
    assert compared["OK"] + compared["wrong"] + compared["FILE_NOT_FOUND"] == compared["all_requests"]
    pipeline.end()


def test_the_pipeline_in_c_does_not_wait_for_a_killed_cache(native, content):
    pipeline = Pipeline(native, content, "killed", timeout=0.5)
    pipeline.cache.process.kill()
    assert pipeline.reply(b"GETFILE GET /64\r\n\r\n") == b""
    code, said = pipeline.proxy.end()
    assert (code, said) == (1, "sem_clockwait: Connection timed out\n")
    pipeline.cache.end()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "sendfile"], "content over sendfile: only posix_mq and posix_shm are here"),
        (["--data", "posix_shm:wait=spin"], "there is no option wait"),
        (["--processes", 2], "--processes 2: not here"),
        (["-t", 0], "-t 0: must be a whole number from 1 to 1000"),
    ],
)
def test_what_the_pipeline_in_c_does_not_have_it_refuses(native, arguments, message):
    command = [native / "pipeline", "workers", "webproxy", *arguments]
    refused = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode == 1
    assert message in refused.stderr


def test_the_pipeline_in_c_runs_in_live_blocks_under_a_load_in_c(native, base, tmp_path, monkeypatch):
    monkeypatch.setenv("NATIVE_PYTHON", sys.executable)
    monkeypatch.syspath_prepend(str(NATIVE.parent))
    study = (NATIVE / "pipeline.yaml").read_text()
    settings = study.partition("settings:")[2].partition("baseline:")[0]
    factors = f"  interpreter: [this, {native}/workers]\n  files: [1KiB, 100KiB]\n  placement: same-core\n"
    short = "repeats: 3\nslices: {window: 2ms, lead_in: 1ms, rounds: 4}\n"
    (tmp_path / "pipeline.yaml").write_text(f"factors:\n{factors}settings:{settings}{short}")
    pipeline = importlib.import_module("pipeline")
    monkeypatch.setattr(live, "Clients", live.Clients)  # put back in the end
    pipeline.use_client(native / "load")
    out = tmp_path / "out"
    assert cli.main(["run", str(tmp_path / "pipeline.yaml"), "--quiet", "0", "-o", str(out)]) == 0
    rows = list(results.read(f"{out}/trials.csv"))
    assert {row.status for row in rows} == {"ok"}
    versions = {os.path.basename(row.interpreter): row.version for row in rows}
    assert "Python workers C, gcc" in versions["workers"]
    text = pipeline.written(str(out))
    assert text.count("| harness, `posix_shm` |") == text.count("| C, `posix_shm` |") == 2


def test_both_run_in_one_live_block_and_the_page_says_how_they_compare(native, base, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NATIVE_PYTHON", sys.executable)
    monkeypatch.syspath_prepend(str(NATIVE.parent))
    study = (NATIVE / "validity.yaml").read_text().partition("factors:")
    settings = study[2].partition("settings:")[2].partition("budget:")[0]
    factors = "  data: [unix, posix_shm, splice]\n  files: [64, 64KiB]\n  placement: same-core\n"
    text = f"{study[0]}factors:\n{factors}  interpreter: [this, {native}/bare, {native}/bounded]\nsettings:{settings}"
    (tmp_path / "validity.yaml").write_text(f"{text}repeats: 3\nslices: {{window: 1ms, lead_in: 1ms, rounds: 5}}\n")
    out = tmp_path / "out"
    assert cli.main(["run", str(tmp_path / "validity.yaml"), "--quiet", "0", "-o", str(out)]) == 0
    rows = list(results.read(f"{out}/trials.csv"))
    assert {row.status for row in rows} == {"ok"}
    assert {row.design for row in rows} == {"live"}
    versions = {os.path.basename(row.interpreter): row.version for row in rows}
    assert "Python bounded C, gcc" in versions["bounded"]
    assert "Python bare C, gcc" in versions["bare"]
    validity = importlib.import_module("validity")
    found = validity.tables(str(out))
    assert [table.size for table in found] == [64, 65536]
    assert all(sum(table.agreed.values()) == 3 for table in found)
    for row in found[1].rows:
        assert row.micros["bare"] < row.micros["here"], "what Python takes"
    assert validity.written(str(out)).count("| `splice` |") == 2
