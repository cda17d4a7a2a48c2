"""Asks for files over many connections at once, and records what came of each request: one process of gfclient.

One epoll(7) loop keeps `slots` requests under way. Threads would not do: each wait would hand the interpreter's
lock around, and the load would become the bottleneck. In a closed loop a slot starts its next request when the one
before has ended. In an open loop requests are due at given times, whatever became of those before, and latency counts
from there: a request that finds no free slot waits, and its wait counts.
"""

import errno
import mmap
import os
import random
import resource
import select
import socket
import time
import zlib
from _socket import socket as RawSocket  # noqa: N812  without the 2 us of the class that wraps it
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from harness.protocol import getfile

# What can come of a request. `short`: the content ended early. `wrong`: other content than announced or expected,
# or no GETFILE reply. `failed`: no reply at all, because of a refused, reset or silent connection, or never asked.
OUTCOMES = ("OK", "FILE_NOT_FOUND", "ERROR", "INVALID", "short", "wrong", "failed")
OK, NOT_FOUND, ERROR, _, SHORT, WRONG, FAILED = range(len(OUTCOMES))

# The words of a tally, all unsigned 64-bit. Times are in ns; END is on the clock of CLOCK_MONOTONIC.
COUNT, BYTES, END, USER, SYSTEM, SWITCHES, RSS_KIB = range(len(OUTCOMES), len(OUTCOMES) + 7)
TALLY_WORDS = 16


def regions(count: int, room: int) -> list[memoryview]:
    """Memory that forks share: `count` times a tally and `room` latencies. Its pages come as they are written."""
    words = TALLY_WORDS + room
    memory = memoryview(mmap.mmap(-1, count * words * 8)).cast("Q")
    return [memory[start : start + words] for start in range(0, len(memory), words)]


def write_tally(
    tally: memoryview, counts: Sequence[int], recorded: int, content: int, end: int, used: Iterable[int]
) -> None:
    """Fill in a tally: a count for each of OUTCOMES, then the words named above. used: see used_since."""
    for word, value in enumerate((*counts, recorded, content, end, *used)):
        tally[word] = value


def used_since(before: resource.struct_rusage) -> tuple[int, int, int, int]:
    """What this process has used since then: the words from USER on."""
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (
        round((after.ru_utime - before.ru_utime) * 1e9),
        round((after.ru_stime - before.ru_stime) * 1e9),
        after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
        after.ru_maxrss,
    )


def check_warm(tallies: Sequence[memoryview]) -> None:
    """Raises OSError where a warm-up had other replies than OK."""
    counts = [sum(tally[kind] for tally in tallies) for kind in range(len(OUTCOMES))]
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


def arrivals(rate: float, fixed: bool, seed: int, share: int, shares: int) -> Iterator[int]:
    """When requests are due, ns from the go-ahead: one process's part out of `shares`, for ever.

    `rate` requests/s in all. fixed: at equal distances, the processes taking turns. Else at random, a Poisson process:
    the parts are independent of each other, and so are Poisson, too.
    """
    pause = shares / rate * 1e9
    distance = random.Random(f"{seed}/{share}").expovariate
    due = pause * share / shares if fixed else 0.0
    while True:
        if not fixed:
            due += distance(1 / pause)
        yield int(due)
        if fixed:
            due += pause


def checksums(directory: str, paths: Iterable[str]) -> dict[str, int]:
    """The CRC-32 of each path's file below `directory`."""
    sums = {}
    for path in paths:
        with open(directory + path, "rb") as file:
            sums[path] = zlib.crc32(file.read())
    return sums


class Target(NamedTuple):
    """Where requests go. timeout: seconds for a whole request."""

    family: int
    address: tuple[str, int]
    timeout: float


class Slot:
    """One request after another; at most one at a time."""

    def __init__(self, target: Target, sink: Sink, epoll: select.epoll, buffer: memoryview) -> None:
        self._target, self._sink, self._epoll, self._buffer = target, sink, epoll, buffer
        self._discard = isinstance(sink, Discard)
        self._opened = False  # whether the sink waits for its close

    def start(self, path: str, request: bytes, due: int, now: int) -> int:
        """Connect and send the request, which was due then. Returns the descriptor, -1 where that failed at once."""
        self.due, self._begun = due, now
        self.ended = 0  # when the last byte of content came
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
        data = self._header + data
        try:
            reply = getfile.parse_reply(data)
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
        return self._take(len(content), content) if content else False

    def _take(self, count: int, piece: memoryview | None) -> bool:
        if not count:
            return self.finish()
        self.content += count
        if self.content > self._length or (piece is not None and not self._sink.write(piece)):
            self.outcome = WRONG
            return self.finish()
        if self.content == self._length:
            self.ended = time.monotonic_ns()  # what follows is the end of the connection, and must be nothing else
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
    """The slots of one process, and its tally.

    tally: TALLY_WORDS 64-bit words. While run() runs, those up to END are at most _EXPIRY_CHECK old.
    latencies: ns of each request, in the order of their ends; with more requests than room, of the last ones.
    abandoned: asked a few times a second whether to stop at once.
    """

    def __init__(
        self,
        target: Target,
        sinks: list[Sink],
        paths: list[str],
        tally: memoryview,
        latencies: memoryview,
        abandoned: Callable[[], bool],
    ) -> None:
        self._abandoned, self._timeout = abandoned, target.timeout
        self._epoll = select.epoll()
        # MSG_TRUNC wants a buffer whose size is the count; nothing is ever written to it then.
        buffer = memoryview(bytearray(_READ))
        self._slots = [Slot(target, sink, self._epoll, buffer) for sink in sinks]
        self._workload = [(path, getfile.encode_request(path)) for path in paths]
        self._tally, self._latencies = tally, latencies

    def run(self, indices: Iterator[int], until: int, dues: Iterator[int] | None = None) -> None:
        """Ask for the paths of `indices` (into the workload, modulo its length) until they or the time end.

        until: ns, on the clock of time.monotonic_ns(). dues: for an open loop, when each request is to be sent, on that
        clock. All that are due before `until` are sent, late where slots are few; those that are still not sent when
        the timeout of a request has passed since then have failed.
        """
        workload, latencies, counts = self._workload, self._latencies, [0] * len(OUTCOMES)
        room = len(latencies)
        before = resource.getrusage(resource.RUSAGE_SELF)
        idle, active = list(self._slots), dict[int, Slot]()
        recorded = content = end = check = 0
        due = next(dues) if dues else 0  # 0: now
        patience = until + int(self._timeout * 1e9)
        more = True  # requests to be sent
        try:
            while True:
                ended = []
                while more and idle and (now := time.monotonic_ns()) >= due:
                    if (due or now) >= until or (index := next(indices, -1)) < 0:
                        more = False
                        break
                    slot = idle.pop()
                    if (fd := slot.start(*workload[index % len(workload)], due or now, now)) >= 0:
                        active[fd] = slot
                    else:
                        slot.ended = time.monotonic_ns()
                        ended.append(slot)
                    if dues:
                        due = next(dues)
                if not (active or ended or more):
                    break
                pause = 0.0 if ended else _EXPIRY_CHECK
                if dues and more and idle and not ended:
                    # Until the next is due. By select(2), for epoll_wait(2) counts in milliseconds.
                    select.select([self._epoll], [], [], min(pause, max(0, due - now) / 1e9))
                    pause = 0.0
                ended += [active.pop(fd) for fd, _ in self._epoll.poll(pause) if active[fd].advance()]
                if (now := time.monotonic_ns()) > check:
                    check = now + int(_EXPIRY_CHECK * 1e9)
                    write_tally(self._tally, counts, recorded, content, now, ())
                    if self._abandoned():
                        break
                    ended += [active.pop(fd) for fd, slot in list(active.items()) if slot.expired(now)]
                    while dues and more and now > patience and (more := due < until):
                        counts[FAILED] += 1
                        latencies[recorded % room] = now - due
                        recorded, end, due = recorded + 1, now, next(dues)
                for slot in ended:
                    counts[slot.outcome] += 1
                    content += slot.content
                    end = max(end, slot.ended)
                    latencies[recorded % room] = slot.ended - slot.due
                    recorded += 1
                idle += ended
        finally:
            for slot in active.values():
                slot.finish()
        write_tally(self._tally, counts, recorded, content, end, used_since(before))
