"""Clients that take nothing of their replies, at a server in this process: who has to go, and who is served when."""

import os
import select
import socket
import time
from contextlib import ExitStack

import pytest
from support.clients import get, whole
from support.programs import eventually

from harness.pipeline import siege
from harness.pipeline.catalogue import open_source
from harness.pipeline.gfserver import Server, listen
from harness.pipeline.webproxy import DirectBackend
from harness.protocol.dialects import DIALECTS

pytestmark = pytest.mark.processes
LARGE = 8 << 20


@pytest.fixture
def serve(tmp_path):
    """serve(threads): (port, its siege) of a server of two files, small and large."""
    (tmp_path / "small").write_bytes(b"content")
    (tmp_path / "large").write_bytes(os.urandom(LARGE))
    with ExitStack() as undo:

        def start(threads):
            dialect = DIALECTS["getfile"]
            listener = undo.enter_context(listen("127.0.0.1", 0, 60.0, "reno"))
            server = Server(
                listener, threads, DirectBackend(open_source(str(tmp_path), False), 60.0, dialect), 60.0, dialect
            )
            undo.callback(server.stop, 5.0)
            return listener.getsockname()[1], server._siege

        yield start


@pytest.fixture
def connect():
    """connect(port, name): a connection that has asked for a file, and does not read."""
    with ExitStack() as undo:

        def ask(port, name):
            connection = undo.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            connection.sendall(f"GETFILE GET /{name}\r\n\r\n".encode())
            return connection

        yield ask


def rest(connection):
    received = bytearray()
    while piece := connection.recv(1 << 20):
        received += piece
    return bytes(received)


def test_where_others_wait_one_that_takes_nothing_goes_and_then_the_last_is_served_first(
    serve, connect, monkeypatch, tmp_path, capfd
):
    monkeypatch.setattr(siege, "_UNDER_SIEGE", 0.5)
    port, _ = serve(1)
    slow = [connect(port, "large") for _ in range(2)]
    assert select.select([slow[1]], [], [], 20)[0], "the first has gone, the second is served"
    others = [connect(port, "small") for _ in range(3)]
    ended = []
    while len(ended) < 3:
        ready, _, _ = select.select([one for one in others if one not in ended], [], [], 20)
        assert ready, "each of them would wait for a minute"
        for one in sorted(ready, key=others.index, reverse=True):  # those that were seen at once: the last first
            assert rest(one) == whole(b"content")
            ended.append(one)
    assert ended == others[::-1]
    content = whole((tmp_path / "large").read_bytes())
    for one in slow:
        cut = rest(one)
        assert len(cut) < len(content)
        assert content.startswith(cut)
    assert "have to go, and the last one is served first" in capfd.readouterr().err


def test_one_that_takes_nothing_stays_while_nobody_waits(serve, connect, tmp_path):
    port, _ = serve(2)
    slow = connect(port, "large")
    until = time.monotonic() + 4 * siege.PATIENCE
    while time.monotonic() < until:
        assert get(port, "/small") == whole(b"content")
    assert rest(slow) == whole((tmp_path / "large").read_bytes())


def test_one_that_takes_its_reply_in_pieces_stays_although_others_wait(serve, connect, tmp_path):
    port, watch = serve(1)
    steady = connect(port, "large")
    assert eventually(lambda: watch.serving[0] >= 0)
    waiting = [connect(port, "small") for _ in range(3)]
    received = bytearray()
    while piece := steady.recv(1 << 18):
        received += piece
        time.sleep(0.05)
    assert received == whole((tmp_path / "large").read_bytes())
    assert [rest(one) for one in waiting] == [whole(b"content")] * 3
    assert not watch.hands_over


def test_a_siege_ends_and_clients_are_then_served_in_the_order_in_which_they_came(serve, connect, monkeypatch):
    monkeypatch.setattr(siege, "_SIEGE", 0.3)
    port, watch = serve(1)
    connect(port, "large")
    assert eventually(lambda: watch.serving[0] >= 0)
    assert rest(connect(port, "small")) == whole(b"content")
    assert watch.hands_over
    time.sleep(0.4)
    steady = connect(port, "large")
    assert eventually(lambda: watch.serving[0] >= 0)
    others = [connect(port, "small") for _ in range(3)]
    assert eventually(lambda: watch._waiting and not watch._besieged)
    rest(steady)
    assert [rest(one) for one in others] == [whole(b"content")] * 3
    assert get(port, "/small") == whole(b"content")


def test_where_too_many_wait_the_first_has_to_go(serve, connect, monkeypatch):
    monkeypatch.setattr(siege, "ROOM", 5)
    port, watch = serve(1)
    slow = [connect(port, "large") for _ in range(12)]
    assert eventually(lambda: watch.hands_over)
    assert get(port, "/small") == whole(b"content")
    assert eventually(lambda: sum(ended(one) for one in slow) >= 6), "the one that held the worker, and those over 5"


def ended(connection):
    """Whether nothing comes any more after what has come."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_a_server_that_ends_under_siege_lets_go_of_all_who_wait(serve, connect, tmp_path):
    port, watch = serve(1)
    slow = [connect(port, "large") for _ in range(6)]
    assert eventually(lambda: watch.hands_over and len(watch._waiting) >= 2)
    waiting = len(watch._waiting)
    watch.stop()
    assert not watch._waiting
    assert eventually(lambda: sum(ended(one) for one in slow) >= waiting)
