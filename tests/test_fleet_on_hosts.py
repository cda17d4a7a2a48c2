"""A fleet of three hosts in network namespaces, over SSH: what it loses when workers, links and coordinators fail."""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from support import namespaces
from support.programs import eventually

from harness import results

STUDY = """\
factors:
  data: [posix_shm, fifo]
settings:
  {clients: 2, client_processes: 1, proxy_processes: 1, cache_processes: 1, lanes: 2, warmup: 20ms, timeout: 5s}
slices: {rounds: 3, window: 5ms, lead_in: 2ms}
"""
ROUNDS = 3

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(bool(namespaces.lacking()), reason=namespaces.lacking()),
    pytest.mark.serial,
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    try:
        made = namespaces.Hosts(3, tmp_path_factory.mktemp("hosts"))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    yield made
    made.remove()


@pytest.fixture
def fleet(tmp_path):
    """Starts `harness fleet run` with arguments; ends it when the test has ended."""
    running = []

    def start(*arguments):
        path = tmp_path / f"errors{len(running)}"
        command = [sys.executable, "-m", "harness", "fleet", "run", *map(str, arguments)]
        with open(path, "wb") as errors:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=tmp_path)
        process.said = path.read_text
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


def rows(directory, host):
    path = directory / "hosts" / host.name / "trials.csv"
    return list(results.read(str(path))) if path.exists() else []


def check_whole(directory, host):
    """Each row of a host is there once, good and under its name, and has all of its slices once."""
    found = rows(directory, host)
    assert {(row.status, row.host, row.swept) for row in found} <= {("ok", host.name, 0)}
    assert max(Counter(row.trial for row in found).values(), default=1) == 1
    slices = (directory / "hosts" / host.name / "slices.csv").read_text().splitlines()[1:] if found else []
    assert {line.rpartition(",")[2] for line in slices} <= {host.name}
    counted = Counter(tuple(line.split(",")[:2]) for line in slices)
    assert set(counted.values()) <= {1}
    assert Counter(trial for trial, _ in counted) == {str(row.trial): ROUNDS for row in found}
    return [row.block for row in found]


def test_each_host_has_every_block_once_whatever_fails_meanwhile(hosts, fleet, tmp_path):
    """A worker is killed, a host is cut off and comes back, the coordinator is killed and goes on."""
    blocks = 4
    first, second, third = hosts.all
    (tmp_path / "study.yaml").write_text(STUDY + f"repeats: {blocks}\n")
    options = "--silent", 3, "--comeback", 90, "--quiet", 0
    run = fleet("study.yaml", "--ssh", hosts.file(), "-o", "out", *options)
    out = tmp_path / "out"
    assert eventually(lambda: run.poll() is not None or all(rows(out, host) for host in hosts.all), 60), run.said()
    first.kill("dask_spec")
    second.set_link("down")
    assert eventually(lambda: "h1" in run.said() and "h2" in run.said(), 30), run.said()
    second.set_link("up")
    before = len(rows(out, third))
    assert eventually(lambda: len(rows(out, third)) > before or before == 2 * blocks, 30), run.said()
    run.kill()
    run.wait()
    run = fleet("--resume", out, *options)
    assert run.wait(100) == 0, run.said()
    for host in hosts.all:
        assert Counter(check_whole(out, host)) == dict.fromkeys(range(1, blocks + 1), 2)


def test_a_shared_study_has_every_block_once_whatever_fails_meanwhile(hosts, fleet, tmp_path):
    """A worker is killed, a host is cut off for good, the coordinator is killed and goes on."""
    blocks = 6
    first, second, _ = hosts.all
    (tmp_path / "study.yaml").write_text(STUDY + f"repeats: {blocks}\n")
    options = "--silent", 3, "--comeback", 60, "--quiet", 0
    run = fleet("study.yaml", "--share", "--ssh", hosts.file(), "-o", "out", *options)
    out = tmp_path / "out"
    assert eventually(lambda: any(rows(out, host) for host in hosts.all), 60), run.said()
    first.kill("dask_spec")
    second.set_link("down")
    assert eventually(lambda: "h1" in run.said() and "h2" in run.said(), 30), run.said()
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run = fleet("--resume", out, *options)
    assert run.wait(100) == 0, run.said()
    second.set_link("up")
    dealt = Counter(block for host in hosts.all for block in check_whole(out, host))
    assert dealt == dict.fromkeys(range(1, blocks + 1), 2)
    assert max(Counter(row.trial for host in hosts.all for row in rows(out, host)).values()) == 1
