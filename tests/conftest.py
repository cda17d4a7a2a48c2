"""Every test has a rendezvous base of its own, which must be gone in the end: nothing is left behind."""

import os
import shutil
import tempfile

import pytest
from hypothesis import settings
from support.misbehaving import Origin
from support.programs import Pipeline

from harness import rendezvous

settings.register_profile("tests", deadline=None)  # other work may hold one example up
settings.load_profile("tests")


@pytest.fixture
def base(monkeypatch):
    """The directory of this test's rendezvous; empty and removed when the test has ended, or it fails."""
    directory = tempfile.mkdtemp(prefix="th-test-", dir="/tmp")
    monkeypatch.setenv(rendezvous.BASE_VARIABLE, directory)
    monkeypatch.setenv("no_proxy", "*")  # libcurl would heed the proxies of whoever runs the tests
    monkeypatch.setenv("TRANSPORT_HARNESS_LOCK", directory)  # a study may run on this machine
    yield rendezvous.base_directory()
    left = rendezvous.sweep()
    there = os.listdir(directory)
    shutil.rmtree(directory)
    assert (left, there) == ([], []), "something was left behind"


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


@pytest.fixture
def origin():
    """An HTTP origin that misbehaves as a test wants."""
    origin = Origin()
    yield origin
    origin.close()
