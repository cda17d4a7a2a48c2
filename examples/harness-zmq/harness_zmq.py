"""ZeroMQ over Unix sockets, zmq_ipc(7): PUSH and PULL, zmq_socket(3).

A message goes from the caller to an I/O thread of its own process, write(2) -> Unix socket -> read(2), and from the
I/O thread there to the receiver: two system calls, and a futex(2) or eventfd(2) to wake each of the two threads.

Commands: only one socket can bind an ipc:// address, so each receiver binds one of its own in the scope's directory,
and a sender connects to all that are there (receivers are opened first). PUSH goes round them and leaves out whose
queue is full. There is no broker, so none has to be started, watched and paid for with a second hop; the price is
that a command may wait for a busy worker while another is idle, and that order is kept on the way to each receiver
only. What is queued lies in the sender's memory first: it is lost, whole, with a sender that is killed, and close()
waits until it has left.

Data: the receiver binds, the cache's senders connect, one message a piece. With copy=False, pyzmq(3) hands the piece
to the I/O thread as it is (messages under 64 KiB are copied all the same), and it is lent again when that is done.

Each end has a context, and so an I/O thread, to itself: a context must not cross a fork, and closing it leaves no
descriptor. A killed peer is noticed by the timeouts, ZMQ_RCVTIMEO and ZMQ_SNDTIMEO.
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
    def __init__(self, scope: Scope, kind: int, depth: int) -> None:
        self._timeout = scope.timeout
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._socket.linger = 0
        self._socket.rcvtimeo = self._socket.sndtimeo = max(1, round(scope.timeout * 1000))
        self._socket.rcvhwm = self._socket.sndhwm = depth
        self._socket.immediate = 1  # nothing is queued for a peer that is not there
        try:
            if kind == zmq.PULL:
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
        self._context.destroy(linger=0)


@dataclass(frozen=True)
class ZmqCommands(Zmq, CommandTransport):
    """depth: records that either side of a connection queues; what the Unix socket holds comes on top."""

    depth: int = 1

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: must be at least 1; 0 would be without limit")

    def receiver(self, scope: Scope) -> CommandReceiver:
        return ZmqCommandReceiver(scope, zmq.PULL, self.depth)

    def sender(self, scope: Scope) -> CommandSender:
        return ZmqCommandSender(scope, zmq.PUSH, self.depth)


class ZmqCommandSender(ZmqEnd, CommandSender):
    def send(self, record: bytes) -> None:
        try:
            self._socket.send(record)
        except zmq.ZMQError as error:
            self._fail(error, "no receiver had room")

    def close(self) -> None:
        self._context.destroy(linger=round(self._timeout * 1000))


class ZmqCommandReceiver(ZmqEnd, CommandReceiver):
    def receive(self) -> bytes:
        try:
            return self._socket.recv()
        except zmq.ZMQError as error:
            self._fail(error, "no command")


@dataclass(frozen=True)
class ZmqData(Zmq, DataTransport):
    """chunk: bytes of a piece. depth: pieces that either side queues. copy: whether pyzmq copies each piece."""

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
        super().__init__(scope, zmq.PUSH, options.depth)
        self._copy = options.copy
        pieces = 1 if options.copy else options.depth
        self._buffers = [memoryview(bytearray(options.chunk)) for _ in range(pieces)]
        self._sent: list[zmq.MessageTracker | None] = [None] * pieces  # tells when zmq is done with a buffer
        self._turn = 0

    def loan(self) -> memoryview:
        try:
            if tracker := self._sent[self._turn]:
                tracker.wait(self._timeout)
        except zmq.NotDone as error:
            self._fail(error, "no piece left this process")
        return self._buffers[self._turn]

    def publish(self, count: int) -> None:
        piece = self._buffers[self._turn][:count]
        try:
            self._sent[self._turn] = self._socket.send(piece, copy=self._copy, track=not self._copy)
        except zmq.ZMQError as error:
            self._fail(error, "the receiver had no room")
        self._turn = (self._turn + 1) % len(self._buffers)


class ZmqReceiver(ZmqEnd, Receiver):
    def __init__(self, scope: Scope, options: ZmqData) -> None:
        super().__init__(scope, zmq.PULL, options.depth)
        self._copy = options.copy
        self._piece: bytes | zmq.Frame = b""

    def take(self) -> memoryview:
        try:
            self._piece = self._socket.recv(copy=self._copy)
        except zmq.ZMQError as error:
            self._fail(error, "no piece")
        if not len(self._piece):
            raise EOFError("the sender gave up")
        return memoryview(self._piece)

    def give_back(self) -> None:
        self._piece = b""


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [ZmqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [ZmqData]
