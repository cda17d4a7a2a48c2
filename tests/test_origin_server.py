"""The origin that the harness starts: HTTP/1.1 as clients speak it, and slow where an option says so."""

import os
import re
import signal
import socket
import time

import pytest
from support.programs import eventually, open_files

from harness import rendezvous
from harness.origin import nginx


class Client:
    """An HTTP connection that is kept."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        self._file = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._socket.close()

    def send(self, data):
        self._socket.sendall(data)

    def response(self, content=True):
        """(status, content) of the next response."""
        status = int(self._file.readline().split()[1])
        length = 0
        while (line := self._file.readline()) not in {b"\r\n", b""}:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, self._file.read(length) if content else length

    def get(self, path, headers=b""):
        self.send(b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path, headers))
        return self.response()

    def ended(self):
        return self._file.read(1) == b""


@pytest.fixture
def origin(pipeline):
    def start(*arguments):
        program = pipeline.start("origin", "-c", pipeline.files, "-p", 0, "--processes", 1, *arguments)
        program.first = program.line()
        program.port = int(program.first.split()[3].rstrip(",").rpartition(":")[2])
        return program

    return start


def test_files_are_served_over_one_connection_and_a_path_is_percent_decoded(pipeline, origin):
    contents = {"empty": b"", "small": b"content", "large": os.urandom(5_000_000), "a b?": b"odd"}
    for name, content in contents.items():
        pipeline.write(name, content)
    with Client(origin().port) as client:
        for name, content in contents.items():
            path = name.encode().replace(b" ", b"%20").replace(b"?", b"%3F")
            assert client.get(b"/" + path) == (200, content)
            client.send(b"HEAD /%s HTTP/1.1\r\n\r\n" % path)
            assert client.response(content=False) == (200, len(content))
        assert client.get(b"/small?query") == (200, b"content")
        assert client.get(b"/missing") == (404, b"")
        assert client.get(b"/../conftest.py") == (404, b"")
        assert client.get(b"/%2e%2e/x") == (404, b"")
        client.send(b"PUT /small HTTP/1.1\r\n\r\n")
        assert client.response() == (501, b"")


def test_requests_may_come_in_pieces_or_several_at_once_and_a_client_may_ask_for_the_end(pipeline, origin):
    pipeline.write("small", b"content")
    running = origin()
    request = b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n"
    with Client(running.port) as client:
        for byte in request:
            client.send(bytes([byte]))
        assert client.response() == (200, b"content")
        client.send(request * 20)
        assert [client.response() for _ in range(20)] == [(200, b"content")] * 20
        assert client.get(b"/small", b"Connection: close\r\n") == (200, b"content")
        assert client.ended()
    for bad in (b"nonsense\r\n\r\n", b"GET /" + b"a" * 200_000, b"GET /small\r\n\r\n"):
        with Client(running.port) as client:
            try:
                client.send(bad)
                assert client.ended()
            except ConnectionError:
                pass
    with Client(running.port) as client:
        assert client.get(b"/small") == (200, b"content")
    assert running.stop() == 0
    assert running.errors == ""


def test_a_response_waits_for_the_latency_while_others_are_served(pipeline, origin):
    pipeline.write("small", b"content")
    running = origin("--latency", 50_000)
    clients = [Client(running.port) for _ in range(20)]
    begun = time.monotonic()
    for client in clients:
        client.send(b"GET /small HTTP/1.1\r\n\r\n")
    for client in clients:
        assert client.response() == (200, b"content")
    assert 0.05 <= time.monotonic() - begun < 0.95
    for client in clients:
        with client:
            pass


def test_a_connection_gets_no_more_than_its_bandwidth(pipeline, origin):
    content = os.urandom(3 << 20)
    pipeline.write("large", content)
    with Client(origin("--bandwidth", "4MiB").port) as client:
        begun = time.monotonic()
        assert client.get(b"/large") == (200, content)
        assert 0.5 < time.monotonic() - begun < 2


# nginx in its place

needs_nginx = pytest.mark.skipif(bool(nginx.unable("/", slow=False)), reason="needs nginx: apt-get install nginx-light")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as pids:
        return pids.read().split()


@needs_nginx
def test_nginx_serves_the_same_files_and_leaves_nothing(pipeline, origin, base):
    contents = {"empty": b"", "small": b"content", "large": os.urandom(5_000_000), "a b?": b"odd"}
    for name, content in contents.items():
        pipeline.write(name, content)
    running = origin("--server", "nginx", "--processes", 2)
    assert re.fullmatch(r"origin: .* by nginx/[\d.]+", running.first)
    with Client(running.port) as client:
        for name, content in contents.items():
            path = name.encode().replace(b" ", b"%20").replace(b"?", b"%3F")
            assert client.get(b"/" + path) == (200, content)
        assert client.get(b"/missing")[0] == 404
    (master,) = running.children()
    assert eventually(lambda: len(children(master)) == 2)
    assert running.stop() == 0
    assert running.errors == ""
    assert not os.path.exists(base)


@needs_nginx
@pytest.mark.parametrize(("killed", "code"), [("origin", -signal.SIGKILL), ("nginx", 1)])
def test_nginx_ends_with_the_origin_that_started_it_and_the_origin_with_its_nginx(origin, base, killed, code):
    running = origin("--server", "nginx")
    (master,) = running.children()
    everybody = [master, *children(master)]
    os.kill(running.pid if killed == "origin" else master, signal.SIGKILL)
    assert running.wait() == code
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in everybody))
    assert ("nginx ended by itself" in running.errors) == (killed == "nginx")
    assert eventually(lambda: rendezvous.sweep() == [] and not os.path.exists(base))  # the lock goes last


@needs_nginx
def test_what_an_origin_left_is_not_swept_before_its_nginx_has_ended(origin, base):
    running = origin("--server", "nginx")
    (master,) = running.children()
    everybody = [master, *children(master)]
    (home,) = os.scandir(f"{base}/default")
    assert all(f"{home.path}/{rendezvous.LOCK}" in open_files(pid) for pid in everybody)
    os.kill(running.pid, signal.SIGKILL)
    while os.path.exists(base):
        rendezvous.sweep()
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in everybody)


@needs_nginx
def test_auto_is_nginx_unless_the_origin_is_to_be_slow_or_its_source_is_a_list(pipeline, origin):
    file = pipeline.write("file", b"content")
    assert "nginx" in origin("--server", "auto").first
    assert "harness origin" in origin("--server", "auto", "--latency", 1).first
    (pipeline.directory / "list").write_text(f"/file {pipeline.files}{file}\n")
    assert "harness origin" in origin("--server", "auto", "-c", pipeline.directory / "list").first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--latency", 1], "nginx has no latency"), (["-c", "list"], "nginx serves directories")],
)
def test_what_nginx_cannot_do_is_refused(pipeline, monkeypatch, arguments, message):
    monkeypatch.chdir(pipeline.directory)
    (pipeline.directory / "list").write_text("/file file\n")
    pipeline.write("../file", b"content")
    program = pipeline.start("origin", "-c", pipeline.files, "-p", 0, "--server", "nginx", *arguments)
    assert program.wait() == 3
    assert message in program.errors


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo nginx version: nginx/1.18.0 >&2", "is no nginx of 1.19.5 or later: nginx version: nginx/1.18.0"),
        ("echo nginx version: openresty/1.21.4.1 >&2", "is no nginx of 1.19.5 or later: nginx version: openresty"),
        ("exit 1", "is no nginx of 1.19.5 or later: it fails"),
    ],
)
def test_where_nginx_is_another_one_auto_does_without(pipeline, origin, monkeypatch, script, message):
    for name in ("nginx", "setpriv"):
        (pipeline.directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (pipeline.directory / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{pipeline.directory}:{os.environ['PATH']}")
    assert "harness origin" in origin("--server", "auto").first
    program = pipeline.start("origin", "-c", pipeline.files, "-p", 0, "--server", "nginx")
    assert program.wait() == 3
    assert message in program.errors
    assert len(program.errors.splitlines()) == 1


def test_where_nginx_is_not_installed_that_is_the_reason(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(nginx, "_PLACES", "")
    reason = "no nginx and no setpriv here: apt-get install nginx-light util-linux, or use the server `own`"
    assert nginx.unable("/", slow=False) == reason
