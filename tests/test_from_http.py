"""The proxy over libcurl against an origin that misbehaves: every status, every failure, whole or not at all."""

import base64
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clients import ERROR, NOT_FOUND, Connection, get, whole
from support.misbehaving import (
    Origin,
    by_method,
    chunked,
    closing,
    in_turn,
    ok,
    redirect,
    resetting,
    silent_after,
    status,
)
from support.programs import eventually, open_files

from harness.pipeline import webproxy
from harness.pipeline.http_session import parse_url
from harness.pipeline.webproxy import STRATEGIES

CONTENT = os.urandom(200_000)


@pytest.fixture
def proxy(pipeline, origin):
    def start(*arguments, url=None):
        return pipeline.proxy("-s", url or origin.url, "--timeout", 1, *arguments)

    return start


@pytest.mark.parametrize("reuse", ["--reuse", "--no-reuse"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_files_of_any_size_arrive_whole_by_every_strategy(pipeline, origin, proxy, strategy, reuse):
    contents = {f"/{size}": os.urandom(size) for size in (0, 1, 16383, 16384, 16385, 3_000_000)}
    for path, content in contents.items():
        pipeline.write(path[1:], content)
        origin.answers[path] = ok(content)
    running = proxy("--strategy", strategy, reuse)
    code, output = pipeline.client(running.port, list(contents), "-r", 60, "-t", 4, "--verify", pipeline.files)
    assert code == 0, output
    gets = sum(request.method == "GET" for request in origin.requests)
    heads = sum(request.method == "HEAD" for request in origin.requests)
    assert (gets, heads) == (60, 60 if strategy == "head-then-get" else 0)
    if reuse == "--reuse":
        assert origin.connections() <= 2  # one a worker
    else:
        assert origin.connections() == gets + heads
    assert running.errors == ""


BROKEN_OFF = "broken off"
CASES = {
    "404": (status(404), NOT_FOUND),
    "410": (status(410), NOT_FOUND),
    "404 with a page that breaks off": (closing(status(404)[:-3]), NOT_FOUND),
    "404 with a page that does not end": (status(404, content=bytes(1 << 20)), NOT_FOUND),
    "403": (status(403), ERROR),
    "401": (status(401, b"WWW-Authenticate: Basic realm=x"), ERROR),
    "500": (status(500), ERROR),
    "503 without content": (status(503, content=b""), ERROR),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", ERROR),
    "206": (b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/9\r\n\r\nabc", ERROR),
    "304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", ERROR),
    "a redirect to nowhere": (status(302), ERROR),
    "early hints first": (b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n" + ok(CONTENT), whole(CONTENT)),
    "a length of zero": (ok(b""), whole(b"")),
    "lines that end in LF alone": (b"HTTP/1.1 200 OK\nContent-Length: 7\n\ncontent", whole(b"content")),
    "chunks": (chunked(CONTENT[:1], CONTENT[1:]), whole(CONTENT)),
    "no chunks": (chunked(), whole(b"")),
    "chunks with trailers": (chunked(CONTENT, end=b"0\r\nContent-Length: 3\r\nX: y\r\n\r\n"), whole(CONTENT)),
    "chunks and a length, which does not count": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n0\r\n\r\n",
        whole(b"content"),
    ),
    "the end of the connection for a length": (
        b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + CONTENT,
        whole(CONTENT),
    ),
    "more on the connection than the length": (ok(CONTENT + b"more", length=len(CONTENT)), whole(CONTENT)),
    "content that is encoded unasked": (ok(CONTENT, b"Content-Encoding: gzip"), ERROR),
    "content that is said not to be encoded": (ok(CONTENT, b"Content-Encoding: identity"), whole(CONTENT)),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 3\r\n\r\nhello", ERROR),
    "a length that is none": (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nhello", ERROR),
    "a length below zero": (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", ERROR),
    "a list of lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", ERROR),
    "a length beyond all files": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello", ERROR),
    "a line like a status": (b"HTTP/1.1 200 OK\r\nHTTP/foo: bar\r\nContent-Length: 5\r\n\r\nhello", whole(b"hello")),
    "no HTTP": (closing(b"hello"), ERROR),
    "HTTP without end": (closing(b"HTTP/1.1 200 OK\r\nContent-"), ERROR),
    "a header without end": (closing(b"HTTP/1.1 200 OK\r\n" + b"X: " + bytes(1 << 20)), ERROR),
    "nothing at all": (closing(b""), ERROR),
    "a reset": (resetting(b""), ERROR),
    "silence": (silent_after(b""), ERROR),
    "silence in the header": (silent_after(b"HTTP/1.1 200 OK\r\nContent-Le"), ERROR),
    "chunks that break off": (closing(chunked(CONTENT, end=b"")), ERROR),
    "chunks that are reset": (resetting(chunked(CONTENT, end=b"")), ERROR),
    "chunks that fall silent": (silent_after(chunked(CONTENT, end=b"")), ERROR),
    "chunks that are none": (closing(chunked(CONTENT, end=b"no number\r\n")), ERROR),
    "content that is too short": (closing(ok(CONTENT, length=len(CONTENT) + 1)), BROKEN_OFF),
    "content that is reset": (resetting(ok(CONTENT, length=len(CONTENT) + 1)), BROKEN_OFF),
    "content that falls silent": (silent_after(ok(CONTENT, length=len(CONTENT) + 1)), BROKEN_OFF),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whatever_the_origin_does_is_answered_right_in_time_and_the_worker_goes_on(origin, proxy, strategy):
    origin.answers |= {f"/{number}": answer for number, (answer, _) in enumerate(CASES.values())}
    origin.answers["/good"] = ok(b"good")
    running = proxy("--strategy", strategy, "-t", 1)
    for number, (case, (_, expected)) in enumerate(CASES.items()):
        begun = time.monotonic()
        reply = get(running.port, f"/{number}")
        assert time.monotonic() - begun < 5, case
        if expected == BROKEN_OFF and strategy == "buffered":
            assert reply == ERROR, case  # nothing had been sent by then
        elif expected == BROKEN_OFF:
            header, _, body = reply.partition(b"\r\n\r\n")
            assert header == b"GETFILE OK %d" % (len(CONTENT) + 1), case
            assert CONTENT.startswith(body), case
            assert len(body) <= len(CONTENT), case
        else:
            assert reply == expected, f"{case}: {reply[:100]}; {running.errors}"
        assert get(running.port, "/good") == whole(b"good"), case
    assert "Traceback" not in running.errors
    assert "request failed" not in running.errors


def test_a_body_longer_than_head_announced_is_cut_and_never_whole(origin, proxy):
    for announced in (0, 1, len(CONTENT) - 1):
        origin.answers[f"/chunked-{announced}"] = by_method(HEAD=ok(b"", length=announced), GET=chunked(CONTENT))
        origin.answers[f"/other-{announced}"] = by_method(HEAD=ok(b"", length=announced), GET=ok(CONTENT))
    running = proxy("--strategy", "head-then-get")
    for announced in (0, 1, len(CONTENT) - 1):
        reply = get(running.port, f"/chunked-{announced}")
        assert len(reply) < len(b"GETFILE OK %d\r\n\r\n" % announced) + announced or reply == ERROR
        assert get(running.port, f"/other-{announced}") == ERROR


def test_a_body_shorter_than_head_announced_is_cut_and_not_padded(origin, proxy):
    origin.answers["/file"] = by_method(HEAD=ok(b"", length=len(CONTENT) + 1), GET=chunked(CONTENT))
    reply = get(proxy("--strategy", "head-then-get").port, "/file")
    assert reply.startswith(b"GETFILE OK %d\r\n\r\n" % (len(CONTENT) + 1))
    assert CONTENT.startswith(reply.partition(b"\r\n\r\n")[2])


def test_head_without_a_length_has_the_body_collected_and_head_that_is_refused_is_an_error(origin, proxy):
    origin.answers["/dynamic"] = by_method(HEAD=b"HTTP/1.1 200 OK\r\n\r\n", GET=chunked(CONTENT))
    origin.answers["/no-head"] = by_method(HEAD=status(405, content=b""), GET=ok(CONTENT))
    origin.answers["/gone-meanwhile"] = by_method(HEAD=ok(b"", length=5), GET=status(404))
    running = proxy("--strategy", "head-then-get")
    assert get(running.port, "/dynamic") == whole(CONTENT)
    assert get(running.port, "/no-head") == ERROR
    assert "/no-head: HEAD: HTTP 405" in running.errors
    assert get(running.port, "/gone-meanwhile") == NOT_FOUND


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_has_to_be_collected_spills_to_disk_beyond_one_bound_and_is_an_error_beyond_another(
    pipeline, origin, proxy, strategy
):
    sizes = (0, 9_999, 10_000, 10_001, 99_999, 100_000)
    for size in (*sizes, 100_001):
        pipeline.write(str(size), os.urandom(size))
        origin.answers[f"/{size}"] = chunked(*filter(None, [pipeline.files.joinpath(str(size)).read_bytes()]))
    spool = pipeline.directory / "spool"
    spool.mkdir()
    running = proxy("--strategy", strategy, "--memory", 10_000, "--largest", 100_000, "--spool", spool)
    code, output = pipeline.client(running.port, [f"/{size}" for size in sizes], "-r", 30, "--verify", pipeline.files)
    assert code == 0, output
    assert get(running.port, "/100001") == ERROR
    assert "/100001: over 100000 bytes" in running.errors
    origin.answers["/announced"] = ok(b"", length=100_001)
    if strategy == "buffered":
        assert get(running.port, "/announced") == ERROR
    assert list(spool.iterdir()) == []
    (worker,) = running.children()
    assert not any("spool" in file for file in open_files(worker))
    spool.rmdir()  # nothing can be kept there
    origin.answers["/file"] = chunked(bytes(50_000))
    assert get(running.port, "/file") == ERROR


def test_what_the_origin_sends_reaches_the_client_at_once_where_it_is_not_collected(origin, proxy):
    gate = threading.Event()

    def halting(connection, request):
        connection.sendall(ok(CONTENT)[:-1])
        assert gate.wait(20)
        connection.sendall(CONTENT[-1:])
        return True

    origin.answers["/file"] = halting
    running = proxy("--timeout", 20)
    with Connection(running.port) as connection:
        connection.send(b"GETFILE GET /file\r\n\r\n")
        received = b""
        # What is held back is less than a piece of libcurl's, 16 KiB.
        while len(received) < len(CONTENT) - 16384:
            received += connection.socket.recv(1 << 20)
        gate.set()
        assert received + connection.rest() == whole(CONTENT)


def test_the_header_comes_before_the_content_does(origin, proxy):
    gate = threading.Event()

    def halting(connection, request):
        connection.sendall(ok(b"", length=7))
        assert gate.wait(20)
        connection.sendall(b"content")
        return True

    origin.answers["/file"] = halting
    with Connection(proxy("--timeout", 20).port) as connection:
        connection.send(b"GETFILE GET /file\r\n\r\n")
        assert connection.socket.recv(100) == b"GETFILE OK 7\r\n\r\n"
        gate.set()
        assert connection.rest() == b"content"


def test_a_small_reply_leaves_in_one_segment(origin, proxy):
    origin.answers["/file"] = ok(bytes(1024))
    running = proxy()
    for _ in range(3):
        with Connection(running.port) as connection:
            assert connection.send(b"GETFILE GET /file\r\n\r\n").rest() == whole(bytes(1024))
            info = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            assert int.from_bytes(info[152:156], "little") == 1  # tcpi_data_segs_in


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_redirects_are_followed_to_http_only_and_five_of_them(origin, proxy, strategy):
    origin.answers["/file"] = ok(CONTENT)
    origin.answers |= {f"/{n}": redirect(f"/{n - 1}" if n > 1 else f"{origin.url}/file", 301) for n in range(1, 7)}
    secret = Path(__file__).as_uri()
    origin.answers |= {"/out": redirect(secret), "/ftp": redirect("ftp://127.0.0.1/x"), "/loop": redirect("/loop")}
    running = proxy("--strategy", strategy)
    assert get(running.port, "/5") == whole(CONTENT)
    for path in ("/6", "/out", "/ftp", "/loop"):
        assert get(running.port, path) == ERROR
    assert origin.count("/loop") + origin.count("/loop", "HEAD") == 6


def test_an_origin_that_is_not_there_or_says_nothing_is_an_error(pipeline, origin):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    refused = pipeline.proxy("-s", f"http://127.0.0.1:{port}", "--timeout", 1)
    assert get(refused.port, "/file") == ERROR
    unknown = pipeline.proxy("-s", "http://nowhere.invalid", "--timeout", 1)
    begun = time.monotonic()
    assert get(unknown.port, "/file") == ERROR
    assert time.monotonic() - begun < 5
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never reads
        mute = pipeline.proxy("-s", f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", 1)
        begun = time.monotonic()
        assert get(mute.port, "/file") == ERROR
        assert time.monotonic() - begun < 4
    assert "/file: GET: nothing came for 1 s" in mute.errors


def test_what_an_origin_sends_unasked_is_not_taken_for_the_next_response(origin, proxy):
    origin.answers["/file"] = ok(CONTENT)
    evil = ok(b"evil")
    for length in (7, len(CONTENT)):
        origin.answers[f"/{length}"] = ok(CONTENT[:length] + evil, length=length)
    for strategy in STRATEGIES:
        running = proxy("-t", 1, "--strategy", strategy)
        for length in (7, len(CONTENT)) * 3:
            assert get(running.port, f"/{length}") == whole(CONTENT[:length])
            assert get(running.port, "/file") == whole(CONTENT)


def test_an_origin_that_drops_a_kept_connection_costs_no_request(origin, proxy):
    origin.answers["/file"] = closing(ok(b"content"))
    running = proxy("-t", 1)
    for _ in range(5):
        assert get(running.port, "/file") == whole(b"content")
    assert running.errors == ""


def test_credentials_go_to_the_origin_alone_and_are_never_printed(origin, proxy):
    elsewhere = Origin()
    elsewhere.answers["/file"] = ok(b"content")
    origin.answers |= {"/file": ok(b"content"), "/away": redirect(f"{elsewhere.url}/file"), "/500": status(500)}
    running = proxy(url=f"http://so%2Fme:pass%40word@127.0.0.1:{origin.port}/")
    for path in ("/file", "/away"):
        assert get(running.port, path) == whole(b"content")
    assert get(running.port, "/500") == ERROR
    basic = "Basic " + base64.b64encode(b"so/me:pass@word").decode()
    assert {request.headers.get("authorization") for request in origin.requests} == {basic}
    (request,) = elsewhere.requests
    assert not {"authorization", "cookie", "referer"} & set(request.headers)
    elsewhere.close()
    assert "pass" not in running.errors
    assert "pass" not in running.greeting


AS_TEXT = {
    "/plain-file_1.~x": "/base/plain-file_1.~x",
    "/a?b#c": "/base/a%3Fb%23c",
    "/100%": "/base/100%25",
    "/a%2e%2e/b": "/base/a%252e%252e/b",
    "/straße": "/base/stra%C3%9Fe",
    "/a\\b;c=d&e+f@g:h": "/base/a%5Cb%3Bc%3Dd%26e%2Bf%40g%3Ah",
    "/[x]{y}<z>\"'": "/base/%5Bx%5D%7By%7D%3Cz%3E%22%27",
    "//evil.example/x": "/base//evil.example/x",
    "/directory/": "/base/directory/",
    "/...": "/base/...",
    "/@evil.example": "/base/%40evil.example",
}


def test_a_path_is_asked_for_as_the_text_that_it_is_and_one_with_steps_in_it_nowhere(origin, proxy):
    running = proxy(url=f"{origin.url}/base/")
    for path, asked_for in AS_TEXT.items():
        origin.answers[asked_for] = ok(path.encode())
        assert get(running.port, path) == whole(path.encode()), path
    for path in ("/..", "/../x", "/a/../../x", "/a/..", "/.", "/./x", "/a/./b"):
        assert get(running.port, path) == NOT_FOUND, path
    assert [request.path for request in origin.requests] == list(AS_TEXT.values())


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=50).map(lambda text: "/" + text))
def test_any_path_becomes_a_url_of_the_same_origin_that_reads_back(path):
    from urllib.parse import unquote_to_bytes, urlsplit

    url = urlsplit(parse_url("http://127.0.0.1:8080/base", 1).url_of(path.encode()))
    assert (url.scheme, url.netloc, url.query, url.fragment) == ("http", "127.0.0.1:8080", "", "")
    assert unquote_to_bytes(url.path) == b"/base" + path.encode()
    assert url.path.isascii()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://host/x?y=z",
        "http://host/#x",
        "http://host:0",
        "http://host:99999",
        "http://ho st",
        "http://host/\n",
        "http://[::1",
        "gopher://user:secret@host",
        "user:secret@host/?y=z",
        "http://user:sec\nret@host",
        "http://user:secr@et@host/#x",
    ],
)
def test_what_is_no_origin_is_refused_in_one_line_without_credentials(capfd, url):
    assert webproxy.main(["-p", "0", "-s", url]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "is no origin: write http://host/path" in line
    assert "sec" not in line


def test_a_program_without_its_origin_ends(pipeline):
    program = pipeline.start("webproxy", "-p", 0, "-s", "http://user:sec\nret@host")
    assert program.wait() == 2
    (line,) = program.errors.splitlines()
    assert "sec" not in line


@pytest.mark.parametrize("dialect", ["getfile", "gios"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_client_that_goes_away_or_stalls_frees_the_worker(origin, proxy, strategy, dialect):
    origin.answers |= {"/large": ok(bytes(30_000_000)), "/small": ok(b"content")}
    running = proxy("--strategy", strategy, "-t", 1, "--dialect", dialect)
    for _ in range(3):
        with Connection(running.port) as leaving:
            leaving.send(b"GETFILE GET /large\r\n\r\n").socket.recv(1000)
    with Connection(running.port) as stalling:
        stalling.send(b"GETFILE GET /large\r\n\r\n").socket.recv(1000)
        begun = time.monotonic()
        with Connection(running.port) as connection:
            assert connection.send(b"GETFILE GET /small\r\n\r\n").rest().endswith(b"content")
        assert time.monotonic() - begun < 4
    said = [line for line in running.errors.splitlines() if "have to go, and the last one is served first" not in line]
    assert said == [], "that is the clients' business"


def test_a_slow_client_is_served_for_longer_than_the_timeout(origin, proxy):
    origin.answers["/large"] = zeros(64 << 20, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
    running = proxy()
    with Connection(running.port) as connection:
        connection.send(b"GETFILE GET /large\r\n\r\n")
        begun, received = time.monotonic(), 0
        while piece := connection.socket.recv(1 << 18):
            received += len(piece)
            if time.monotonic() - begun < 3:
                time.sleep(0.02)
        assert time.monotonic() - begun > 3
    assert received == (64 << 20) + len(b"GETFILE OK 67108864\r\n\r\n")
    assert running.errors == ""


def zeros(count, header):
    """Answers with so many zeros, from a file that has no blocks."""

    def answer(connection, request):
        with open(os.memfd_create("zeros"), "rb+") as file:
            file.truncate(1 << 20)
            connection.sendall(header)
            sent = 0
            while sent < count:
                sent += os.sendfile(connection.fileno(), file.fileno(), 0, min(1 << 20, count - sent))
        return False

    return answer


# 2 GiB is more than one sendfile(2) moves. What is of no known length is collected and sent just as what is buffered.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("strategy", "size", "header"),
    [
        ("single-get", 400 << 20, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (400 << 20)),
        ("single-get", 400 << 20, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
        ("buffered", 2 << 30, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 << 30)),
    ],
    ids=["passed on", "of no known length", "buffered"],
)
def test_content_of_many_times_its_memory_goes_through_a_proxy_of_less_than_100_megabytes(
    pipeline, origin, proxy, strategy, size, header
):
    origin.answers["/large"] = zeros(size, header)
    running = proxy("--strategy", strategy, "--timeout", 20)
    code, output = pipeline.client(running.port, ["/large"], "-r", 1, "-t", 1, "--discard", "--timeout", 200)
    assert code == 0, output
    assert "OK 1 " in output
    peak = 0
    for pid in (running.pid, *running.children()):
        with open(f"/proc/{pid}/status") as lines:
            peak += next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert peak < 100_000, peak  # KiB, parent and worker together


@pytest.mark.parametrize("number", [2, 15])
def test_a_proxy_without_a_cache_ends_on_a_signal_and_leaves_nothing(origin, proxy, base, number):
    origin.answers["/silent"] = silent_after(ok(b"", length=7))
    running = proxy("--timeout", 30)
    with Connection(running.port) as connection:
        connection.send(b"GETFILE GET /silent\r\n\r\n")
        assert eventually(lambda: origin.count("/silent"))
        begun = time.monotonic()
        assert running.stop(number) == 0
        assert time.monotonic() - begun < 4
    assert not os.path.exists(base)


def test_libcurl_is_imported_only_where_there_is_an_origin_and_its_lack_is_reported(pipeline):
    check = "import harness.pipeline.webproxy, harness.pipeline.simplecached, sys; print('pycurl' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", check], text=True) == "False\n"
    blocked = "import sys; sys.modules['pycurl'] = None; from harness.cli import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", blocked, "webproxy", "-p", "0", "-s", "http://127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "webproxy: an HTTP origin needs pycurl: pip install 'transport-harness[curl]'\n"


def test_an_origin_that_recovers_is_asked_again(origin, proxy):
    origin.answers["/file"] = in_turn(status(500), status(404), ok(b"content"))
    running = proxy()
    assert [get(running.port, "/file") for _ in range(3)] == [ERROR, NOT_FOUND, whole(b"content")]
