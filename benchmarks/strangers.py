"""What strangers can do to a proxy: requests that make no sense, and clients that say nothing, little, or take little.

    python benchmarks/strangers.py --requests 1000000

First it sends malformed and odd requests, and compares each reply with what the parser says must come: a refusal, the
file, or nothing. Descriptors and memory of proxy and cache are looked at early and at the end. Then it holds silent
clients, clients that send a byte of their request now and then, and clients that read a byte a second of a large file,
and asks for a small file all the while. It prints what it has seen, and ends with 1 where a reply was wrong.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise

from harness.measure.program import children
from harness.protocol import getfile

_EARLY = 0.1  # share of the requests after which memory is looked at: by then all that is made once is there
_COMING = 2.0  # seconds from the first of a crowd, after which all of them are there
_SMALL, _LARGE = b"small file " * 100, 16 << 20
_GOOD = b"GETFILE GET /small\r\n\r\n"
_BYTES = (b"\r", b"\n", b"\r\n\r\n", b" ", b"\0", b"\xff", b"/", b"..", b"GETFILE", b"GET", b"\xc3\xa9", b"A" * 5000)


def malformed(number: int, seed: int) -> bytes:
    """The request of that number: a good one that was cut, doubled, mixed up, or bytes without any sense."""
    chosen = random.Random(seed * 1_000_000_007 + number)
    if chosen.random() < 0.1:
        return chosen.randbytes(chosen.randrange(1, 300))
    request = bytearray(_GOOD)
    for _ in range(chosen.randrange(1, 5)):
        start = chosen.randrange(len(request) + 1)
        end = min(len(request), start + chosen.choice((0, 0, 1, 2, 8)))
        request[start:end] = chosen.choice((b"", chosen.choice(_BYTES), chosen.randbytes(1)))
    return bytes(request) or b"G"


def expected(request: bytes) -> bytes:
    """What comes for a request, after which the client sends no more."""
    try:
        path = getfile.parse_request(request)
    except getfile.Malformed:
        return getfile.refusal_header(getfile.INVALID)
    if path is None:
        return b""
    return b"GETFILE OK %d\r\n\r\n" % len(_SMALL) + _SMALL if served(path) else b""


def served(path: bytes) -> bool:
    """Whether it names the small file, in one spelling or another."""
    return os.path.normpath(path) == b"/small" and not path.endswith(b"/") and not {b".", b".."} & {*path.split(b"/")}


def ask(port: int, request: bytes) -> bytes:
    """All that comes for a request. Raises OSError where the connection is reset, or nothing comes for 30 s."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        reply = bytearray()
        while piece := connection.recv(1 << 16):
            reply += piece
        return bytes(reply)


def ask_many(port: int, numbers: range, seed: int) -> tuple[Counter[str], list[str]]:
    """What came of the requests of these numbers, and those whose reply was wrong."""
    found: Counter[str] = Counter()
    wrong = []
    for number in numbers:
        request = malformed(number, seed)
        try:
            reply = ask(port, request)
        except OSError as error:
            reply = f"{type(error).__name__}".encode()
        wanted = expected(request)
        status = reply.split(b"\r\n")[0].decode(errors="replace").split(" ")
        found[" ".join(status[:2]) or "closed"] += 1
        refused = reply in {getfile.refusal_header(kind) for kind in (getfile.FILE_NOT_FOUND, getfile.ERROR)}
        if reply != wanted and not (refused and not wanted and b"\r\n\r\n" in request):
            wrong.append(f"request {number} of seed {seed}: {request[:80]!r} gave {reply[:80]!r}")
    return found, wrong


@contextmanager
def pipeline(threads: int, timeout: float) -> Iterator[tuple[int, list[int]]]:
    """(the port of a proxy, the processes of proxy and cache)."""
    with tempfile.TemporaryDirectory() as base, ExitStack() as undo:
        environment = {**os.environ, "TRANSPORT_HARNESS_DIR": base}
        files = f"{base}/files"
        os.mkdir(files)
        for name, content in (("small", _SMALL), ("large", bytes(_LARGE))):
            with open(f"{files}/{name}", "wb") as file:
                file.write(content)

        def start(*arguments: str) -> dict[str, object]:
            command = [sys.executable, "-m", "harness", *arguments, "--json", "--timeout", str(timeout)]
            program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            undo.callback(program.wait, 30)
            undo.callback(program.terminate)
            assert program.stdout is not None
            programs.append(program.pid)
            return dict(json.loads(program.stdout.readline()))

        programs: list[int] = []
        start("simplecached", "-c", files, "-t", str(threads))
        port = start("webproxy", "-p", "0", "-t", str(threads))["port"]
        assert isinstance(port, int)
        yield port, [pid for program in programs for pid in (program, *children(program))]


def held(pids: list[int]) -> tuple[int, int]:
    """(descriptors, KiB of memory) of the processes."""
    kib = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            kib += sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids), kib


def send_nonsense(requests: int, seed: int) -> list[str]:
    """Send them and print what came. Returns the wrong replies."""
    found: Counter[str] = Counter()
    wrong: list[str] = []
    workers = 4
    with pipeline(4, 5.0) as (port, pids), ProcessPoolExecutor(workers) as pool:
        begun = time.monotonic()
        looks = []
        for first, last in pairwise((0, round(requests * _EARLY), requests)):
            parts = [range(first + worker, last, workers) for worker in range(workers)]
            for counts, some in pool.map(ask_many, [port] * workers, parts, [seed] * workers):
                found += counts
                wrong += some
            try:
                looks.append(held(pids))
            except FileNotFoundError as error:
                return [*wrong, f"a program has ended: {error}"]
        early, late = looks
        print(
            f"{requests} requests in {time.monotonic() - begun:.0f} s: {dict(found.most_common())}, {len(wrong)} wrong"
        )
        print(f"descriptors {early[0]} -> {late[0]}, memory {early[1]} -> {late[1]} KiB")
    return wrong


def hold(port: int, what: str, count: int, stop: threading.Event) -> None:
    """Hold connections that do as little as `what` says until `stop`; one that was given up is made anew."""
    connections = [connect(port) for _ in range(count)]
    steps = [0] * count
    while not stop.wait(0.2):
        for number, connection in enumerate(connections):
            try:
                do_little(connection, what, steps[number])
                steps[number] += 1
            except BlockingIOError:
                pass
            except OSError:
                connection.close()
                with suppress(OSError):  # then it tries again in the next round
                    connections[number], steps[number] = connect(port), 0
    for connection in connections:
        connection.close()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.setblocking(False)
    return connection


def do_little(connection: socket.socket, what: str, step: int) -> None:
    """A step of a client. Raises BlockingIOError where nothing came, another OSError where it was given up."""
    if what == "slow headers":
        connection.send(_GOOD[step : step + 1] or b"X")
    elif what == "slow readers" and not step:
        connection.send(b"GETFILE GET /large\r\n\r\n")
    elif (what == "silent" or step % 5 == 0) and not connection.recv(1):
        raise ConnectionResetError


def attack(crowd: dict[str, int], seconds: float, timeout: float) -> bool:
    """Hold such clients, ask for the small file all the while, and print how long that took. Returns whether all of
    these requests were answered."""
    stop = threading.Event()
    with pipeline(4, timeout) as (port, _):
        alone = sorted(timed(port)[0] for _ in range(50))[25]
        threads = [threading.Thread(target=hold, args=(port, what, count, stop)) for what, count in crowd.items()]
        for thread in threads:
            thread.start()
        times, bad = [], 0
        begun = time.monotonic()
        while (came := time.monotonic() - begun) < seconds:
            took, good = timed(port)
            times.append((came, took))
            bad += not good
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
    who = ", ".join(f"{count} {what}" for what, count in crowd.items())
    first, later = (
        max((took for came, took in times if (came < _COMING) is early), default=0.0) for early in (True, False)
    )
    median = sorted(took for _, took in times)[len(times) // 2]
    print(
        f"{who} (timeout {timeout:g} s): {len(times)} good requests in {seconds:g} s, the slowest took "
        f"{first * 1e3:.0f} ms while they came and {later * 1e3:.0f} ms later, median {median * 1e3:.1f} ms "
        f"(alone {alone * 1e3:.1f}), {bad} not answered",
        flush=True,
    )
    return not bad


def timed(port: int) -> tuple[float, bool]:
    """(seconds that a request for the small file took, whether it was answered)."""
    begun = time.monotonic()
    try:
        good = ask(port, _GOOD).endswith(_SMALL)
    except OSError:
        good = False
    return time.monotonic() - begun, good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="for which each crowd is held")
    parser.add_argument("--timeout", type=float, default=2.0, help="of the proxy under attack")
    args = parser.parse_args()
    wrong = send_nonsense(args.requests, args.seed) if args.requests else []
    print("\n".join(wrong[:20]))
    every = {"silent": 500, "slow headers": 100, "slow readers": 100}
    crowds = [*({who: count} for who, count in every.items()), every]
    answered = [attack(crowd, args.seconds, args.timeout) for crowd in crowds]
    return int(bool(wrong) or not all(answered))


if __name__ == "__main__":
    sys.exit(main())
