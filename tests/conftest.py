"""Every test has a rendezvous base of its own, which must be gone in the end: nothing is left behind."""

import os
import secrets
import shutil

import pytest

from harness import rendezvous


@pytest.fixture
def home(monkeypatch):
    base = f"/tmp/th-test-{secrets.token_hex(4)}"
    monkeypatch.setenv(rendezvous.BASE_VARIABLE, base)
    home = rendezvous.Home("tests", "owner")
    yield home
    home.close()
    left = os.path.exists(base)
    shutil.rmtree(base, ignore_errors=True)
    assert not left, "something was left behind"
