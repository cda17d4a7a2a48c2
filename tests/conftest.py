"""What all tests share: a rendezvous base for each, so that several run at once, and the mark `processes`.

A test leaves nothing behind: its base must be gone in the end. A test that starts a process has the mark `processes`,
from one of its fixtures or by hand: `make test-fast` leaves it out.
"""

import fcntl
import gc
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager

import pytest
from hypothesis import settings
from support.misbehaving import Origin
from support.programs import Pipeline, SharedPipeline

from harness import rendezvous

gc.disable()  # until all tests are collected: a fifth of that time otherwise
# BLAS otherwise starts a thread on each CPU when numpy is imported, which spins for a while.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each program that a test starts would compile its modules anew
settings.register_profile("tests", deadline=None)  # other work may hold one example up
settings.load_profile("tests")

# Tests with one of these fixtures start processes, unless they have `home` for what they do in this one.
START_PROCESSES = {"base", "browser", "plugins", "shared", "worker"}
# What sys.audit says of a new process.
STARTS = {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen"}
unmarked = []  # the test that is running, where it has no mark `processes`
started = []  # what such tests started, also where the code under test caught our exception


def pytest_collection_modifyitems(items):
    for item in items:
        if not START_PROCESSES.isdisjoint(item.fixturenames) and "home" not in item.fixturenames:
            item.add_marker("processes")


def pytest_collection_finish(session):
    """What is there now stays: later collections of garbage need not look at it, nor forked processes copy it."""
    gc.enable()
    gc.freeze()
    # pytest-xdist 3.8 cannot name groups to pytest 9.2, and says nothing: each worker would have a browser of its own.
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("this pytest-xdist keeps no groups with this pytest: install an older pytest")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    unmarked[:] = [] if item.get_closest_marker("processes") else [item.nodeid]
    try:
        result = yield
    finally:
        unmarked.clear()
        found, started[:] = started[:], []
    assert not found, found[0]
    return result


def refuse_processes(event, _):
    if event in STARTS and unmarked:
        started.append(f"{unmarked[0]} starts a process, so it needs @pytest.mark.processes")
        raise RuntimeError(started[-1])


sys.addaudithook(refuse_processes)


@pytest.fixture(autouse=True)
def posix_queues(request):
    """Let one test at a time have lanes of POSIX queues: RLIMIT_MSGQUEUE is for all of a user's processes together."""
    given = getattr(request.node, "callspec", None)
    if given is None or not any(takes_queues(*one) for one in given.params.items()):
        yield
        return
    lock = os.open(os.path.dirname(__file__), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


def takes_queues(name, value):
    lanes = name == "data" or hasattr(value, "chunk")
    return lanes and str(getattr(value, "name", value)).startswith("posix_mq")


@contextmanager
def own_base():
    """The environment of programs that have a base directory to themselves; at the end that must be empty."""
    directory = tempfile.mkdtemp(prefix="th-test-", dir="/tmp")
    yield {
        rendezvous.BASE_VARIABLE: directory,
        "no_proxy": "*",  # libcurl would use the proxies of the user who runs the tests
        "TRANSPORT_HARNESS_LOCK": directory,  # a study may run on this machine
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(rendezvous.BASE_VARIABLE, directory)
        left = rendezvous.sweep()
    there = os.listdir(directory)
    shutil.rmtree(directory)
    assert (left, there) == ([], []), "something was left behind"


@pytest.fixture
def base(monkeypatch):
    """The directory of this test's rendezvous; empty and removed when the test has ended, or it fails."""
    with own_base() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield rendezvous.base_directory()


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Installs modules as plugins, for processes that start from here: plugins(name, source)."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def install(name, source, entry=None):
        (tmp_path / f"{name}.py").write_text(source)
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[transport_harness]\n{entry or name} = {name}\n")

    return install


@pytest.fixture
def home(base):
    home = rendezvous.Home("tests", "owner")
    yield home
    home.close()


@pytest.fixture
def pipeline(base, tmp_path):
    pipeline = Pipeline(tmp_path)
    yield pipeline
    pipeline.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A pipeline for several tests, which end none of its caches."""
    with own_base() as environment:
        pipeline = SharedPipeline(tmp_path_factory.mktemp("shared"), environment)
        yield pipeline
        pipeline.stop()


@pytest.fixture
def origin():
    """An HTTP origin that misbehaves as a test wants."""
    origin = Origin()
    yield origin
    origin.close()
