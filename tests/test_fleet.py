"""`harness fleet`: who may take part, what is kept, what is done again, and real Dask workers on this machine."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec

import pytest
from support import fleets
from support.fleet_hosts import Engine, Host
from support.programs import eventually
from test_wheel import NOT_SOURCE, ROOT, build

from harness import cli, machine, results
from harness.analysis import run_files
from harness.analysis.cells import PROVENANCE
from harness.contents import contents
from harness.experiment import planner, run
from harness.experiment.run_directory import RunDirectory
from harness.fleet import alike, fleet_command, hosts_file
from harness.fleet.coordinator import Bounds, Coordinator
from harness.fleet.fleet_directory import FleetDirectory
from harness.fleet.fleet_progress import lines
from harness.fleet.host import part
from harness.fleet.pooled import Pooled

STUDY = """\
factors:
  data: [posix_shm, fifo]
settings:
  {clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2, warmup: 20ms, timeout: 5s}
slices: {rounds: 3, window: 5ms, lead_in: 2ms}
repeats: 3
"""
BOUNDS = Bounds(silent=5.0, comeback=20.0, patience=0.0, quiet=0.0)
needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="pip install '.[fleet]' for real workers")


# --- who may take part ---


def facts(
    kernel="6.1", model="CPU", python="3.11", harness="aaa", plugins=(), cpus=2, commit="", version="0.1.0", boot=""
):
    software = {"python": python, "commit": commit}
    kernel_facts = {"release": kernel, "boot_id": boot}
    machine = {"cpu": {"model": model, "usable": cpus}, "kernel": kernel_facts, "software": software}
    code = {f"transport-harness {version}": harness, **dict(plugins)}
    return {"machine": machine, "code": code, "findings": ["CPUs: few"]}


def test_hosts_of_other_kernels_may_each_measure_a_study_but_not_share_one():
    hosts = {"a": facts(), "b": facts(), "c": facts(kernel="6.8")}
    assert alike.refused(hosts, "each", facts()) == {}
    assert alike.refused(hosts, "share", facts()) == {"c": "kernel is 6.8, on a, b 6.1"}


def test_hosts_that_share_a_study_are_alike_in_all_that_separates_contexts():
    others = {
        "cpu": facts(model="X"),
        "cpus": facts(cpus=4),
        "kernel": facts(kernel="6.8"),
        "python": facts(python="3.12"),
        "harness": facts(version="0.2.0"),
        "commit": facts(commit="f00"),
        "code": facts(harness="bbb"),
    }
    assert others.keys() == {*PROVENANCE} - {"host"}
    for column, other in others.items():
        assert alike.traits(other, "share") != alike.traits(facts(), "share"), column


def test_workers_of_one_boot_are_one_machine():
    hosts = {"a": facts(boot="x"), "b": facts(boot="y"), "c": facts(boot="x"), "d": facts()}
    assert alike.same_machine(hosts) == [["a", "c"]]
    assert "a, c are one machine" in alike.table([*hosts], hosts, {})
    assert "one machine" not in alike.table([*hosts], hosts, {"c": "it is odd"})


@pytest.mark.processes
def test_a_worker_of_another_kernel_under_the_name_of_a_host_measures_nothing():
    now = alike.traits({"machine": machine.facts(), "code": contents()}, "share")
    with pytest.raises(ValueError, match=r"not the host that the run began with: kernel was 2\.4 and is "):
        part({"traits": {**now, "kernel": "2.4"}})


def test_a_host_with_another_version_of_a_plugin_is_refused_and_both_are_named():
    hosts = {"a": facts(plugins={"zmq 1": "x"}), "b": facts(plugins={"zmq 1": "x"}), "c": facts(plugins={"zmq 2": "y"})}
    assert alike.refused(hosts, "each", facts()) == {"c": "zmq is 2, code y, on a, b 1, code x"}
    hosts["d"] = facts()
    assert alike.refused(hosts, "each", facts())["d"] == "zmq is not installed, on a, b 1, code x"


def test_a_host_with_another_harness_than_the_coordinator_is_refused_even_where_most_have_it():
    hosts = {"a": facts(), "b": facts(harness="bbb"), "c": facts(harness="bbb")}
    assert alike.refused(hosts, "each", facts()).keys() == {"b", "c"}
    assert "here it is 0.1.0, code aaa" in alike.refused(hosts, "each", facts())["b"]


def test_where_no_kind_of_host_is_the_most_frequent_nothing_runs_and_the_differences_are_said():
    with pytest.raises(ValueError, match=r"b: kernel is 6\.8, on a 6\.1; processor is X, on a CPU"):
        alike.refused({"a": facts(), "b": facts(kernel="6.8", model="X")}, "share", facts())


def test_the_table_says_who_takes_part_and_why_others_do_not():
    text = alike.table(["a", "b", "c"], {"a": facts(), "b": facts(kernel="6.8")}, {"b": "kernel", "c": "no answer"})
    assert [line.split()[:2] for line in text.splitlines()[1:4]] == [["a", "yes"], ["b", "no"], ["c", "no"]]
    assert "c is refused: no answer" in text
    assert "a: `harness doctor` there has to say something on: CPUs" in text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("- {name: a}", "host 1: address: Field required"),
        ("- {address: x, name: ../a}", "host 1: name"),
        ("- {address: x, port: 1}", "host 1: port"),
        ("- {address: x}\n- {address: x}", "two hosts of the name x"),
        ("- {address: '::1'}", "host 1: its address makes no name"),
        ("a: b", "a list of hosts is expected"),
        ("[", "not YAML"),
    ],
)
def test_a_mistake_in_a_file_of_hosts_is_one_line(tmp_path, text, wrong):
    (tmp_path / "hosts.yaml").write_text(text)
    with pytest.raises(ValueError, match=wrong) as caught:
        hosts_file.read(str(tmp_path / "hosts.yaml"))
    assert "\n" not in str(caught.value)


# --- what is kept, and what is done again: hosts that hand back rows ---


@pytest.fixture
def begun(tmp_path):
    """Begins a run on hosts that hand back rows: begun(names, mode, blocks) -> engine, coordinator."""
    (tmp_path / "study.yaml").write_text(STUDY)

    def begin(names="abc", mode="each", blocks=3):
        plan = planner.load_plan(str(tmp_path / "study.yaml")).repeated(blocks)
        engine = Engine({name: Host(blocks=blocks) for name in names})
        directory = FleetDirectory.create(str(tmp_path / "out"), plan, mode, list(names), {}, {})
        pythons = dict.fromkeys(names, "python3")
        return engine, Coordinator(engine, directory, plan, pythons, BOUNDS, clock=engine.clock)

    return begin


def resumed(engine, path):
    directory, plan = FleetDirectory.reopen(str(path))
    return Coordinator(engine, directory, plan, dict.fromkeys(engine.hosts, "python3"), BOUNDS, clock=engine.clock)


def kept(path):
    """Host -> its rows, each of which has its slices once."""
    found = {}
    for host in sorted(os.listdir(path / "hosts")):
        rows = found[host] = list(results.read(str(path / "hosts" / host / "trials.csv")))
        with open(path / "hosts" / host / "slices.csv") as file:
            slices = list(csv.DictReader(file))
        assert Counter(int(row["trial"]) for row in slices) == {row.trial: row.rounds for row in rows}
        assert {row["host"] for row in slices} == {host}
    return found


def test_each_host_has_all_blocks_under_its_own_name(begun, tmp_path):
    engine, fleet = begun()
    assert fleet.run()
    found = kept(tmp_path / "out")
    assert {host: [row.block for row in rows] for host, rows in found.items()} == {
        host: [1, 1, 2, 2, 3, 3] for host in "abc"
    }
    assert {row.host for row in found["b"]} == {"b"}
    assert max(Counter(host for host, _ in engine.asked).values()) == 3
    assert json.loads((tmp_path / "out/fleet.json").read_text())["hosts"] == ["a", "b", "c"]


def test_shared_blocks_are_dealt_once_each(begun, tmp_path):
    _, fleet = begun(mode="share", blocks=7)
    assert fleet.run()
    rows = [row for some in kept(tmp_path / "out").values() for row in some]
    assert Counter(row.block for row in rows) == dict.fromkeys(range(1, 8), 2)
    assert len({row.trial for row in rows}) == 14


def test_a_block_whose_host_is_lost_goes_to_another_one_and_is_kept_once_when_the_host_is_back(begun, tmp_path):
    engine, fleet = begun("ab", "share", blocks=6)
    engine.gone.add("a")
    real = engine.answers

    def answers(bound):
        if engine.now == 3:
            engine.gone.clear()
        if engine.now == 5:  # a has measured its block, and is lost before it answers
            engine.hosts["a"].measure(engine.sent["a"]["block"])
            engine.workers["a"] += 1
        return real(bound) if engine.now != 5 else [one for one in real(bound) if one.host != "a"]

    engine.answers = answers
    assert fleet.run()
    rows = [row for some in kept(tmp_path / "out").values() for row in some]
    assert Counter(row.block for row in rows) == dict.fromkeys(range(1, 7), 2)


def test_a_block_that_two_hosts_have_measured_is_kept_of_the_first_that_answers(begun, tmp_path):
    engine, fleet = begun("ab", "share", blocks=2)
    for host in engine.hosts.values():
        host.measure(2)  # for a coordinator that was killed
    assert fleet.run()
    rows = [row for some in kept(tmp_path / "out").values() for row in some]
    assert Counter(row.block for row in rows) == {1: 2, 2: 2}


def test_a_host_that_is_gone_is_waited_for_and_then_missing(begun, tmp_path, capfd):
    engine, fleet = begun("ab")
    engine.gone.add("b")
    assert not fleet.run()
    assert engine.now > BOUNDS.comeback
    assert "b" in engine.revived
    assert json.loads((tmp_path / "out/fleet.json").read_text())["missing"] == {"b": "not there for 20 s"}
    assert kept(tmp_path / "out").keys() == {"a"}
    engine.gone.clear()
    assert resumed(engine, tmp_path / "out").run()
    assert {host: len(rows) for host, rows in kept(tmp_path / "out").items()} == {"a": 6, "b": 6}


def test_a_silent_host_is_dropped_and_its_block_is_done_by_another(begun, tmp_path, capfd):
    engine, fleet = begun("ab", "share", blocks=4)
    engine.silent.add("b")
    assert fleet.run()
    assert kept(tmp_path / "out").keys() == {"a"}
    assert "missing" not in capfd.readouterr().err  # it was not waited for: nothing was left


def test_a_host_that_fails_twice_is_given_up_with_its_reason(begun, tmp_path, capfd):
    engine, fleet = begun("ab")
    engine.hosts["a"].fails.extend(["once"])
    engine.hosts["b"].fails.extend(["no room", "no room"])
    assert not fleet.run()
    assert fleet.directory.fleet["missing"] == {"b": "no room"}
    assert len(kept(tmp_path / "out")["a"]) == 6
    assert "b" not in kept(tmp_path / "out")


def test_rows_that_are_sent_again_after_a_coordinator_was_killed_are_kept_once(begun, tmp_path):
    """It is killed between the tables and the rows of a block, and within a table."""
    engine, fleet = begun("a")
    fleet.run()
    out = tmp_path / "out/hosts/a"
    whole = (out / "trials.csv").read_text().splitlines(keepends=True)
    (out / "trials.csv").write_text("".join(whole[:5]))
    slices = (out / "slices.csv").read_text()
    (out / "slices.csv").write_text(slices + slices.splitlines()[-1][:5])
    assert resumed(engine, tmp_path / "out").run()
    assert (out / "trials.csv").read_text().splitlines(keepends=True) == whole
    assert len(kept(tmp_path / "out")["a"]) == 6


@pytest.mark.parametrize("left", [None, "", "trial,rou"], ids=["whole", "empty", "torn header"])
def test_tables_that_a_coordinator_left_that_was_killed_before_a_host_had_rows_are_begun_anew(begun, tmp_path, left):
    engine, fleet = begun("a")
    fleet.run()
    out = tmp_path / "out/hosts/a"
    whole = (out / "slices.csv").read_text()
    (out / "trials.csv").unlink()
    if left is not None:
        (out / "slices.csv").write_text(left)
    assert resumed(engine, tmp_path / "out").run()
    assert (out / "slices.csv").read_text() == whole
    assert len(kept(tmp_path / "out")["a"]) == 6


def test_a_second_coordinator_does_not_write_to_the_same_directory(begun, tmp_path):
    engine, fleet = begun("a")
    with pytest.raises(ValueError, match="another `harness fleet run` is at work"):
        FleetDirectory.reopen(str(tmp_path / "out"))
    fleet.run()
    assert resumed(engine, tmp_path / "out").run()


def test_a_host_that_has_measured_all_need_not_be_there_where_a_run_goes_on(begun, tmp_path, capfd):
    engine, fleet = begun("ab")
    engine.gone.add("b")
    assert not fleet.run()
    engine.gone = {"a"}
    begun_again = engine.now
    assert resumed(engine, tmp_path / "out").run()
    assert engine.now < begun_again + BOUNDS.comeback
    assert {host: len(rows) for host, rows in kept(tmp_path / "out").items()} == {"a": 6, "b": 6}


def test_a_host_whose_own_study_is_done_gives_the_block_back_that_it_was_dealt_and_has_not_failed(begun, tmp_path):
    engine, fleet = begun("ab", "share", blocks=6)
    engine.hosts["a"].most = 1
    assert fleet.run()
    assert fleet.directory.fleet["missing"] == {}
    found = kept(tmp_path / "out")
    assert len({row.block for row in found["a"]}) == 1
    assert Counter(row.block for rows in found.values() for row in rows) == dict.fromkeys(range(1, 7), 2)


@pytest.mark.parametrize(
    "wrong",
    [{"../../evil.csv": "trial\n1\n"}, {"trials.csv": "trial,block\n1,1\n"}, {"trials.csv": '"'}],
    ids=["a path", "other columns", "no CSV"],
)
def test_a_host_whose_answer_cannot_be_kept_is_given_up_and_the_others_go_on(begun, tmp_path, capfd, wrong):
    engine, fleet = begun("ab")
    real = engine.hosts["a"].part

    def answers(asked):
        answer = real(asked)
        return {**answer, "tables": answer["tables"] | wrong}

    engine.hosts["a"].part = answers
    assert not fleet.run()
    assert fleet.directory.fleet["missing"].keys() == {"a"}
    assert {host: len(rows) for host, rows in kept(tmp_path / "out").items()} == {"b": 6}
    assert not [*tmp_path.rglob("evil*")]


def test_the_progress_has_a_line_a_host_and_one_for_all(begun):
    engine, fleet = begun("ab")
    engine.gone.add("b")
    fleet.run()
    first, second, last = lines(fleet)
    assert first.split()[:4] == ["a", "done", "3/3", "blocks"]
    assert second.split()[:2] == ["b", "missing"]
    assert last.startswith("2 hosts, 3 blocks")


# --- the command ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["x.yaml"],
        ["--local", "2"],
        ["x.yaml", "--local", "0"],
        ["--resume", "d", "x.yaml"],
        ["x.yaml", "--each", "--share"],
        ["x.yaml", "--local", "1", "--tls-cert", "c"],
    ],
)
def test_wrong_arguments_end_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["fleet", "run", *arguments])
    assert ended.value.code == 2


def test_without_dask_one_line_says_what_to_install(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(fleet_command, "find_spec", lambda name: None)
    assert cli.main(["fleet", "run", "quick", "--local", "2"]) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'transport-harness[fleet]'" in error


def test_trials_apart_are_not_shared(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(fleet_command, "find_spec", lambda name: True)
    study = "".join(line for line in STUDY.splitlines(keepends=True) if not line.startswith("slices"))
    (tmp_path / "study.yaml").write_text(f"{study}design: apart\n")
    assert cli.main(["fleet", "run", str(tmp_path / "study.yaml"), "--local", "2", "--share"]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "trials apart" in error


# --- precision of blocks that are shared ---


def resolved(place, hosts):
    """The widest interval, as a coordinator sees it that goes on. hosts: name -> its blocks of a kept run."""
    fleets.fleet(place, {name: {"blocks": blocks} for name, blocks in hosts.items()}, "share")
    shutil.copy(fleets.KEPT / "experiment.yaml", place)
    about = json.loads((place / "fleet.json").read_text())
    (place / "fleet.json").write_text(json.dumps({**about, "name": "posix-vs-sysv"}))
    return Pooled(*FleetDirectory.reopen(str(place))).widest


def test_two_hosts_with_four_blocks_each_resolve_what_one_with_eight_does(tmp_path):
    one = resolved(tmp_path / "one", {"a": range(1, 9)})
    assert 0 < one < 1
    assert resolved(tmp_path / "two", {"a": range(1, 5), "b": range(5, 9)}) == pytest.approx(one)


def test_a_host_that_is_dealt_a_block_measures_it_however_precise_its_own_blocks_are(tmp_path):
    shutil.copytree(fleets.KEPT, tmp_path / "run")
    directory = RunDirectory(str(tmp_path / "run"))
    plan = replace(planner.load_plan(str(tmp_path / "run/experiment.yaml")), within=100.0, least=8)
    assert run._Run(plan, directory, {}, 0.0, run.Part(1))._precise(8)
    assert not run._Run(plan, directory, {}, 0.0, run.Part(1, 9))._precise(8)


def test_nothing_but_the_engine_of_fleets_imports_dask():
    importing = {
        path.name
        for path in (ROOT / "harness").rglob("*.py")
        if any(line.startswith(("import dask", "from dask", "from distributed", "import distributed"))
               for line in path.read_text().splitlines())
    }  # fmt: skip
    assert importing == {"dask_engine.py", "ssh_workers.py"}


# --- real workers on this machine ---


@pytest.fixture
def fleet(base, tmp_path, monkeypatch):
    """Starts `harness fleet run` with arguments; base: of all workers."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "study.yaml").write_text(STUDY)
    running = []

    def start(*arguments):
        path = tmp_path / f"errors{len(running)}"
        command = [sys.executable, "-m", "harness", "fleet", "run", *map(str, arguments), "--quiet", "0"]
        with open(path, "wb") as errors:
            process = subprocess.Popen(command, stdout=errors, stderr=errors, cwd=tmp_path, start_new_session=True)
        process.said = path.read_text
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
    assert eventually(lambda: not at_work(tmp_path), 60), "a block does not end"


def at_work(home):
    """The processes that have this home: workers, and what they measure with."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if f"HOME={home}".encode() in file.read().split(b"\0") and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def workers():
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"spawn_main" in file.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def check_real(out, blocks):
    for host in ("local-1", "local-2"):
        directory = out / "hosts" / host
        rows, _, slices = run_files.load_run(str(directory))
        assert Counter(row.block for row in rows) == dict.fromkeys(range(1, blocks + 1), 2)
        assert {(row.host, row.status, row.swept) for row in rows} == {(host, "ok", 0)}
        assert len(slices) == 3 * len(rows)
        assert run_files.environment(str(directory))["done"]


@needs_dask
@pytest.mark.processes
@pytest.mark.timeout(300)
def test_two_workers_of_a_machine_that_are_killed_with_their_coordinator_lose_no_row_and_double_none(fleet, tmp_path):
    out = tmp_path / "out"
    trials = out / "hosts/local-1/trials.csv"
    run = fleet("study.yaml", "--local", 2, "-o", "out", "--repeat", 2)
    assert eventually(lambda: run.poll() is not None or trials.exists(), 200), run.said()
    for pid in set(workers()) & set(at_work(tmp_path)):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: "local-1" in run.said().partition("local-1: `")[2], 60), run.said()
    run.kill()
    run.wait()
    run = fleet("--resume", out)
    assert run.wait(200) == 0, run.said()
    check_real(out, 2)
    assert "another study measures" not in run.said()
    assert cli.main(["show", str(out / "hosts/local-1")]) == 0


@needs_dask
@pytest.mark.processes
@pytest.mark.timeout(300)
def test_over_tls_a_wheel_is_installed_on_hosts_and_measures_there(fleet, tmp_path, monkeypatch):
    """Its dependencies are those of this environment: no index is asked."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it makes the certificate")
    certificate = ["-subj", "/CN=fleet", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*made, *certificate], cwd=tmp_path, check=True, capture_output=True)
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=NOT_SOURCE)
    wheel = build(source, tmp_path / "dist")
    borrowed = os.path.dirname(os.path.dirname(pytest.__file__))
    for name, value in {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PYTHONPATH": borrowed}.items():
        monkeypatch.setenv(name, value)
    tls = [
        f"--tls-{name}={tmp_path}/{file}.pem" for name, file in (("ca-file", "cert"), ("cert", "cert"), ("key", "key"))
    ]
    run = fleet("study.yaml", "--local", 1, "--repeat", 1, "-o", "out", "--install", wheel, *tls)
    assert run.wait(200) == 0, run.said()
    noted = json.loads((tmp_path / "out/fleet.json").read_text())
    assert noted["pythons"]["local-1"].startswith(f"{tmp_path}/.cache/transport-harness/fleet/wheels/")
    rows = list(results.read(str(tmp_path / "out/hosts/local-1/trials.csv")))
    assert [row.status for row in rows] == ["ok", "ok"]


@needs_dask
@pytest.mark.processes
@pytest.mark.timeout(300)
def test_workers_of_a_cluster_with_two_versions_of_a_plugin_are_refused_with_what_differs(fleet, tmp_path):
    programs = []
    try:
        file = tmp_path / "scheduler.json"
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--port", "0"]
        programs.append(
            subprocess.Popen([*dask, "--host", "127.0.0.1", "--scheduler-file", str(file)], stderr=subprocess.DEVNULL)
        )
        for name in ("old", "new"):
            site = tmp_path / name
            (site / "swift-1.0.dist-info").mkdir(parents=True)
            (site / "swift.py").write_text(f"WHICH = {name!r}\n")
            metadata = "Metadata-Version: 2.1\nName: swift\nVersion: 1.0\n"
            (site / "swift-1.0.dist-info/METADATA").write_text(metadata)
            (site / "swift-1.0.dist-info/entry_points.txt").write_text("[transport_harness]\nswift = swift\n")
            worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-nanny"]
            worker += ["--nthreads", "1", "--name", name, "--no-dashboard", "--local-directory", str(tmp_path)]
            environment = os.environ | {"PYTHONPATH": str(site)}
            assert eventually(file.exists, 60)
            programs.append(subprocess.Popen(worker, env=environment, stderr=subprocess.DEVNULL))
        assert eventually(lambda: file.read_text().endswith("}"), 10)
        run = fleet("study.yaml", "--scheduler", json.loads(file.read_text())["address"], "--workers", 2, "-o", "out")
        assert run.wait(200) == 1, run.said()
        assert "no kind is the most frequent" in run.said()
        assert "swift is 1.0, code " in run.said()
        assert not (tmp_path / "out").exists()
    finally:
        for program in reversed(programs):
            program.terminate()
            program.wait(20)
