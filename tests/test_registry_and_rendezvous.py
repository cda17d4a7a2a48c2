"""Transports by name and option, and what a killed program leaves."""

import os
import signal

import pytest

from harness import registry, rendezvous


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("posix_smh", "did you mean posix_shm"),
        ("posix_shm:dept=2", "did you mean depth"),
        ("posix_shm:depth=two", "not a whole number"),
        ("posix_shm:depth=0", "depth at least 1"),
        ("posix_shm:depth", "write options as"),
    ],
)
def test_a_bad_transport_is_refused_with_what_to_write_instead(text, message):
    with pytest.raises(registry.UnknownTransport, match=message):
        registry.data_transport(text)


@pytest.mark.parametrize("name", sorted(registry.load().data))
def test_a_transport_is_built_again_from_its_description(name):
    transport = registry.data_transport(name, chunk=8192)
    assert registry.data_transport(registry.describe(transport)) == transport


def test_a_living_program_keeps_its_home_and_a_killed_one_is_swept(home):
    with pytest.raises(rendezvous.Taken):
        rendezvous.Home("tests", "owner")
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        other = rendezvous.Home("tests", "killed")
        lane = registry.data_transport("posix_shm").provision(other.scope("lane", 1.0))
        commands = registry.command_transport("posix_mq").provision(other.scope("commands", 1.0))
        lane.__enter__()
        commands.__enter__()
        os.write(tell, b"x")
        signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    assert rendezvous.sweep() == []
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(rendezvous.sweep("tests")) == 4  # memory, two semaphores, a queue
    assert rendezvous.sweep() == []
    assert os.path.isdir(home.directory)
