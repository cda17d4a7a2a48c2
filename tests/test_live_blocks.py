"""Live blocks: what becomes of a block whose programs are killed or stopped, and what its rows are made of."""

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.programs import eventually

from harness import rendezvous
from harness.factors import Spec
from harness.measure import live, live_cell, live_programs, program, servers, starting
from harness.measure.placement import Placement
from harness.measure.probes.proc import state
from harness.measure.slicing import Slicing
from harness.results import Trial

ROUNDS = 5
SLICING = Slicing(lead_in=0.002, window=0.005, rounds=ROUNDS)
SMALL = {
    "clients": 2,
    "client_processes": 1,
    "proxy_processes": 1,
    "cache_processes": 1,
    "lanes": 2,
    "warmup": 0.02,
    "timeout": 1.0,
}
CELLS = [Spec(**SMALL), Spec(data="fifo", **SMALL), Spec(scope="lane", data="unix", **SMALL)]


def members(cells=CELLS, attempt=1):
    return [(cell, Trial(trial=number, cell=number, block=1, attempt=attempt)) for number, cell in enumerate(cells, 1)]


@pytest.fixture
def programs(base, monkeypatch):
    """The programs that a block has started, as (role, program); waits are short."""
    found = []
    begin = program.Program.__init__

    def noting(self, directory, undo, placement, start, role, *arguments):
        begin(self, directory, undo, placement, start, role, *arguments)
        found.append((role, self))

    monkeypatch.setattr(program.Program, "__init__", noting)
    for module, name in ((live_programs, "REQUEST"), (live_cell, "REQUEST"), (starting, "_ANSWER")):
        monkeypatch.setattr(module, name, 1.0)
    for module in (live_programs, servers):
        monkeypatch.setattr(module, "START", 10.0)
    return found


class Blow:
    """Sends a signal to a process of the last program in a role, in the third round: `progress` of a block."""

    def __init__(self, programs, role, index, signal_number):
        self._programs, self._role, self._index = programs, role, index
        self._signal = signal_number

    def __call__(self, number, count):
        if number == 3:
            *_, struck = (one for name, one in self._programs if name == self._role)
            os.kill(struck.pids()[self._index], self._signal)


def check_that_it_failed(outcome, rows, *words, cell):
    assert (outcome.slices, outcome.seen) == ([], {})
    assert [row.status for _, row in rows] == ["failed"] * len(rows)
    (reason,) = {row.reason for _, row in rows}
    assert outcome.guilty == ({cell - 1} if cell else set())
    named, _, reason = reason.partition(": ") if cell else ("", "", reason)
    assert named == (f"cell {cell}" if cell else "")
    found = [reason.find(word) for word in words]
    assert found[0] == 0, reason
    assert found == sorted(found), reason


# The role and the number, among CELLS, of the second of two cells whose program dies, and which of its processes.
KILLED = [
    ("cache", 1, 0, "cache: simplecached was ended by SIGKILL"),
    ("cache", 1, 1, "cache: simplecached", "was ended by SIGKILL"),
    ("proxy", 1, 0, "proxy: webproxy was ended by SIGKILL"),
    ("proxy", 1, 1, "proxy: webproxy", "was ended by SIGKILL"),
    ("proxy", 2, 0, "proxy: lane was ended by SIGKILL"),
    ("proxy", 2, 1, "proxy: lane", "was ended by SIGKILL"),
]


@pytest.mark.parametrize("case", KILLED, ids=lambda case: f"{case[0]}-{case[2]}-{case[1]}")
def test_a_server_that_is_killed_in_the_rounds_fails_the_block_and_is_named(programs, case):
    role, number, index, *words = case
    rows = members([CELLS[0], CELLS[number]])
    outcome = live.run(rows, SLICING, {}, progress=Blow(programs, role, index, signal.SIGKILL))
    check_that_it_failed(outcome, rows, *words, cell=2)


STOPPED = [case for case in KILLED if case[2] or case[0] == "cache"]


@pytest.mark.parametrize("case", STOPPED, ids=lambda case: f"{case[0]}-{case[2]}-{case[1]}")
def test_a_server_that_is_stopped_in_the_rounds_fails_the_block_and_is_named(programs, case):
    role, number, index, words, *_ = case
    rows = members([CELLS[0], CELLS[number]])
    outcome = live.run(rows, SLICING, {}, progress=Blow(programs, role, index, signal.SIGSTOP))
    words = " ".join(words.split()[:2])
    check_that_it_failed(outcome, rows, words, "is stopped, as by SIGSTOP", cell=2)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_client_that_dies_in_the_rounds_is_due_to_the_cell_that_it_loads(programs, index, how):
    rows = members()
    outcome = live.run(rows, SLICING, {}, progress=Blow(programs, "client", index, how))
    (guilty,) = outcome.guilty
    assert guilty in {0, 1}, "the lane has no part in it"
    words = "was ended by SIGKILL" if how == signal.SIGKILL else "is stopped, as by SIGSTOP"
    check_that_it_failed(outcome, rows, "client: gfclient", words, cell=guilty + 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_starter_that_dies_fails_the_block_and_no_cell_is_to_blame(programs, monkeypatch, how):
    started = []
    begin = starting.Starter.__init__

    def noting(self, *arguments):
        begin(self, *arguments)
        started.append(self._process.pid)

    monkeypatch.setattr(starting.Starter, "__init__", noting)
    rows = members(CELLS[:2])
    outcome = live.run(rows, SLICING, {}, progress=lambda number, _: number == 3 and os.kill(started[0], how))
    words = "was ended by SIGKILL" if how == signal.SIGKILL else "is stopped, as by SIGSTOP"
    check_that_it_failed(outcome, rows, "the starter of the programs", words, cell=0)


def test_a_starter_loads_no_plugin_that_its_cells_do_not_need(base, plugins, tmp_path):
    plugins("another", f"open({str(tmp_path / 'loaded')!r}, 'x')")
    arguments = ["lane", "--data", "no-such", "-r", "1", "-w", "/"]
    with contextlib.ExitStack() as undo, open(os.devnull) as null:
        starter = starting.Starter(undo, {("fifo", "unix")})
        for one, loaded in ((["lane", "--help"], False), (arguments, True)):
            log = str(tmp_path / "log")
            wanted = starting.Wanted(
                one, null.fileno(), os.open(log, os.O_RDWR | os.O_CREAT), log, Placement(Spec()), "proxy"
            )
            starter.start(wanted).wait(30)
            assert (tmp_path / "loaded").exists() == loaded, Path(log).read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_program_that_dies_when_the_block_ends_fails_it_all_the_same(programs, monkeypatch, how):
    end = live._Block.end

    def end_badly(self):
        os.kill([one for role, one in programs if role == "cache"][1].pid, how)
        end(self)

    monkeypatch.setattr(live._Block, "end", end_badly)
    rows = members(CELLS[:2])
    outcome = live.run(rows, SLICING, {})
    words = "was ended by SIGKILL" if how == signal.SIGKILL else "is stopped, as by SIGSTOP"
    check_that_it_failed(outcome, rows, "cache: simplecached", words, cell=2)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_block_ends_and_leaves_nothing_whenever_a_program_dies(programs, how):
    chance, seen = random.Random(13), set()
    count = 6 if how == signal.SIGKILL else 2
    for number in range(count):
        programs.clear()
        rows = members(CELLS[:2])
        patience = (number + chance.random()) / count  # in the start, the rounds or the end
        striker = threading.Thread(target=strike, args=(programs, patience, chance, how))
        striker.start()
        outcome = live.run(rows, SLICING, {})
        striker.join()
        statuses = [row.status for _, row in rows]
        seen.update(statuses)
        assert set(statuses) <= {"ok", "failed"}
        assert all(row.reason for _, row in rows if row.status == "failed")
        assert {one.trial for one in outcome.slices} == {row.trial for _, row in rows if row.status == "ok"}
        assert len(outcome.slices) == ROUNDS * statuses.count("ok")
        assert all(state(one.pid) in {"", "Z"} for _, one in programs), "a program runs still"
        assert rendezvous.sweep() == []
    assert "failed" in seen, "no program was struck"


def strike(programs, patience, chance, how):
    """Send a signal to a process of some program, `patience` seconds after the first one was started."""
    eventually(lambda: programs, 20)
    time.sleep(patience)
    with suppress(OSError):  # it may have ended
        os.kill(chance.choice(chance.choice(programs)[1].pids()), how)


def test_a_server_that_dies_at_the_start_is_left_out_and_the_others_go_on(programs, monkeypatch):
    await_ready = servers.Servers.await_ready

    def kill_and_await(self, warmup=0.0):
        if self._spec.data == "fifo":
            os.kill(self.programs["cache"].pid, signal.SIGKILL)
        await_ready(self, warmup)

    monkeypatch.setattr(servers.Servers, "await_ready", kill_and_await)
    rows = members()
    outcome = live.run(rows, SLICING, {})
    assert [row.status for _, row in rows] == ["ok", "failed", "ok"]
    assert rows[1][1].reason.startswith("cache: simplecached was ended by SIGKILL")
    assert outcome.guilty == {1}
    assert {one.trial for one in outcome.slices} == {1, 3}


def test_a_cache_that_dies_once_it_was_ready_is_named_and_not_the_proxy_that_waits_for_it(programs, monkeypatch):
    expect = program.Program.expect

    def kill_when_ready(self, *keys, seconds):
        said = expect(self, *keys, seconds=seconds)
        if self is next(one for role, one in programs if role == "cache"):
            os.kill(self.pid, signal.SIGKILL)
            proxy = next(one for role, one in programs if role == "proxy")
            monkeypatch.setattr(proxy, "expect", lambda *keys, seconds: expect(proxy, "never", seconds=2))
        return said

    monkeypatch.setattr(program.Program, "expect", kill_when_ready)
    rows = members(CELLS[:2])
    live.run(rows, SLICING, {})
    assert rows[0][1].reason.startswith("cache: simplecached was ended by SIGKILL")
    assert "; so proxy: webproxy " in rows[0][1].reason
    assert rows[1][1].status == "ok"


def test_a_client_that_dies_in_the_warm_up_fails_the_block_and_does_not_take_each_cell_along(programs, monkeypatch):
    ask = live_cell.LiveCell.ask

    def kill_and_ask(self, *arguments):
        if self.spec.data == "fifo":
            os.kill(self._load.program.pid, signal.SIGKILL)
        return ask(self, *arguments)

    monkeypatch.setattr(live_cell.LiveCell, "ask", kill_and_ask)
    rows = members()
    outcome = live.run(rows, SLICING, {})
    check_that_it_failed(outcome, rows, "client: gfclient", "was ended by SIGKILL", cell=2)


def test_the_order_in_which_the_programs_of_cells_start_is_drawn_for_each_block(programs, monkeypatch):
    """Else the cell that always starts last may always get the worse CPU where its programs are free to run."""
    started = []
    begin = servers.Servers.__init__

    def noting(self, spec, *arguments, **options):
        started[-1].append(spec.data)
        begin(self, spec, *arguments, **options)

    monkeypatch.setattr(servers.Servers, "__init__", noting)
    for number in range(1, 7):
        started.append([])
        rows = members()
        for _, trial in rows:
            trial.block = number
        live.run(rows, SLICING, {})
    assert all(sorted(order) == sorted(started[0]) for order in started)
    assert len({tuple(order) for order in started}) > 1


def test_the_order_of_a_round_is_drawn_and_cells_under_one_load_follow_each_other():
    specs = [Spec(data=data, clients=clients) for clients in (1, 8) for data in ("posix_shm", "fifo", "unix")]
    cells, draw = [SimpleNamespace(spec=spec) for spec in specs], random.Random(1)
    orders = {tuple(specs.index(cell.spec) for cell in live._drawn(cells, draw)) for _ in range(60)}
    assert all(sorted(order) == [0, 1, 2, 3, 4, 5] for order in orders)
    assert all(len(list(itertools.groupby(order, lambda cell: specs[cell].clients))) == 2 for order in orders)
    assert {order[0] for order in orders} == {order[-1] for order in orders} == {0, 1, 2, 3, 4, 5}
    assert len(orders) > 30, "of 72 that there are"
