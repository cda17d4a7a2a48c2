"""Zenoh over a Unix socket: a publisher puts pieces, a subscriber gets them, and puts credit for each, zenoh.io.

A message goes from the caller to a thread of Zenoh in its own process, sendto(2) -> Unix socket -> recvfrom(2) in
fragments of 64 KiB at most, and from the thread there to the receiver: each message wakes two threads. preadv(2) ->
buffer of the cache -> message -> Unix socket -> message -> the client.

Credit pushes back, and says that a piece has arrived: a sender may have `depth` pieces under way, and for each that the
receiver is done with, it puts a message to that sender. Zenoh itself has no credit: what comes for a subscriber is
queued there, or stops all that comes over its session.

Limits: a session for each end, with a thread of its own; about 5 more threads and 15 descriptors in each process with
one open. An empty piece stands for a sender that gave up.

Killed peers: noticed by the timeout.
"""

import json
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import zenoh

from harness.api import HEAD_BYTES, DataTransport, Receiver, Scope, Sender, check_least, hookimpl, socket_name

_PIECES, _CREDIT = "pieces", "credit"  # key expressions


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises OSError in place of Zenoh's own error, which is not derived from it."""
    try:
        yield
    except zenoh.ZError as error:
        raise OSError(f"Zenoh: {error}") from None


@dataclass(frozen=True)
class ZenohData(DataTransport):
    """chunk: bytes of a piece. depth: pieces under way, not given back yet."""

    name = "zenoh"
    not_kept: ClassVar[dict[str, str]] = {
        "an end opens in a fork of a process that has one open": "zenoh.open hangs there, for its "
        "threads are not in the fork"
    }
    chunk: int = 1 << 20
    depth: int = 4

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1, depth=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("zenoh"))

    @plain_errors()
    def receiver(self, scope: Scope) -> Receiver:
        return ZenohReceiver(scope)

    @plain_errors()
    def sender(self, scope: Scope) -> Sender:
        return ZenohSender(scope, self)


def session(scope: Scope, way: str) -> Any:
    """A session that `listen`s at the scope's socket, or `connect`s to it, and looks for no other.

    Without shared memory: Zenoh makes up its names, so no sweep would find them.
    """
    blocked = {"wait_before_close": round(scope.timeout * 1e6)}  # microseconds
    settings = {
        "mode": "peer" if way == "listen" else "client",
        way: {"endpoints": [f"unixsock-stream/{scope.path('zenoh')}"], "timeout_ms": 0, "exit_on_failure": True},
        "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
        "transport": {
            "shared_memory": {"enabled": False},
            "link": {"tx": {"queue": {"congestion_control": {"block": blocked}}}},
        },
    }
    return zenoh.open(zenoh.Config.from_json5(json.dumps(settings)))


class ZenohReceiver(Receiver):
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._from = ""  # the sender of the piece that was taken
        self._session = session(scope, "listen")
        with ExitStack() as undo:
            undo.callback(self._session.close)
            self._session.declare_subscriber(_PIECES, self._pieces.put)
            undo.pop_all()

    def take(self) -> memoryview:
        try:
            sample = self._pieces.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError(f"no piece came for {self._timeout} s") from None
        self._from = sample.attachment.to_string()
        if not (content := sample.payload.to_bytes()):
            raise EOFError("the sender gave up")
        return memoryview(content)

    @plain_errors()
    def give_back(self) -> None:
        self._session.put(f"{_CREDIT}/{self._from}", b"", congestion_control=zenoh.CongestionControl.BLOCK)

    def close(self) -> None:
        if not self._session.is_closed():
            self._session.close()


class ZenohSender(Sender):
    def __init__(self, scope: Scope, options: ZenohData) -> None:
        self._timeout, self._depth = scope.timeout, options.depth
        self._credit = threading.Semaphore(options.depth)
        self._buffer = memoryview(bytearray(options.chunk))
        self._name = os.urandom(8).hex()
        os.stat(scope.path("zenoh"))
        self._failed = False  # a piece was waited for in vain
        self._session = session(scope, "connect")
        with ExitStack() as undo:
            undo.callback(self._session.close)
            self._session.declare_subscriber(f"{_CREDIT}/{self._name}", lambda _: self._credit.release())
            self._pieces = self._session.declare_publisher(_PIECES, congestion_control=zenoh.CongestionControl.BLOCK)
            deadline = time.monotonic() + scope.timeout
            while not self._pieces.matching_status.matching:  # what is put before that reaches no subscriber
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no receiver was there for {scope.timeout} s")
                time.sleep(0.0005)
            undo.pop_all()

    def loan(self) -> memoryview:
        return self._buffer

    @plain_errors()
    def publish(self, count: int) -> None:
        if not self._credit.acquire(timeout=self._timeout):
            self._failed = True  # the lane is not used again, and close() need not wait once more
            raise TimeoutError(f"{self._depth} pieces were under way for {self._timeout} s")
        self._pieces.put(bytes(self._buffer[:count]), attachment=self._name)

    def close(self) -> None:
        """Once all pieces have been taken, or one was waited for in vain: what is not sent by then is lost."""
        if self._session.is_closed():
            return
        deadline = time.monotonic() + self._timeout
        for _ in range(0 if self._failed else self._depth):
            self._credit.acquire(timeout=max(0.0, deadline - time.monotonic()))
        self._session.close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [ZenohData]
