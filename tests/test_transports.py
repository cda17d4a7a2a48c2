"""Every registered transport moves replies and commands; the sender of replies is a real second process."""

import collections
import hashlib
import os
import signal
import socket
import threading
from functools import partial

import pytest

from harness import api, registry, transfer
from harness.protocol import wire

SIZES = [0, 1, 4031, 4032, 4033, 4096, 100_000, 3_000_001]
TIMEOUT = 1.0
HEADER = b"header %d "


@pytest.fixture(params=sorted(registry.load().data))
def data(request):
    return registry.data_transport(request.param, chunk=4096)


@pytest.fixture(params=sorted(registry.load().command))
def command(request):
    return registry.command_transport(request.param)


def in_a_fork(work):
    """Run `work` in a second process; the pid, to be waited for."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # a failed test must not leave it waiting for ever
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return pid


def ended_well(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def give_away(relay, client):
    """The step that a hand-off has before the command."""
    if isinstance(relay, transfer.HandOffRelay):
        relay.give(client.fileno(), HEADER)


def collected(client, into):
    while piece := client.recv(1 << 16):
        into.append(piece)


def test_bodies_of_awkward_sizes_arrive_intact_from_another_process(data, home, tmp_path):
    scope = home.scope("lane", TIMEOUT)
    with data.provision(scope):
        relay = transfer.relay_over(data.receiver(scope))
        for number, size in enumerate(SIZES):
            content = bytes(size) if data.name == "null" else os.urandom(size)
            (tmp_path / "file").write_bytes(content)

            def send(number=number, size=size):
                sender = data.sender(scope)
                fd = os.open(tmp_path / "file", os.O_RDONLY)
                transfer.answerer_over(sender)(number, wire.STATUS_OK, fd, size)

            listener = socket.create_server(("127.0.0.1", 0))
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
            got = []
            reader = threading.Thread(target=collected, args=(client, got))
            give_away(relay, server)
            pid = in_a_fork(send)
            reader.start()
            with listener, client:
                with server:
                    assert relay.await_head(number) == (wire.STATUS_OK, size)
                    relay.pass_on(server.fileno(), HEADER % size)
                reader.join()
            assert ended_well(pid)
            assert hashlib.sha256(b"".join(got)).digest() == hashlib.sha256(HEADER % size + content).digest()
        relay.close()
        relay.close()


def test_waiting_for_a_reply_ends_in_time(data, home):
    scope = home.scope("lane", 0.05)
    with data.provision(scope):
        receiver = data.receiver(scope)
        with pytest.raises(TimeoutError):
            receiver.take()
        receiver.close()


def test_a_client_that_went_away_leaves_the_lane_at_rest(data, home, tmp_path):
    scope = home.scope("lane", TIMEOUT)
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    with data.provision(scope):
        receiver = data.receiver(scope)
        relay = transfer.relay_over(receiver)

        asked, ask = os.pipe()

        def send():
            fd = os.open(tmp_path / "file", os.O_RDONLY)
            answer = transfer.answerer_over(data.sender(scope))
            answer(1, wire.STATUS_OK, fd, 1 << 20)
            os.read(asked, 1)
            answer(2, wire.STATUS_NOT_FOUND, -1, 0)

        ours, theirs = socket.socketpair()
        theirs.close()
        give_away(relay, ours)
        pid = in_a_fork(send)
        relay.await_head(1)
        with ours, pytest.raises(transfer.ClientGone):
            relay.pass_on(ours.fileno(), b"header")
        os.write(ask, b"x")
        os.close(asked)
        os.close(ask)
        assert relay.await_head(2) == (wire.STATUS_NOT_FOUND, 0)
        assert ended_well(pid)
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
        served(data, home.scope("lane", TIMEOUT), tmp_path / "file", 1000, ours.fileno(),
               lambda receiver: (tmp_path / "file").write_bytes(b"y" * 1000))  # fmt: skip
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


def test_each_command_reaches_exactly_one_of_many_receivers_in_order_of_its_sender(command, home):
    scope = home.scope("commands", TIMEOUT)
    got = []
    with command.provision(scope):
        receivers = [command.receiver(scope) for _ in range(3)]

        def receive(receiver):
            try:
                while True:
                    got.append(wire.decode_command(receiver.receive()).request_id)
            except TimeoutError:
                pass

        threads = [threading.Thread(target=receive, args=(receiver,)) for receiver in receivers]

        def send(first):
            sender = command.sender(scope)
            for number in range(first, first + 500):
                sender.send(wire.encode_command(number, b"lane", b"/path"))

        pids = [in_a_fork(lambda first=first: send(first)) for first in (0, 1000)]
        for thread in threads:
            thread.start()
        assert [ended_well(pid) for pid in pids] == [True, True]
        for thread in threads:
            thread.join()
        for receiver in receivers:
            receiver.close()
            receiver.close()
    assert sorted(got) == [*range(500), *range(1000, 1500)]


def test_a_full_command_channel_pushes_back_in_time(command, home):
    scope = home.scope("commands", 0.05)
    with command.provision(scope):
        receiver, sender = command.receiver(scope), command.sender(scope)
        numbers = map(partial(wire.encode_command, lane=b"lane", path=b"/path"), range(10_000))
        with pytest.raises(TimeoutError):
            collections.deque(map(sender.send, numbers), 0)
        assert wire.decode_command(receiver.receive()).request_id == 0
        sender.close()
        receiver.close()
