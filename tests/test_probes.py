"""Probes: what they report of real processes whose work is known, and how a trial uses them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.programs import eventually

from harness import registry, results
from harness.api import Reading
from harness.factors import Spec
from harness.measure import apart
from harness.measure.probes import perf, proc, syscalls, tools
from harness.measure.probing import ProbeFailed, Probing, disturbance

DOCS = Path(__file__).parent.parent / "docs"
# One file, which the first request of the warm-up opens, however little of it there is on a busy machine.
SHORT = Spec(
    copies=1, clients=2, client_processes=1, proxy_processes=1, cache_processes=1, lanes=1, warmup=0.05, requests=1000
)

WORKER = """
import mmap, os, sys, threading, time
kept = []
def spin(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: sum(range(20000))
def calls(count):
    for _ in range(int(count)): os.getppid()
def read(gib):
    zeros, room = os.open("/dev/zero", os.O_RDONLY), bytearray(1 << 20)
    for _ in range(int(gib * 1024)): os.readv(zeros, [room])
def touch(pages):
    kept.append(mmap.mmap(-1, int(pages) * 4096))
    kept[-1].madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(int(pages)): kept[-1][page * 4096] = 1
def open_files(count):
    kept.extend(os.dup(0) for _ in range(int(count)))
def sleep(count):
    for _ in range(int(count)): time.sleep(0.0002)
def thread(count):
    kept.append(threading.Thread(target=lambda: (sleep(count), done.set(), time.sleep(60)), daemon=True))
    done = threading.Event()
    kept[-1].start()
    done.wait()
for line in sys.stdin:
    what, amount = line.split()
    globals()[what](float(amount))
    print(flush=True)
"""


class Worker:
    def __init__(self, cpus=None):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        if cpus:
            os.sched_setaffinity(self.pid, cpus)
        self.do("spin", 0)  # until it has started

    def begin(self, what, amount):
        self.process.stdin.write(f"{what} {amount}\n")
        self.process.stdin.flush()

    def wait(self):
        assert self.process.stdout.readline() == "\n"

    def do(self, what, amount):
        self.begin(what, amount)
        self.wait()

    def stop(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def worker():
    workers = []

    def start(cpus=None):
        workers.append(Worker(cpus))
        return workers[-1]

    yield start
    for one in workers:
        one.stop()


def seen(probe, processes, directory, body):
    """What a probe reports of the time in which the body runs: (role, metric) to value."""
    probe.begin(processes, str(directory))
    body()
    return {(one.role, one.metric): one.value for one in probe.end()}


def test_the_cpu_time_of_a_role_is_that_of_all_its_processes_in_user_mode_and_in_the_kernel(worker, tmp_path):
    first, second, other = worker(), worker(), worker()
    processes = {"cache": [first.pid, second.pid], "proxy": [other.pid]}

    def body():
        first.do("spin", 0.3)
        second.do("spin", 0.3)
        other.do("read", 20)

    reported = seen(proc.Cpu(), processes, tmp_path, body)
    assert 0.6 < reported["cache", "user_s"] + reported["cache", "kernel_s"] < 0.7
    assert reported["cache", "user_s"] > 2 * reported["cache", "kernel_s"]
    assert reported["proxy", "kernel_s"] > 2 * reported["proxy", "user_s"]


@pytest.mark.processes
def test_the_memory_of_a_process_that_has_ended_is_no_figure_and_no_defect():
    if not (pid := os.fork()):
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is still listed
    try:
        with pytest.raises(ProcessLookupError):
            proc.Memory().begin({"cache": [pid]}, "")
    finally:
        os.waitpid(pid, 0)


def test_page_faults_are_counted_and_so_are_memory_and_descriptors_that_were_not_given_back(worker, tmp_path):
    one = worker()
    os.mkdir(tmp_path / "memory")

    def body():
        one.do("touch", 1000)
        one.do("open_files", 7)

    memory = proc.Memory()
    memory.begin({"cache": [one.pid]}, "")
    reported = seen(proc.Faults(), {"cache": [one.pid]}, tmp_path, body)
    assert 1000 <= reported["cache", "faults"] < 1200
    grown = {reading.metric: reading.value for reading in memory.end()}
    assert abs(grown["rss_growth_bytes"] - 1000 * 4096) < 1e6
    assert grown["fds_growth"] == 7
    assert grown["peak_rss_bytes"] > grown["rss_growth_bytes"]


def test_context_switches_are_those_of_all_threads_also_of_a_new_one(worker, tmp_path):
    one = worker()
    reported = seen(proc.Switches(), {"proxy": [one.pid]}, tmp_path, lambda: one.do("sleep", 200))
    assert 200 <= reported["proxy", "switches"] < 600
    reported = seen(proc.Switches(), {"proxy": [one.pid]}, tmp_path, lambda: one.do("thread", 200))
    assert 200 <= reported["proxy", "switches"] < 600


def test_cpu_time_of_others_is_reported_and_how_long_ours_waited_for_a_cpu(worker, tmp_path):
    cpu = {min(os.sched_getaffinity(0))}
    ours, also_ours, foreign = worker(cpu), worker(cpu), worker()

    def body():
        for one in (ours, also_ours, foreign):
            one.begin("spin", 0.5)
        for one in (ours, also_ours, foreign):
            one.wait()

    reported = seen(proc.Steal(), {"cache": [ours.pid, also_ours.pid]}, tmp_path, body)
    assert reported["", "foreign_cpu_s"] > 0.45
    assert reported["", "run_queue_wait_s"] > 0.45  # each waited for the other
    assert reported["", "steal_s"] >= 0


def tracer_of(pid):
    return re.search(r"TracerPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text())[1]


def usable(probe):
    if why := probe.unusable():
        pytest.skip(why)
    return probe


def test_system_calls_are_counted_by_role_and_the_processes_live_on_untraced(worker, tmp_path):
    one, other = worker(), worker()

    def body():
        assert tracer_of(one.pid) != "0"
        one.do("calls", 1000)
        other.do("thread", 10)

    reported = seen(usable(syscalls.Syscalls()), {"cache": [one.pid], "proxy": [other.pid]}, tmp_path, body)
    assert reported["cache", "calls getppid"] == 1000
    assert 0 <= reported["cache", "seconds getppid"] < 1
    assert ("proxy", "calls getppid") not in reported
    assert reported["proxy", "calls clock_nanosleep"] >= 10
    assert tracer_of(one.pid) == "0"
    one.do("calls", 1)


def test_samples_are_shared_out_among_the_symbols_of_user_mode_and_kernel(worker, tmp_path):
    one, other = worker(), worker()

    def body():
        one.begin("spin", 0.4)
        other.do("read", 30)
        one.wait()

    reported = seen(usable(perf.Perf()), {"cache": [one.pid], "proxy": [other.pid]}, tmp_path, body)
    for role, mode in (("cache", "user"), ("proxy", "kernel")):
        assert reported.pop((role, "samples")) > 50
        shares = {metric: value for (of, metric), value in reported.items() if of == role}
        assert 0 < len(shares) <= 50
        assert 0.9 < sum(shares.values()) <= 1.000001
        assert sum(value for metric, value in shares.items() if metric.startswith(mode)) > 0.5


@pytest.mark.parametrize("kind", [syscalls.Syscalls, perf.Perf])
def test_a_tool_that_does_not_end_is_killed_in_time_and_releases_its_processes(worker, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tools, "_DETACH", 0.5)
    one = worker()
    probe = usable(kind())
    probe.begin({"cache": [one.pid]}, str(tmp_path))
    tool = probe._tools["cache"]._process.pid
    os.kill(tool, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(OSError, match="did not end within"):
        probe.end()
    assert time.monotonic() - begun < 5
    assert not os.path.exists(f"/proc/{tool}")
    one.do("calls", 1)


@pytest.mark.parametrize("kind", [syscalls.Syscalls, perf.Perf])
def test_where_one_role_cannot_be_observed_no_tool_is_left_behind(worker, tmp_path, kind):
    one, gone = worker(), worker()
    gone.stop()
    probe = usable(kind())
    with pytest.raises(OSError, match=r"strace|perf|No such"):
        probe.begin({"cache": [one.pid], "proxy": [gone.pid]}, str(tmp_path))
    assert all(tool._process.returncode is not None for tool in probe._tools.values())
    assert tracer_of(one.pid) == "0"


@pytest.mark.parametrize("kind", [syscalls.Syscalls, perf.Perf])
def test_a_tool_that_is_not_installed_is_reported_with_the_command_that_installs_it(monkeypatch, kind):
    monkeypatch.setenv("PATH", "/nowhere")
    assert re.fullmatch(r"(strace|perf) is not installed; apt-get install .*", kind().unusable())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_refusal_is_reported_with_the_command_that_mends_it(worker):
    one = worker()
    script = (
        "import os, sys; from harness.measure.probes import perf, syscalls; os.setresuid(65534, 65534, 65534)\n"
        f"class Foreign(syscalls.Syscalls):\n  def begin(self, _, room): super().begin({{'': [{one.pid}]}}, room)\n"
        "print(Foreign().unusable()); print(perf.Perf().unusable())"
    )
    reported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    of_strace, of_perf = reported.stdout.splitlines()
    if "not installed" not in of_strace:
        assert re.search(r"attach: .*Operation not permitted; (run as root|sysctl -w )", of_strace)
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 1 and "not installed" not in of_perf:
        assert of_perf.endswith("; sysctl -w kernel.perf_event_paranoid=1")


def run(*probes, spec=SHORT):
    reported = {}
    row = apart.run(spec, results.Trial(trial=3), probes, reported)
    reported.pop("latency", None)  # which is no probe's
    return row, reported


def test_every_trial_has_the_figures_of_its_roles(base):
    row, reported = run()
    assert (row.status, row.reason, row.probe, reported) == ("ok", "", "", {})
    for role in ("client", "proxy", "cache"):
        cpu = getattr(row, f"{role}_user_s") + getattr(row, f"{role}_kernel_s")
        assert 0 < cpu < row.measured_s * row.cpus * 1.5
        assert getattr(row, f"{role}_switches") > 0
        assert getattr(row, f"{role}_peak_rss_bytes") > 1 << 20
    growth = [(row.proxy_fds_growth, row.cache_fds_growth)]
    while growth[-1] != (0, 0) and len(growth) < 3:  # on a busy machine the last connection may close late
        again, _ = run()
        growth.append((again.proxy_fds_growth, again.cache_fds_growth))
    assert growth[-1] == (0, 0), growth
    assert row.cpu_s_per_gib * row.content_bytes / 2**30 == pytest.approx(
        row.cpu_us_per_request * row.requests_ended / 1e6
    )


def test_in_scope_lane_the_client_is_what_reads_from_sockets_and_no_process_counts_twice(base):
    row, _ = run(spec=Spec(**{**vars(SHORT), "scope": "lane"}))
    assert (row.status, row.reason) == ("ok", "")
    assert row.client_user_s + row.client_kernel_s == row.client_switches == row.client_peak_rss_bytes == 0
    assert row.proxy_user_s + row.proxy_kernel_s > 0.01
    assert (row.proxy_fds_growth, row.cache_fds_growth) == (0, 0)  # the lanes still exist when they are observed
    row, reported = run(usable(syscalls.Syscalls()), spec=Spec(**{**vars(SHORT), "scope": "lane", "data": "sendfile"}))
    assert (row.status, row.reason) == ("ok", "")
    calls = {(one.role, one.metric): one.value for one in reported["probes"]}
    assert calls["client", "calls recvfrom"] > 0
    assert calls["proxy", "calls sendfile"] == row.requests_ended > 0


def test_a_trial_of_strace_reports_exactly_the_calls_of_a_request(base):
    row, reported = run(usable(syscalls.Syscalls()))
    assert (row.status, row.reason, row.probe, row.disturbed, row.swept) == ("ok", "", "syscalls", "", 0)
    calls = {(one.role, one.metric): one.value for one in reported["probes"]}
    assert {one.trial for one in reported["probes"]} == {3}
    assert calls["client", "calls connect"] == calls["proxy", "calls accept4"] == row.requests_ended
    assert calls["cache", "calls preadv2"] == row.requests_ended


def test_a_trial_of_perf_reports_its_symbols_in_a_table_of_their_own(base):
    row, reported = run(usable(perf.Perf()))
    assert (row.status, row.reason, row.probe) == ("ok", "", "perf")
    assert list(reported) == ["symbols"]
    assert {one.role for one in reported["symbols"]} == {"client", "proxy", "cache"}


def test_a_trial_that_fails_under_a_costly_probe_leaves_no_tool_behind(base):
    def crash():
        assert eventually(lambda: len(programs("strace")) == 3)
        for pid in programs("simplecached"):
            os.kill(pid, signal.SIGKILL)

    probe = usable(syscalls.Syscalls())
    thread = threading.Thread(target=crash)
    thread.start()
    row, _ = run(probe, spec=Spec(**{**vars(SHORT), "seconds": 2.0, "requests": 0, "timeout": 0.5}))
    thread.join()
    assert row.status == "failed"
    assert programs("strace") == []


def programs(name):
    """The children of this process, zombies too, whose command line has a word."""
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        pids = [int(pid) for pid in children.read().split()]
    found = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just been reaped
            if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def test_two_costly_probes_cannot_share_a_trial(base):
    row, _ = run(syscalls.Syscalls(), perf.Perf())
    assert row.status == "failed"
    assert row.reason == "syscalls and perf: a costly probe needs trials of its own"


class Stranger(proc.Counting):
    name = "stranger"
    readings = (Reading("cache", "faults", -1.0, "1"), Reading("", "requests", 7.0, "1"), Reading("", "new", 2.0, "K"))

    def begin(self, processes, directory):
        assert os.listdir(directory) == []
        assert sorted(processes) == ["cache", "client", "proxy"]

    def end(self):
        return list(self.readings)

    def _read(self, pid):
        return {}


def test_the_readings_of_a_plugin_change_no_column_of_a_built_in_probe(base):
    row, reported = run(Stranger())
    assert row.status == "ok"
    assert row.requests_ended > 0
    assert row.cache_faults >= 0
    assert reported["probes"] == [results.Observation(3, "stranger", *reading) for reading in Stranger.readings]


class BrokenAtBegin(Stranger):
    def begin(self, processes, directory):
        raise RuntimeError("no\nluck")


class BrokenAtEnd(Stranger):
    def end(self):
        raise KeyError("calls")


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (BrokenAtBegin, "probe stranger: RuntimeError: no luck"),
        (BrokenAtEnd, "probe stranger: KeyError: 'calls'"),
    ],
)
def test_a_probe_that_fails_costs_a_timed_trial_nothing_and_fails_one_that_was_run_for_it(base, kind, problem):
    row, reported = run(kind())
    assert (row.status, row.reason, reported) == ("ok", problem, {})
    assert row.cache_switches > 0
    row, _ = run(type("Costly", (kind,), {"costly": True})())
    assert (row.status, row.reason, row.probe) == ("failed", problem, "stranger")


def test_a_trial_without_its_figures_is_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        proc.Cpu().begin({"cache": [2**22 + 1]}, str(tmp_path))
    row = results.Trial()
    probing = Probing(row, (), {})
    gone = {"cache": [2**22 + 1]}
    with pytest.raises(ProbeFailed, match=r"probe memory: .*No such file"), probing.looking(gone, str(tmp_path)):
        raise AssertionError("the load began")


def test_foreign_load_and_steal_disturb_a_trial_from_5_percent_on():
    def row(seconds, **disturbances):
        return results.Trial(measured_s=seconds, cpus=2, **disturbances)

    assert disturbance(row(1.0, steal_s=0.09, foreign_cpu_s=0.09)) == ""
    assert disturbance(row(1.0, steal_s=0.11, foreign_cpu_s=0.12)) == "steal 0.11 s, foreign load 0.12 s"
    assert disturbance(row(0.1, foreign_cpu_s=0.03)) == ""  # as little as cannot be measured


DOCUMENTED = re.search(r"```python\n(.*?)```", (DOCS / "probes.md").read_text(), re.S)[1]


def test_the_probe_of_the_page_is_installed_as_a_plugin_and_reports_of_a_trial(base, plugins):
    plugins("harness_io", DOCUMENTED)
    script = (
        "from harness import registry, results\nfrom harness.factors import Spec\nfrom harness.measure import apart\n"
        "seen = {}\n"
        f"row = apart.run({SHORT!r}, results.Trial(), [registry.probe('io')], seen)\n"
        "reported = {(one.role, one.metric): one.value for one in seen['probes']}\n"
        "print(row.status, row.reason, row.requests_ended * 1024, reported)"
    )
    reported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    status, content, values = re.fullmatch(r"(\w+)  (\d+) (.*)\n", reported.stdout).groups()
    assert status == "ok"
    assert eval(values)["cache", "rchar"] >= int(content)


def test_plugins_lists_the_probes(plugins):
    plugins("harness_io", DOCUMENTED)
    listed = subprocess.check_output([sys.executable, "-m", "harness", "plugins", "--json"], timeout=100)
    probes = {one["name"]: one for one in json.loads(listed)["probes"]}
    assert set(probes) == {"io", *registry.installed().probes}
    assert probes["io"]["distribution"] == "harness_io 1.0"
    assert {name for name, one in probes.items() if one["costly"]} == {"perf", "stages", "syscalls"}
    assert probes["cpu"]["unusable"] == ""


def test_every_built_in_probe_and_every_column_of_theirs_is_on_the_page():
    page = (DOCS / "probes.md").read_text()
    for name in registry.installed().probes:
        assert re.search(rf"^\| `{name}` \|", page, re.M)
    named = re.findall(r"`(\*?\w+)`", "".join(re.findall(r"^\| `\w+` \| (.*?) \|", page, re.M)))
    for column in results.PROBED:
        assert any(column == one or column.endswith(one.lstrip("*")) for one in named), column
