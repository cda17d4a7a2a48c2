"""Asks for files over many connections at once, and records what came of each request: one process of gfclient.

One epoll(7) loop keeps `slots` requests under way. Threads would not do: each wait would hand the interpreter's
lock around, and the load would become the bottleneck. In a closed loop a slot starts its next request when the one
before has ended. In an open loop requests are due at given times, whatever becomes of those before, and latency counts
from there: a request that finds no free slot waits, and its wait counts.
"""

import errno
import itertools
import mmap
import os
import random
import resource
import select
import socket
import sys
import time
import zlib
from _socket import socket as RawSocket  # noqa: N812  without the 2 us of the class that wraps it
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.load.histogram import BUCKETS, bucket
from harness.protocol import getfile
from harness.protocol.dialects import Dialect

# What can come of a request. `short`: the content ended early. `wrong`: other content than announced or expected,
# or no GETFILE reply. `failed`: no reply at all, because of a refused, reset or silent connection, or never asked.
OUTCOMES = ("OK", "FILE_NOT_FOUND", "ERROR", "INVALID", "short", "wrong", "failed")
OK, NOT_FOUND, ERROR, _, SHORT, WRONG, FAILED = range(len(OUTCOMES))

# The words of a tally, all unsigned 64-bit. Times are in ns; END is on the clock of CLOCK_MONOTONIC. EXACT: how many
# latencies are kept one by one, FIRSTS: how many times to first bytes.
COUNT, BYTES, END, EXACT, FIRSTS, USER, SYSTEM, SWITCHES, RSS_KIB = range(len(OUTCOMES), len(OUTCOMES) + 9)
_WORDS = 16
_MOST_FIRSTS = 1 << 14  # times to first bytes that are kept, of the last requests
_LATENCIES = _WORDS + BUCKETS + _MOST_FIRSTS
_MOST_EXACT = 1 << 20  # latencies that are kept one by one: 8 MiB, and seconds to sort


class Tally:
    """What has come of the requests of one process or thread, in memory that forks share.

    words: a count for each of OUTCOMES, then those named above; those up to END are of that time, which is a moment
    ago while requests are made. latencies: ns, in the order of the requests' ends, as far as there is room; histogram:
    how many of the others are in each bucket of
    histogram.py. So hours of requests have room. firsts: ns to the
    first bytes of replies.
    """

    def __init__(self, memory: memoryview) -> None:
        self.words = memory[:_WORDS]
        self.histogram = memory[_WORDS : _WORDS + BUCKETS]
        self.firsts = memory[_WORDS + BUCKETS : _LATENCIES]
        self.latencies = memory[_LATENCIES:]
        self._room = len(self.latencies)

    def begin(self) -> None:
        """Begin, or begin again, with nothing."""
        self.counts = [0] * len(OUTCOMES)
        self._buckets = [0] * BUCKETS
        self._content = self._exact = self._firsts = 0
        self.tell(time.monotonic_ns())

    def add(self, outcome: int, content: int, latency: int) -> None:
        """A request has ended."""
        self.counts[outcome] += 1
        self._content += content
        if self._exact < self._room:
            self.latencies[self._exact] = latency
            self._exact += 1
        else:
            self._buckets[bucket(latency)] += 1

    def add_first(self, latency: int) -> None:
        """The first bytes of a reply have come."""
        self.firsts[self._firsts % _MOST_FIRSTS] = latency
        self._firsts += 1

    def tell(self, end: int) -> None:
        """Have others see what was counted until now; `end` is for END."""
        self._write(end)

    def end(self, end: int, used: Iterable[int]) -> None:
        """Have others see all; `used` is what used_since returned."""
        self.histogram[:] = memoryview(array("Q", self._buckets))
        self._write(end, self._exact, min(self._firsts, _MOST_FIRSTS), *used)

    def _write(self, *words: int) -> None:
        for word, value in enumerate((*self.counts, sum(self.counts), self._content, *words)):
            self.words[word] = value


def tallies(count: int, most: int | None) -> list[Tally]:
    """`count` of them, for `most` requests each, None: nobody knows. Memory pages come as they are written."""
    words = _LATENCIES + min(most or _MOST_EXACT, _MOST_EXACT)
    memory = memoryview(mmap.mmap(-1, count * words * 8)).cast("Q")
    return [Tally(memory[start : start + words]) for start in range(0, len(memory), words)]


def share(requests: int | None, paths: int, index: int, processes: int) -> range:
    """One process's part of the requests, as indices into the workload, modulo its length; None: without end.

    Each goes through the whole workload, so that files of all sizes are asked for alike however fast the processes are.
    """
    if requests is None:
        return range(paths * index // processes, sys.maxsize)
    return part(requests, index, processes)


def part(count: int, index: int, parts: int) -> range:
    """One of `parts` parts of `count` things."""
    return range(count * index // parts, count * (index + 1) // parts)


def used_since(before: resource.struct_rusage) -> tuple[int, int, int, int]:
    """What this process has used since then: the words from USER on."""
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (
        round((after.ru_utime - before.ru_utime) * 1e9),
        round((after.ru_stime - before.ru_stime) * 1e9),
        after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
        after.ru_maxrss,
    )


def check_warm(tallies: Sequence[Tally]) -> None:
    """Raises OSError where a warm-up had other replies than OK."""
    counts = [sum(tally.counts[kind] for tally in tallies) for kind in range(len(OUTCOMES))]
    if any(counts[OK + 1 :]):
        bad = ", ".join(f"{count} {outcome}" for outcome, count in zip(OUTCOMES, counts, strict=True) if count)
        raise OSError(f"warm-up: not every reply was OK: {bad}")


_FIRST_READ = 8192  # bytes: the header, and all of a small file
_READ = 1 << 20
_CONNECTING = {0, errno.EINPROGRESS}
_EXPIRY_CHECK = 0.25  # seconds
_NEW = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class Sink:
    """What becomes of content. This one copies it to memory and forgets it."""

    def open(self, path: str) -> None:
        """A reply for `path` begins."""

    def write(self, piece: memoryview) -> bool:
        """The next piece; False where it is not what was expected."""
        return True

    def close(self, complete: bool) -> bool:
        """The reply has ended, with all its content or not; False where that is not what was expected."""
        return True


class Discard(Sink):
    """Lets the kernel drop the content where it is, tcp(7) MSG_TRUNC."""


class Save(Sink):
    """Writes each file below `directory`, under its request's path, whole or not at all: rename(2)."""

    def __init__(self, directory: str, slot: str) -> None:
        self._directory, self._slot = directory, slot
        self._fd, self._target = -1, ""

    def open(self, path: str) -> None:
        self._target = self._directory + path
        os.makedirs(os.path.dirname(self._target), exist_ok=True)
        self._fd = os.open(f"{self._target}.{self._slot}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def write(self, piece: memoryview) -> bool:
        written = 0
        while written < len(piece):
            written += os.write(self._fd, piece[written:])
        return True

    def close(self, complete: bool) -> bool:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if complete:
                os.rename(f"{self._target}.{self._slot}", self._target)
            else:
                os.unlink(f"{self._target}.{self._slot}")
        return True


class Compare(Sink):
    """Compares content with the files below `directory`, then passes it on."""

    def __init__(self, directory: str, behind: Sink) -> None:
        self._directory, self._behind = directory, behind
        self._expected: dict[str, int] = {}
        self._fd, self._offset = -1, 0

    def open(self, path: str) -> None:
        self._behind.open(path)
        self._offset = 0
        if path not in self._expected:
            self._expected[path] = os.open(self._directory + path, os.O_RDONLY | os.O_CLOEXEC)
        self._fd = self._expected[path]

    def write(self, piece: memoryview) -> bool:
        same = os.pread(self._fd, len(piece), self._offset) == piece
        self._offset += len(piece)
        return self._behind.write(piece) and same

    def close(self, complete: bool) -> bool:
        right = not complete or os.fstat(self._fd).st_size == self._offset
        return self._behind.close(complete and right) and right


class Checksum(Sink):
    """Compares each reply's CRC-32 with the one of its path."""

    def __init__(self, expected: Mapping[str, int]) -> None:
        self._expected = expected
        self._wanted = self._sum = 0

    def open(self, path: str) -> None:
        self._wanted, self._sum = self._expected[path], 0

    def write(self, piece: memoryview) -> bool:
        self._sum = zlib.crc32(piece, self._sum)
        return True

    def close(self, complete: bool) -> bool:
        return not complete or self._sum == self._wanted


def checksums(directory: str, paths: Iterable[str]) -> dict[str, int]:
    """The CRC-32 of each path's file below `directory`."""
    sums = {}
    for path in set(paths):
        with open(directory + path, "rb") as file:
            sums[path] = 0
            while piece := file.read(_READ):
                sums[path] = zlib.crc32(piece, sums[path])
    return sums


def arrivals(rate: float, fixed: bool, seed: int, share: int, shares: int) -> Iterator[int]:
    """When requests are due, in ns from the go-ahead: the part of one process out of `shares`, for ever.

    `rate` requests/s in all. fixed: at equal distances, the processes taking turns. Else at random, Poisson: the parts
    are independent of each other, and so are Poisson, too.
    """
    pause = shares / rate * 1e9
    if fixed:
        due = pause * share / shares
        while True:
            yield int(due)
            due += pause
    distance = random.Random(f"{seed}.{share}").expovariate
    due = 0.0
    while True:
        due += distance(1 / pause)
        yield int(due)


class Target(NamedTuple):
    """Where requests go, and how. timeout: seconds for a whole request."""

    family: int
    address: tuple[str, int]
    timeout: float
    dialect: Dialect


def find_target(host: str, port: int, timeout: float, dialect: Dialect) -> Target:
    """The first of a host's addresses that takes a connection, or the first: `localhost` may be ::1 before 127.0.0.1.

    Raises OSError where nobody knows the host.
    """
    found = [
        Target(family, address[:2], timeout, dialect)  # type: ignore[arg-type]
        for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ]
    return found[0] if len(found) == 1 else next(filter(_answers, found), found[0])


def _answers(target: Target) -> bool:
    try:
        with socket.socket(target.family) as trial:
            trial.settimeout(target.timeout)
            trial.connect(target.address)
    except OSError:
        return False
    return True


class Slot:
    """One request after another; at most one at a time."""

    def __init__(self, target: Target, sink: Sink, epoll: select.epoll, buffer: memoryview) -> None:
        self._target, self._sink, self._epoll, self._buffer = target, sink, epoll, buffer
        self._discard = isinstance(sink, Discard)
        self._parse, self._closes_first = target.dialect.parse_reply, target.dialect.CLIENT_CLOSES_FIRST
        self._opened = False  # whether the sink waits for its close

    def start(self, path: str, request: bytes, due: int, now: int) -> int:
        """Connect and send the request. Returns the descriptor, -1 where that failed at once."""
        self.due = due
        self._begun = now
        self.first = self.ended = 0  # when the first bytes of the reply, and the last byte of content came
        self.outcome = FAILED
        self.content = 0
        self._length = -1  # of the content; -1 before the header is complete
        self._path, self._request, self._header = path, request, b""
        self._socket = RawSocket(self._target.family, _NEW)
        try:
            if self._socket.connect_ex(self._target.address) not in _CONNECTING:
                self._socket.close()
                return -1
            self._socket.send(request)  # on the loopback the connection stands by now
        except BlockingIOError:
            self._epoll.register(self._socket, select.EPOLLOUT)
            return self._socket.fileno()
        except (ConnectionError, TimeoutError):
            self._socket.close()
            return -1
        self._request = b""
        fd = self._socket.fileno()
        self._epoll.register(fd, select.EPOLLIN)
        return fd

    def advance(self) -> bool:
        """Take what has come. Returns whether the request has ended."""
        try:
            if self._request:
                self._socket.send(self._request)
                self._request = b""
                self._epoll.modify(self._socket, select.EPOLLIN)
                return False
            if self._length < 0:
                return self._take_header(self._socket.recv(_FIRST_READ))
            if self._discard:
                return self._take(self._socket.recv_into(self._buffer, 0, socket.MSG_TRUNC), None)
            count = self._socket.recv_into(self._buffer)
            return self._take(count, self._buffer[:count])
        except BlockingIOError:
            return False
        except (ConnectionError, TimeoutError):  # not OSError: a sink that cannot write ends the program
            return self.finish()

    def expired(self, now: int) -> bool:
        """Whether the request is out of time and was given up."""
        return now - self._begun > self._target.timeout * 1e9 and self.finish()

    def _take_header(self, data: bytes) -> bool:
        if not data:
            return self.finish()
        self.first = self.first or time.monotonic_ns()
        data = self._header + data
        try:
            reply = self._parse(data)
        except getfile.Malformed:
            self.outcome = WRONG
            return self.finish()
        if reply is None:
            self._header = data
            return False
        self.outcome, self._length = OUTCOMES.index(reply.status), reply.length
        if self.outcome == OK:
            self._sink.open(self._path)
            self._opened = True
        if not reply.length:
            self.ended = time.monotonic_ns()
        content = memoryview(data)[reply.header_bytes :]
        ended = self._closes_first and not reply.length
        return self._take(len(content), content) if content or ended else False

    def _take(self, count: int, piece: memoryview | None) -> bool:
        if not count:
            return self.finish()
        self.content += count
        if self.content > self._length or (piece is not None and not self._sink.write(piece)):
            self.outcome = WRONG
            return self.finish()
        if self.content == self._length:
            self.ended = time.monotonic_ns()  # what follows is the end of the connection, and must be nothing else
            return self._closes_first and self.finish()
        return False

    def finish(self) -> bool:
        """End the request where it is. Returns True, for it has ended."""
        self._socket.close()
        if self.outcome == OK and self.content < self._length:
            self.outcome = SHORT
        if self._opened:
            self._opened = False
            if not self._sink.close(complete=self.outcome == OK):
                self.outcome = WRONG
        self.ended = self.ended or time.monotonic_ns()
        return True


class Loader:
    """Asks for files, as often as run() is called.

    abandoned: asked a few times a second whether to stop at once.
    """

    def __init__(
        self,
        target: Target,
        paths: list[str],
        tally: Tally,
        abandoned: Callable[[], bool],
        kind: type[Slot] = Slot,
    ) -> None:
        self._target, self._tally, self._abandoned, self._kind = target, tally, abandoned, kind
        self._epoll = select.epoll()
        self._workload = [(path, target.dialect.encode_request(path)) for path in paths]
        # MSG_TRUNC wants a buffer whose size is the count; nothing is ever written to it then.
        self._buffer = memoryview(bytearray(_READ))

    def run(
        self,
        sinks: Sequence[Sink],
        indices: Iterable[int],
        until: int,
        dues: Iterator[int] | None = None,
        own: Sequence[range] = (),
    ) -> None:
        """Ask for the paths of `indices` (into the workload, modulo its length) until they or the time end.

        sinks: one for each slot. own: the indices of each slot, over and over, instead; the others then only count.
        until: ns, on the clock of time.monotonic_ns(). dues: for an open loop, when each
        request is to be sent, on that clock. All that are due before `until` are sent, late where slots are few; those
        that are still not sent when the timeout of a request has passed since `until` have failed.
        """
        workload, tally, numbers = self._workload, self._tally, iter(indices)
        idle = [self._kind(self._target, sink, self._epoll, self._buffer) for sink in sinks]
        turns = dict(zip(idle, map(itertools.cycle, own), strict=False))
        active: dict[int, Slot] = {}
        due = 0 if dues is None else next(dues)  # 0: at once
        patience = until + int(self._target.timeout * 1e9)
        more = True  # requests to be sent
        end = check = 0
        before = resource.getrusage(resource.RUSAGE_SELF)
        tally.begin()
        try:
            while True:
                ended = []
                while more and idle and (now := time.monotonic_ns()) >= due:
                    if (due or now) >= until or (index := next(numbers, -1)) < 0:
                        more = False
                        break
                    slot = idle.pop()
                    if turns:
                        index = next(turns[slot])
                    if (fd := slot.start(*workload[index % len(workload)], due or now, now)) >= 0:
                        active[fd] = slot
                    else:
                        slot.ended = time.monotonic_ns()
                        ended.append(slot)
                    if dues is not None:
                        due = next(dues)
                if not (active or ended or more):
                    break
                pause = 0.0 if ended else _EXPIRY_CHECK
                if more and idle and not ended:
                    # Until the next is due. By select(2), for epoll_wait(2) counts in milliseconds.
                    select.select([self._epoll], [], [], min(pause, max(0, due - now) / 1e9))
                    pause = 0.0
                ended += [active.pop(fd) for fd, _ in self._epoll.poll(pause) if active[fd].advance()]
                if (now := time.monotonic_ns()) > check:
                    check = now + int(_EXPIRY_CHECK * 1e9)
                    tally.tell(now)
                    if self._abandoned():
                        break
                    ended += [active.pop(fd) for fd, slot in list(active.items()) if slot.expired(now)]
                    if dues is not None and more and now > patience:
                        more, end = False, now
                        while due < until:
                            tally.add(FAILED, 0, now - due)
                            due = next(dues)
                for slot in ended:
                    end = max(end, slot.ended)
                    tally.add(slot.outcome, slot.content, slot.ended - slot.due)
                    if slot.first:
                        tally.add_first(slot.first - slot.due)
                idle += ended
        finally:
            for slot in active.values():
                slot.finish()
        tally.end(end, used_since(before))
