"""What comes with the package beside its code: studies, pages, and what completes commands in a shell."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli, shipped
from harness.experiment import planner

ROOT = Path(__file__).parent.parent


@pytest.fixture
def harness(tmp_path, monkeypatch, capfd):
    """harness(*arguments): (exit code, standard output, standard error) of a command in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


def test_studies_that_come_along_are_listed_with_their_questions_and_known_by_name(harness):
    code, out, _ = harness("experiment", "list")
    assert code == 0
    for name, path in shipped.studies().items():
        assert f"\n{name} " in f"\n{out}"
        assert planner.load_plan(path).question.split()[0] in out
    assert shipped.study("quick") == str(ROOT / "experiments/quick.yaml")
    by_name, by_path = (harness("experiment", "check", file) for file in ("floor", ROOT / "experiments/floor.yaml"))
    assert by_name == by_path
    assert by_name[0] == 0
    assert "24 cells" in by_name[1]


def test_a_file_here_comes_before_a_study_that_comes_along(harness, tmp_path):
    (tmp_path / "quick").write_text("question: Mine?\nfactors: {files: [1KiB, 2KiB]}\n")
    assert harness("experiment", "check", "quick")[1].startswith("Mine?")


@pytest.mark.parametrize("command", [["run"], ["experiment", "check"], ["ab", "."]])
def test_a_study_that_does_not_come_along_is_said_with_what_may_be_meant(harness, command):
    code, _, said = harness(*command, "quik")
    assert code == 2
    assert "quik: no such file or study; did you mean quick?" in said


@pytest.mark.parametrize(
    ("options", "varies"),
    [
        ([], "data=posix_shm data=unix data=sendfile"),
        (["--data", "null", "unix", "fifo:chunk=4096"], "data=null data=unix data=fifo:chunk=4096"),
        (["--command", "fifo", "posix_mq"], "command=fifo command=posix_mq"),
    ],
)
def test_a_new_experiment_is_one_that_runs(harness, tmp_path, options, varies):
    code, out, _ = harness("experiment", "new", "mine", *options)
    assert code == 0
    assert out.startswith("mine.yaml: harness experiment check mine.yaml")
    plan = planner.load_plan(str(tmp_path / "mine.yaml"))
    assert len(plan.claims) == 1
    assert all(level in harness("experiment", "check", "mine.yaml")[1] for level in varies.split())
    assert max(len(line) for line in (tmp_path / "mine.yaml").read_text().splitlines()) <= 120


def test_a_new_experiment_takes_the_place_of_no_file_and_refuses_what_is_not_installed(harness, tmp_path):
    (tmp_path / "mine.yaml").write_text("kept")
    for options, message in (
        (["mine"], "mine.yaml: file exists"),
        (["other", "--data", "unix", "fifa"], "fifa: no such data transport; did you mean fifo?"),
        (["other", "--data", "unix"], "--data unix: name what it is to be compared with, too"),
    ):
        code, _, said = harness("experiment", "new", *options)
        assert code != 0
        assert message in said
    assert (tmp_path / "mine.yaml").read_text() == "kept"
    assert os.listdir(tmp_path) == ["mine.yaml"]


def test_every_page_is_listed_or_named_and_shown_as_it_is(harness):
    listed = harness("docs")[1]
    for page in ROOT.glob("docs/*.md"):
        assert f"\n{page.stem} " in f"\n{listed}"
        for name in (page.stem, f"docs/{page.name}"):
            assert harness("docs", name) == (0, page.read_text(), "")
    (decision,) = ROOT.glob("docs/decisions/0017-*")
    for name in ("0017", "decisions/0017", f"docs/decisions/{decision.name}"):
        assert harness("docs", "--path", name) == (0, f"{decision}\n", "")


def test_a_page_that_is_not_there_is_said_with_what_may_be_meant(harness):
    assert harness("docs", "statistic") == (2, "", "docs: statistic: no such page; did you mean statistics?\n")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("line", "some", "never"),
    [
        ("harness ex", ["experiment"], "run"),
        ("harness webproxy --da", ["--data"], "--direct"),
        ("harness webproxy --data po", ["posix_shm", "posix_mq"], "unix"),
        ("harness simplecached --command sy", ["sysv_mq"], "sysv_shm"),
        ("harness run qu", ["quick", "quarrel.yaml"], "floor"),
        ("harness experiment check qu", ["quick", "quarrel.yaml"], "floor"),
        ("harness check posix_s", ["posix_shm"], "quarrel.yaml"),
        ("harness docs sta", ["statistics"], "ipc"),
        ("harness completion ", ["bash", "zsh", "fish"], "quarrel.yaml"),
    ],
)
def test_a_shell_completes_commands_options_and_names(tmp_path, line, some, never):
    (tmp_path / "quarrel.yaml").touch()
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": f"{tmp_path}/out", "_ARGCOMPLETE_IFS": "\n"}
    asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    command = [sys.executable, "-m", "harness"]
    subprocess.run(command, env=os.environ | asked, cwd=tmp_path, timeout=20, check=True)
    found = {one.strip() for one in (tmp_path / "out").read_text().split("\n")}
    assert set(some) <= found
    assert never not in found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_needs_is_printed(harness, shell):
    code, out, _ = harness("completion", shell)
    assert code == 0
    assert "_ARGCOMPLETE" in out
    assert "harness" in out
