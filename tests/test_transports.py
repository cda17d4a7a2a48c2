"""What the kit does not ask of transports: the relay's own rules, and what is peculiar to one mechanism."""

import collections
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from support.forks import ended_well, in_a_fork
from support.programs import eventually
from support.transports import DATA

from harness import api, registry
from harness.pipeline import transfer
from harness.protocol import wire

TIMEOUT = 1.0


# A plugin that is installed here may start a process, such as a server.
INSTALLED = [
    pytest.param(name, marks=() if name in DATA else pytest.mark.processes)
    for name in sorted(registry.installed().data)
]
VARIANTS = [
    f"posix_shm:{option}"
    for option in ("wait=spin", "wait=spin-then-block", "wait=adaptive", "sync=fifo", "sync=eventfd")
]


@pytest.fixture(params=[*INSTALLED, *VARIANTS])
def data(request):
    return registry.data_transport(request.param, chunk=4096)


@pytest.fixture(params=[*sorted(registry.installed().command), "shm_ring:sync=eventfd"])
def command(request):
    return registry.command_transport(request.param)


@pytest.mark.processes
def test_a_floor_ends_its_waits_in_a_fork_too(home):
    """A thread ends them, and no thread survives a fork(2)."""
    floor = registry.command_transport("null")
    scope = home.scope("channel", 0.2)
    with floor.provision(scope):
        receiver = floor.receiver(scope)
        with pytest.raises(TimeoutError):
            receiver.receive()

        def wait_in_vain():
            own = floor.receiver(scope)
            with pytest.raises(TimeoutError):
                own.receive()
            own.close()

        assert ended_well(in_a_fork(wait_in_vain))
        receiver.close()


def test_a_floor_takes_no_tick_for_a_reply(home):
    """What wakes its waits now and then is there when the reply comes, and when it does not."""
    floor = registry.data_transport("null")
    scope = home.scope("lane", 0.5)
    with floor.provision(scope):
        relay, sender = transfer.relay_over(floor.receiver(scope)), floor.sender(scope)
        for request in range(1, 8):
            late = threading.Timer(0.1, transfer.answerer_over(sender), (request, wire.STATUS_ERROR, -1, 0))
            late.start()
            assert relay.await_head(request) == (wire.STATUS_ERROR, 0)
            late.join()
        sender.close()
        relay.close()


def test_a_reply_to_another_request_is_refused(data, home):
    scope = home.scope("lane", TIMEOUT)
    with data.provision(scope):
        relay, sender = transfer.relay_over(data.receiver(scope)), data.sender(scope)
        transfer.answerer_over(sender)(1, wire.STATUS_ERROR, -1, 0)
        with pytest.raises(ValueError, match="request 1, not 2"):
            relay.await_head(2)
        sender.close()
        relay.close()


def served(data, scope, path, size, sink, spoil=lambda receiver: None):
    """Serve the file over a lane within this process; `spoil` comes before the content is delivered."""
    with data.provision(scope):
        receiver, sender = data.receiver(scope), data.sender(scope)
        try:
            fd = os.open(path, os.O_RDONLY)
            transfer.answerer_over(sender)(1, wire.STATUS_OK, fd, size)
            os.close(fd)
            receiver.take()
            spoil(receiver)
            receiver.deliver(sink, size)
        finally:
            sender.close()
            receiver.close()


@pytest.mark.parametrize("size", [1000, 5000, 1 << 16])
def test_zeros_behind_the_end_of_a_file_that_shrank_are_not_content_of_a_mapping(home, tmp_path, size):
    (tmp_path / "file").write_bytes(b"x" * size)

    def shrink_once_mapped(receiver):
        mapping_of = receiver._mapping

        def mapping(last):
            mapped = mapping_of(last)
            os.truncate(tmp_path / "file", 500)
            return mapped

        receiver._mapping = mapping

    ours, theirs = socket.socketpair()
    with ours, theirs:
        lane = registry.data_transport("mmap"), home.scope("lane", TIMEOUT)
        with pytest.raises(EOFError, match="the file has shrunk"):
            served(*lane, tmp_path / "file", size, ours.fileno(), shrink_once_mapped)
        ours.close()
        assert len(theirs.recv(1 << 20)) < size


def test_what_a_memfd_holds_is_what_was_read_and_a_changed_file_is_read_again(home, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    ours, theirs = socket.socketpair()
    data = registry.data_transport("memfd")
    with ours, theirs:
        served(
            data,
            home.scope("lane", TIMEOUT),
            tmp_path / "file",
            1000,
            ours.fileno(),
            lambda receiver: (tmp_path / "file").write_bytes(b"y" * 1000),
        )
        assert theirs.recv(2000) == b"x" * 1000
        served(data, home.scope("again", TIMEOUT), tmp_path / "file", 1000, ours.fileno())
        assert theirs.recv(2000) == b"y" * 1000
    with os.scandir("/proc/self/fd") as descriptors:
        assert not [fd for fd in descriptors if "memfd:content" in os.readlink(fd)]


class Scripted(api.Receiver):
    """Hands out what it was given."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def take(self):
        return memoryview(self.pieces.pop(0))

    def give_back(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize("cut", [10, wire.HEAD_BYTES, wire.HEAD_BYTES + 3, wire.HEAD_BYTES + 5])
def test_more_content_than_announced_never_reaches_the_client(cut):
    reply = wire.encode_head(1, wire.STATUS_OK, 5) + b"hello" + b"EXTRA-SECRET" * 20
    relay = transfer.relay_over(Scripted(reply[:cut], reply[cut:]))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert relay.await_head(1) == (wire.STATUS_OK, 5)
        try:
            relay.pass_on(ours.fileno(), b"header")
        except ValueError:
            ours.close()
            assert theirs.recv(1000) in {b"", b"header", b"headerhel"}
        else:
            assert theirs.recv(1000) == b"headerhello"
            with pytest.raises(ValueError, match=r"not the head|is to request"):  # and the lane is retired
                relay.await_head(2)


@pytest.mark.processes
def test_command_receivers_of_several_processes_that_wait_in_vain_all_end_in_time(command, home):
    scope = home.scope("commands", 0.3)

    def wait():
        receiver, begun = command.receiver(scope), time.monotonic()
        with pytest.raises(TimeoutError):
            receiver.receive()
        receiver.close()
        took.append(time.monotonic() - begun)

    took = []
    with command.provision(scope):
        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        pids = [in_a_fork(wait) for _ in range(2)]
        for thread in threads:
            thread.join()
        assert [ended_well(pid) for pid in pids] == [True, True]
    assert len(took) == 4
    assert min(took) > 0.29
    assert max(took) < 3


@pytest.mark.parametrize("name", [*VARIANTS, "cma", "posix_mq", "posix_shm", "sysv_mq", "tcp", "unix"])
def test_a_sender_that_gives_up_is_noticed_at_once(name, home):
    data = registry.data_transport(name)
    scope = home.scope("lane", 20)
    with data.provision(scope):
        receiver, sender = data.receiver(scope), data.sender(scope)
        sender.loan()[: wire.HEAD_BYTES] = wire.encode_head(1, wire.STATUS_OK, 1000)
        sender.publish(100)
        assert len(receiver.take()) == 100
        receiver.give_back()
        sender.loan()
        sender.publish(0)
        with pytest.raises(EOFError):
            receiver.take()
        sender.close()
        receiver.close()


@pytest.mark.processes
@pytest.mark.parametrize("name", ["posix_shm:sync=fifo", "posix_shm:sync=eventfd", "tcp", "unix"])
def test_a_sender_killed_in_a_reply_ends_it_at_once_where_the_mechanism_can_tell(name, home):
    data = registry.data_transport(name)
    scope = home.scope("lane", 20)

    def send():
        sender = data.sender(scope)
        sender.loan()[: wire.HEAD_BYTES] = wire.encode_head(1, wire.STATUS_OK, 1000)
        sender.publish(100)
        os.kill(os.getpid(), signal.SIGKILL)

    with data.provision(scope):
        receiver = data.receiver(scope)
        pid = in_a_fork(send)
        assert len(receiver.take()) == 100
        receiver.give_back()
        with pytest.raises(EOFError):
            receiver.take()
        assert not ended_well(pid)
        receiver.close()


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("posix_mq:chunk=1GiB", "/proc/sys/fs/mqueue/msgsize_max"),
        ("posix_mq:depth=1000000", "/proc/sys/fs/mqueue/msg_max"),
        ("sysv_mq:chunk=1GiB", "/proc/sys/kernel/msgmax"),
        ("tcp:congestion=none", "/proc/sys/net/ipv4/tcp_allowed_congestion_control"),
        ("unix:buffer=1000MiB", "/proc/sys/net/core/wmem_max"),
    ],
)
def test_a_lane_over_a_limit_of_the_system_is_refused_with_the_limit(text, limit, home):
    data = registry.data_transport(text)
    scope = home.scope("lane", TIMEOUT)
    with pytest.raises(OSError, match=limit), data.provision(scope):
        pass


def test_a_backlog_over_the_limit_of_the_system_is_refused_with_the_limit(home):
    command = registry.command_transport("tcp:depth=1000000")
    with pytest.raises(OSError, match="/proc/sys/net/core/somaxconn"), command.provision(home.scope("c", TIMEOUT)):
        pass


def test_no_port_stays_in_time_wait_after_a_command_over_tcp(home):
    command, scope = registry.command_transport("tcp"), home.scope("commands", TIMEOUT)
    with command.provision(scope):
        port = api.TcpPort.read(scope.path("port")).number
        receiver, sender = command.receiver(scope), command.sender(scope)
        for number in range(20):
            sender.send(wire.encode_command(number, 1, b"/path", b"lane"))
            assert wire.decode_command(receiver.receive())[0] == number
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table]  # number, local address, remote address, state; proc(5)
        assert [row for row in rows if row[2] == f"0100007F:{port:04X}"] == []  # the ends that senders have closed
        receiver.close()


def test_queues_that_the_user_may_not_have_are_refused_with_the_sum(home):
    data = registry.data_transport("posix_mq:chunk=4096,depth=2")
    before = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (8000, before[1]))
    try:
        said = "counts 8384 bytes, and of the 8000 .*`ulimit -q`"
        with pytest.raises(OSError, match=said), data.provision(home.scope("lane", TIMEOUT)):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, before)


def test_a_queue_whose_name_is_taken_is_not_taken_for_one_that_is_too_large(home):
    scope = home.scope("lane", TIMEOUT)
    data = registry.data_transport("posix_mq")
    with data.provision(scope), pytest.raises(OSError, match=r"already exists: another program made it$"):
        data.provision(scope).__enter__()


FIFOS_OF_A_USER = """
import os, tempfile
from contextlib import ExitStack
from harness import registry, rendezvous
os.setuid(54321)  # of whom there are no others: a limit of a user
with tempfile.TemporaryDirectory() as os.environ["TRANSPORT_HARNESS_DIR"], ExitStack() as undo:
    home = rendezvous.Home("pipes", "test")
    data = registry.data_transport("fifo:pipe_size=1MiB")
    for number in range(int(open("/proc/sys/fs/pipe-user-pages-soft").read()) // 256 + 1):
        scope = home.scope(f"lane{number}", 1.0)
        undo.enter_context(data.provision(scope))
        undo.callback(data.receiver(scope).close)
"""


@pytest.mark.processes
@pytest.mark.skipif(os.getuid() != 0, reason="becomes an ordinary user")
def test_pipes_over_what_all_pipes_of_a_user_may_hold_are_not_taken_for_one_that_is_too_large():
    result = subprocess.run([sys.executable, "-c", FIFOS_OF_A_USER], capture_output=True, text=True, check=False)
    said = result.stderr.splitlines()[-1]
    assert said.startswith("OSError: pipe_size=1048576: all pipes of this user"), result.stderr
    assert "pipe-user-pages-soft" in said


@pytest.mark.parametrize("sync", ["semaphore", "eventfd"])
def test_all_senders_that_wait_for_room_in_a_ring_get_it(sync, home):
    command, scope = registry.command_transport(f"shm_ring:depth=2,sync={sync}"), home.scope("commands", 5.0)

    def send(first):
        sender = command.sender(scope)
        for number in range(first, first + 50):
            sender.send(wire.encode_command(number, 1, b"/path", b"lane"))
        sender.close()

    with command.provision(scope):
        receiver = command.receiver(scope)
        threads = [threading.Thread(target=send, args=(first,)) for first in (0, 50, 100, 150)]
        for thread in threads:
            thread.start()
        assert sorted(wire.decode_command(receiver.receive())[0] for _ in range(200)) == [*range(200)]
        for thread in threads:
            thread.join()
        receiver.close()


@pytest.mark.processes
def test_a_sender_that_opens_ends_in_time_where_the_cache_is_stopped_and_hands_over_no_eventfds(home):
    command, scope = registry.command_transport("shm_ring:sync=eventfd"), home.scope("commands", 0.3)
    provisioned, tell = os.pipe()

    def provision():
        with command.provision(scope):
            os.write(tell, b"x")
            signal.pause()

    pid = in_a_fork(provision)
    os.read(provisioned, 1)
    command.sender(scope).close()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    with pytest.raises(TimeoutError, match="handed over no eventfds"):
        command.sender(scope)
    os.kill(pid, signal.SIGKILL)
    assert not ended_well(pid)
    with pytest.raises(ConnectionRefusedError):
        command.sender(scope)
    os.close(provisioned)
    os.close(tell)


@pytest.mark.processes
def test_a_sender_killed_at_any_point_costs_no_other_sender_a_command(command, home):
    scope = home.scope("commands", 5.0)
    got = collections.Counter()

    def receive(receiver):
        while (number := wire.decode_command(receiver.receive())[0]) != 1000:
            got[number] += 1

    def hammer():
        sender = command.sender(scope)
        while True:
            sender.send(wire.encode_command(0, 1, b"/path", b"lane"))

    with command.provision(scope):
        receivers = [command.receiver(scope) for _ in range(2)]
        threads = [threading.Thread(target=receive, args=(receiver,), daemon=True) for receiver in receivers]
        for thread in threads:
            thread.start()
        sender = command.sender(scope)
        for number in range(1, 21):
            pids = [in_a_fork(hammer) for _ in range(2)]
            enough = got[0] + number
            assert eventually(lambda enough=enough: got[0] > enough)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            sender.send(wire.encode_command(number, 1, b"/path", b"lane"))
            assert eventually(lambda number=number: got[number] == 1, timeout=3)
        for _ in threads:
            sender.send(wire.encode_command(1000, 1, b"/path", b"lane"))
        for thread in threads:
            thread.join()
        for end in (*receivers, sender):
            end.close()
