"""ZeroMQ over Unix sockets, zmq_ipc(7) and zmq_socket(3).

A message goes from the caller to an I/O thread of its own process, write(2) -> Unix socket -> read(2), and from the
I/O thread there to the receiver: two system calls, and an eventfd(2) each to wake the two threads.

Commands, DEALER and ROUTER: only one socket can bind an ipc:// address, so each receiver binds one of its own in the
scope's directory, and a sender connects to all that are there (receivers are opened first) and goes round them. No
broker has to be started, watched and paid for with a second hop; the price is that a command may wait for a busy
worker while another is idle, and that order is kept on the way to each receiver only. A receiver answers each
command that it takes with an empty message, and a sender has `depth` commands unanswered at most. PUSH and PULL with
high water marks would be simpler, and lost 325 of 1000 commands here when senders closed and left while receivers
were behind.

Data, the same way: the receiver binds, the cache's senders connect, one message a piece. With copy=False, pyzmq
hands the piece to the I/O thread as it is (messages under 64 KiB are copied all the same); it is lent again when that
has been sent.

Each end has a context, and so an I/O thread, to itself: a context must not cross a fork, and closing it leaves no
descriptor. What is queued lies in memory of its sender: close() waits for it to leave, for the timeout at most, and a
sender that is killed takes it along, whole messages only. A killed peer is noticed by ZMQ_RCVTIMEO and ZMQ_SNDTIMEO.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

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
    hookimpl,
)

_PREFIX = "zmq-"
_numbers = itertools.count()


class Zmq:
    name = "zmq"

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        try:
            yield  # bind is what creates a name
        finally:
            for address in _addresses(scope):
                with suppress(FileNotFoundError):  # its own socket may remove it at this moment
                    os.unlink(address)


def _addresses(scope: Scope) -> list[str]:
    return [scope.path(entry) for entry in os.listdir(scope.directory) if entry.startswith(_PREFIX)]


class ZmqEnd:
    def __init__(self, scope: Scope, kind: int) -> None:
        self._timeout = scope.timeout
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        limit = max(1, round(scope.timeout * 1000))
        self._socket.linger = self._socket.rcvtimeo = self._socket.sndtimeo = limit
        self._socket.rcvhwm = self._socket.sndhwm = 0  # no limit but our own
        self._socket.immediate = 1  # nothing is queued for a peer that is not there
        try:
            if kind == zmq.ROUTER:
                self._socket.bind("ipc://" + scope.path(f"{_PREFIX}{os.getpid()}-{next(_numbers)}"))
            else:
                addresses = _addresses(scope)
                for address in addresses:
                    self._socket.connect(f"ipc://{address}")
                if not addresses:
                    raise ConnectionRefusedError("nobody receives here")
        except (zmq.ZMQError, OSError) as error:
            self.close()
            self._fail(error, "")

    def _fail(self, error: Exception, late: str) -> NoReturn:
        if isinstance(error, zmq.Again | zmq.NotDone):
            raise TimeoutError(f"{late} for {self._timeout} s") from None
        if isinstance(error, zmq.ZMQError):
            raise OSError(error.errno, str(error)) from error
        raise error

    def close(self) -> None:
        self._context.destroy()


@dataclass(frozen=True)
class ZmqCommands(Zmq, CommandTransport):
    """depth: records of one sender that nobody has taken yet."""

    depth: int = 8

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: a sender has at least 1 record under way")

    def receiver(self, scope: Scope) -> CommandReceiver:
        return ZmqCommandReceiver(scope, zmq.ROUTER)

    def sender(self, scope: Scope) -> CommandSender:
        return ZmqCommandSender(scope, self)


class ZmqCommandSender(ZmqEnd, CommandSender):
    def __init__(self, scope: Scope, options: ZmqCommands) -> None:
        super().__init__(scope, zmq.DEALER)
        self._room = options.depth

    def send(self, record: bytes) -> None:
        try:
            if not self._room:
                self._socket.recv()
                self._room = 1
            self._socket.send(record)
        except zmq.ZMQError as error:
            self._fail(error, "nobody took a command")
        self._room -= 1


class ZmqCommandReceiver(ZmqEnd, CommandReceiver):
    def receive(self) -> bytes:
        try:
            sender, record = self._socket.recv_multipart()
            self._socket.send_multipart((sender, b""))  # dropped where the sender is no more
        except zmq.ZMQError as error:
            self._fail(error, "no command")
        return record


@dataclass(frozen=True)
class ZmqData(Zmq, DataTransport):
    """chunk: bytes of a piece. depth: pieces that were not given back yet. copy: whether pyzmq copies each piece."""

    chunk: int = 1 << 18
    depth: int = 4
    copy: bool = False

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES or self.depth < 1:
            raise ValueError(
                f"chunk={self.chunk}, depth={self.depth}: chunk must be over {HEAD_BYTES} bytes, depth at least 1"
            )

    def receiver(self, scope: Scope) -> Receiver:
        return ZmqReceiver(scope, self)

    def sender(self, scope: Scope) -> Sender:
        return ZmqSender(scope, self)


class ZmqSender(ZmqEnd, Sender):
    def __init__(self, scope: Scope, options: ZmqData) -> None:
        super().__init__(scope, zmq.DEALER)
        self._room = options.depth
        self._copy = options.copy
        pieces = 1 if options.copy else options.depth
        self._buffers = [memoryview(bytearray(options.chunk)) for _ in range(pieces)]
        self._sent: list[zmq.MessageTracker | None] = [None] * pieces  # tells when zmq is done with a buffer
        self._turn = 0

    def loan(self) -> memoryview:
        try:
            if tracker := self._sent[self._turn]:
                tracker.wait(self._timeout)
            if not self._room:
                self._socket.recv()
                self._room = 1
        except (zmq.NotDone, zmq.ZMQError) as error:
            self._fail(error, "the receiver gave no piece back")
        return self._buffers[self._turn]

    def publish(self, count: int) -> None:
        piece = self._buffers[self._turn][:count]
        try:
            self._sent[self._turn] = self._socket.send(piece, copy=self._copy, track=not self._copy)
        except zmq.ZMQError as error:
            self._fail(error, "the receiver had no room")
        self._room -= 1
        self._turn = (self._turn + 1) % len(self._buffers)


class ZmqReceiver(ZmqEnd, Receiver):
    def __init__(self, scope: Scope, options: ZmqData) -> None:
        super().__init__(scope, zmq.ROUTER)
        self._copy = options.copy
        self._sender = b""
        self._piece: bytes | zmq.Frame = b""

    def take(self) -> memoryview:
        try:
            self._sender = self._socket.recv()
            self._piece = self._socket.recv(copy=self._copy)
        except zmq.ZMQError as error:
            self._fail(error, "no piece")
        if not len(self._piece):
            raise EOFError("the sender gave up")
        return memoryview(self._piece)

    def give_back(self) -> None:
        self._piece = b""
        self._socket.send_multipart((self._sender, b""))


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [ZmqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [ZmqData]
