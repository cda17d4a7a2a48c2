"""Clients that ask for much and take little: what keeps them from holding all workers of a server.

A worker waits for a client to take its reply, as long as the server's timeout allows for each piece. So a few clients
that read a byte a second hold all workers, and all other clients wait. Where clients wait for a worker, a client that
takes less than RATE therefore has to go: one whose window was closed for nearly all of PATIENCE, tcp(7) TCP_INFO, and
that took less than PATIENCE allows at that rate. Where one had to go, the server is under siege for a while: then it
looks ten times as often, and serves the client that came last first. The others may all be of that kind, and a
client in a queue behind a hundred of them waits for a hundred of them to go. See "Fail at Scale" (Maurer, ACM Queue
13(8), 2015), which calls it adaptive LIFO.
"""

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from harness.pipeline.lobby import ROOM

RATE = 256 << 10  # bytes a second
PATIENCE = 0.5  # seconds
_UNDER_SIEGE = 0.05  # seconds, in place of PATIENCE
_SIEGE = 10.0  # seconds without such a client, after which a siege is over
_CLOSED = 0.75  # share of the time for which a window is closed, of a client that does not read
# The fields tcpi_bytes_acked and tcpi_rwnd_limited (in microseconds) of struct tcp_info, linux/tcp.h.
_ACKED, _LIMITED = (struct.Struct(f"{offset}xQ") for offset in (120, 176))
_TCP_INFO = 184


class _Look(NamedTuple):
    """What a client has taken until now (bytes), and for how long its window was closed (seconds)."""

    client: object
    acked: int
    closed: float


class Siege:
    """Watches the clients that workers serve, from start() until the listener is shut down.

    listener: whose clients they are. serving: a place for each worker, where it puts the descriptor of its client.
    """

    def __init__(self, listener: socket.socket, workers: int) -> None:
        self.serving = [-1] * workers
        self.on = False
        self._listener = listener
        self._waiting: deque[int] = deque()
        self._change = threading.Condition()  # of those who wait
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Raises RuntimeError where the system has no thread for it."""
        self._thread.start()

    def stop(self) -> None:
        """The listener has been shut down: give up the clients that still wait for a worker."""
        self._stopping = True  # the watching thread wakes from its wait for the listener

    def newest(self) -> int:
        """The client that came last; for workers, as long as the siege is on. Raises BlockingIOError if none waits."""
        with self._change:
            if not self._waiting:
                self._change.wait(_UNDER_SIEGE)
            if self._waiting:
                return self._waiting.pop()
        raise BlockingIOError

    def _watch(self) -> None:
        poll = select.epoll()
        with poll:
            # One event, and the next one when it is asked for: a server under load is looked at once a second.
            poll.register(self._listener, select.EPOLLIN | select.EPOLLONESHOT)
            while poll.poll() and not self._stopping:
                before = self._look()
                time.sleep(PATIENCE)
                if self._queued() and self._dismiss(before, PATIENCE):
                    self._withstand()
                poll.modify(self._listener, select.EPOLLIN | select.EPOLLONESHOT)

    def _withstand(self) -> None:
        """Serve the last first, and dismiss clients that take nothing, until none had to go for _SIEGE seconds."""
        until = time.monotonic() + _SIEGE
        self.on = True
        while (time.monotonic() < until or self._waiting) and not self._stopping:
            before = self._look()
            time.sleep(_UNDER_SIEGE)
            self._admit()
            if self._waiting and self._dismiss(before, _UNDER_SIEGE):
                until = time.monotonic() + _SIEGE
        self.on = False
        with self._change:
            while self._waiting:
                os.close(self._waiting.pop())

    def _admit(self) -> None:
        """Take all that the kernel has queued. Where too many wait, the one who came first has to go."""
        accept = self._listener._accept  # type: ignore[attr-defined]
        while self._queued():
            with suppress(OSError):
                client, _ = accept()  # if a worker was faster, this waits for the next one
                with self._change:
                    self._waiting.append(client)
                    self._change.notify()
                    if len(self._waiting) <= ROOM:
                        continue
            with self._change:  # too many wait, or there is no descriptor for another one
                if not self._waiting:
                    return
                os.close(self._waiting.popleft())

    def _queued(self) -> bool:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        return bool(poll.poll(0))

    def _look(self) -> dict[int, _Look]:
        """By descriptor."""
        looks = {}
        for fd in set(self.serving):
            with suppress(OSError), _connection(fd) as connection:
                looks[fd] = _look_at(connection)
        return looks

    def _dismiss(self, before: dict[int, _Look], seconds: float) -> bool:
        """Whether a client had to go, for it has taken too little in the seconds since."""
        gone = False
        for fd in set(self.serving) & before.keys():
            # Its own descriptor: while this looks, a worker may close the client and get another one by that number.
            with suppress(OSError), _connection(fd) as connection:
                now, then = _look_at(connection), before[fd]
                if (
                    now.client == then.client
                    and now.acked - then.acked < RATE * seconds
                    and now.closed - then.closed > _CLOSED * seconds
                ):
                    connection.shutdown(socket.SHUT_RDWR)  # wakes the worker from its write
                    gone = True
        return gone


def _connection(fd: int) -> socket.socket:
    """Raises OSError where the descriptor is not a socket, or no longer open."""
    own = os.dup(fd)
    try:
        return socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise


def _look_at(connection: socket.socket) -> _Look:
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO)
    if len(information) < _TCP_INFO:
        raise OSError("Linux before 4.9 does not say for how long a window was closed")
    (acked,), (limited,) = (field.unpack_from(information) for field in (_ACKED, _LIMITED))
    return _Look(connection.getpeername(), acked, limited / 1e6)
