"""Clients that ask for much and take little: what keeps them from holding all workers of a server.

A worker waits for a client to take its reply, as long as the server's timeout allows for each piece. So a few clients
that read a byte a second hold all workers, and all other clients wait. Where clients wait for a worker, a client that
takes less than RATE therefore has to go: one whose window was closed for nearly all of PATIENCE, tcp(7) TCP_INFO, and
that took less than PATIENCE allows at that rate.

Where one had to go, the server is under siege for a while. It then looks more often, and serves the client that came
last first: the others may all be of that kind, and a client in a queue behind a hundred of them waits for a hundred of
them to go. See "Fail at Scale" (Maurer, ACM Queue 13(8), 2015), which calls it adaptive LIFO. From the first siege on a
thread accepts all clients and hands them to the workers; without a siege, in the order in which they came.
"""

import errno
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from harness.console import say
from harness.pipeline.lobby import ROOM

RATE = 256 << 10  # bytes a second
PATIENCE = 0.4  # seconds
_UNDER_SIEGE = 0.05  # seconds, in place of PATIENCE
_SIEGE = 10.0  # seconds without such a client, after which a siege is over
_CLOSED = 0.75  # share of the time for which a window is closed, of a client that does not read
IDLE, ACCEPTING = -1, -2  # in place of a client's descriptor
_LOOK_AGAIN = 1.0  # seconds between looks whether the server ends
# The fields tcpi_bytes_acked and tcpi_rwnd_limited (in microseconds) of struct tcp_info, linux/tcp.h.
_ACKED, _LIMITED = (struct.Struct(f"{offset}xQ") for offset in (120, 176))
_TCP_INFO = 184


class _Look(NamedTuple):
    """What a client has taken until now (bytes), and for how long its window was closed (seconds)."""

    client: object
    acked: int
    closed: float


class Siege:
    """Watches the clients that workers serve, from start() until stop().

    listener: whose clients they are. serving: a place for each worker, where it puts the descriptor of the client that
    it answers, or ACCEPTING before it looks at hands_over. hands_over: whether workers get their clients from next(),
    and not from the listener; once it is true it stays so.
    """

    def __init__(self, listener: socket.socket, workers: int) -> None:
        self.serving = [IDLE] * workers
        self.hands_over = False
        self._listener = listener
        self._waiting: deque[int] = deque()
        self._besieged = self._stopping = False
        self._change = threading.Condition()  # of these three

    def start(self) -> None:
        """Raises RuntimeError where the system has no thread for it."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Give up the clients that wait for a worker. Shut the listener down after that: it wakes the threads."""
        with self._change:
            self._stopping = True
            while self._waiting:
                os.close(self._waiting.pop())
            self._change.notify_all()

    def next(self) -> int:
        """The client that a worker has to serve: under siege the one that came last. Raises BlockingIOError if none
        comes for a while."""
        with self._change:
            if not self._waiting and not self._stopping:
                self._change.wait(_LOOK_AGAIN)
            if not self._waiting:
                raise BlockingIOError
            self._change.notify_all()
            return self._waiting.pop() if self._besieged else self._waiting.popleft()

    def _run(self) -> None:
        with suppress(ValueError):  # the listener has been closed, so the server has ended
            self._watch()

    def _watch(self) -> None:
        self._await_a_siege()
        if self._stopping:
            return
        try:
            threading.Thread(target=self._admit, daemon=True).start()
        except RuntimeError:
            self._admit()  # there is no other thread for it, and so none to look who has to go
            return
        until = time.monotonic() + _SIEGE
        while self._someone_waits():
            besieged = time.monotonic() < until
            if besieged and not self._besieged:
                say("clients that take next to nothing of their replies have to go, and the last one is served first")
            self._besieged = besieged
            self._wake()  # how many may wait depends on it
            seconds = _UNDER_SIEGE if besieged else PATIENCE
            before = self._look()
            time.sleep(seconds)
            if self._waiting and self._all_answer() and self._dismiss(before, seconds):
                until = time.monotonic() + _SIEGE

    def _await_a_siege(self) -> None:
        """Return when a client had to go, or the server ends."""
        with select.epoll() as poll:
            # One event, and the next one when it is asked for: a server under load is looked at twice a second or less.
            poll.register(self._listener, select.EPOLLIN | select.EPOLLONESHOT)
            while poll.poll() and not self._stopping:
                time.sleep(PATIENCE)
                if self._queued() and self._all_answer():
                    before = self._look()
                    time.sleep(PATIENCE)
                    if self._queued() and self._all_answer() and self._dismiss(before, PATIENCE):
                        return
                poll.modify(self._listener, select.EPOLLIN | select.EPOLLONESHOT)

    def _someone_waits(self) -> bool:
        """Whether a client waits for a worker; False where the server ends. Returns when it is one of the two."""
        with self._change:
            while not self._waiting and not self._stopping:
                self._change.wait(_LOOK_AGAIN)
            return not self._stopping

    def _admit(self) -> None:
        """Take all clients that come. Under siege the one who came first has to go where too many wait."""
        accept = self._listener._accept  # type: ignore[attr-defined]
        while ACCEPTING in self.serving and not self._stopping:
            time.sleep(_UNDER_SIEGE)  # that worker gets the next client, and would wait for it in vain if this took it
        while not self._stopping:
            try:
                client, _ = accept()
            except OSError as error:
                self._wake()
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    time.sleep(_UNDER_SIEGE)
                    self._make_room(0)
                continue  # BlockingIOError: no client came for the server's timeout
            with self._change:
                # Without a siege no more are taken than workers can serve next: other processes have workers, too.
                while len(self._waiting) >= len(self.serving) and not self._besieged and not self._stopping:
                    self._change.notify_all()
                    self._change.wait(_LOOK_AGAIN)
                self._waiting.append(client)
            if not (self._besieged and self._queued()):  # all that have come are here: the last of them is known
                self._wake()
            self._make_room(ROOM)

    def _wake(self) -> None:
        with self._change:
            self._change.notify_all()

    def _make_room(self, most: int) -> None:
        """Close the oldest waiting client if more than `most` clients wait, or if the server ends."""
        with self._change:
            if self._waiting and (len(self._waiting) > most or self._stopping):
                os.close(self._waiting.popleft())

    def _queued(self) -> bool:
        """Whether a client waits in the kernel's queue."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        return [event for _, event in poll.poll(0)] == [select.POLLIN]  # POLLHUP: the listener has been shut down

    def _all_answer(self) -> bool:
        """Whether each worker has a client: else one is about to take the one that waits."""
        return min(self.serving) >= 0

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
                    self.hands_over = gone = True  # before the worker is free
                    connection.shutdown(socket.SHUT_RDWR)  # wakes the worker from its write
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
