"""The socket toolbox of the contract: TCP on the loopback. transports/tcp.py is written with it."""

import os
import socket
import stat
import time

import pytest

from harness.api import TcpPort, tcp_accepted, tcp_connected, tcp_listener


@pytest.fixture
def listener(tmp_path):
    with tcp_listener(str(tmp_path / "port"), 0.3) as listener:
        yield listener, str(tmp_path / "port")


def test_both_ends_of_a_tcp_connection_end_their_waits_in_time_and_send_without_delay(listener):
    listener, path = listener
    with pytest.raises(TimeoutError, match=r"no connection for 0\.3 s"):
        tcp_accepted(listener, path, 0.3)
    with tcp_connected(path, 0.3) as sender, tcp_accepted(listener, path, 0.3) as receiver:
        for end in (sender, receiver):
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            begun = time.monotonic()
            with pytest.raises(BlockingIOError):
                end.recv(1)
            assert 0.2 < time.monotonic() - begun < 3
        sender.send(b"x")
        assert receiver.recv(2) == b"x"


def test_what_is_sent_with_the_key_comes_after_it(listener):
    listener, path = listener
    port = TcpPort.read(path)
    with port.connected(0.3, b"first"), port.accepted(listener, 0.3) as receiver:
        assert receiver.recv(9) == b"first"


def test_a_port_file_is_its_owners_alone_and_there_at_once(listener):
    _, path = listener
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(os.path.dirname(path)) == ["port"]


def test_a_program_that_does_not_know_the_key_is_not_let_in_and_keeps_no_other_one_waiting(tmp_path):
    path = str(tmp_path / "port")
    with tcp_listener(path, 20) as listener:
        silent, wrong = (socket.create_connection(listener.getsockname(), 20) for _ in range(2))
        with silent, wrong, tcp_connected(path, 20) as sender:
            wrong.send(b"x" * 16)
            begun = time.monotonic()
            accepted = [tcp_accepted(listener, path, 20) for _ in range(2)]
            assert time.monotonic() - begun < 10
            assert accepted.count(None) == 1
            with next(filter(None, accepted)) as receiver:
                assert receiver.getpeername() == sender.getsockname()
            assert wrong.recv(1) == b""


def test_a_sender_is_refused_where_no_receiver_listens(tmp_path):
    path = str(tmp_path / "port")
    with pytest.raises(FileNotFoundError):
        tcp_connected(path, 0.3)
    tcp_listener(path, 0.3).close()
    with pytest.raises(ConnectionRefusedError):
        tcp_connected(path, 0.3)


def test_a_socket_that_connects_to_itself_counts_as_refused(listener, monkeypatch):
    """The kernel gives a connecting socket a free port, and that may be the one that the listener has just left."""
    listener, path = listener
    address = listener.getsockname()
    listener.close()

    class BoundFirst(socket.socket):
        def connect(self, to):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(address)
            super().connect(to)

    monkeypatch.setattr(socket, "socket", BoundFirst)
    with pytest.raises(ConnectionRefusedError, match="nothing listens on port"):
        tcp_connected(path, 0.3)
