"""Slices of a load: the window that counts, its arithmetic, and the programs that make slice after slice."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.programs import eventually
from support.transports import DATA
from test_lane import SHAPES, SHORT, gone, processes_of

from harness import registry, rendezvous
from harness.load import gfclient, lane
from harness.load.histogram import bucket, upper_bound
from harness.load.slices import (
    Ask,
    ClientAsk,
    open_windows,
    read_ask,
    slice_tallies,
    summarise_slice,
    window,
)
from harness.load.tally import EXACT, FAILED, OK, OUTCOMES, OVER, Usage

ASK = {"workload": 0, "lead_in": 0.003, "window": 0.006, "verify": False}
CLIENT_ASK = {**ASK, "port": 4711, "clients": 4, "rate": 0, "arrivals": "poisson", "seed": 1}
RESULT = [
    *"opened_ns seconds requests content_bytes latency_p50_us first_byte_p50_us histogram busy all_requests".split(),
    *OUTCOMES,
]
TIMES = st.lists(st.integers(0, 60), max_size=12)
TALLIES = slice_tallies(3)  # made once: each has room for many requests


# The window


@given(times=TIMES, closes=st.integers(0, 60))
def test_a_window_opens_at_the_first_end_and_closes_at_the_first_other_one_that_is_late_enough(times, closes):
    opened, closed = window(sorted(times), closes)
    late = sorted(times)[1:]
    assert opened == min(times, default=0)
    assert closed == min((time for time in late if time >= closes), default=opened)


@given(period=st.integers(1, 20), phase=st.integers(0, 19), opens=st.integers(0, 100), length=st.integers(0, 100))
def test_where_requests_end_at_equal_distances_the_rate_is_exact_wherever_the_window_lies(period, phase, opens, length):
    ends = [end for end in range(phase, 400, period) if end >= opens]
    opened, closed = window(ends, opens + length)
    requests = sum(opened < end <= closed for end in ends)
    assert requests * period == closed - opened > 0


def counted(ask, *shares):
    """The result of a slice in which requests ended as each tally's share says: (outcome, content, begun, ended)."""
    open_windows(TALLIES)
    tallies = TALLIES[: len(shares)]
    for tally, requests in zip(tallies, shares, strict=True):
        tally.await_window(ask)
        tally.begin()
        for request in requests:
            tally.add(*request)
        tally.end(max((request[3] for request in requests), default=0), Usage())
    return summarise_slice(tallies, ask)


def ask_of(opens, closes, start=0):
    """A slice with these instants, in ns."""
    ask = Ask(0, (opens - start) / 1e9, (closes - opens) / 1e9, verify=False, start_ns=start)
    assert (ask.opens, ask.closes) == (opens, closes)
    return ask


@given(TIMES, st.randoms())
def test_the_order_in_which_ends_are_noticed_makes_no_difference(times, random):
    requests = [(OK, 3, 0, time) for time in times]
    result = counted(ask_of(20, 40), requests)
    random.shuffle(requests)
    assert counted(ask_of(20, 40), requests) == result
    opened, closed = window(sorted(time for time in times if time >= 20), 40)
    counts = [time for time in times if opened < time <= closed]
    assert (result["requests"], result["content_bytes"]) == (len(counts), 3 * len(counts))
    assert result["all_requests"] == result["OK"] == len(times)
    assert result["seconds"] == pytest.approx((closed - opened) / 1e9 if counts else 0)
    assert sum(count for _, count in result["histogram"]) == len(counts)
    assert result["latency_p50_us"] == (sorted(counts)[(len(counts) - 1) // 2] / 1e3 if counts else 0)


def test_the_rate_of_a_slice_is_the_sum_of_the_rates_of_its_tallies():
    one = [(OK, 10, 0, ended) for ended in (100, 200, 300, 400)]  # 3 in 300 ns
    other = [(OK, 10, 300, 310, 305), (OK, 10, 300, 360, 310)]  # 1 in 50 ns
    result = counted(ask_of(100, 350), one, other, [])
    assert result["requests"] == 4
    assert result["requests"] / result["seconds"] == pytest.approx(3e9 / 300 + 1e9 / 50)
    assert (result["content_bytes"], result["all_requests"], result["opened_ns"]) == (40, 6, 100)
    assert result["first_byte_p50_us"] == 0.01
    assert result["histogram"] == [(upper_bound(bucket(ns)), 1) for ns in (60, 200, 300, 400)]
    assert list(result) == RESULT


def test_a_tally_asks_for_requests_until_all_windows_have_closed():
    open_windows(TALLIES)
    for tally in TALLIES[:2]:
        tally.await_window(ask_of(100, 200))
        tally.begin()
    one, other, apart = TALLIES
    apart.await_window(ask_of(100, 200))
    apart.take_no_part()
    indices = one.requests(7)
    assert next(indices) == 7
    one.add(OK, 0, 0, 250)  # opens the window; it is closed by another one only
    assert (one.words[OVER], next(indices)) == (0, 8)
    one.add(OK, 0, 0, 260)
    assert (one.words[OVER], next(indices)) == (1, 9)
    other.add(OK, 0, 0, 150)
    other.add(OK, 0, 0, 200)
    assert list(indices) == []


def test_after_a_failure_from_the_end_of_the_window_on_no_request_is_made():
    open_windows(TALLIES)
    one = TALLIES[0]
    one.await_window(ask_of(100, 200))
    one.begin()
    indices = one.requests(0)
    one.add(FAILED, 0, 0, 50)
    assert next(indices) == 0
    one.add(FAILED, 0, 0, 200)
    assert list(indices) == []
    one.end(200, Usage())
    assert one.words[EXACT] == 0


# What asks for a slice


def encoded(**changes):
    return json.dumps({**CLIENT_ASK, **changes}).encode() + b"\n"


def test_a_slice_begins_when_it_is_asked_for():
    before = time.monotonic_ns()
    ask = read_ask(ClientAsk, encoded(lead_in=0.5, window=1), 1, can_verify=False)
    assert before <= ask.start_ns <= time.monotonic_ns()
    assert (ask.opens - ask.start_ns, ask.closes - ask.opens) == (500_000_000, 1_000_000_000)
    assert (ask.port, ask.clients, ask.rate, ask.arrivals, ask.seed) == (4711, 4, 0, "poisson", 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*CLIENT_ASK]), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*CLIENT_ASK, "start_ns"]), JSON, max_size=2))
def test_any_object_is_a_slice_or_refused(changes):
    try:
        ask = read_ask(ClientAsk, encoded(**changes), 2, can_verify=True)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert {name: getattr(ask, name) for name in CLIENT_ASK} == {**CLIENT_ASK, **changes}
        assert 0 <= ask.workload < 2
        assert ask.opens <= ask.closes
    assert re.fullmatch("a slice: .*|", refusal)  # one line


@given(st.binary(max_size=20))
def test_any_line_that_is_no_object_is_refused(line):
    with pytest.raises(ValueError, match=r"^a slice: the line (is not JSON|must be an object with workload)") as error:
        read_ask(Ask, line, 1, can_verify=True)
    assert "\n" not in str(error.value)


BAD = [
    (b"go", "the line is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (b"{}", "the line must be an object with workload, lead_in, window, verify, port, clients, rate, arrivals, seed"),
    (encoded(more=1), "the line must be an object with workload"),
    (encoded(start_ns=1), "the line must be an object with workload"),
    (encoded(workload=2), "workload must be from 0 to 1"),
    (encoded(workload=True), "workload must be a whole number from 0 on, not true"),
    (encoded(port=0), "port must be from 1 to 65535"),
    (encoded(clients=0), "clients must be from 1 to 1e+06"),
    (encoded(clients=1.0), "clients must be a whole number from 0 on, not 1.0"),
    (encoded(rate=-1), "rate must be a number from 0 on, not -1"),
    (encoded(rate=float("inf")), "rate must be a number from 0 on, not Infinity"),
    (encoded(rate=1e-9), "rate must be from 1e-06 to 1e+09"),
    (encoded(seed=10**300), "seed must be from 0 to 1e+15"),
    (encoded(seed=10**400), "seed must be from 0 to 1e+15"),
    (encoded(window="1"), 'window must be a number from 0 on, not "1"'),
    (encoded(window=1e300), "window must be from 0 to 1e+06"),
    (encoded(arrivals="often"), "arrivals must be poisson or fixed, not often"),
    (encoded(verify=1), "verify must be true or false, not 1"),
    (encoded(verify=True), "verify needs files to compare with: --verify DIR"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_what_is_wrong_with_a_line_is_said(line, message):
    with pytest.raises(ValueError, match=re.escape(f"a slice: {message}")):
        read_ask(ClientAsk, line, 2, can_verify=False)


# The programs


class Sliced:
    """A program that makes slices. ask: what a slice asks for, as far as the call of ask() does not say."""

    def __init__(self, directory, name, ask, workloads, *arguments):
        self._errors = directory / f"{name}-{os.urandom(3).hex()}.err"
        self._ask = ask
        files = []
        for paths in workloads:
            files += ["-w", directory / f"{os.urandom(3).hex()}.txt"]
            files[-1].write_text("\n".join(paths) + "\n")
        with open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(
                list(map(str, [sys.executable, "-m", "harness", name, "--slices", *files, *arguments])),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.pid = self.process.pid
        if not (line := self.process.stdout.readline()):
            raise AssertionError(self.errors)
        assert json.loads(line) == {"ready": name}

    @property
    def errors(self):
        return self._errors.read_text()

    def send(self, **changes):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({**self._ask, **changes}).encode() + b"\n")
            self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        assert line, self.errors
        result = json.loads(line)["slice"]
        assert list(result) == RESULT
        assert result["all_requests"] == sum(result[outcome] for outcome in OUTCOMES) >= result["requests"]
        assert sum(count for _, count in result["histogram"]) == result["requests"]
        assert (result["seconds"] > 0) == (result["requests"] > 0)
        return result

    def ask(self, **changes):
        self.send(**changes)
        return self.answer()

    def end(self, code=0):
        """End its standard input; its exit code and what it said must be those of a good end."""
        self.process.stdin.close()
        assert (self.process.wait(20), self.errors) == (code, "")
        assert self.process.stdout.read() == b""

    def fails(self, message):
        """It ends by itself, without an answer, and says why."""
        assert self.process.wait(20) == 1
        assert message in self.errors
        assert "Traceback" not in self.errors
        assert self.process.stdout.read() == b""

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def starting(directory):
    """A function that starts a program which makes slices: start("gfclient", ask, workloads, *arguments)."""
    programs = []

    def start(*arguments):
        programs.append(Sliced(directory, *arguments))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


@pytest.fixture
def start(pipeline):
    with starting(pipeline.directory) as start:
        yield start


@pytest.fixture
def beside(shared, monkeypatch):
    """start() of programs that meet the cache of several tests."""
    for name, value in shared.environment.items():
        monkeypatch.setenv(name, value)
    with starting(shared.directory) as start:
        yield start


class Server:
    """Answers one GETFILE request after another, each `pause` seconds after it has come. Its own thread.

    answers: how many; then it is silent. change: makes the content what is sent. paths: those that were asked for.
    """

    def __init__(self, content=b"content", pause=0.0, answers=sys.maxsize, change=bytes):
        self._content, self._pause, self._answers, self._change = content, pause, answers, change
        self.paths = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError), contextlib.ExitStack() as silent:
            while True:
                connection, _ = self._listener.accept()
                if len(self.paths) >= self._answers:
                    silent.enter_context(connection)
                    continue
                self.paths.append(connection.recv(4096).decode().split()[2])
                time.sleep(self._pause)
                content = self._change(self._content)
                with connection, contextlib.suppress(ConnectionError):
                    connection.sendall(b"GETFILE OK %d\r\n\r\n%b" % (len(content), content))

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def serve():
    servers = []

    def serve(*arguments, **options):
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def wakes(pid):
    """How often the threads of a program have gone to sleep until now."""
    tasks = [task for process in processes_of(pid) for task in Path(f"/proc/{process}/task").iterdir()]
    return sum(
        int(re.search(r"\nvoluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text())[1]) for task in tasks
    )


def begin(program, **ask):
    """Ask for a slice, and wait until it is under way."""
    before = wakes(program.pid)
    program.send(**ask)
    assert eventually(lambda: wakes(program.pid) > before + 100)


def client(start, port, *arguments, paths=("/file",), **changes):
    return start("gfclient", {**CLIENT_ASK, "port": port, **changes}, [paths], *arguments)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_window_lies_in_a_load_that_runs_before_it_opens_and_after_it_closes(start, serve, processes):
    server = serve(pause=0.003)
    program = client(start, server.port, "--processes", processes)
    for _ in range(5):
        seen, asked = len(server.paths), time.monotonic_ns()
        result = program.ask(lead_in=0.02, window=0.06)
        answered = time.monotonic_ns()
        assert result["opened_ns"] >= asked + 20_000_000
        assert result["OK"] == result["all_requests"] == len(server.paths) - seen
        assert 0 < result["content_bytes"] == 7 * result["requests"]
        assert 1e3 < result["latency_p50_us"] < 1e6
        # The server answers one at a time: when the last window closes, each client but one has a request under way.
        assert result["all_requests"] >= result["requests"] + processes + 3
        if processes == 1:
            closed = result["opened_ns"] + result["seconds"] * 1e9
            assert asked + 80_000_000 <= closed + 1 < answered
            assert result["requests"] / result["seconds"] < 1.5 / 0.003
    program.end()


def test_one_program_makes_slices_of_all_ports_workloads_and_numbers_of_clients_in_turn(start, pipeline):
    workloads = [[pipeline.write("small", os.urandom(100))], [pipeline.write("large", os.urandom(3 << 20))]]
    ports = [pipeline.proxy("--direct", pipeline.files).port for _ in range(2)]
    verifying = ["--discard", "--verify", pipeline.files]
    program = start("gfclient", CLIENT_ASK, workloads, "--processes", 2, *verifying)
    for number in range(12):
        large, clients, verify = number // 2 % 2, (1, 2, 5)[number % 3], number // 4 % 2 == 1
        result = program.ask(
            port=ports[number % 2], workload=large, clients=clients, verify=verify, window=0.04, seed=number
        )
        assert result["OK"] == result["all_requests"] > result["requests"] > 0
        assert result["content_bytes"] == result["requests"] * (3 << 20 if large else 100)
        assert 0 < result["first_byte_p50_us"] <= result["latency_p50_us"]
        assert 0 < result["busy"] <= 1
    program.end()


def test_the_rate_in_the_window_is_that_of_the_slice(start, pipeline):
    path = pipeline.write("file", bytes(1000))
    program = client(start, pipeline.proxy("--direct", pipeline.files).port, "--processes", 1, paths=[path])
    program.ask()
    asked = time.monotonic()
    result = program.ask(lead_in=0.05, window=0.15)
    whole = result["all_requests"] / (time.monotonic() - asked)
    assert 0.5 < result["requests"] / result["seconds"] / whole < 2
    assert 0.5 < result["requests"] / result["all_requests"] < 1
    program.end()


def test_a_slice_goes_on_in_the_workload_where_the_last_one_ended(start, serve):
    server, other = serve(), serve()
    workloads = [["/0", "/1", "/2", "/3", "/4"], ["/a", "/b", "/c"]]
    program = start("gfclient", {**CLIENT_ASK, "port": server.port, "clients": 1}, workloads, "--processes", 1)
    for _ in range(5):
        program.ask(window=0.001)
        program.ask(window=0.001, workload=1, port=other.port)
    assert server.paths == [f"/{number % 5}" for number in range(len(server.paths))]
    assert other.paths == [f"/{'abc'[number % 3]}" for number in range(len(other.paths))]
    program.end()


@pytest.mark.parametrize("clients", [1, 8])
@pytest.mark.parametrize("arrivals", ["fixed", "poisson"])
def test_in_an_open_loop_requests_come_at_their_rate(start, serve, arrivals, clients):
    program = client(start, serve().port, "--processes", 2, rate=400, arrivals=arrivals, clients=clients)
    result = program.ask(lead_in=0.05, window=0.5)
    assert result["OK"] == result["all_requests"] > result["requests"]
    assert 100 < result["requests"] / result["seconds"] < 800
    program.end()


def test_latency_in_an_open_loop_counts_from_when_a_request_was_due(start, serve):
    program = client(start, serve(pause=0.01).port, "--processes", 1, rate=1000, arrivals="fixed", clients=1)
    result = program.ask(lead_in=0.1, window=0.2)
    assert result["latency_p50_us"] > 80_000  # of the wait for the client, which makes 100 a second at most
    assert result["requests"] <= 21
    program.end()


def test_a_slice_that_verifies_finds_wrong_content_and_another_one_drops_it(start, pipeline, serve):
    path = pipeline.write("file", b"content")
    port = serve(change=bytes.upper).port
    program = client(start, port, "--discard", "--verify", pipeline.files, "--processes", 2, paths=[path])
    result = program.ask()
    assert result["OK"] == result["all_requests"] > 0
    result = program.ask(verify=True)
    assert result["wrong"] == result["all_requests"] > 0
    result = program.ask(verify=True, port=serve().port)
    assert result["OK"] == result["all_requests"] > 0
    program.end()


@pytest.mark.parametrize(("processes", "clients"), [(1, 1), (2, 4)])
def test_a_server_that_falls_silent_costs_a_slice_one_timeout(start, serve, processes, clients):
    arguments = ["--processes", processes, "--timeout", 1]
    program = client(start, serve(answers=50).port, *arguments, clients=clients, lead_in=0.01, window=0.02)
    begun, failed = time.monotonic(), 0
    while failed < clients:  # it may fall silent when one process has ended its slice and the other has not
        result = program.ask()
        failed = result["failed"]
    assert failed == clients
    assert result["requests"] <= 50  # those before it fell silent, if it did in the window
    dead = serve(answers=0).port
    result = program.ask(port=dead)
    assert (result["requests"], result["seconds"], result["all_requests"], result["failed"]) == (0, 0, clients, clients)
    assert time.monotonic() - begun < 8
    assert program.ask(port=serve().port)["failed"] == 0
    program.end()


def test_a_server_that_is_killed_in_a_slice_is_counted_as_failed_requests(start, pipeline):
    path = pipeline.write("file", b"content")
    proxy = pipeline.proxy("--direct", pipeline.files)
    program = client(start, proxy.port, "--processes", 2, paths=[path])
    begin(program, rate=400, window=3)  # those that fail come at this rate, too
    proxy.kill_all()
    result = program.answer()
    assert min(result["OK"], result["failed"]) > 0
    assert program.ask()["OK"] == 0
    program.end()


# What both programs do


@pytest.fixture(scope="module")
def port(shared):
    """That of a proxy of several tests; there is one file, of 7 bytes."""
    shared.write("file", b"content")
    shared.cache("--processes", 2)
    return shared.proxy().port


# A client, a lane that is copied from, and one that needs processes which read from sockets.
KINDS = [pytest.param(kind, marks=pytest.mark.xdist_group("slices")) for kind in ("gfclient", "posix_shm", "sendfile")]


@pytest.fixture(params=KINDS)
def program(request, beside, port):
    """A program with two processes, over a running pipeline."""
    if request.param == "gfclient":
        return client(beside, port, "--processes", 2)
    return beside("lane", ASK, [["/file"]], "--data", request.param, "--processes", 2, "-t", 2)


def test_between_slices_none_of_its_threads_wakes(program):
    program.ask()

    def sleeps():
        before = wakes(program.pid)
        time.sleep(0.6)  # longer than any wait that the programs of the harness end to look around
        return wakes(program.pid) == before

    assert eventually(sleeps)
    assert program.ask()["OK"] > 0
    program.end()


def test_it_ends_where_standard_input_ends_in_a_slice(program):
    begin(program, window=60)
    program.process.stdin.close()
    program.fails("standard input ended before all processes could finish its slice")


@pytest.mark.parametrize("asked", [False, True])
def test_it_ends_where_one_of_its_processes_is_killed(program, asked):
    processes = processes_of(program.pid)
    if asked:
        begin(program, window=60)
    os.kill(processes[1], signal.SIGKILL)
    if not asked:
        program.send()
    program.fails("was ended by SIGKILL before it could finish its slice")
    assert eventually(lambda: all(map(gone, processes)), 4)


@pytest.mark.parametrize("asked", [False, True])
def test_its_processes_end_where_it_is_killed(program, asked):
    processes = processes_of(program.pid)
    if asked:
        begin(program, window=60)
    program.process.kill()
    program.process.wait()
    assert eventually(lambda: all(map(gone, processes)), 4)
    rendezvous.sweep()  # what the program would have removed itself


@pytest.mark.parametrize("asked", [False, True])
def test_a_signal_ends_it(program, asked):
    if asked:
        begin(program, window=60)
    program.process.terminate()
    assert (program.process.wait(5), program.errors) == (130, "")


def test_a_line_that_asks_for_no_slice_ends_it_with_one_line(program):
    assert program.ask()["OK"] > 0
    program.process.stdin.write(b"go\n")
    program.process.stdin.flush()
    assert program.process.wait(10) == 2
    (line,) = program.errors.splitlines()
    assert "a slice: the line is not JSON" in line


@pytest.mark.parametrize(
    ("load", "arguments", "message"),
    [
        *((each, ["-r", "1"], "argument -r: not allowed with argument --slices") for each in (gfclient, lane)),
        (gfclient, ["--seconds", "1"], "argument --seconds: not allowed with argument --slices"),
        *((each, ["--gate"], "argument --gate: not allowed with argument --slices") for each in (gfclient, lane)),
        (lane, ["--warmup", "1"], "argument --warmup: not allowed with argument --slices"),
        (lane, ["--apart"], "argument --apart: not allowed with argument --slices"),
        (lane, ["--live"], "argument --live: not allowed with argument --slices"),
        (gfclient, ["-t", "1"], "argument -t: not allowed with argument --slices"),
        (gfclient, ["-p", "0"], "argument -p: not allowed with argument --slices"),
        (gfclient, ["--rate", "1"], "argument --rate: not allowed with argument --slices"),
    ],
)
def test_arguments_for_a_load_that_is_one_whole_are_refused(capsys, load, arguments, message):
    with pytest.raises(SystemExit) as end:
        load.main(["-w", "w.txt", "--slices", *arguments])
    output, errors = capsys.readouterr()
    assert (end.value.code, output) == (2, "")
    assert errors.splitlines()[-1].endswith(f"error: {message}")


@pytest.mark.processes
@pytest.mark.parametrize("name", ["gfclient", "lane"])
def test_without_slices_there_is_one_workload(name):
    command = [sys.executable, "-m", "harness", name, "-w", "a.txt", "-w", "b.txt", "-r", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].endswith("error: several workloads (-w) need --slices")


# The lane


@pytest.mark.xdist_group("lanes in slices")
@pytest.mark.parametrize("data", [*SHAPES, "memfd", "fifo"])
@pytest.mark.parametrize(("processes", "threads"), [(1, 1), (2, 2)])
def test_a_lane_makes_slices_with_right_content(beside, shared, data, processes, threads):
    workloads = [[shared.write("a", bytes(range(100))), shared.write("b", b"")], [shared.write("c", bytes(3 << 20))]]
    needs_a_reader = registry.shape(DATA[data])[1] != "copy"
    shared.cache("--processes", 2)
    arguments = ["--data", data, "--processes", processes, "-t", threads, "--verify", shared.files]
    program = beside("lane", ASK, workloads, *arguments)
    for number in range(4):
        large = number % 2
        result = program.ask(workload=large, window=0.03, verify=number > 1)
        assert result["OK"] == result["all_requests"] > result["requests"] > 0
        if large:
            assert result["content_bytes"] == result["requests"] * (3 << 20)
        else:
            assert 40 < result["content_bytes"] / result["requests"] < 60 or result["requests"] < 20
        assert (result["busy"] > 0) == needs_a_reader
    program.end()


@pytest.mark.xdist_group("lanes in slices")
@pytest.mark.parametrize("data", SHAPES)
def test_a_slice_of_a_lane_that_verifies_finds_one_wrong_byte(beside, shared, tmp_path, data):
    content = bytearray(os.urandom(100_000))
    path = shared.write("changed", content)
    content[77_777] ^= 1
    (tmp_path / "changed").write_bytes(content)
    shared.cache("--processes", 2)
    program = beside("lane", ASK, [[path]], "--data", data, "--verify", tmp_path, "-t", 2)
    for verify in (False, True, False):
        result = program.ask(verify=verify)
        assert result["wrong" if verify else "OK"] == result["all_requests"] > 0
    program.end()


def test_bytes_that_were_not_delivered_in_a_slice_are_missed(start, pipeline, plugins):
    plugins("short", SHORT)
    path = pipeline.write("file", bytes(5000))
    pipeline.cache()
    program = start("lane", ASK, [[path]], "--data", "short")
    program.send()
    program.fails("bytes were reported as delivered to the socket, but")


@pytest.mark.parametrize("data", SHAPES)
def test_a_slice_ends_where_the_cache_is_killed_and_the_next_cache_serves_the_next_slice(start, pipeline, data):
    path = pipeline.write("file", os.urandom(1 << 20))
    cache = pipeline.cache("--processes", 2)
    program = start("lane", ASK, [[path]], "--data", data, "-t", 2, "--timeout", 0.5)
    assert program.ask()["OK"] > 0
    begin(program, window=60)  # which ends where there is no cache any more
    cache.kill_all()
    begun = time.monotonic()
    result = program.answer()
    assert time.monotonic() - begun < 5
    assert min(result["OK"], result["ERROR"]) > 0
    result = program.ask()
    assert result["ERROR"] == result["all_requests"] == 2
    pipeline.cache()
    assert eventually(lambda: program.ask()["OK"] > 0)
    result = program.ask()
    assert result["OK"] == result["all_requests"]
    program.process.stdin.close()
    assert program.process.wait(20) == 0
