"""The dialect `gios` through the whole pipeline: its bytes, its fragments, and who closes first."""

import socket
import time

import pytest
from support.clients import Connection

from harness import registry

TRANSPORTS = sorted(registry.installed().data)


def exactly(connection, count):
    received = b""
    while len(received) < count and (piece := connection.socket.recv(count - len(received))):
        received += piece
    return received


@pytest.mark.xdist_group("gios")
@pytest.mark.parametrize("data", [*TRANSPORTS, "direct"])
def test_replies_are_byte_exact_over_every_transport_and_come_at_once(shared, data):
    contents = {name: bytes(size) for name, size in (("empty", 0), ("small", 1000), ("large", 3_000_000))}
    for name, content in contents.items():
        shared.write(name, content)
    shared.cache()
    backend = ["--direct", shared.files] if data == "direct" else ["--data", data]
    proxy = shared.proxy("--dialect", "gios", *backend)
    expected = {f"/{name}": b"GETFILE OK %d " % len(content) + content for name, content in contents.items()}
    for path, reply in (*expected.items(), ("/missing", b"GETFILE FILE_NOT_FOUND 0\n")):
        times = []
        for _ in range(5):
            begun = time.monotonic()
            with Connection(proxy.port) as connection:
                connection.send(b"GETFILE GET %s\r\n\r\n" % path.encode())
                assert exactly(connection, len(reply)) == reply
            times.append(time.monotonic() - begun)
        # What a corked socket holds back would come after 200 ms, what waits for an end of the connection after 1 s.
        assert min(times) < 0.15, path
    code, output = shared.client(
        proxy.port, list(expected), "-r", 30, "-t", 3, "--dialect", "gios", "--verify", shared.files
    )
    assert code == 0, output
    assert "OK 30 " in output
    assert proxy.stop() == 0


def test_a_request_may_come_in_four_small_sends_in_any_case_or_byte_by_byte(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy("--dialect", "gios")
    request = b"getFile gEt " + path.encode() + b"\r\n"
    for pieces in ([b"getfile ", b"Get ", path.encode(), b"\r\n\r\n"], [bytes([byte]) for byte in request]):
        with Connection(proxy.port) as connection:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.send(piece)
                time.sleep(0.01)
            assert exactly(connection, 20) == b"GETFILE OK 7 content"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GETFILE PUT /file\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GETFILE GET /a b\n",
        b"GETFILE GET /" + b"a" * 5000,
    ],
)
def test_what_is_no_request_is_answered_with_error_which_no_reset_takes_away(pipeline, request_bytes):
    pipeline.cache()
    proxy = pipeline.proxy("--dialect", "gios")
    with Connection(proxy.port) as connection:
        assert connection.send(request_bytes).rest() == b"GETFILE ERROR 0\n"


def test_the_server_waits_for_the_client_to_close_but_not_for_ever(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy("--dialect", "gios", "-t", 1)
    with Connection(proxy.port) as connection:
        assert exactly(connection.send(f"GETFILE GET {path}\n".encode()), 20) == b"GETFILE OK 7 content"
        connection.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.socket.recv(1)
        connection.socket.settimeout(20)
        begun = time.monotonic()
        assert connection.socket.recv(1) == b""
        assert time.monotonic() - begun < 4
    with Connection(proxy.port) as connection:
        connection.send(f"GETFILE GET {path}\r\n\r\n".encode() + b"never to be read" * 1000)
        assert connection.rest() == b"GETFILE OK 7 content"


@pytest.mark.parametrize("data", ["posix_shm", "splice", "handoff"])
def test_a_reply_that_is_cut_ends_the_connection_at_once(pipeline, data):
    path = pipeline.write_zeros("file", 64 << 20)
    cache = pipeline.cache("--timeout", 2)
    proxy = pipeline.proxy("--dialect", "gios", "--data", data, "--timeout", 2)
    with Connection(proxy.port) as connection:
        received = len(connection.send(f"GETFILE GET {path}\n".encode()).socket.recv(1000))
        cache.kill_all()
        begun = time.monotonic()
        received += len(connection.rest())
        assert time.monotonic() - begun < 2.9  # the timeout, and not the wait for a client to close as well
    assert received < 64 << 20
    assert proxy.stop() == 0
    pipeline.cache().stop()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"GETFILE OK 4 here", "OK"),
        (b"GETFILE OK 0 ", "OK"),
        (b"GETFILE FILE_NOT_FOUND 0\n", "FILE_NOT_FOUND"),
        (b"GETFILE ERROR 0\n", "ERROR"),
        (b"GETFILE OK 5 here", "short"),
        (b"GETFILE OK 3 here", "wrong"),
        (b"GETFILE OK 4\r\n\r\nhere", "wrong"),
        (b"GETFILE O", "failed"),
    ],
)
@pytest.mark.parametrize("sink", ["", "--discard"])
def test_the_client_tells_gios_replies_apart_and_closes_first(pipeline, reply, kind, sink):
    path = pipeline.write("x", b"")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workload = pipeline.directory / "workload.txt"
        workload.write_text(f"{path}\n")
        client = pipeline.start(
            "gfclient",
            "-p",
            listener.getsockname()[1],
            "-w",
            workload,
            "-r",
            1,
            "-t",
            1,
            "--dialect",
            "gios",
            "--timeout",
            10,
            *sink.split(),
        )
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(4096) == b"GETFILE GET /x\r\n\r\n"
            connection.sendall(reply)
            if kind in {"short", "failed"}:
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            assert connection.recv(1) == b""  # it closes, though the server has not
        output = client.process.stdout.read().decode()
        assert client.wait() == (0 if kind == "OK" else 1)
        assert f"{kind} 1" in output


def test_a_path_too_long_for_the_dialect_is_refused_with_its_line(pipeline):
    code, output = pipeline.client(1, ["/" + "a" * 112], "-r", 1, "--dialect", "gios")
    assert code == 2
    assert "a request of 129 bytes; the dialect gios ends at 127" in output


def test_a_client_that_waits_without_closing_costs_a_worker_a_second_and_no_more(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy("--dialect", "gios", "-t", 2)
    waiting = [Connection(proxy.port).send(f"GETFILE GET {path}\n".encode()) for _ in range(2)]
    with Connection(proxy.port) as connection:
        begun = time.monotonic()
        assert exactly(connection.send(f"GETFILE GET {path}\n".encode()), 20) == b"GETFILE OK 7 content"
        assert time.monotonic() - begun < 4
    for one in waiting:
        one.socket.close()
