"""Requests files over many connections at once, and records what came of each request: one process of gfclient.

One epoll(7) loop runs all clients of the process, each with one request under way. Threads would not do: each wait
would pass the interpreter's lock on, and the load would become the bottleneck. In a closed loop a client starts its
next request when the one before has ended. In an open loop requests are due at given times, whatever becomes of those
before, and latency counts from when a request was due: where no client is free it waits, and its wait counts.
"""

import errno
import itertools
import resource
import select
import socket
import time
from _socket import socket as RawSocket  # noqa: N812  without the 2 us of the class that wraps it
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from harness.load.sinks import Discard, Sink
from harness.load.tally import FAILED, OK, OUTCOMES, SHORT, WRONG, Tally, usage_since
from harness.protocol import getfile
from harness.protocol.dialects import Dialect

_FIRST_READ = 8192  # bytes: the header, and all of a small file
_READ = 1 << 20
# Where content of all loaders goes. With MSG_TRUNC, too, recv(2) wants a buffer as large as the count; then nothing is
# ever written to it, and its pages are not even allocated.
_BUFFER = memoryview(bytearray(_READ))
_CONNECTING = {0, errno.EINPROGRESS}
_CHECK = 0.25  # seconds between checks for requests that are out of time, and whether to stop
_CLOSED = select.EPOLLRDHUP
_EVENTS = select.EPOLLIN | _CLOSED
_NEW = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class Target(NamedTuple):
    """The server that requests go to, and their dialect. timeout: seconds for a whole request."""

    family: int
    address: tuple[str, int]
    timeout: float
    dialect: Dialect


def find_target(host: str, port: int, timeout: float, dialect: Dialect) -> Target:
    """The first of the host's addresses that accepts a connection, or else the first of all.

    A host can have several: `localhost` may be ::1 before 127.0.0.1. Raises OSError where it has none.
    """
    found = [
        Target(family, address[:2], timeout, dialect)  # type: ignore[arg-type]
        for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ]
    return found[0] if len(found) == 1 else next(filter(_accepts, found), found[0])


def _accepts(target: Target) -> bool:
    try:
        with socket.socket(target.family) as connection:
            connection.settimeout(target.timeout)
            connection.connect(target.address)
    except OSError:
        return False
    return True


class Client:
    """Makes one request after another, each over a connection of its own.

    Of the latest request, on the clock of time.monotonic_ns(): due: when it was to be sent. first: when the first
    bytes of its reply came, 0 before. ended: when the last byte of its content came, or it failed. outcome: one of
    tally.OUTCOMES, as an index. content: bytes that came.
    """

    def __init__(self, target: Target, sink: Sink, epoll: select.epoll) -> None:
        self._target, self._sink, self._epoll = target, sink, epoll
        self._discard = isinstance(sink, Discard)
        self._parse, self._closes_first = target.dialect.parse_reply, target.dialect.CLIENT_CLOSES_FIRST
        self._ok_reply = target.dialect.OK_REPLY.match
        self._opened = False  # whether the sink has been opened and not closed

    def start(self, path: str, request: bytes, due: int, now: int) -> int:
        """Connect and send the request. Returns the socket's descriptor, or -1 where the connection was refused.

        The socket is then in the epoll; call advance() when that reports it.
        """
        self.due = due
        self._begun = now
        self.first = self.ended = 0
        self.outcome = FAILED
        self.content = 0
        self._length = -1  # of the content; -1 before the header is complete
        self._path, self._request, self._header = path, request, b""
        self._socket = RawSocket(self._target.family, _NEW)
        try:
            if self._socket.connect_ex(self._target.address) not in _CONNECTING:
                self._socket.close()
                return -1
            self._socket.send(request)  # on the loopback the connection is complete by now
        except BlockingIOError:
            self._epoll.register(self._socket, select.EPOLLOUT)
            return self._socket.fileno()
        except (ConnectionError, TimeoutError):
            self._socket.close()
            return -1
        self._request = b""
        fd = self._socket.fileno()
        self._epoll.register(fd, _EVENTS)
        return fd

    def advance(self, events: int) -> bool:
        """Take what the socket has received. Returns whether the request has ended.

        events: of the epoll. EPOLLRDHUP, epoll_ctl(2): the end of the connection has come, too. A call that then
        receives less than it asks for has received everything, and no other call has to find that out.
        """
        try:
            if self._request:
                self._socket.send(self._request)
                self._request = b""
                self._epoll.modify(self._socket, _EVENTS)
                return False
            if self._length < 0:
                data, room = self._socket.recv(_FIRST_READ), _FIRST_READ
                count = len(data)
                ended = self._take_header(data)
            elif self._discard:
                count, room = self._socket.recv_into(_BUFFER, 0, socket.MSG_TRUNC), _READ
                ended = self._take(count, None)
            else:
                count, room = self._socket.recv_into(_BUFFER), _READ
                ended = self._take(count, _BUFFER[:count])
            return ended or (count < room and events & _CLOSED != 0 and self.finish())
        except BlockingIOError:
            return False
        except (ConnectionError, TimeoutError):  # not OSError: a sink that fails to write ends the program
            return self.finish()

    def expired(self, now: int) -> bool:
        """End the request if it is out of time. Returns whether it was."""
        return now - self._begun > self._target.timeout * 1e9 and self.finish()

    def _take_header(self, data: bytes) -> bool:
        if not data:
            return self.finish()
        now = time.monotonic_ns()
        self.first = self.first or now
        if self._header:
            data = self._header + data
        if plain := self._ok_reply(data):
            self.outcome, self._length, header_bytes = OK, int(plain[1]), plain.end()
        else:
            try:
                reply = self._parse(data)
            except getfile.Malformed:
                self.outcome = WRONG
                return self.finish()
            if reply is None:
                self._header = data
                return False
            self.outcome, self._length, header_bytes = OUTCOMES.index(reply.status), reply.length, reply.header_bytes
        if self.outcome == OK:
            self._sink.open(self._path)
            self._opened = True
        if not self._length:
            self.ended = now
        count = len(data) - header_bytes
        if not count:
            return self._closes_first and not self._length and self.finish()
        return self._take(count, None if self._discard else memoryview(data)[header_bytes:])

    def _take(self, count: int, piece: memoryview | None) -> bool:
        if not count:
            return self.finish()
        self.content += count
        if self.content > self._length or (piece is not None and not self._sink.write(piece)):
            self.outcome = WRONG
            return self.finish()
        if self.content == self._length:
            self.ended = time.monotonic_ns()  # all that may follow is the end of the connection
            return self._closes_first and self.finish()
        return False

    def finish(self) -> bool:
        """End the request, complete or not: close the connection and the sink. Always returns True: it has ended."""
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
    """Requests files, as often as run() is called.

    stop_requested: called a few times a second; where it returns True, run() returns at once.
    client_type: the class of the clients, for one that does more.
    """

    def __init__(
        self,
        target: Target,
        paths: list[str],
        tally: Tally,
        stop_requested: Callable[[], bool],
        client_type: type[Client] = Client,
    ) -> None:
        self._target, self._tally, self._stop_requested, self._client_type = target, tally, stop_requested, client_type
        self._epoll = select.epoll()
        self._workload = [(path, target.dialect.encode_request(path)) for path in paths]

    def run(
        self,
        sinks: Sequence[Sink],
        indices: Iterable[int],
        until: int,
        due_times: Iterator[int] | None = None,
        parts: Sequence[range] = (),
    ) -> None:
        """Request the paths of `indices` (into the workload, modulo its length) until these or the time end.

        sinks: one for each client. parts: the indices of each client, which it goes through over and over; `indices`
        then only says how many requests there are. until: ns on the clock of time.monotonic_ns(). due_times: for an
        open loop, when each request is due, on that clock. All requests that are due before `until` are sent, late
        where clients are few. Those that are still not sent when the timeout of a request has passed since `until`
        count as failed.
        """
        workload, tally, numbers = self._workload, self._tally, iter(indices)
        idle = [self._client_type(self._target, sink, self._epoll) for sink in sinks]
        turns = dict(zip(idle, map(itertools.cycle, parts), strict=False))
        active: dict[int, Client] = {}
        due = 0 if due_times is None else next(due_times)  # 0: at once
        give_up = until + int(self._target.timeout * 1e9)
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
                    client = idle.pop()
                    if turns:
                        index = next(turns[client])
                    if (fd := client.start(*workload[index % len(workload)], due or now, now)) >= 0:
                        active[fd] = client
                    else:
                        client.ended = time.monotonic_ns()
                        ended.append(client)
                    if due_times is not None:
                        due = next(due_times)
                if not (active or ended or more):
                    break
                pause = 0.0 if ended else _CHECK
                if more and idle and not ended:
                    # Wait until the next request is due, by select(2): epoll_wait(2) counts in milliseconds.
                    select.select([self._epoll], [], [], min(pause, max(0, due - now) / 1e9))
                    pause = 0.0
                ended += [active.pop(fd) for fd, events in self._epoll.poll(pause) if active[fd].advance(events)]
                if (now := time.monotonic_ns()) > check:
                    check = now + int(_CHECK * 1e9)
                    tally.flush(now)
                    if self._stop_requested():
                        break
                    ended += [active.pop(fd) for fd, client in list(active.items()) if client.expired(now)]
                    if due_times is not None and more and now > give_up:
                        more, end = False, now
                        while due < until:
                            tally.add(FAILED, 0, due, now)
                            due = next(due_times)
                for client in ended:
                    if client.ended > end:  # noqa: PLR1730  max() takes 1,000 instructions more
                        end = client.ended
                    tally.add(client.outcome, client.content, client.due, client.ended, client.first)
                idle += ended
        finally:
            for client in active.values():
                client.finish()
        tally.end(end, usage_since(before))
