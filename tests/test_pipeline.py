"""The whole pipeline, with real processes: intact content, fair lanes, bad clients, killed peers, clean ends."""

import contextlib
import itertools
import json
import os
import re
import select
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import sysv_ipc
from support.clients import Connection, get, get_all, whole
from support.programs import eventually, open_files
from support.transports import COMMAND, DATA

from harness import registry

CHUNK = 4096
# Around the edges of a chunk with and without the head that the first one bears.
SIZES = [0, 1, CHUNK - 65, CHUNK - 64, CHUNK - 63, CHUNK - 1, CHUNK, CHUNK + 1, 100_000]
# Strangers' transports are paired with each other only: ours have met every shape by then.
STRANGERS = itertools.product(registry.installed().command.keys() - COMMAND, registry.installed().data.keys() - DATA)
PAIRS = [*itertools.product(COMMAND, DATA), *sorted(STRANGERS)]


CONTENTS = {f"/{size}": os.urandom(size) for size in (*SIZES, 6 << 20)}
ZEROS = {f"/zeros-{size}": bytes(size) for size in (*SIZES, 6 << 20)}


@pytest.mark.parametrize(
    ("command", "data"), [pytest.param(*pair, marks=pytest.mark.xdist_group(pair[0])) for pair in PAIRS]
)
def test_every_pair_of_transports_serves_files_of_awkward_sizes_intact(shared, command, data):
    contents = CONTENTS if registry.data_transport(data).moves_content else ZEROS
    for path, content in contents.items():
        if not (shared.files / path[1:]).exists():
            shared.write(path[1:], content)
    *awkward, big = contents
    meeting = ["--name", command, "--command", command]
    cache = shared.cache(*meeting, "--processes", 2)
    served = [(["-z", CHUNK], awkward * 10), ([], [big] * 4)]
    if not hasattr(registry.installed().data[data], "chunk"):  # then one proxy is like the other
        served = [([], [*awkward * 10, *[big] * 4])]
    for chunk, paths in served:
        proxy = shared.proxy(*meeting, "--data", data, *chunk)
        replies = get_all(proxy.port, paths, 8)
        for path, reply in zip(paths, replies, strict=True):
            assert reply == whole(contents[path]), f"{path}: {reply[:60]}; {proxy.errors}{cache.errors}"
        assert proxy.stop() == 0


def test_fifty_clients_on_four_lanes_are_all_served_and_none_starves(pipeline):
    path = pipeline.write("file", os.urandom(100_000))
    pipeline.cache()
    proxy = pipeline.proxy("-t", 50, "-n", 4)
    code, output = pipeline.client(proxy.port, [path], "-r", 2000, "-t", 50, "--verify", pipeline.files)
    assert code == 0, output
    assert "OK 2000" in output
    assert proxy.errors == ""  # no worker gave up waiting for a lane


def test_bad_clients_cost_no_other_client_anything_and_free_their_worker_in_time(pipeline):
    path = pipeline.write("file", os.urandom(16 << 20))
    pipeline.cache("--timeout", 1)
    proxy = pipeline.proxy("-t", 3, "-n", 3, "--timeout", 1)
    with Connection(proxy.port), Connection(proxy.port) as half, Connection(proxy.port) as vanishing:
        half.send(b"GETFILE GET /fi")
        vanishing.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
        begun = time.monotonic()
        # All three workers are held up: by silence, by half a header, and by a body that is not read.
        assert get(proxy.port, path).endswith(pipeline.files.joinpath("file").read_bytes())
        assert time.monotonic() - begun < 5
    with Connection(proxy.port) as leaving:
        leaving.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
    code, output = pipeline.client(proxy.port, [path], "-r", 6, "-t", 3, "--verify", pipeline.files)
    assert code == 0, output


def test_clients_that_are_silent_or_send_their_request_in_pieces_hold_no_worker(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy("-t", 2, "--timeout", 20)
    request = f"GETFILE GET {path}\r\n\r\n".encode()
    with contextlib.ExitStack() as undo:
        silent, slow = ([undo.enter_context(Connection(proxy.port)) for _ in range(30)] for _ in range(2))
        for byte in request[:-1]:
            for one in slow:
                one.send(bytes([byte]))
        begun = time.monotonic()
        assert get_all(proxy.port, [path] * 20, 2) == [whole(b"content")] * 20
        assert time.monotonic() - begun < 10, "each of the others would hold a worker for 20 s"
        for one in (*slow, *silent):
            one.send(request[-1:] if one in slow else request)
        assert [one.rest() for one in (*slow, *silent)] == [whole(b"content")] * 60
    assert proxy.errors == ""


@pytest.mark.parametrize("data", ["posix_shm", "splice", "handoff"])
def test_clients_that_take_nothing_have_to_go_where_others_wait_and_the_last_is_served_first(pipeline, data):
    path, large = pipeline.write("file", b"content"), pipeline.write("large", os.urandom(8 << 20))
    pipeline.cache("--timeout", 60)
    proxy = pipeline.proxy("-t", 2, "--timeout", 60, "--data", data)
    with contextlib.ExitStack() as undo:
        many = [undo.enter_context(Connection(proxy.port)) for _ in range(40)]
        for one in many:
            one.send(f"GETFILE GET {large}\r\n\r\n".encode())
        begun = time.monotonic()
        assert [get(proxy.port, path) for _ in range(10)] == [whole(b"content")] * 10
        assert get(proxy.port, large) == whole((pipeline.files / "large").read_bytes()), "it takes its reply at once"
        assert time.monotonic() - begun < 20, "each of the others would hold a worker for 60 s"
        reply = many[0].rest()
        assert len(reply) < 8 << 20, "it is cut"
        assert whole((pipeline.files / "large").read_bytes()).startswith(reply)
    code, output = pipeline.client(proxy.port, [large], "-r", 6, "-t", 3, "--verify", pipeline.files)
    assert code == 0, output


def test_there_is_room_for_many_whose_request_comes_in_pieces_and_then_the_first_has_to_go(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy("-t", 1, "--timeout", 60)
    (worker,) = proxy.children()
    with contextlib.ExitStack() as undo:
        many = [undo.enter_context(Connection(proxy.port)).send(b"GETFILE ") for _ in range(300)]
        assert many[0].rest() == b"", "it has made room for a later one"
        assert get(proxy.port, path) == whole(b"content")
        assert len(os.listdir(f"/proc/{worker}/fd")) < 300
        many[-1].send(b"NONSENSE")
        assert many[-1].rest() == b"GETFILE INVALID\r\n\r\n"
        many[-2].socket.shutdown(socket.SHUT_WR)
        assert many[-2].rest() == b"", "it has closed, and gets no reply, long before its time is over"
    assert eventually(lambda: len(os.listdir(f"/proc/{worker}/fd")) < 40), "all have gone"
    assert proxy.errors == ""


def test_the_rest_of_a_request_has_to_come_in_time_and_a_slow_reader_there_costs_no_other(pipeline):
    path, large = pipeline.write("file", b"content"), pipeline.write_zeros("large", 64 << 20)
    pipeline.cache()
    proxy = pipeline.proxy("-t", 2, "--timeout", 3)
    with Connection(proxy.port) as reader, Connection(proxy.port) as late, Connection(proxy.port) as silent:
        reader.send(b"GETFILE ")
        silent.send(b"GETFILE ")
        reader.send(f"GET {large}\r\n\r\n".encode())
        reader.socket.recv(1)  # it reads no more, and holds the thread that answers requests which came in pieces
        late.send(b"GETFILE ")
        time.sleep(0.1)
        late.send(f"GET {path}\r\n\r\n".encode())
        assert silent.rest() == b"", "its time was over"
        assert late.rest() == whole(b"content"), "its request came in time, and was not forgotten"


@pytest.mark.parametrize("data", sorted(registry.installed().data))
def test_a_client_that_stalls_in_the_body_frees_worker_and_lane_within_the_timeout(pipeline, data):
    path = pipeline.write_zeros("file", 64 << 20)
    small = pipeline.write("small", bytes(7))
    cache = pipeline.cache()
    proxy = pipeline.proxy("-t", 1, "-n", 1, "--timeout", 2, "--data", data)
    with Connection(proxy.port) as stalling:
        stalling.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
        begun = time.monotonic()
        assert get(proxy.port, small) == b"GETFILE OK 7\r\n\r\n" + bytes(7)
        assert time.monotonic() - begun < 3.9
    assert "[Errno 11" not in proxy.errors + cache.errors, "EAGAIN, ETIMEDOUT: a reason in words"


@pytest.mark.parametrize("data", ["posix_shm", "memfd"])
def test_a_cache_serves_more_files_than_it_may_open_and_ends_well(pipeline, data):
    content = {pipeline.write(f"{number}", b"%d" % number * 100): b"%d" % number * 100 for number in range(300)}
    (pipeline.files / "link").symlink_to(pipeline.files)
    limited = ["bash", "-c", 'ulimit -n 64; exec "$0" -m harness "$@"', sys.executable]
    cache = pipeline.start("simplecached", "-c", pipeline.files, "-t", 2, command=limited)
    assert cache.line().startswith("simplecached: ready")
    proxy = pipeline.proxy("--data", data)
    (worker,) = cache.children()
    links = ["/link" * depth for depth in range(5)]
    for path, link in zip(content, itertools.cycle(links), strict=False):
        assert get(proxy.port, link + path) == whole(content[path])
    assert get(proxy.port, "/link/0") == whole(content["/0"]), "one that was closed meanwhile"
    assert len(os.listdir(f"/proc/{worker}/fd")) < 60
    assert cache.errors == ""
    assert cache.stop() == 0


@pytest.mark.parametrize("data", ["posix_shm", "sendfile", "handoff"])
def test_bytes_behind_a_request_cost_its_reply_nothing(pipeline, data):
    content = os.urandom(1 << 20)
    path = pipeline.write("file", content)
    pipeline.cache()
    proxy = pipeline.proxy("--data", data)
    for junk in (b"x", b"GETFILE GET /other\r\n\r\n", bytes(100_000)):
        with Connection(proxy.port) as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)  # it takes all at once
            connection.send(f"GETFILE GET {path}\r\n\r\n".encode() + junk)
            received = b""
            while piece := connection.socket.recv(1 << 20):  # a reset would raise
                received += piece
        assert received == whole(content)
    assert get(proxy.port, path) == whole(content)
    assert proxy.errors == ""


def test_a_slowly_dripping_header_does_not_hold_a_worker_beyond_the_timeout(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy("-t", 1, "--timeout", 0.6)
    with Connection(proxy.port) as dripping:
        dripping.send(b"G")
        begun = time.monotonic()
        with Connection(proxy.port) as patient:
            patient.send(f"GETFILE GET {path}\r\n\r\n".encode())
            patient.socket.settimeout(0.1)
            reply = b""
            for byte in b"ETFILE GET /file-with-a-name-that-takes-its-time":
                try:
                    dripping.send(bytes([byte]))
                    reply = patient.socket.recv(100)
                    break
                except TimeoutError:
                    continue
                except ConnectionError:
                    patient.socket.settimeout(20)
                    reply = patient.socket.recv(100)
                    break
        assert reply == b"GETFILE OK 7\r\n\r\ncontent"
        assert time.monotonic() - begun < 3


@pytest.fixture(scope="module")
def odd_files(shared):
    """A proxy to a cache of files and of what is none."""
    root = shared.directory / "root"
    (root / "directory").mkdir(parents=True)
    (shared.directory / "outside").write_text("secret")
    (root / "inside").write_text("inside")
    (root / "directory/deep").write_text("deep")
    (root / "link-out").symlink_to("../outside")
    (root / "link-in").symlink_to("inside")
    (root / "directory/link-up").symlink_to("../..")
    os.mkfifo(root / "fifo")
    shared.cache("--name", "odd", source=root)
    return shared.proxy("--name", "odd")


@pytest.mark.xdist_group("odd files")
@pytest.mark.parametrize(
    ("request_bytes", "reply"),
    [
        (b"GETFILE GET /missing\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /directory\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /../outside\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /directory/../../outside\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /link-out\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /directory/link-up/outside\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /fifo\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /" + b"a" * 300 + b"\r\n\r\n", b"GETFILE FILE_NOT_FOUND\r\n\r\n"),
        (b"GETFILE GET /" + b"a/" * 400 + b"\r\n\r\n", b"GETFILE ERROR\r\n\r\n"),  # does not fit a command
        (b"GETFILE GET /link-in\r\n\r\n", b"GETFILE OK 6\r\n\r\ninside"),
        (b"GETFILE GET /directory/deep\r\n\r\n", b"GETFILE OK 4\r\n\r\ndeep"),
        (b"GETFILE GET /a\0b\r\n\r\n", b"GETFILE INVALID\r\n\r\n"),
        (b"GETFILE GET /a\x01b\r\n\r\n", b"GETFILE INVALID\r\n\r\n"),
        (b"GETFILE GET /\xff\xfe\r\n\r\n", b"GETFILE INVALID\r\n\r\n"),
        (b"GETFILE PUT /inside\r\n\r\n", b"GETFILE INVALID\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GETFILE INVALID\r\n\r\n"),
        (b"GETFILE GET /" + b"a" * 100_000, b"GETFILE INVALID\r\n\r\n"),
    ],
)
def test_what_cannot_be_served_is_refused_and_nothing_outside_the_root_is_touched(odd_files, request_bytes, reply):
    with Connection(odd_files.port) as connection:
        assert connection.send(request_bytes).rest() == reply


def test_header_and_content_leave_in_one_segment(pipeline):
    path = pipeline.write("file", os.urandom(1024))
    pipeline.cache()
    cached = [("--data", data) for data in ("posix_shm", "sendfile", "handoff")]
    for arguments in (*cached, ("--direct", pipeline.files)):
        proxy = pipeline.proxy(*arguments)
        with Connection(proxy.port) as connection:
            assert len(connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).rest()) == 1024 + 19
            # tcpi_data_segs_in of struct tcp_info, tcp(7)
            info = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
            assert int.from_bytes(info[152:156], "little") == 1, arguments


def test_a_cache_killed_in_a_transfer_cuts_the_reply_and_its_successor_serves_the_next_one(pipeline):
    content = os.urandom(64 << 20)
    path = pipeline.write("file", content)
    small = pipeline.write("small", b"content")
    # Where a file is passed the cache's part is over by then.
    for data in ("posix_shm", "cma", "fifo", "splice", "handoff"):
        cache = pipeline.cache("--timeout", 1)
        proxy = pipeline.proxy("--data", data, "--timeout", 1)
        with Connection(proxy.port) as connection:
            received = connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
            cache.kill_all()
            begun = time.monotonic()
            received += connection.rest()
            assert time.monotonic() - begun < 4.5
        assert received.startswith(b"GETFILE OK 67108864\r\n\r\n")
        assert len(received) < len(content)
        assert content.startswith(received.partition(b"\r\n\r\n")[2])
        assert get(proxy.port, small) == b"GETFILE ERROR\r\n\r\n"  # there is no cache
        successor = pipeline.cache()
        assert get(proxy.port, small).endswith(b"content")
        assert proxy.stop() == 0
        assert successor.stop() == 0


def test_a_cache_killed_before_it_answers_fails_the_request_in_time(pipeline):
    path = pipeline.write("file", b"content")
    cache = pipeline.cache("-d", 10_000_000)
    for data in ("posix_shm", "fifo", "sendfile", "splice", "memfd", "mmap", "handoff"):
        proxy = pipeline.proxy("--data", data, "--timeout", 1)
        with Connection(proxy.port) as connection:
            connection.send(f"GETFILE GET {path}\r\n\r\n".encode())
            time.sleep(0.1)
            cache.kill_all()
            begun = time.monotonic()
            assert connection.rest() == b"GETFILE ERROR\r\n\r\n"
            assert time.monotonic() - begun < 4.5
        assert proxy.stop() == 0
        cache = pipeline.cache("-d", 10_000_000)


def test_a_client_given_away_to_a_cache_that_answers_too_late_gets_one_reply(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache("-d", 3_000_000)
    proxy = pipeline.proxy("--data", "handoff", "-t", 1, "-n", 1, "--timeout", 0.4)
    with Connection(proxy.port) as connection:
        begun = time.monotonic()
        assert connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).rest() == b"GETFILE ERROR\r\n\r\n"
        assert time.monotonic() - begun < 2.5
    patient = pipeline.proxy("--data", "handoff", "--timeout", 10)
    assert get(patient.port, path) == b"GETFILE OK 7\r\n\r\ncontent"


def test_a_cache_that_is_stopped_with_a_client_in_its_hands_cannot_go_on_when_it_wakes(pipeline):
    path = pipeline.write_zeros("file", 64 << 20)
    cache = pipeline.cache("--processes", 1)
    proxy = pipeline.proxy("--data", "handoff", "-t", 1, "-n", 1, "--timeout", 0.5)
    (worker,) = cache.children()
    with Connection(proxy.port) as connection:
        connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
        os.kill(worker, signal.SIGSTOP)
        begun = time.monotonic()
        while connection.socket.recv(1 << 20):
            pass
        assert time.monotonic() - begun < 4.5
        os.kill(worker, signal.SIGCONT)
    assert len(get(proxy.port, path)) == (64 << 20) + len(b"GETFILE OK 67108864\r\n\r\n"), proxy.errors + cache.errors


@pytest.mark.parametrize("data", ["handoff", "sendfile", "splice"])
def test_a_slow_client_is_served_for_longer_than_the_timeout(pipeline, data):
    path = pipeline.write_zeros("file", 64 << 20)
    pipeline.cache("--timeout", 1)
    proxy = pipeline.proxy("--data", data, "--timeout", 1)
    received = 0
    with Connection(proxy.port) as connection:
        connection.send(f"GETFILE GET {path}\r\n\r\n".encode())
        begun = time.monotonic()
        while piece := connection.socket.recv(1 << 18):
            received += len(piece)
            if time.monotonic() - begun < 2:
                time.sleep(0.02)
        assert time.monotonic() - begun > 2
    assert received == (64 << 20) + len(b"GETFILE OK 67108864\r\n\r\n"), proxy.errors
    assert proxy.errors == ""


def test_the_workers_of_a_killed_cache_end_too_and_its_successor_may_start_at_once(pipeline):
    path = pipeline.write("file", b"content")
    cache = pipeline.cache("--processes", 2)
    workers = [os.pidfd_open(pid) for pid in cache.children()]
    assert len(workers) == 2
    cache.kill()
    pipeline.cache()
    for worker in workers:
        assert select.select([worker], [], [], 1)[0] == [worker]  # it has ended
        os.close(worker)
    assert get(pipeline.proxy().port, path) == b"GETFILE OK 7\r\n\r\ncontent"


def test_a_cache_whose_command_channel_has_gone_ends_as_a_failure_and_its_successor_serves(pipeline, base):
    path = pipeline.write("file", b"content")
    cache = pipeline.cache("--command", "sysv_mq")
    proxy = pipeline.proxy()
    (ledger,) = Path(base, "default").glob("*cache*/*/names")
    (key,) = (int(line.split()[1]) for line in ledger.read_text().splitlines() if line.startswith("msg"))
    sysv_ipc.MessageQueue(key).remove()
    assert cache.wait() == 1
    assert "the command channel failed" in cache.errors
    assert "Traceback" not in cache.errors
    pipeline.cache()
    assert get(proxy.port, path) == b"GETFILE OK 7\r\n\r\ncontent"


@pytest.mark.serial
def test_a_cache_that_ends_waits_for_commands_on_their_way_where_a_proxy_could_send_any(pipeline):
    def time_to_end():
        cache = pipeline.cache()
        begun = time.monotonic()
        assert cache.stop() == 0
        return time.monotonic() - begun

    assert eventually(lambda: time_to_end() < 0.1)  # one that always waits never is
    proxy = pipeline.proxy("--wait", 0)
    assert min(time_to_end() for _ in range(3)) > 0.1
    proxy.stop()


def test_a_cache_that_is_stopped_under_load_leaves_no_request_hanging(pipeline):
    path = pipeline.write("file", os.urandom(100_000))
    cache = pipeline.cache()
    proxy = pipeline.proxy("-t", 8)
    workload = pipeline.directory / "workload.txt"
    workload.write_text(f"{path}\n")
    client = pipeline.start("gfclient", "-p", proxy.port, "-w", workload, "--seconds", 3, "-t", 8, "--json")
    time.sleep(0.7)
    assert cache.stop() == 0
    successor = pipeline.cache()
    result = json.loads(client.line())
    client.wait()
    assert result["OK"] > 100
    assert result["OK"] + result["ERROR"] == result["requests"]  # refused, where not served
    assert result["latency_max_us"] < 4.5e6  # no request waited for the timeout
    assert successor.stop() == 0


LATE = """
from dataclasses import dataclass
from harness.api import DataTransport, Sender, hookimpl
from transports.fifo import FifoData, FifoSender

@dataclass(frozen=True)
class Late(FifoData):
    name = "late"
    def sender(self, scope) -> Sender:
        return LateSender(scope, self)

class LateSender(FifoSender):
    count = 0
    def publish(self, count):
        self.count = count
    def close(self):
        if self.count:
            super().publish(self.count)
            self.count = 0
        super().close()

@hookimpl
def data_transports():
    return [Late]
"""


def test_what_a_transport_has_yet_to_send_leaves_before_a_cache_that_is_asked_to_end(plugins, pipeline):
    plugins("late", LATE)
    path = pipeline.write("file", b"content")
    cache = pipeline.cache()
    proxy = pipeline.proxy("--data", "late")
    with Connection(proxy.port) as connection:
        connection.send(f"GETFILE GET {path}\r\n\r\n".encode())
        (worker,) = cache.children()
        assert eventually(lambda: str(pipeline.files / "file") in open_files(worker))  # the request is not refused then
        assert cache.stop() == 0
        assert connection.rest() == b"GETFILE OK 7\r\n\r\ncontent"


@pytest.mark.parametrize(("data", "mapping"), [("posix_shm", "-memory"), ("sysv_shm", "/SYSV")])
def test_the_cache_lets_go_of_lanes_whose_proxy_has_gone(pipeline, data, mapping):
    path = pipeline.write("file", b"content")
    cache = pipeline.cache("-t", 1)
    (worker,) = cache.children()
    for _ in range(2):
        proxy = pipeline.proxy("-t", 1, "--data", data)
        assert get(proxy.port, path).endswith(b"content")
        proxy.stop()
        time.sleep(1.1)  # the cache looks at most once a second
    proxy = pipeline.proxy("-t", 1, "--data", data)
    assert get(proxy.port, path).endswith(b"content")
    with open(f"/proc/{worker}/maps") as maps:
        assert sum(mapping in line for line in maps) == 1


def test_a_killed_proxy_leaves_the_cache_serving_others_and_its_port_to_a_new_one(pipeline):
    path = pipeline.write_zeros("large", 16 << 20)
    content = os.urandom(1 << 20)
    file = pipeline.write("file", content)
    pipeline.cache("--timeout", 1)
    other = pipeline.proxy("--data", "fifo")
    for data in ("posix_shm", "fifo", "sendfile", "splice", "memfd", "mmap", "handoff"):
        proxy = pipeline.proxy("--data", data, "--timeout", 1)
        with Connection(proxy.port) as connection:
            connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
            proxy.kill_all()
        assert get_all(other.port, [file] * 4, 2) == [whole(content)] * 4
        successor = pipeline.proxy("--data", data, port=proxy.port)
        assert get_all(successor.port, [file] * 4, 2) == [whole(content)] * 4
        assert successor.stop() == 0
    assert clean(pipeline) == "nothing to remove\n", "each successor swept what the one before it had left"


def clean(pipeline):
    program = pipeline.start("clean")
    output = program.process.stdout.read().decode()
    assert program.wait() == 0
    return output


def test_clean_removes_what_killed_programs_left_and_nothing_of_the_living(pipeline, base):
    path = pipeline.write("file", b"content")
    pipeline.cache("--name", "alive")
    proxy = pipeline.proxy("--name", "alive")
    dead_cache = pipeline.cache("--name", "dead")
    dead_proxy = pipeline.proxy("--name", "dead", "-n", 2)
    for program in (dead_cache, dead_proxy):
        program.kill_all()
    removed = clean(pipeline).splitlines()
    assert sum("shared memory" in line for line in removed) == 2
    assert sum("semaphore" in line for line in removed) == 4
    assert sum("queue" in line for line in removed) == 1
    homes = [line for line in removed if line.startswith(f"{base}/dead/")]
    assert (len(homes), f"{base}/dead/cache" in homes, len(removed)) == (2, True, 9)
    assert os.listdir(base) == ["alive"]
    assert get(proxy.port, path).endswith(b"content")


def test_a_file_truncated_while_it_is_sent_gives_a_short_body_and_the_lane_is_retired(pipeline):
    content = os.urandom(32 << 20)  # more than there is room for on the way to the client
    for data in ("posix_shm", "fifo", "sendfile", "splice", "memfd", "mmap", "handoff"):
        path = pipeline.write("file", content)
        cache = pipeline.cache("--timeout", 1)
        proxy = pipeline.proxy("--data", data, "-t", 1, "-n", 1, "--timeout", 1)
        with Connection(proxy.port) as connection:
            received = connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
            os.truncate(pipeline.files / "file", 16 << 20)
            received += connection.rest()
        assert received.startswith(b"GETFILE OK 33554432\r\n\r\n")
        body = received.partition(b"\r\n\r\n")[2]
        assert len(body) < len(content) or data == "memfd"  # which had read all before
        assert content.startswith(body)
        assert get(proxy.port, path).endswith(content[: 16 << 20])
        assert proxy.stop() == 0
        assert cache.stop() == 0


# A cache that answers what it is asked for `/wrong` as if it were another request.
LYING = """
import sys
from harness import cli
from harness.protocol import wire

decode = wire.decode_command

def decode_command(record):
    request_id, lane, path = decode(record)
    return request_id + (path == b"/wrong"), lane, path

wire.decode_command = decode_command
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("data", ["posix_shm", "fifo", "sendfile", "splice", "memfd"])
def test_a_reply_to_another_request_gives_an_error_and_its_lane_is_made_anew(pipeline, data):
    for name in ("right", "wrong"):
        pipeline.write(name, b"content")
    command = [sys.executable, "-c", LYING]
    pipeline.start("simplecached", "-c", pipeline.files, "-t", 1, command=command).line()
    proxy = pipeline.proxy("--data", data, "-t", 1, "-n", 1, "--timeout", 2)
    for _ in range(2):
        assert get(proxy.port, "/right") == whole(b"content")
        assert get(proxy.port, "/wrong") == b"GETFILE ERROR\r\n\r\n"
    assert re.search(r"the reply is to request \d+, not \d+", proxy.errors)


def test_proxies_with_different_data_transports_share_one_cache(pipeline):
    content = os.urandom(100_000)
    path = pipeline.write("file", content)
    pipeline.cache()
    for proxy in [
        pipeline.proxy("--data", data) for data in sorted(set(registry.installed().data) - {"null", "null_sendfile"})
    ]:
        assert get_all(proxy.port, [path] * 50, 8) == [whole(content)] * 50, proxy.errors


def test_the_proxy_may_start_first_says_that_it_waits_and_gives_up_after_a_stated_time(pipeline):
    path = pipeline.write("file", b"content")
    proxy = pipeline.start("webproxy", "-p", 0, "--wait", 20)
    assert eventually(lambda: "waiting for a cache at rendezvous 'default', for 20 s" in proxy.errors)
    pipeline.cache("--command", "fifo")
    port = int(proxy.line().split()[3].rstrip(",").rpartition(":")[2])
    assert get(port, path).endswith(b"content")
    hopeless = pipeline.start("webproxy", "-p", 0, "--name", "empty", "--wait", 0.2)
    assert hopeless.wait() == 1
    assert "no cache at rendezvous 'empty' after 0.2 s: start" in hopeless.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both_programs_in_time_with_requests_under_way(pipeline, base, number):
    path = pipeline.write("file", os.urandom(64 << 20))
    cache = pipeline.cache("--processes", 2, "--timeout", 30)
    proxy = pipeline.proxy("--processes", 2, "--timeout", 30)
    with Connection(proxy.port) as connection, Connection(proxy.port):
        connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
        for program in (proxy, cache):
            begun = time.monotonic()
            assert program.stop(number) == 0
            assert time.monotonic() - begun < 4
            assert program.errors == ""
        assert len(connection.rest()) < 64 << 20
    assert not os.path.exists(base)


def test_a_request_under_way_is_finished_when_its_proxy_is_asked_to_end(pipeline):
    content = os.urandom(64 << 20)
    path = pipeline.write("file", content)
    pipeline.cache()
    proxy = pipeline.proxy()
    with Connection(proxy.port) as connection:
        received = connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).socket.recv(1000)
        proxy.process.terminate()
        received += connection.rest()
        assert received.endswith(content[-1000:])
        assert len(received) == len(content) + len(b"GETFILE OK 67108864\r\n\r\n")
    assert proxy.wait() == 0


def test_a_worker_process_that_dies_ends_its_program_with_the_reason_and_leaves_nothing(pipeline, base):
    cache = pipeline.cache("--processes", 2)
    proxy = pipeline.proxy("--processes", 2)
    for program in (proxy, cache):
        os.kill(program.children()[0], signal.SIGKILL)
        assert program.wait() == 1
        assert "was ended by SIGKILL" in program.errors
    assert not os.path.exists(base)


def test_a_program_started_by_another_ends_when_that_one_does(pipeline):
    reading, writing = os.pipe()
    import subprocess
    import sys

    command = [sys.executable, "-m", "harness", "simplecached", "-c", str(pipeline.files), "--until-eof"]
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE) as cache:
        os.close(reading)
        cache.stdout.readline()
        os.close(writing)
        assert cache.wait(10) == 0
