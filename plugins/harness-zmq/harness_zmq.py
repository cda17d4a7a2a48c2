"""ZeroMQ over Unix sockets, zmq_ipc(7): DEALER sockets send, a ROUTER receives and answers, zmq_socket(3).

A message goes from the caller to an I/O thread of its own process, write(2) -> Unix socket -> read(2), and from the
I/O thread there to the receiver: two system calls, and an eventfd(2) each to wake the two threads.

Commands go through a broker, a thread of the program that provisions: it deals the oldest one to the worker that has
been free the longest, the load balancing pattern of the ZeroMQ guide. Senders that connect to all workers save that
hop, but must choose a worker without knowing which are free: one stalled client then held up all others.

Content goes straight to the receiver, a message a piece: preadv(2) -> buffer of the cache -> message -> write(2) ->
read(2) -> message -> the client. Not to copy it into the message (copy=False) was no faster here.

Credit pushes back: a sender may have so many messages under way, and for each that is taken an empty one comes back.
High water marks would be simpler, but lose messages: if the receiver is at its mark when a sender leaves, libzmq drops
what it has not read yet (github.com/zeromq/libzmq/issues/4660; 950 of 1000 records here).

Limits: two threads and about 8 descriptors for each open end, those of its ZeroMQ context.

Killed peers: noticed by the timeout. Whole messages that a killed program had not written yet are lost with it; close()
waits until all is written, for the timeout at most.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass

import zmq

from harness.api import (
    HEAD_BYTES,
    CommandReceiver,
    CommandSender,
    CommandTransport,
    DataTransport,
    Receiver,
    Scope,
    Sender,
    check_least,
    hookimpl,
    socket_name,
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises OSError in place of ZeroMQ's own errors, which are not derived from it."""
    try:
        yield
    except zmq.Again:
        raise TimeoutError("nothing moved in time") from None
    except zmq.ZMQError as error:
        raise OSError(error.errno, str(error)) from None


class ZmqEnd:
    """A socket with a context of its own, two threads: no context survives a fork, and closing one closes all."""

    @plain_errors()
    def __init__(self, scope: Scope, kind: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.linger = self._socket.rcvtimeo = self._socket.sndtimeo = max(1, round(scope.timeout * 1000))
        self._socket.rcvhwm = self._socket.sndhwm = 0  # no limit here: credit limits
        self._socket.immediate = 1  # queues nothing for a peer that is not connected
        path = scope.path("zmq")
        try:
            if kind == zmq.ROUTER:
                self._socket.bind(f"ipc://{path}")
            else:
                os.stat(path)  # connect() would wait for it to appear
                self._socket.connect(f"ipc://{path}")
        except (OSError, zmq.ZMQError):
            self._context.destroy()
            raise

    def close(self) -> None:
        self._context.destroy()


class ZmqCreditedEnd(ZmqEnd):
    def __init__(self, scope: Scope, credit: int) -> None:
        super().__init__(scope, zmq.DEALER)
        self._credit = credit

    @plain_errors()
    def send(self, message: bytes | memoryview) -> None:
        if not self._credit:
            self._socket.recv()
            self._credit = 1
        self._socket.send(message)
        self._credit -= 1


@dataclass(frozen=True)
class ZmqCommands(CommandTransport):
    """Commands, dealt out by a broker; a sender has 8 at most that no worker has taken."""

    name = "zmq"

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with socket_name(scope.path("zmq")), closing(Broker(scope)) as broker:
            threading.Thread(target=broker.run, daemon=True).start()
            yield

    def receiver(self, scope: Scope) -> CommandReceiver:
        return ZmqCommandReceiver(scope, zmq.DEALER)

    def sender(self, scope: Scope) -> CommandSender:
        return ZmqCommandSender(scope, credit=8)


class Broker(ZmqEnd):
    """An empty message to it says that a worker is free; an empty message to a sender, that a record was taken."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, zmq.ROUTER)
        self._socket.linger = 0
        self._socket.rcvtimeo = -1
        self._socket.router_mandatory = 1  # raise EHOSTUNREACH if a peer has gone

    def run(self) -> None:
        commands: deque[tuple[bytes, bytes]] = deque()  # (sender, record), none of them empty
        free: deque[bytes] = deque()  # workers
        with self._socket, suppress(zmq.ContextTerminated):
            while True:
                peer, record = self._socket.recv(), self._socket.recv()
                if record:
                    commands.append((peer, record))
                else:
                    free.append(peer)
                while commands and free:
                    if self._reached(free.popleft(), commands[0][1]):
                        self._reached(commands.popleft()[0], b"")

    def _reached(self, peer: bytes, message: bytes) -> bool:
        try:
            self._socket.send_multipart((peer, message))
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        return True

    def close(self) -> None:
        self._context.term()  # run() gets ContextTerminated, and closes the socket


class ZmqCommandSender(ZmqCreditedEnd, CommandSender):
    """ZmqCreditedEnd sends."""


class ZmqCommandReceiver(ZmqEnd, CommandReceiver):
    _offered = False  # to take a record

    @plain_errors()
    def receive(self) -> bytes:
        if not self._offered:
            self._socket.send(b"")
            self._offered = True  # also after a timeout: the broker still knows that this worker is free
        record = self._socket.recv()
        self._offered = False
        return record


@dataclass(frozen=True)
class ZmqData(DataTransport):
    """chunk: bytes of a piece. depth: pieces under way, not given back yet."""

    name = "zmq"
    chunk: int = 1 << 20
    depth: int = 4

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1, depth=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("zmq"))

    def receiver(self, scope: Scope) -> Receiver:
        return ZmqReceiver(scope, zmq.ROUTER)

    def sender(self, scope: Scope) -> Sender:
        return ZmqSender(scope, self)


class ZmqSender(ZmqCreditedEnd, Sender):
    def __init__(self, scope: Scope, options: ZmqData) -> None:
        super().__init__(scope, options.depth)
        self._buffer = memoryview(bytearray(options.chunk))

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        self.send(self._buffer[:count])  # an empty message says that no more will come


class ZmqReceiver(ZmqEnd, Receiver):
    _sender = b""  # of the piece that was taken

    @plain_errors()
    def take(self) -> memoryview:
        self._sender, piece = self._socket.recv(), self._socket.recv(copy=False)
        if not len(piece):
            raise EOFError("the sender gave up")
        return piece.buffer

    @plain_errors()
    def give_back(self) -> None:
        self._socket.send_multipart((self._sender, b""))  # ZeroMQ drops it if that sender has gone


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [ZmqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [ZmqData]
