"""Hand-off: the proxy passes the client's socket to the cache, which answers the client itself.

The proxy sends a duplicate of the client's socket and the form of the header into a queue, a Unix datagram
socketpair(2), unix(7) SCM_RIGHTS. The cache takes it from there, writes the header, moves the content with sendfile(2)
from the page cache to the client, closes its duplicate, and says how it went over a second socket, the lane's. No
byte of content comes near the proxy; the connection ends when the proxy closes its own descriptor after that.

Any worker of any cache process may get the command, so all must be able to read the queue. The first time that a
process uses a lane it sends in an end of a socketpair, over which the proxy, waiting for the reply, passes the queue's
reading end. A message is read once, so only one end takes a client from the queue: the cache to answer it, or the proxy
to take it back.

A small reply costs more than by `sendfile`, which sends one message: here are two, the client and the completion that
makes the proxy's counts true. Measured in one process, both ends together, that is 5 us more (21 against 16). Over
the pipeline it is 10 us of CPU time more a request (67 against 56 at 1 KiB, results/quick), and no less with all
processes on one CPU: so the cost is not that of moving the socket from one CPU to another.

Limits: a client is a descriptor on its way, of which a user may have RLIMIT_NOFILE (ETOOMANYREFS), unix(7).

Killed peers: a killed cache is noticed by the timeout; while it serves a slow client, the cache reports progress at
least once in each half of the timeout. If the proxy is killed, the cache still answers the client that it was given;
after that, the lane's socket is gone (ECONNREFUSED).
"""

import errno
import os
import socket
import struct
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from harness.api import (
    HEAD_BYTES,
    ClientGiver,
    DataTransport,
    DescriptorSocket,
    FileSender,
    Scope,
    await_room,
    hookimpl,
    socket_name,
)

_OUTCOME = struct.Struct("<I")  # follows the head: 0, or the errno(3) of the failure; EINPROGRESS: still sending
_HEADER_LIMIT = 4096
_REPORTS = 4  # of progress in one timeout
_SLICE = 1 << 23  # bytes at a time: a client that reads as fast as we send would keep one sendfile(2) from returning


@dataclass(frozen=True)
class HandOff(DataTransport):
    """It has no options."""

    name = "handoff"

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("socket"))

    def receiver(self, scope: Scope) -> ClientGiver:
        return Giver(scope)

    def sender(self, scope: Scope) -> FileSender:
        return Answerer(scope)


class Answerer(FileSender):
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._lane = DescriptorSocket.connected(scope.path("socket"), scope.timeout)
        self._joining, theirs = DescriptorSocket.pair(scope.timeout)
        self._queue: DescriptorSocket | None = None
        try:
            self._lane.send(b"join", theirs.fileno())
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        if not count:
            self._report(head, 0)
            return
        if self._queue is None:
            self._queue = DescriptorSocket(self._timeout, self._joining.receive(1)[1])
        try:
            header, client = self._queue.receive(_HEADER_LIMIT, socket.MSG_DONTWAIT)  # it came before the command
        except TimeoutError:
            raise ConnectionError("the proxy took the client back") from None
        outcome = errno.ENODATA
        try:
            os.set_blocking(client, False)
            os.write(client, header % count)
            self._send(client, head, fd, offset, offset + count)
            outcome = 0
        except ConnectionError:
            outcome = errno.EPIPE  # the client is gone; the lane is at rest all the same
        except TimeoutError:
            outcome = errno.ETIMEDOUT
            raise
        finally:
            os.close(client)
            self._report(head, outcome)

    def _send(self, client: int, head: bytes, fd: int, offset: int, end: int) -> None:
        """As harness.api.send_file, but reports progress."""
        pause = self._timeout / _REPORTS
        due, patience = time.monotonic() + pause, _REPORTS
        while offset < end:
            if (now := time.monotonic()) > due:
                self._report(head, errno.EINPROGRESS)
                due = now + pause
            try:
                moved = os.sendfile(client, fd, offset, min(end - offset, _SLICE))
            except BlockingIOError:
                try:
                    await_room(client, pause)
                    patience = _REPORTS
                except TimeoutError:
                    if not (patience := patience - 1):
                        raise
                continue
            if not moved:
                raise EOFError(f"the file ended {end - offset} bytes early")
            offset += moved

    def _report(self, head: bytes, outcome: int) -> None:
        self._lane.send(head + _OUTCOME.pack(outcome))

    def close(self) -> None:
        self._lane.close()
        self._joining.close()
        if self._queue is not None:
            self._queue.close()


class Giver(ClientGiver):
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._lane = DescriptorSocket.bound(scope.path("socket"), scope.timeout)
        self._given, self._queue = DescriptorSocket.pair(scope.timeout)
        self._outcome = 0

    def give(self, client: int, header: bytes) -> None:
        self._given.send(header, client)

    def take(self) -> bytes:
        while True:
            message, joining = self._lane.receive(HEAD_BYTES + _OUTCOME.size)
            if joining < 0:
                (self._outcome,) = _OUTCOME.unpack_from(message, HEAD_BYTES)
                return message[:HEAD_BYTES]
            end = DescriptorSocket(self._timeout, joining)
            with suppress(ConnectionError):  # that cache worker was killed
                end.send(b"", self._queue.fileno())
            end.close()

    def finish(self) -> None:
        while self._outcome == errno.EINPROGRESS:
            self.take()
        if self._outcome == errno.ENODATA:
            raise EOFError("the file ended early")
        if self._outcome:
            if self._outcome == errno.ETIMEDOUT:
                raise TimeoutError("the client stalled")
            raise OSError(self._outcome, os.strerror(self._outcome))  # Python picks the subclass

    def take_back(self) -> bool:
        try:
            _, client = self._queue.receive(_HEADER_LIMIT, socket.MSG_DONTWAIT)
        except TimeoutError:
            return False
        except OSError:  # this process has no free descriptor for it, but it has left the queue
            return True
        os.close(client)
        return True

    def close(self) -> None:
        self._lane.close()
        self._given.close()
        self._queue.close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [HandOff]
