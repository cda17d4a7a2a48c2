"""What the kit does not ask of `cma`: that a wrong byte never passes for a right one, and who may not read whom."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.forks import ended_well, in_a_fork

from harness import registry
from harness.protocol import wire
from transports import cma

TIMEOUT = 0.4
CHUNK = 70_000
DATA = registry.data_transport("cma", chunk=CHUNK, depth=2)


@pytest.fixture
def lane(home):
    scope = home.scope("lane", TIMEOUT)
    with DATA.provision(scope):
        receiver = DATA.receiver(scope)
        yield scope, receiver
        receiver.close()


def publish(sender, letter, head=True, content=1 << 30):
    """Publish a full piece of one letter. It begins with the head of a reply with so much content, unless not head."""
    room = sender.loan()
    room[:] = letter * len(room)
    if head:
        room[: wire.HEAD_BYTES] = wire.encode_head(1, wire.STATUS_OK, content)
    sender.publish(len(room))


def taken(receiver):
    piece = bytes(receiver.take())
    receiver.give_back()
    return piece


def test_a_buffer_is_lent_again_only_once_its_piece_was_read(lane):
    scope, receiver = lane
    sender = DATA.sender(scope)
    publish(sender, b"a")
    publish(sender, b"b", head=False)
    read = threading.Timer(0.1, lambda: pieces.append(taken(receiver)))
    pieces = []
    read.start()
    sender.loan()[:] = b"c" * CHUNK
    read.join()
    assert pieces[0][wire.HEAD_BYTES :] == b"a" * (CHUNK - wire.HEAD_BYTES)
    assert taken(receiver) == b"b" * CHUNK
    sender.close()


def test_a_piece_whose_sender_waited_in_vain_and_closed_is_not_read_any_more(lane):
    scope, receiver = lane
    sender = DATA.sender(scope)
    publish(sender, b"a")
    publish(sender, b"b", head=False)
    with pytest.raises(TimeoutError, match="the proxy read nothing"):
        sender.loan()
    sender.close()
    with pytest.raises(EOFError, match="before its reply was read"):
        receiver.take()


def test_an_end_that_closes_waits_until_its_pieces_were_read(lane):
    scope, receiver = lane
    sender = DATA.sender(scope)
    publish(sender, b"a")
    closing = threading.Thread(target=sender.close)
    closing.start()
    assert taken(receiver)[-1:] == b"a"
    closing.join()


@pytest.mark.processes
@pytest.mark.parametrize("published", [0, 1])
def test_what_a_fork_publishes_over_an_end_that_it_inherited_is_not_taken_for_its_parents(lane, published):
    """The proxy would read the memory of the process that opened the end, which may have an older piece there."""
    scope, receiver = lane
    sender = DATA.sender(scope)
    may, let = os.pipe()

    def use():
        os.read(may, 1)
        publish(sender, b"b")

    fork = in_a_fork(use)
    for _ in range(published):
        publish(sender, b"a", content=CHUNK - wire.HEAD_BYTES)
        assert taken(receiver)[-1:] == b"a"
    os.write(let, b"x")
    assert ended_well(fork)
    with pytest.raises(EOFError, match="before its reply was read"):
        receiver.take()
    sender.close()
    os.close(may)
    os.close(let)


@pytest.mark.processes
@pytest.mark.skipif(os.getuid() != 0, reason="gives a process the number of another one")
def test_another_process_with_the_number_of_a_killed_sender_is_not_read(lane, home):
    """It has other content at the very same address: an end of another lane."""
    scope, receiver = lane
    other = home.scope("other", TIMEOUT)
    said, say = os.pipe()

    def send(to, letter):
        sender = DATA.sender(to)
        publish(sender, letter)
        os.write(say, b"%d " % sender._addresses[0])
        signal.pause()

    with DATA.provision(other):
        others = DATA.receiver(other)
        first = in_a_fork(lambda: send(scope, b"a"))
        addresses = [int(os.read(said, 99))]
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        deadline = time.monotonic() + 60  # other programs start processes, too, and one may have the number for seconds
        while time.monotonic() < deadline:
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(first - 1))
            second = in_a_fork(lambda: send(other, b"b"))
            addresses.append(int(os.read(said, 99)))
            if second == first:
                break
            os.kill(second, signal.SIGKILL)
            os.waitpid(second, 0)
        assert second == first
        assert addresses[-1] == addresses[0]
        room = memoryview(bytearray(CHUNK))
        cma.memory_reader()(second, addresses[0], room)
        assert room[-1:] == b"b"  # so the address alone would do
        with pytest.raises(EOFError, match="before its reply was read"):
            receiver.take()
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)
        others.close()
    os.close(said)
    os.close(say)


FOREIGN = """
import ctypes, os, tempfile
from harness import registry, rendezvous
data = registry.data_transport("cma")
os.setuid(54321)  # which makes a process undumpable, prctl(2)
with tempfile.TemporaryDirectory() as os.environ["TRANSPORT_HARNESS_DIR"]:
    home = rendezvous.Home("cma", "test")
    scope = home.scope("lane", 1.0)
    with data.provision(scope):
        receiver = data.receiver(scope)
        if not os.fork():
            sender = data.sender(scope)
            sender.loan()[0] = 1
            sender.publish(100)
            sender.close()
            os._exit(0)
        try:
            receiver.take()
        finally:
            receiver.close()
            os.wait()
"""


@pytest.mark.processes
@pytest.mark.skipif(os.getuid() != 0, reason="becomes an ordinary user")
def test_a_process_that_may_not_be_read_is_named_with_what_to_look_at():
    result = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True, check=False)
    said = result.stderr.splitlines()[-1]
    assert said.startswith("PermissionError: the kernel forbids to read the memory of process"), result.stderr
    assert "seccomp" in said


SCOPED = """
import ctypes, os, sys, tempfile
from transports import cma
os.setuid(54321)
with tempfile.NamedTemporaryFile("w") as setting:
    print(sys.argv[1], file=setting, flush=True)
    cma.PTRACE_SCOPE = setting.name
    cma.check_permitted()
"""


@pytest.mark.processes
@pytest.mark.skipif(os.getuid() != 0, reason="becomes an ordinary user")
@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("0", ""),
        ("1", "sysctl -w kernel.yama.ptrace_scope=0"),
        ("2", "sysctl -w"),
        ("3", "no process may read another"),
    ],
)
def test_where_yama_forbids_it_the_lane_is_refused_with_the_remedy(scope, said):
    """This kernel may have no Yama, so a file stands in for the setting; root may do what 1 and 2 forbid others."""
    command = [sys.executable, "-c", SCOPED, scope]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bool(result.returncode) == bool(said), result.stderr
    assert said in result.stderr
    assert not said or f"is {scope}" in result.stderr.splitlines()[-1]


SENDER = """
import socket, sys
from transports.cma import Cma, CmaSender
ours, theirs = socket.socketpair()
sender = CmaSender(ours, Cma(), 1.0)
sender.loan()
sender.publish(100)
assert "ctypes" not in sys.modules
theirs.close()
sender.close()
"""


@pytest.mark.processes
def test_a_cache_does_not_load_ctypes():
    subprocess.run([sys.executable, "-c", SENDER], check=True)
