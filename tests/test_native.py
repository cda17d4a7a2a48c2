"""The mechanisms in C: right content over each of them, and beside the harness's own in one live block."""

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli, results

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler: on Debian, apt-get install gcc libc6-dev"),
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
    "splice": "splice",
}
SIZES = (0, 1, 64, 4032, 4096, 100_000, 3_000_001)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The directory of the program, built with warnings as errors, and of the two that stand for a Python."""
    place = tmp_path_factory.mktemp("native")
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", place / "native", NATIVE / "native.c", "-pthread"]
    subprocess.run([*command, "-lrt"], check=True)
    for kind in ("bare", "bounded"):
        shutil.copy(NATIVE / kind, place / kind)
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
