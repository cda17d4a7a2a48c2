"""What the kit does not ask of `vmsplice`: that no page changes while it is in the pipe."""

import os
import random
import signal
import subprocess
import sys
import threading

import pytest
from support.forks import ended_well, in_a_fork

from harness import registry

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def lane(home):
    transport, scope = registry.data_transport(f"vmsplice:chunk={3 * PAGE},pipe_size={4 * PAGE}"), home.scope("lane", 5)
    with transport.provision(scope):
        receiver = transport.receiver(scope)
        yield transport, scope, receiver
        receiver.close()


def received(receiver, count):
    got = bytearray()
    while len(got) < count:
        got += receiver.take()
        receiver.give_back()
    return bytes(got)


def test_what_loan_returns_is_never_in_the_pipe_whatever_was_published(lane):
    """Each loan is filled with garbage to its end, and with content where it counts."""
    transport, scope, receiver = lane
    dice = random.Random(1)
    sizes = [dice.choice([1, 100, PAGE, PAGE + 1, dice.randint(1, 3 * PAGE), 3 * PAGE]) for _ in range(3000)]
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    def send():
        sender = transport.sender(scope)
        for piece in pieces:
            room = sender.loan()
            room[:] = b"\xff" * len(room)
            room[: len(piece)] = piece
            sender.publish(len(piece))
        sender.close()

    thread = threading.Thread(target=send)
    thread.start()
    assert received(receiver, sum(sizes)) == b"".join(pieces)
    thread.join()


def test_a_place_of_the_pipe_holds_one_page_however_little_of_it_counts(home):
    transport, scope = registry.data_transport(f"vmsplice:pipe_size={4 * PAGE}"), home.scope("lane", 0.1)
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)
        for _ in range(4):
            sender.loan()
            sender.publish(1)
        sender.loan()
        with pytest.raises(TimeoutError, match="the pipe stayed full"):
            sender.publish(1)
        sender.close()
        receiver.close()


@pytest.mark.processes
@pytest.mark.parametrize("killed", [False, True])
def test_what_was_sent_stays_as_it_was_when_the_sender_has_gone(lane, killed):
    transport, scope, receiver = lane

    def send():
        sender = transport.sender(scope)
        sender.loan()[:] = b"a" * 3 * PAGE
        sender.publish(3 * PAGE)
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        sender.close()
        later = [bytearray(b"b" * 3 * PAGE) for _ in range(100)]  # takes memory that is free
        assert later

    assert ended_well(in_a_fork(send)) is not killed
    assert received(receiver, 3 * PAGE) == b"a" * 3 * PAGE


@pytest.mark.processes
def test_a_fork_that_writes_to_the_memory_of_an_end_changes_nothing_that_was_sent(lane):
    transport, scope, receiver = lane
    sender = transport.sender(scope)
    room = sender.loan()
    room[:] = b"a" * 3 * PAGE
    sender.publish(3 * PAGE)

    def write():
        room[:] = b"b" * 3 * PAGE

    assert ended_well(in_a_fork(write))
    assert received(receiver, 3 * PAGE) == b"a" * 3 * PAGE
    sender.close()


def test_an_end_is_not_closed_under_a_loan_that_is_in_use(lane):
    transport, scope, _ = lane
    sender = transport.sender(scope)
    part = sender.loan()[:10]
    with pytest.raises(BufferError):
        sender.close()
    part[:] = b"x" * 10  # a segmentation fault, were it unmapped
    part.release()
    sender.close()
    sender.close()


@pytest.mark.processes
def test_ctypes_is_not_loaded_before_a_cache_opens_a_lane():
    script = (
        "import sys; from harness import registry; registry.data_transport('vmsplice'); print('ctypes' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
