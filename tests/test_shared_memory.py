"""What the transports over shared memory do at their limits."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from support.forks import ended_well, in_a_fork

from harness import registry
from harness.protocol import wire
from transports import posix_shm

RINGS = [
    "posix_shm",
    "posix_shm:wait=spin",
    "posix_shm:wait=spin-then-block",
    "posix_shm:wait=adaptive",
    "posix_shm:sync=fifo",
    "posix_shm:sync=eventfd",
    "sysv_shm",
]
HEAD = wire.encode_head(1, wire.STATUS_NOT_FOUND, 0)


@pytest.fixture(params=RINGS)
def ring(request):
    return registry.data_transport(request.param, chunk=4096)


def test_either_end_waits_as_long_as_it_may_and_no_longer(ring, home):
    scope = home.scope("lane", 0.2)
    with ring.provision(scope):
        receiver, sender = ring.receiver(scope), ring.sender(scope)
        for _ in range(ring.depth):
            sender.loan()
        for wait in (receiver.take, sender.loan):
            start = time.monotonic()
            with pytest.raises(TimeoutError, match=r"for 0\.2 s"):
                wait()
            assert 0.2 <= time.monotonic() - start < 3
        receiver.close()
        sender.close()


def test_a_wait_is_not_disturbed_by_signals(ring, home):
    scope = home.scope("lane", 5.0)
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    with ring.provision(scope):
        receiver, sender = ring.receiver(scope), ring.sender(scope)

        def send():
            time.sleep(0.1)
            sender.loan()[: wire.HEAD_BYTES] = HEAD
            sender.publish(wire.HEAD_BYTES)

        thread = threading.Thread(target=send)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        thread.start()
        try:
            with receiver.take() as piece:
                assert bytes(piece) == HEAD
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        thread.join()
        receiver.close()
        sender.close()


def test_giving_up_is_noticed_at_once(ring, home):
    scope = home.scope("lane", 5.0)
    with ring.provision(scope):
        receiver, sender = ring.receiver(scope), ring.sender(scope)
        sender.loan()
        sender.publish(0)
        with pytest.raises(EOFError):
            receiver.take()
        receiver.close()
        sender.close()


@pytest.mark.processes
def test_an_end_is_not_closed_under_a_piece_that_is_in_use(ring, home):
    scope = home.scope("lane", 1.0)

    def close_too_early():
        sender = ring.sender(scope)
        piece = sender.loan()[:10]
        with pytest.raises(BufferError):
            sender.close()
        piece[:5] = b"still"  # a segmentation fault, were it unmapped

    with ring.provision(scope):
        receiver = ring.receiver(scope)
        assert ended_well(in_a_fork(close_too_early))
        receiver.close()


def test_an_end_leaves_no_mapping(ring, home):
    scope = home.scope("lane", 1.0)
    with ring.provision(scope):
        for end in (ring.receiver(scope), ring.sender(scope)):
            end.close()
            end.close()
        with open("/proc/self/maps") as maps:
            assert not [line for line in maps if "/SYSV" in line or "lane" in line]


US = 1e-6


@pytest.mark.parametrize(
    ("waits", "spins"),
    [
        ([5, 5, 25, 25, 90, 90], [10, 10, 20, 40, 80, 100]),  # short waits: as long as is needed, at most 100 us
        ([99, 99, 99, 99, 99, 5, 99], [10, 20, 40, 80, 100, 100, 100]),
        ([50, 50, 50, 101, 101, 101, 101], [10, 20, 40, 20, 10, 0, 0]),  # long ones: less each time, then not at all
        ([5000, 5000, 5, 5000], [0, 0, 10, 0]),
    ],
)
def test_an_adaptive_wait_spins_as_long_as_past_waits_were_short(waits, spins):
    spin, seen = 0.0, []
    for wait in waits:
        spin = posix_shm.adapted(spin, wait * US)
        seen.append(round(spin / US))
    assert seen == spins


@pytest.mark.parametrize("cpus", [1, 2])
def test_an_adaptive_wait_burns_no_cpu_where_waits_are_long(home, cpus):
    transport, scope = registry.data_transport("posix_shm:wait=adaptive"), home.scope("lane", 20)
    allowed = os.sched_getaffinity(0)
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)

        def send():
            for _ in range(4):
                time.sleep(0.1)
                sender.loan()
                sender.publish(100)

        os.sched_setaffinity(0, set(list(allowed)[:cpus]))
        thread, used = threading.Thread(target=send), time.process_time()
        thread.start()
        try:
            for _ in range(4):
                receiver.take().release()
                receiver.give_back()
        finally:
            os.sched_setaffinity(0, allowed)
            thread.join()
        assert time.process_time() - used < 0.1
        receiver.close()
        sender.close()


@pytest.fixture(params=["fifo", "eventfd"])
def rung(home, request):
    """A lane that can tell of a killed peer, its timeout longer than any test: (transport, scope)."""
    lane = registry.data_transport(f"posix_shm:sync={request.param},depth=2"), home.scope("lane", 20)
    with lane[0].provision(lane[1]):
        yield lane


@pytest.mark.processes
def test_a_killed_proxy_is_noticed_at_once_where_the_mechanism_can_tell(rung):
    transport, scope = rung
    opened, tell = os.pipe()

    def receive():
        receiver = transport.receiver(scope)
        os.write(tell, b"x")
        signal.pause()
        receiver.close()

    pid = in_a_fork(receive)
    os.read(opened, 1)
    sender = transport.sender(scope)
    for _ in range(transport.depth):
        sender.loan()
    timer = threading.Timer(0.1, os.kill, (pid, signal.SIGKILL))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(ConnectionError):
        sender.loan()
    if transport.sync == "fifo":
        with pytest.raises(ConnectionError):
            sender.publish(1)
    with pytest.raises(ConnectionError):
        transport.sender(scope)
    assert time.monotonic() - begun < 5
    timer.join()
    assert not ended_well(pid)
    sender.close()
    os.close(opened)
    os.close(tell)


def test_senders_that_left_between_replies_neither_end_the_wait_nor_keep_it_busy(rung):
    transport, scope = rung

    def send():
        sender = transport.sender(scope)
        sender.loan()[: wire.HEAD_BYTES] = HEAD
        sender.publish(wire.HEAD_BYTES)
        sender.close()

    receiver = transport.receiver(scope)
    for _ in range(3):
        timer = threading.Timer(0.3, send)
        timer.start()
        used = time.process_time()
        assert bytes(receiver.take()) == HEAD
        assert time.process_time() - used < 0.1
        receiver.give_back()
        timer.join()
    receiver.close()


def published(sender, letter, content, head=True):
    """Publish a piece of 1000 bytes. It begins with the head of a reply with so much content, unless not head."""
    sender.loan()[:1000] = (wire.encode_head(1, wire.STATUS_OK, content) if head else b"").ljust(1000, letter)
    sender.publish(1000)


@pytest.mark.processes
def test_eventfds_of_a_sender_that_was_killed_after_its_whole_reply_are_counted_all_the_same(home):
    transport, scope = registry.data_transport("posix_shm:sync=eventfd,depth=2"), home.scope("lane", 20)

    def send():
        sender = transport.sender(scope)
        published(sender, b"a", 2000 - wire.HEAD_BYTES)
        published(sender, b"a", 0, head=False)
        os.kill(os.getpid(), signal.SIGKILL)

    with transport.provision(scope):
        receiver = transport.receiver(scope)
        for _ in range(3):
            assert not ended_well(in_a_fork(send))
            for _ in range(2):
                assert bytes(receiver.take())[-1:] == b"a"
                receiver.give_back()
        receiver.close()


def test_senders_over_eventfds_take_turns_and_leave_no_descriptor_behind(home):
    transport, scope = registry.data_transport("posix_shm:sync=eventfd,depth=2"), home.scope("lane", 5)
    with transport.provision(scope):
        receiver, before = transport.receiver(scope), len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            senders = [transport.sender(scope) for _ in range(3)]
            for letter in b"abcabc":
                sender = senders[letter % 3]
                published(sender, bytes([letter]), 2000 - wire.HEAD_BYTES)
                published(sender, bytes([letter]), 0, head=False)
                for _ in range(2):
                    assert bytes(receiver.take())[-1] == letter
                    receiver.give_back()
            for sender in senders:
                sender.close()
        last = transport.sender(scope)
        published(last, b"z", 1000 - wire.HEAD_BYTES)
        assert bytes(receiver.take())[-1:] == b"z"
        receiver.give_back()
        last.close()
        assert len(os.listdir("/proc/self/fd")) <= before + 3  # those of the last sender, which only the next take ends
        receiver.close()


def test_a_sysv_lane_that_is_removed_ends_those_that_wait_in_it(home):
    transport, scope = registry.data_transport("sysv_shm"), home.scope("lane", 5.0)
    with ExitStack() as names:
        names.enter_context(transport.provision(scope))
        receiver = transport.receiver(scope)
        timer = threading.Timer(0.1, names.close)
        timer.start()
        with pytest.raises(FileNotFoundError):
            receiver.take()
        timer.join()
        receiver.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root has limits of its own to lower: unshare -i")
@pytest.mark.parametrize(
    ("limit", "value"), [("shmmax", "4096"), ("shmall", "1"), ("shmmni", "0"), ("sem", "250 32000 32 0")]
)
def test_a_sysv_limit_is_named_where_it_is_met(limit, value, base, tmp_path):
    script = """
        from harness import registry, rendezvous
        home = rendezvous.Home("tests", "owner")
        scope = home.scope("lane", 1.0)
        try:
            registry.data_transport("sysv_shm").provision(scope).__enter__()
        except OSError as error:
            print(error)
        rendezvous.remove_scope(scope)
        print(home.close())
    """
    (tmp_path / "script.py").write_text("if True:\n" + script)
    command = f"echo {value} > /proc/sys/kernel/{limit}; {sys.executable} {tmp_path}/script.py"
    result = subprocess.run(
        ["unshare", "-i", "sh", "-c", command], capture_output=True, text=True, timeout=120, check=True
    )
    message, left = result.stdout.splitlines()
    assert limit in message.partition("; see /proc/sys/kernel/")[2]
    assert left == "[]"
