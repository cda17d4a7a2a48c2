"""Notes when requests reach their stages, in programs that are started with $TRANSPORT_HARNESS_STAGES.

    read         the request has come, and its path is found
    sent         its command is made
    received     the cache has the command
    found        the cache begins to answer
    published    the reply's first piece is filled, or what leads to the content is given away
    taken        the proxy has the reply's head
    delivered    all of the reply is passed on
    answered     the cache's thread is free

`accepted` comes first and `closed` last. Each is noted just before what makes the next one possible: `sent` before the
command is sent, `published` before the first piece is passed on. So no stage ends before it begins, in whichever
process that is. The clock is CLOCK_MONOTONIC, which is one for all processes, clock_gettime(2).

Without the variable nothing here is called, and requests meet none of it. With it, the ends of channels and lanes that
this process opens, its listening socket and its handlers get functions in place of their own that note the time.

Each thread writes to memory that it shares with a file of its own in the directory that the variable names; a request
costs no system call for it. Proxy and cache know a request by the CRC-32 of its command's number and lane, and keep the
same sample: all of those whose CRC ends with so many zero bits that a thread has room for them.

What is not noted: requests that come in pieces, or while clients besiege the server (lobby.py, siege.py), since other
threads answer them; and replies that failed.
"""

import mmap
import os
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import wraps
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import registry
from harness.api import (
    ClientGiver,
    CommandReceiver,
    CommandSender,
    End,
    FileSender,
    Moments,
    Receiver,
    Scope,
    Sender,
    SocketReceiver,
)
from harness.protocol.wire import lane_name

if TYPE_CHECKING:  # a cache starts without the server of clients
    from harness.pipeline.gfserver import Backend, Handler

VARIABLE = "TRANSPORT_HARNESS_STAGES"
MOMENTS = Moments._fields[Moments._fields.index("accepted") :]
_FIELDS = ("request", "crc", *MOMENTS)
(
    _REQUEST, _CRC, _ACCEPTED, _READ, _SENT, _RECEIVED, _FOUND, _PUBLISHED, _TAKEN, _DELIVERED, _CLOSED, _ANSWERED,
) = range(len(_FIELDS))  # fmt: skip
_ROW = struct.Struct(f"={len(_FIELDS)}q")
_ROOM = 1024  # requests of a thread
_NUMBER = struct.Struct("<Q")  # of a request, where its command begins
_OWN = 16  # bytes of a command that no other under way has: its number and that of its lane

_Row = list[int]


class Noted(NamedTuple):
    """What one thread noted of a request. moments: ns by name, 0 where it noted none."""

    request: int
    crc: int
    pid: int
    thread: int
    moments: dict[str, int]


def read(directory: str) -> Iterator[Noted]:
    """What all threads have noted below a directory, also while they still run."""
    for name in os.listdir(directory):
        pid, _, thread = name.partition("-")
        with open(f"{directory}/{name}", "rb") as file:
            for request, crc, *times in _ROW.iter_unpack(file.read()):
                if crc:
                    yield Noted(request, crc, int(pid), int(thread), dict(zip(MOMENTS, times, strict=True)))


def begin() -> "Stages | None":
    """Have this process note stages from here on, if it was asked to. For a program to call before it opens an end."""
    return Stages(directory) if (directory := os.environ.get(VARIABLE)) else None


class Stages:
    """Notes the stages of this process's requests, and of those of its forks, in files below `directory`."""

    def __init__(self, directory: str) -> None:
        self._here = _Thread(directory)
        self._under_way: dict[bytes, _Row] = {}  # by the lane that the reply comes over
        for name in ("command_transport", "data_transport"):
            setattr(registry, name, self._building(getattr(registry, name)))

    def server(
        self, listener: socket.socket, backend: "Callable[[int], Backend]"
    ) -> "tuple[socket.socket, Callable[[int], Backend]]":
        """A listening socket and a function that makes backends, that note stages, in place of these."""
        return _Listener(self._here, listener), lambda process: _Backend(self._here, backend(process))

    def _building(self, build: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(build)
        def built(*arguments: Any, **options: Any) -> Any:
            transport = build(*arguments, **options)
            for verb, verbs in (("sender", self._of_sender), ("receiver", self._of_receiver)):
                # The transport is a frozen dataclass.
                object.__setattr__(transport, verb, _opening(getattr(transport, verb), verbs))
            return transport

        return built

    def _of_sender(self, end: End, _: Scope) -> dict[str, Callable[..., Any]]:
        """Functions that note stages, in place of an end's own."""
        if isinstance(end, CommandSender):
            return {"send": self._send(end.send)}
        if isinstance(end, Sender):
            return {"loan": self._loan(end.loan), "publish": self._publish(end.publish)}
        assert isinstance(end, FileSender)
        return {"send_file": self._publish(end.send_file)}

    def _of_receiver(self, end: End, scope: Scope) -> dict[str, Callable[..., Any]]:
        """The same for the other end. An end may be of both kinds."""
        if isinstance(end, CommandReceiver):
            return {"receive": self._receive(end.receive)}
        home, part = scope.directory.split("/")[-2:]
        lane = os.fsencode(f"{home}/{part}")  # as commands name it
        assert isinstance(end, Receiver | SocketReceiver | ClientGiver)
        verbs: dict[str, Callable[..., Any]] = {
            "take": self._take(end.take, lane),
            "close": self._close(end.close, lane),
        }
        if isinstance(end, ClientGiver):
            verbs["finish"] = self._finish(end.finish, lane)
        else:
            verbs["give_back"] = self._give_back(end.give_back, lane)
        return verbs

    def _send(self, send: Callable[[bytes], None]) -> Callable[[bytes], None]:
        here, under_way = self._here, self._under_way

        def noting(record: bytes) -> None:
            row = here.row
            if not row[_READ]:  # over lanes alone: there is no request of a client
                row = _blank()
            (row[_REQUEST],), row[_CRC] = _NUMBER.unpack_from(record), zlib.crc32(record[:_OWN])
            under_way[lane_name(record)] = row
            row[_SENT] = monotonic_ns()
            send(record)

        return noting

    def _receive(self, receive: Callable[[], bytes]) -> Callable[[], bytes]:
        here = self._here

        def noting() -> bytes:
            row = here.row
            if row[_PUBLISHED]:
                row[_ANSWERED] = monotonic_ns()
                here.kept.keep(row)
            here.row = row = _blank()
            record = receive()
            row[_RECEIVED] = monotonic_ns()
            (row[_REQUEST],), row[_CRC] = _NUMBER.unpack_from(record), zlib.crc32(record[:_OWN])
            return record

        return noting

    def _loan(self, loan: Callable[[], memoryview]) -> Callable[[], memoryview]:
        here = self._here

        def noting() -> memoryview:
            row = here.row
            if not row[_FOUND]:
                row[_FOUND] = monotonic_ns()
            return loan()

        return noting

    def _publish(self, publish: Callable[..., None]) -> Callable[..., None]:
        here = self._here

        def noting(*arguments: Any) -> None:
            row = here.row
            if not row[_PUBLISHED]:
                row[_PUBLISHED] = now = monotonic_ns()
                row[_FOUND] = row[_FOUND] or now
            publish(*arguments)

        return noting

    def _take(self, take: Callable[[], Any], lane: bytes) -> Callable[[], Any]:
        under_way = self._under_way

        def noting() -> Any:
            piece = take()
            row = under_way[lane]
            if not row[_TAKEN]:
                row[_TAKEN] = monotonic_ns()
            return piece

        return noting

    def _give_back(self, give_back: Callable[[], None], lane: bytes) -> Callable[[], None]:
        here, under_way = self._here, self._under_way

        def noting() -> None:
            row = under_way[lane]
            row[_DELIVERED] = monotonic_ns()  # of the last piece, in the end
            if not row[_READ]:  # else it is kept when the client's connection is closed
                here.kept.keep(row)
            give_back()

        return noting

    def _close(self, close: Callable[[], None], lane: bytes) -> Callable[[], None]:
        def noting() -> None:
            self._under_way.pop(lane, None)  # a lane that is retired is made anew under another name
            close()

        return noting

    def _finish(self, finish: Callable[[], None], lane: bytes) -> Callable[[], None]:
        here, under_way = self._here, self._under_way

        def noting() -> None:
            finish()
            row = under_way[lane]
            row[_DELIVERED] = monotonic_ns()
            if not row[_READ]:
                here.kept.keep(row)

        return noting


def _opening(open_end: Callable[[Scope], End], verbs: Callable[[End, Scope], dict[str, Any]]) -> Callable[[Scope], End]:
    @wraps(open_end)
    def opened(scope: Scope) -> End:
        end = open_end(scope)
        for name, function in verbs(end, scope).items():
            setattr(end, name, function)
        return end

    return opened


class _Listener(socket.socket):
    """A listening socket that notes when a client is accepted, and that its thread has closed the client before it."""

    def __init__(self, here: "_Thread", listener: socket.socket) -> None:
        super().__init__(fileno=os.dup(listener.fileno()))
        self._here = here

    def _accept(self) -> tuple[int, Any]:
        here = self._here
        row = here.row
        if row[_DELIVERED]:
            row[_CLOSED] = monotonic_ns()
            here.kept.keep(row)
        here.row = row = _blank()
        accepted: tuple[int, Any] = super()._accept()  # type: ignore[misc]
        row[_ACCEPTED] = monotonic_ns()
        return accepted


class _Backend:
    """A backend whose handlers note when they are called, and when they return where no lane does."""

    def __init__(self, here: "_Thread", backend: "Backend") -> None:
        self._here, self._backend = here, backend
        self.close = backend.close

    def handler(self) -> "Handler":
        here, handle = self._here, self._backend.handler()

        def noting(client: int, path: bytes) -> None:
            row = here.row
            row[_READ] = monotonic_ns()
            handle(client, path)
            if not row[_DELIVERED]:
                row[_DELIVERED] = monotonic_ns()
            if not row[_SENT]:  # nothing was asked of a cache
                here.requests += 1
                row[_REQUEST], row[_CRC] = here.requests, zlib.crc32(b"%d" % here.requests)

        return noting


class _Thread(threading.local):
    """What a thread has at hand. row: of its request. requests: those that it has made up numbers for."""

    def __init__(self, directory: str) -> None:
        self.row = _blank()
        self.requests = 0
        self.kept = _Kept(f"{directory}/{os.getpid()}-{threading.get_native_id()}")


class _Kept:
    """The rows that a thread keeps, in a file that is mapped to memory, mmap(2)."""

    def __init__(self, path: str) -> None:
        with open(path, "xb+") as file:
            file.truncate(_ROOM * _ROW.size)
            self._memory = mmap.mmap(file.fileno(), 0)
        self._rows, self._mask = 0, 0
        self._last: _Row | None = None

    def keep(self, row: _Row) -> None:
        """Write a row that is of the sample. The row written last is written over where it has changed since."""
        if row[_CRC] & self._mask:
            return
        if row is not self._last:
            while self._rows == _ROOM:
                self._thin_out()
                if row[_CRC] & self._mask:
                    return
            self._rows += 1
            self._last = row
        _ROW.pack_into(self._memory, (self._rows - 1) * _ROW.size, *row)

    def _thin_out(self) -> None:
        self._mask = 2 * self._mask + 1
        rows = [row for row in _ROW.iter_unpack(self._memory) if not row[_CRC] & self._mask]
        self._memory[:] = b"".join(_ROW.pack(*row) for row in rows).ljust(len(self._memory), b"\0")
        self._rows, self._last = len(rows), None


def _blank() -> _Row:
    return [0] * len(_FIELDS)
