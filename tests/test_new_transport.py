"""A stranger's transport: generated, installed as a plugin, held to the kit, and run in the pipeline."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import testkit
from harness.api.contract import Hooks
from harness.registry import defaults

DOCS = Path(__file__).parent.parent / "docs"


def harness(*arguments):
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("kind", ["data", "command"])
def test_a_generated_package_passes_its_own_tests_and_serves_as_a_plugin(plugins, tmp_path, kind):
    package = tmp_path / "package"
    made = harness("new-transport", f"--{kind}", "my-own", package)
    assert made.returncode == 0, made.stderr
    source = (package / "harness_my_own.py").read_text()
    code = source.partition("@dataclass")[2].splitlines()
    assert len([line for line in code if line.strip()]) < 60
    assert 'my-own = "harness_my_own"' in (package / "pyproject.toml").read_text()
    plugins("harness_my_own", source, entry="my-own")
    config = DOCS.parent / "pyproject.toml"
    for check in (
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", package / "tests"],
        [sys.executable, "-m", "harness", "check", "my-own"],
        [sys.executable, "-m", "ruff", "check", "--config", config, package / "harness_my_own.py"],
    ):
        result = subprocess.run(check, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    study = tmp_path / "study.yaml"
    study.write_text(f"question: How?\nfactors:\n  {kind}: [my-own]\nsettings:\n  seconds: 0.1\nrepeats: 1\n")
    result = harness("run", "--quiet", 0, study, "-o", tmp_path / "out")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "my-own" in result.stdout


@pytest.mark.parametrize(
    ("name", "there", "message"),
    [("1x", False, "cannot be a"), ("sender", False, "which the contract has"), ("ok", True, "not empty")],
)
def test_new_transport_refuses_what_would_not_work(tmp_path, name, there, message):
    if there:
        (tmp_path / "file").write_text("mine")
    result = harness("new-transport", name, tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(list(tmp_path.iterdir())) == there


def test_the_tutorial_shows_what_new_transport_writes(tmp_path):
    harness("new-transport", "datagram", tmp_path / "package")
    tutorial = (DOCS / "writing-a-transport.md").read_text()
    shown = re.findall(r"```python\n(.*?)```", tutorial, re.S)
    assert (tmp_path / "package/harness_datagram.py").read_text() in shown
    assert (tmp_path / "package/tests/test_datagram.py").read_text() in shown


def test_the_tutorial_names_every_hook_and_every_check():
    tutorial = (DOCS / "writing-a-transport.md").read_text()
    for hook in (name for name in vars(Hooks) if not name.startswith("_")):
        assert f"`{hook}`" in tutorial
    for contract in (testkit.DataContract, testkit.CommandContract):
        for name in (name for name in dir(contract) if name.startswith("test_")):
            assert f"- {testkit.sentence(name)}\n" in tutorial, testkit.sentence(name)


def test_check_says_what_is_broken_and_plugins_lists_what_there_is(plugins):
    source = harness("new-transport", "leaky", "/dev/null/nowhere")
    assert source.returncode == 1
    result = harness("check", "posix_shm", "--opt", "depth=1", "-v")
    assert result.returncode == 0, result.stdout
    assert "kept     ends close twice" in result.stdout
    assert "data posix_shm:chunk=262144,depth=1" in result.stdout
    assert harness("check", "nobody").returncode == 2
    plugins("half", "import nothing_like_this")
    listed = harness("plugins")
    assert "failed  half: ModuleNotFoundError" in listed.stdout
    for transport in defaults():
        assert re.search(rf"^(command|data) +{transport.name}\b", listed.stdout, re.M)
    assert '"unusable": ""' in harness("plugins", "--json").stdout
