"""What the cache fetches from an origin: one download for all who wait, never half a file, never over the bound."""

import contextlib
import fcntl
import os
import re
import signal
import threading
import time

import pytest
from support.clients import ERROR, NOT_FOUND, Connection, get, whole
from support.misbehaving import chunked, closing, ok, resetting, status
from support.programs import eventually, open_files

from harness import registry
from harness.pipeline.http_session import Origin
from harness.pipeline.http_store import HttpStore

CONTENT = os.urandom(300_000)


@pytest.fixture
def pair(pipeline, origin):
    """Starts a cache with the origin, and a proxy: pair(cache's arguments, proxy's arguments)."""

    def start(cache=(), proxy=()):
        own = pipeline.start("simplecached", "--origin", origin.url, *cache)
        assert own.line().startswith("simplecached: ready")
        return own, pipeline.proxy(*proxy)

    return start


def halting(content, gate, header=b"", asked=None):
    """Sends all but a part of the content, and that when `gate` is open."""

    def answer(connection, request):
        reply = header + content if header else ok(content)
        connection.sendall(reply[:-1000])
        if asked is not None:
            asked.set()
        gate.wait(30)
        connection.sendall(reply[-1000:])
        return not header

    return answer


def get_all(port, paths):
    """The replies to requests that are made at the same time."""
    replies = [b""] * len(paths)

    def one(number):
        replies[number] = get(port, paths[number])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return replies


@pytest.mark.parametrize("data", sorted(set(registry.installed().data) - {"null", "null_sendfile"}))
def test_a_miss_is_fetched_once_and_served_over_any_transport_beside_own_files(pipeline, origin, pair, data):
    paths = {"/fetched": CONTENT, "/chunks": CONTENT[1:], "/empty": b"", "/own": b"own"}
    origin.answers = {"/fetched": ok(CONTENT), "/chunks": chunked(CONTENT[1:]), "/empty": ok(b""), "/own": ok(b"other")}
    pipeline.write("own", b"own")
    cache, proxy = pair(["-c", pipeline.files, "--processes", 2], ["--data", data])
    for _ in range(3):
        for path, content in paths.items():
            assert get(proxy.port, path) == whole(content)
    assert [origin.count(path) for path in paths] == [1, 1, 1, 0]
    assert get(proxy.port, "/missing") == NOT_FOUND
    assert cache.errors == proxy.errors == ""
    assert (proxy.stop(), cache.stop()) == (0, 0)


def test_without_an_origin_a_miss_is_not_found(pipeline):
    pipeline.cache()
    assert get(pipeline.proxy().port, "/missing") == NOT_FOUND


def test_many_who_wait_share_one_download_over_all_processes(origin, pair):
    gate = threading.Event()
    origin.answers["/file"] = halting(CONTENT, gate)
    _, proxy = pair(["--processes", 3, "-t", 8, "--timeout", 20], ["-t", 20, "--timeout", 20])
    threading.Timer(0.7, gate.set).start()
    assert get_all(proxy.port, ["/file"] * 20) == [whole(CONTENT)] * 20
    assert origin.count("/file") == 1


@pytest.mark.parametrize(("answer", "reply"), [(status(404), NOT_FOUND), (status(500), ERROR)])
def test_many_who_wait_share_the_failure_too_and_it_is_not_kept(origin, pair, answer, reply):
    gate = threading.Event()

    def late(connection, request):
        gate.wait(30)
        connection.sendall(answer)
        return True

    origin.answers["/file"] = late
    cache, proxy = pair(["--processes", 3, "-t", 8, "--timeout", 20], ["-t", 20, "--timeout", 20])
    replies = []
    asking = threading.Thread(target=lambda: replies.extend(get_all(proxy.port, ["/file"] * 20)))
    asking.start()

    def waiting():
        return sum(file.endswith(".part") for pid in cache.children() for file in open_files(pid))

    assert eventually(lambda: waiting() == 20)
    gate.set()
    asking.join()
    assert replies == [reply] * 20
    assert origin.count("/file") == 1
    origin.answers["/file"] = ok(CONTENT)
    assert get(proxy.port, "/file") == whole(CONTENT)


def test_an_answer_that_makes_no_sense_costs_neither_the_cache_nor_its_lane_anything(origin, pair):
    origin.answers |= {"/odd": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "/file": ok(CONTENT)}
    cache, proxy = pair(proxy=["-t", 1, "-n", 1])
    for _ in range(3):
        assert get(proxy.port, "/odd") == ERROR
        assert get(proxy.port, "/file") == whole(CONTENT)
    assert cache.errors.count("Content-Length") == 3
    assert proxy.errors == ""


@pytest.fixture
def nameless(tmp_path, origin):
    """(starts a store, one that was started, the name of /file there), where that is whole and has no name yet."""

    def start():
        return HttpStore(Origin(origin.url, 5), str(tmp_path), 1 << 20, 5, durable=False)

    origin.answers["/file"] = ok(CONTENT)
    store = start()
    os.close(store.open(b"/file"))
    (name,) = (str(file) for file in tmp_path.iterdir() if file.name != "room")
    os.rename(name, f"{name}.part")
    return start, store, name


def test_a_start_spares_what_has_just_become_whole(origin, nameless, monkeypatch):
    start, store, name = nameless

    def lock(fd, how):
        """The download gets its lock before the search for abandoned files does, between its open and its lock."""
        if os.path.exists(f"{name}.part") and os.path.samestat(os.fstat(fd), os.stat(f"{name}.part")):
            os.rename(f"{name}.part", name)
        flock(fd, how)

    flock = fcntl.flock
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", lock)
        start()
    fd = store.open(b"/file")
    assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
    os.close(fd)
    assert origin.count("/file") == 1


def test_what_is_whole_and_never_got_its_name_is_served_to_its_end_and_removed(nameless):
    start, store, name = nameless
    fd = store.open(b"/file")
    start()
    assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
    os.close(fd)
    assert os.listdir(os.path.dirname(name)) == ["room"]


def test_what_breaks_off_is_an_error_and_leaves_nothing(pipeline, origin, pair):
    store = pipeline.directory / "store"
    origin.answers = {
        "/short": closing(ok(CONTENT, length=len(CONTENT) + 1)),
        "/reset": resetting(ok(CONTENT, length=len(CONTENT) + 1)),
        "/chunks": closing(chunked(CONTENT, end=b"")),
        "/204": status(204),
    }
    _, proxy = pair(["--store", store])
    for path in origin.answers:
        assert get(proxy.port, path) == ERROR
    assert [file.name for file in store.iterdir() if file.name != "room"] == []


def test_a_cache_killed_in_a_download_leaves_no_half_file_to_be_served(pipeline, origin, pair):
    store = pipeline.directory / "store"
    gate, asked = threading.Event(), threading.Event()
    origin.answers["/file"] = halting(CONTENT, gate, asked=asked)
    cache, proxy = pair(["--store", store], ["--timeout", 1])
    with Connection(proxy.port) as connection:
        connection.send(b"GETFILE GET /file\r\n\r\n")
        assert asked.wait(20)
        assert eventually(lambda: sizes(store) == len(CONTENT))
        cache.kill_all()
        assert connection.rest() == ERROR
    assert len(list(store.iterdir())) == 2
    gate.set()
    _, other = pair(["--store", store], ["--timeout", 5])
    assert [file.name for file in store.iterdir()] == ["room"]  # the half file is gone
    assert get(other.port, "/file") == whole(CONTENT)
    assert origin.count("/file") == 2


@pytest.mark.processes
def test_a_worker_killed_in_a_download_has_the_next_one_in_line_begin_anew(origin, tmp_path):
    gate, asked = threading.Event(), threading.Event()
    origin.answers["/file"] = halting(CONTENT, gate, asked=asked)
    if not (child := os.fork()):
        HttpStore(Origin(origin.url, 20), str(tmp_path), 1 << 20, 20, False).open(b"/file")
        os._exit(0)
    assert asked.wait(20)
    store = HttpStore(Origin(origin.url, 20), str(tmp_path), 1 << 20, 20, False)  # which must not take it for abandoned
    found = []
    waiting = threading.Thread(target=lambda: found.append(store.open(b"/file")))
    waiting.start()
    time.sleep(0.1)
    assert origin.count("/file") == 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    gate.set()
    waiting.join(20)
    assert os.pread(found[0], 1 << 20, 0) == CONTENT
    os.close(found[0])
    assert origin.count("/file") == 2


def sizes(store):
    """The size of all files together, at a moment at which none of them grows."""
    found = {}
    with open(f"{store}/room", "a") as room:
        fcntl.flock(room, fcntl.LOCK_EX)
        for entry in os.scandir(store):
            with contextlib.suppress(FileNotFoundError):
                found[entry.name.removesuffix(".part")] = entry.stat().st_size
    return sum(found.values())


def test_the_store_never_takes_more_than_its_bound_and_lets_go_of_what_was_not_asked_for_longest(
    pipeline, origin, pair
):
    store = pipeline.directory / "store"
    contents = {f"/{number}": os.urandom(100_000) for number in range(6)}
    origin.answers = {path: ok(content) for path, content in contents.items()}
    _, proxy = pair(["--store", store, "--store-size", 300_000, "--processes", 2])
    for path in ("/0", "/1", "/2"):
        assert get(proxy.port, path) == whole(contents[path])
    assert get(proxy.port, "/0") == whole(contents["/0"])
    assert get(proxy.port, "/3") == whole(contents["/3"])  # in the place of /1
    before = {path: origin.count(path) for path in contents}
    for path in ("/0", "/2", "/3", "/1"):
        assert get(proxy.port, path) == whole(contents[path])
    assert [origin.count(path) - before[path] for path in contents] == [0, 1, 0, 0, 0, 0]
    origin.answers["/large"] = ok(bytes(300_001))
    origin.answers["/endless"] = chunked(*[bytes(10_000)] * 31)
    origin.answers["/fits"] = chunked(bytes(290_000))
    assert get(proxy.port, "/large") == ERROR
    assert get(proxy.port, "/endless") == ERROR
    assert get(proxy.port, "/fits") == whole(bytes(290_000))
    assert sizes(store) == 290_000


def test_under_load_the_bound_holds_all_content_is_right_and_no_descriptor_is_left(pipeline, origin, pair):
    store = pipeline.directory / "store"
    paths = []
    for number in range(20):
        content = os.urandom(number * 37_000 % 80_001)
        paths.append(pipeline.write(str(number), content))
        origin.answers[paths[-1]] = ok(content) if number % 2 else chunked(*filter(None, [content]))
    cache, proxy = pair(
        ["--store", store, "--store-size", 400_000, "--processes", 2, "-t", 2],
        ["-t", 4, "--processes", 2, "--timeout", 20],
    )
    largest, done = [0], threading.Event()

    def watch():
        while not done.is_set():
            largest[0] = max(largest[0], sizes(store))
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    code, output = pipeline.client(proxy.port, paths, "-r", 500, "-t", 8, "--verify", pipeline.files)
    done.set()
    watching.join()
    assert code == 0, output
    assert 200_000 < largest[0] <= 400_000
    assert sum(origin.count(path) for path in paths) > 40  # they were let go of, and fetched again
    for pid in cache.children():
        assert not any(re.search(r"store/.", file) for file in open_files(pid))
    assert cache.errors == ""


def test_a_file_that_is_let_go_of_while_it_is_sent_arrives_whole(pipeline, origin, pair):
    large = os.urandom(30_000_000)
    origin.answers = {"/large": ok(large), "/other": ok(os.urandom(20_000_000))}
    for data in ("posix_shm", "sendfile", "mmap", "handoff"):
        cache, proxy = pair(["--store-size", 40_000_000, "--name", data], ["--data", data, "--name", data])
        with Connection(proxy.port) as slow:
            received = slow.send(b"GETFILE GET /large\r\n\r\n").socket.recv(1000)
            assert len(get(proxy.port, "/other")) > 20_000_000
            assert received + slow.rest() == whole(large)
        assert (proxy.stop(), cache.stop()) == (0, 0)


def test_who_waits_longer_than_the_timeout_gets_an_error_and_the_next_one_the_file(origin, pair):
    gate, asked = threading.Event(), threading.Event()
    origin.answers["/file"] = halting(CONTENT, gate, asked=asked)
    origin.answers["/other"] = ok(b"other")
    _, proxy = pair(["--timeout", 1], ["--timeout", 3, "-t", 4])
    first = threading.Thread(target=get, args=(proxy.port, "/file"))
    first.start()
    assert asked.wait(20)
    assert get(proxy.port, "/other") == whole(b"other")  # a download holds up no other file
    begun = time.monotonic()
    assert get(proxy.port, "/file") == ERROR
    assert time.monotonic() - begun < 3
    first.join(20)
    gate.set()
    origin.answers["/file"] = ok(CONTENT)
    assert get(proxy.port, "/file") == whole(CONTENT)


def test_what_is_kept_in_a_directory_outlives_the_cache_and_strangers_files_in_it_are_not_touched(
    pipeline, origin, pair, base
):
    store = pipeline.directory / "store"
    store.mkdir()
    (store / "thesis.part").write_text("years of work")
    (store / ("0" * 39)).write_text("a name that is nearly ours")
    origin.answers["/file"] = ok(CONTENT)
    for _ in range(2):
        cache, proxy = pair(["--store", store, "--store-size", 300_000])
        assert get(proxy.port, "/file") == whole(CONTENT)
        assert (proxy.stop(), cache.stop()) == (0, 0)
    assert origin.count("/file") == 1
    assert (store / "thesis.part").read_text() == "years of work"
    assert (store / ("0" * 39)).exists()
    cache, proxy = pair()
    assert get(proxy.port, "/file") == whole(CONTENT)
    kept = base + "/default/cache/store"
    assert sizes(kept) == len(CONTENT)
    assert os.stat(kept).st_mode & 0o777 == 0o700
    cache.kill_all()
    proxy.stop()
    clean = pipeline.start("clean")
    clean.wait()
    assert not os.path.exists(base)


def test_a_cache_without_files_and_origin_or_with_a_bad_one_says_so(pipeline):
    for arguments, message in (
        ([], "one of these is required: -c, --origin"),
        (["--origin", "ftp://host"], "'ftp://host' is no origin: write http://host/path"),
        (["--origin", "http://host", "--store", "/proc/nowhere"], "/proc/nowhere"),
    ):
        program = pipeline.start("simplecached", *arguments)
        assert program.wait() in {1, 2}
        assert message in program.errors
        assert "Traceback" not in program.errors
