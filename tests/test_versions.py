"""Versions as a factor: the programs of a cell run with another Python, and `harness ab` says what that changes."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import studies

import harness
from harness import results
from harness.analysis import naming
from harness.analysis.cells import StudyTrials
from harness.analysis.study import analyse
from harness.experiment import ab, plan, planner
from harness.factors import FACTORS, Spec
from harness.measure import apart, versions
from harness.measure.feasible import refusals
from harness.measure.servers import command_lines
from harness.measure.starting import python

ROOT = Path(harness.__file__).parent.parent
BRIEF = {"clients": 2, "client_processes": 1, "proxy_processes": 1, "cache_processes": 1, "lanes": 2, "warmup": 0.02}
STUDY = """\
factors: {files: 1KiB}
settings: {placement: same-core, clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2,
  warmup: 20ms, seconds: 50ms}
repeats: 3
"""
SLOW = (
    "wire.decode_command(record)\n",
    "wire.decode_command(record)\n        until = time.perf_counter() + 3e-4\n"
    "        while time.perf_counter() < until:\n            pass\n",
)


class Other:
    """A copy of this harness, to be changed, and a Python that imports it: `path`."""

    def __init__(self, directory):
        self.directory, self.path = directory, str(directory / "python")
        for package in ("harness", "transports"):
            # With what was compiled, which stays valid; not with what another process is writing just now.
            shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("*.pyc.*"))
        self.change("harness/__init__.py", (f'"{harness.__version__}"', '"9.9"'))
        self.runs(f'echo "$@" >> {directory}/ran\nPYTHONPATH={directory} exec {sys.executable} "$@"')

    def runs(self, script):
        """Have the Python be this shell script."""
        Path(self.path).write_text(f"#!/bin/sh\n{script}\n")
        os.chmod(self.path, 0o755)

    def change(self, file, *changes):
        text = (self.directory / file).read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (self.directory / file).write_text(text)

    def ran(self):
        """The programs that it was run for."""
        return set(re.findall(r"-m harness (\w+)", (self.directory / "ran").read_text()))


@pytest.fixture
def other(tmp_path):
    (tmp_path / "other").mkdir()
    return Other(tmp_path / "other")


@pytest.fixture(autouse=True)
def unasked():
    """What other tests' interpreters have said is forgotten."""
    versions._known.clear()


def command(*arguments):
    ran = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


# In an experiment file


def test_an_interpreter_is_found_from_the_files_directory_and_its_link_is_kept(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/python").symlink_to(sys.executable)
    (tmp_path / "study.yaml").write_text("factors: {interpreter: [this, venv/python]}\n")
    cells = planner.load_plan(str(tmp_path / "study.yaml")).cells
    assert [cell.interpreter for cell in cells] == ["", f"{tmp_path}/venv/python"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "none: no such file; name a Python"), ("plain", "plain: cannot be executed"), (".", "no such file")],
)
def test_an_interpreter_that_is_none_is_a_mistake_with_a_place(tmp_path, name, message):
    (tmp_path / "plain").write_text("")
    (tmp_path / "study.yaml").write_text(f"factors:\n  interpreter: [this, {name}]\n")
    with pytest.raises(planner.Mistakes) as mistakes:
        planner.load_plan(str(tmp_path / "study.yaml"))
    assert str(mistakes.value).startswith(f"{tmp_path}/study.yaml:2:23: factors.interpreter[1]: ")
    assert message in str(mistakes.value)
    assert "\n" not in str(mistakes.value)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("", "this"),
        ("/srv/other/.venv/bin/python", "../other"),
        ("/home/me/venv/bin/python3.12", "/home/me"),
        ("/srv/here/.venv/bin/python", ".venv/bin/python"),
        ("/opt/python/bin/python3", "/opt/python/bin/python3"),
    ],
)
def test_a_version_has_a_short_name(monkeypatch, path, label):
    monkeypatch.setattr(os, "getcwd", lambda: "/srv/here")
    assert FACTORS["interpreter"].kind.show(path) == label
    assert naming.design({"interpreter": path}) == label


def test_a_version_has_its_own_defaults_and_the_options_that_the_cell_sets():
    def data(**factors):
        line = command_lines(Spec(**factors), "name", "/root")["proxy"]
        return line[line.index("--data") + 1]

    assert data() == "posix_shm"
    assert data(data="posix_shm:wait=spin", depth=3) == "posix_shm:wait=spin,depth=3"
    assert data(data="posix_shm:depth=2", depth=3) == "posix_shm:depth=2"


# What runs


@pytest.mark.parametrize(
    ("factors", "programs"),
    [
        ({}, {"simplecached", "webproxy"}),
        ({"scope": "lane"}, {"simplecached", "lane"}),
        ({"source": "direct"}, {"webproxy"}),
        ({"source": "curl", "origin_server": "own"}, {"origin", "webproxy"}),
    ],
)
def test_all_programs_of_a_cell_but_the_client_are_those_of_its_interpreter(base, other, factors, programs):
    spec = Spec(**{**BRIEF, "seconds": 0.1, "interpreter": other.path, **factors})
    row = apart.run(spec, results.Trial(trial=1, block=1))
    assert (row.status, row.reason, row.swept) == ("ok", "", 0)
    assert other.ran() == programs
    assert row.version == f"transport-harness 9.9, Python {row.python}"
    assert (row.harness, row.interpreter) == (harness.__version__, other.path)


def test_the_row_says_what_a_transport_is_in_the_version_that_ran(base, other):
    other.change("transports/common/ring.py", ("depth: int = 4", "depth: int = 5"))
    rows = [
        apart.run(Spec(**BRIEF, seconds=0.1, **given), results.Trial(trial=1, block=1))
        for given in ({}, {"interpreter": other.path}, {"interpreter": other.path, "depth": 3})
    ]
    assert [(row.status, row.depth_effective) for row in rows] == [("ok", 4), ("ok", 5), ("ok", 3)]
    assert "depth=5" in rows[1].data_effective


@pytest.mark.processes
def test_the_working_directory_does_not_choose_the_version(other, monkeypatch):
    monkeypatch.chdir(other.directory)
    for interpreter in ("", sys.executable):
        line = [*python(interpreter), "-c", "import harness; print(harness.__version__)"]
        assert subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip() == harness.__version__
    monkeypatch.syspath_prepend(str(other.directory))
    assert python() == [sys.executable], "as this process itself, which has it from there"


# What cannot run


def without_json(other):
    other.change("harness/console.py", ('"--json"', '"--jason"'))


def without_the_transport(other):
    other.change("transports/posix_shm.py", ('name = "posix_shm"', 'name = "posix_memory"'))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda other: other.runs("exit 0"), "it answers nothing; it needs Python 3.11 or later with a harness: "),
        (lambda other: other.runs("echo Unknown option: -P >&2; exit 2"), "Unknown option: -P; it needs Python 3.11"),
        (lambda other: other.runs(f'exec {sys.executable} -S "$@"'), "No module named 'harness'; it needs"),
        (lambda other: Path(other.path).write_text("no program"), "it could not be asked what it has: "),
        (without_json, "`harness simplecached` of transport-harness 9.9 has no --json; install a later version there"),
        (without_the_transport, f"install there what brings it here: transport-harness {harness.__version__}"),
    ],
    ids="silent old-python no-harness no-program no-option no-transport".split(),
)
def test_an_interpreter_that_cannot_serve_is_refused_with_what_to_install(tmp_path, other, spoil, reason):
    spoil(other)
    cell = Spec(interpreter=other.path)
    (refused,) = refusals([Spec(source="direct"), cell]).items()
    assert refused[0] == cell
    assert refused[1].startswith(f"interpreter {other.path}: ")
    assert reason in refused[1]
    (tmp_path / "study.yaml").write_text(STUDY)
    code, output, errors = command("ab", other.path, tmp_path / "study.yaml", "-o", tmp_path / "out")
    assert (code, output, errors) == (2, "", f"ab: {refused[1]}\n")


@pytest.mark.processes
def test_an_interpreter_is_asked_once_about_all_cells(other):
    cells = [Spec(interpreter=other.path, data=data) for data in ("posix_shm", "fifo", "unix")]
    assert refusals([*cells, replace(cells[0], source="direct")]) == {}
    assert {versions.version(cell) for cell in cells} == {f"transport-harness 9.9, Python {sys.version.split()[0]}"}
    assert (other.directory / "ran").read_text().count("\n") == 1


# `harness ab`


@pytest.mark.serial
def test_ab_finds_a_version_that_is_slower_and_does_not_go_on_with_one_that_was_changed(base, other, tmp_path):
    other.change("harness/pipeline/simplecached.py", SLOW)
    (tmp_path / "study.yaml").write_text(STUDY)
    out = tmp_path / "out"
    code, output, errors = command("ab", other.path, tmp_path / "study.yaml", "-o", out, "--quiet", 0)
    assert code == 0, errors
    assert f"{other.path}: transport-harness 9.9, Python" in " ".join(output.split())
    rows = list(results.read(str(out / "trials.csv")))
    assert [(row.cell, row.interpreter, row.control) for row in rows[:3]] == [
        (1, "", False),
        (2, "", True),
        (3, other.path, False),
    ]
    found = json.loads(command("show", "--json", out)[1])
    (context,) = found["contexts"]
    (slow,) = [cell for cell in context["cells"] if not cell["baseline"]]
    assert slow["levels"] == {"interpreter": other.path}
    assert slow["ratio"]["high"] < 1
    assert found["control"]["pairs"][0]["label"].startswith("this")
    other.change("harness/__init__.py", ('"9.9"', '"9.10"'))
    code, _, errors = command("run", "--resume", out)
    assert code == 2
    assert errors.count("\n") == 1
    assert f"{other.path} was transport-harness 9.9, Python" in errors


def test_the_study_of_ab_is_a_file_that_can_be_run(other, tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("1KiB", "[1KiB, 64KiB]") + "control: true\nprobes: [syscalls]\n")
    assert ab.main([other.path, str(file), "--yaml", "--repeat", "4"]) == 0
    (tmp_path / "ab.yaml").write_text(capsys.readouterr().out)
    study = planner.load_plan(str(tmp_path / "ab.yaml"))
    assert replace(study, name="study-ab") == ab.against(planner.load_plan(str(file)).repeated(4), other.path)
    assert [(cell.files, cell.interpreter, cell.control) for cell in study.cells] == [
        (files, *version) for files in ("1024", "65536") for version in (("", False), ("", True), (other.path, False))
    ]
    assert (study.repeats, study.baseline, study.probes) == (4, {"interpreter": ""}, ())


def test_ab_says_what_is_no_other_version(tmp_path):
    with pytest.raises(ValueError, match=r"no such file; install that version first: python3 -m venv .*/\.venv && "):
        ab.interpreter_of(str(tmp_path))
    with pytest.raises(ValueError, match="is what runs this: name another version"):
        ab.interpreter_of(sys.executable)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    assert ab.interpreter_of(str(tmp_path)) == f"{tmp_path}/.venv/bin/python"
    with pytest.raises(ValueError, match="sets `interpreter` itself"):
        ab.against(plan.Plan("name", "", (Spec(interpreter="/a"),), 1), "/b")


# In the analysis


def test_versions_of_a_cell_are_rivals_and_no_cell_is_a_floor():
    cells = [
        ({"interpreter": path, "version": version, **where}, speed)
        for where in ({}, {"data": "null"}, {"source": "direct", "command": "", "data": "", "lanes": 0})
        for path, version, speed in (("", "", 1000), ("/b", "two", 500))
    ]
    study = analyse(studies.trials(cells, 6), {"baseline": {"interpreter": ""}})
    assert study.compared == ("interpreter",)
    assert [context.label for context in study.contexts] == [
        "1 KiB files, posix_shm",
        "1 KiB files, null",
        "1 KiB files, direct",
    ]
    for context in study.contexts:
        assert [(cell.label, cell.baseline) for cell in context.cells] == [("this", True), ("/b", False)]
        assert context.cells[1].measurements["requests_per_s"].verdict == "slower"
    this = "this: transport-harness 0.1.0 0123456789ab, Python 3.11.7"
    assert f"Versions: {this}; /b: two." in study.notes


def test_two_versions_that_one_interpreter_has_run_are_not_pooled():
    cells = [({"interpreter": "/b" if version else "", "version": version}, 1000) for version in ("", "two", "three")]
    rows = StudyTrials(studies.trials(cells, 3))
    assert len(rows.contexts(("interpreter",))[0].cells) == 3
    assert len(StudyTrials(studies.trials(cells, 3)).contexts(("data",))) == 3
