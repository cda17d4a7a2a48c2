"""Clients whose request has not come as a whole: they wait together, and no worker waits for them."""

import os
import select
import socket
import threading
import time
from _socket import socket as RawSocket  # noqa: N812  without the 2 us of the class that wraps it
from collections.abc import Callable
from functools import cache

ROOM = 256  # clients whose request may come in pieces at a time: a quarter of the usual RLIMIT_NOFILE


class Lobby:
    """Where clients are whose request comes in pieces, or has yet to begin. One thread waits for all of them, and hands
    on each whose request is complete; it is there only while they are.

    received: see reader(). complete: whether a request is, or never can be. hand_on: gets such a client, and what has
    come from it. seconds: for which a client may be here.
    """

    def __init__(
        self,
        received: Callable[[int], bytes | bytearray],
        complete: Callable[[bytes], bool],
        hand_on: Callable[[int, bytes], None],
        seconds: float,
    ) -> None:
        self._received, self._complete, self._hand_on, self._seconds = received, complete, hand_on, seconds
        self._clients: dict[int, tuple[bytes, float]] = {}  # what has come, and until when the rest has to
        self._attended = False
        self._lock = threading.Lock()  # of both
        self._epoll = select.epoll()

    def admit(self, client: int, data: bytes) -> None:
        """Wait for the rest of the client's request. Where the lobby is full, the one who came first has to go. Raises
        OSError, RuntimeError where the system has no room for it, and does not keep the client."""
        with self._lock:
            if len(self._clients) >= ROOM:
                self._dismiss(min(self._clients, key=lambda one: self._clients[one][1]))
            self._epoll.register(client, select.EPOLLIN)
            if not self._attended:
                try:
                    threading.Thread(target=self._attend, daemon=True).start()
                except RuntimeError:
                    self._epoll.unregister(client)
                    raise
                self._attended = True
            self._clients[client] = data, time.monotonic() + self._seconds

    def _attend(self) -> None:
        wait = 0.0
        while True:
            for client, _ in self._epoll.poll(wait):
                self._advance(client)
            with self._lock:
                now = time.monotonic()
                for client in [one for one, (_, until) in self._clients.items() if until <= now]:
                    self._dismiss(client)
                if not self._clients:
                    self._attended = False
                    return
                wait = min(until for _, until in self._clients.values()) - now

    def _advance(self, client: int) -> None:
        """Take what has come from the client, and hand it on if its request is complete."""
        with self._lock:
            if client not in self._clients:  # it has just been dismissed
                return
            data, until = self._clients[client]
            try:
                more = bytes(self._received(client))
            except BlockingIOError:  # a later client that has the descriptor of one that was dismissed
                return
            except OSError:
                more = b""
            if not more:
                self._dismiss(client)
                return
            if not self._complete(data + more):
                self._clients[client] = data + more, until
                return
            self._leave(client)
        self._hand_on(client, data + more)

    def _leave(self, client: int) -> None:
        self._epoll.unregister(client)
        del self._clients[client]

    def _dismiss(self, client: int) -> None:
        self._leave(client)
        os.close(client)


def reader(limit: int) -> Callable[[int], bytes | bytearray]:
    """For one thread: a function that returns what has come from a client until now, at most `limit` bytes; empty where
    it has closed. Raises BlockingIOError if nothing has come, OSError if the client has gone.

    preadv2(2) reads from sockets without a wait since Linux 6.5. A socket object for MSG_DONTWAIT costs 2 us more.
    """
    room = bytearray(limit)
    rooms = (room,)

    def read(client: int) -> bytes | bytearray:
        return room[: os.preadv(client, rooms, -1, os.RWF_NOWAIT)]

    def receive(client: int) -> bytes | bytearray:
        connection = RawSocket(socket.AF_INET, socket.SOCK_STREAM, 0, client)
        try:
            return connection.recv(limit, socket.MSG_DONTWAIT)
        finally:
            connection.detach()

    return read if _reads_without_a_wait() else receive


@cache
def _reads_without_a_wait() -> bool:
    one, other = socket.socketpair()
    with one, other:
        try:
            os.preadv(one.fileno(), (bytearray(1),), -1, os.RWF_NOWAIT)
        except OSError as error:
            return isinstance(error, BlockingIOError)
    return False
