"""A stranger's transport: generated, installed as a plugin, checked by the kit, and run in the pipeline."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import testkit
from harness.api.contract import Hooks
from harness.registry import defaults

pytestmark = pytest.mark.processes
DOCS = Path(__file__).parent.parent / "docs"


def harness(*arguments):
    return run([sys.executable, "-m", "harness", *arguments])


def run(command, directory=None):
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=directory)


@pytest.mark.parametrize("kind", ["data", "command"])
def test_a_generated_package_passes_its_own_tests_and_serves_as_a_plugin(plugins, tmp_path, kind):
    package = tmp_path / "package"
    made = harness("new-transport", f"--{kind}", "my-own", package)
    assert made.returncode == 0, made.stderr
    source = (package / "harness_my_own.py").read_text()
    code = source.partition("@dataclass")[2].splitlines()
    assert len([line for line in code if line.strip()]) < 50
    assert 'my-own = "harness_my_own"' in (package / "pyproject.toml").read_text()
    plugins("harness_my_own", source, entry="my-own")
    python = [sys.executable, "-m"]
    checks = (
        [*python, "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", package / "tests"],
        [*python, "harness", "check", "my-own"],
        [*python, "harness", "run", "--quiet", 0, "--budget", "4s", package / "study.yaml", "-o", tmp_path / "out"],
    )
    with ThreadPoolExecutor() as at_once:
        for result in at_once.map(lambda check: run(check, tmp_path), checks):
            assert result.returncode == 0, result.stdout + result.stderr
    assert "my-own" in result.stdout


def test_generated_packages_pass_the_linter_the_formatter_and_the_type_checker(tmp_path):
    for kind, name in (
        ("data", "my-own"),
        ("command", "a"),
        ("data", "one_with_quite_a_long_name"),
        ("command", "b_c"),
    ):
        assert harness("new-transport", f"--{kind}", name, tmp_path / name).returncode == 0
    sources = [str(path) for path in tmp_path.rglob("*.py")]
    assert len(sources) == 8
    config = f"--config={DOCS.parent / 'pyproject.toml'}"
    for package in tmp_path.iterdir():
        for check in (["check", config, "--no-cache"], ["format", "--check", config, "--no-cache"]):
            result = run([sys.executable, "-m", "ruff", *check, "."], package)
            assert result.returncode == 0, result.stdout + result.stderr
    transports = [path for path in sources if "/tests/" not in path]
    # As its author runs it, without our configuration.
    result = run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", *transports], tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "there", "message"),
    [
        (["1x"], False, "'1x' cannot be a transport's name"),
        (["sender"], False, "'sender': its class would be Sender, which the contract has"),
        (["data-transport"], False, "which the contract has"),
        (["ok"], True, "exists and is not empty"),
        (["unix"], False, "'unix': transport-harness 0.1.0 has a data transport of that name already; take another"),
        (["shm_ring", "--command"], False, "has a command transport of that name already"),
    ],
)
def test_new_transport_refuses_what_would_not_work(tmp_path, arguments, there, message):
    if there:
        (tmp_path / "file").write_text("mine")
    result = harness("new-transport", *arguments, tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == there


def test_a_name_that_only_the_other_kind_has_is_free(tmp_path):
    result = harness("new-transport", "shm_ring", tmp_path / "package")
    assert result.returncode == 0, result.stderr


def test_new_transport_refuses_the_name_of_a_strangers_plugin(plugins, tmp_path):
    made = harness("new-transport", "my-own", tmp_path / "package")
    assert made.returncode == 0, made.stderr
    plugins("harness_my_own", (tmp_path / "package/harness_my_own.py").read_text(), entry="my-own")
    result = harness("new-transport", "my-own", tmp_path / "second")
    assert result.returncode == 2
    assert "'my-own': harness_my_own 1.0 has a data transport of that name already" in result.stderr


def test_check_says_which_promise_a_transport_died_of_and_goes_on_with_the_others(plugins):
    plugins("dies", DIES)
    result = harness("check", "dies", "null")
    assert result.returncode == 1, result.stdout
    assert "  BROKEN   a client that is gone leaves the lane at rest or is reported as a failure\n" in result.stdout
    assert "the process that checked it was killed by SIGKILL" in result.stdout
    assert "  BROKEN   a killed sender is noticed in time\n" in result.stdout
    assert "data null:chunk=4194304: 21 promises kept, 0 broken" in result.stdout
    assert not [name for name in os.listdir("/dev/shm") if "kit" in name and "dying" in name]


DIES = """
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass

import posix_ipc
from harness.api import DataTransport, Receiver, Sender, hookimpl


@dataclass(frozen=True)
class Dies(DataTransport):
    name = "dies"

    @contextmanager
    def provision(self, scope):
        posix_ipc.Semaphore(scope.posix_name("dying"), posix_ipc.O_CREAT)
        os.kill(os.getpid(), signal.SIGKILL)
        yield

    def receiver(self, scope) -> Receiver:
        raise NotImplementedError

    def sender(self, scope) -> Sender:
        raise NotImplementedError


@hookimpl
def data_transports():
    return [Dies]
"""


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
        for name in testkit.checks(contract):
            assert f"- {testkit.sentence(name)}\n" in tutorial, testkit.sentence(name)


def test_check_says_what_is_broken_and_plugins_lists_what_there_is(plugins):
    source = harness("new-transport", "leaky", "/dev/null/nowhere")
    assert source.returncode == 1
    result = harness("check", "posix_shm", "--opt", "depth=1", "-v")
    assert result.returncode == 0, result.stdout
    assert "kept     ends close twice" in result.stdout
    assert "data posix_shm:chunk=262144,depth=1" in result.stdout
    assert harness("check", "no_such_transport").returncode == 2
    plugins("half", "import nothing_like_this")
    listed = harness("plugins")
    assert "failed  half: ModuleNotFoundError" in listed.stdout
    for transport in defaults():
        assert re.search(rf"^(command|data) +{transport.name}\b", listed.stdout, re.M)
    assert '"unusable": ""' in harness("plugins", "--json").stdout
