"""POSIX message queue, mq_overview(7).

A command goes mq_timedsend(2) -> the kernel copies it into a message -> mq_timedreceive(2). Content goes preadv(2) ->
buffer of the cache -> mq_timedsend(2) -> message -> mq_timedreceive(2) -> bytes that posix_ipc copies once more into
an object of its own -> the client: one system call a message at either end, and one copy more than a pipe has.

The queue keeps senders and receivers waiting in order, and reports a killed peer to nobody: senders find it full,
receivers empty, until the timeout, which the calls take from the wall clock.

A user may have RLIMIT_MSGQUEUE bytes of queues, and a queue counts in full from its making to its last close. Of the
819200 bytes that are usual, a lane of 4 x 8192 bytes takes a 24th, one of 8 x 8192, which is somewhat faster with
large files, a 12th.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import posix_ipc

from harness.api import (
    COMMAND_BYTES,
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

_OVERHEAD = 96  # bytes a message that count as well: a msg_msg and a posix_msg_tree_node, mq_overview(7)
_LIMITS = "/proc/sys/fs/mqueue"


@contextmanager
def provision(scope: Scope, depth: int, size: int) -> Iterator[None]:
    name = scope.posix_name("queue")
    try:
        queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600, max_messages=depth, max_message_size=size)
    except (ValueError, OSError, posix_ipc.Error) as error:
        raise OSError(f"no queue of {depth} messages x {size} bytes: {_reason(depth, size) or error}") from error
    queue.close()
    try:
        yield
    finally:
        posix_ipc.unlink_message_queue(name)


def _reason(depth: int, size: int) -> str:
    """Which limit a refused queue is over, and what to change: the error says EINVAL, or that of too many files."""
    for wanted, what, limit in ((depth, "messages", "msg_max"), (size, "bytes a message", "msgsize_max")):
        with open(f"{_LIMITS}/{limit}") as file:
            most = int(file.read())
        if wanted > most:
            return f"{wanted} {what} are over the {most} of {_LIMITS}/{limit}: ask for less, or have root raise it"
    quota = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]
    counts = depth * (size + _OVERHEAD)
    if quota == resource.RLIM_INFINITY:
        return ""
    return (
        f"it counts {counts} bytes, and of the {quota} that this user may have in queues (room for {quota // counts} "
        "such) less is left: take fewer lanes, a smaller chunk or depth, or raise RLIMIT_MSGQUEUE (`ulimit -q`)"
    )


class QueueEnd:
    def __init__(self, scope: Scope) -> None:
        try:
            self._queue = posix_ipc.MessageQueue(scope.posix_name("queue"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        self._timeout = scope.timeout
        self._open = True

    def _send(self, message: bytes | memoryview) -> None:
        while True:
            try:
                self._queue.send(message, self._timeout)
            except posix_ipc.BusyError:
                raise TimeoutError(f"the queue stayed full for {self._timeout} s") from None
            except posix_ipc.SignalError:
                continue  # posix_ipc does not retry as PEP 475 does
            return

    def _receive(self) -> bytes:
        while True:
            try:
                message: bytes = self._queue.receive(self._timeout)[0]
            except posix_ipc.BusyError:
                raise TimeoutError(f"no message for {self._timeout} s") from None
            except posix_ipc.SignalError:
                continue
            return message

    def close(self) -> None:
        if self._open:
            self._open = False
            self._queue.close()


@dataclass(frozen=True)
class PosixMqCommands(CommandTransport):
    """depth: messages that the queue holds; an ordinary user is limited to /proc/sys/fs/mqueue/msg_max."""

    name = "posix_mq"
    depth: int = 10

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: a queue holds at least 1 message")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with provision(scope, self.depth, COMMAND_BYTES):
            yield

    def receiver(self, scope: Scope) -> CommandReceiver:
        return MqCommandReceiver(scope)

    def sender(self, scope: Scope) -> CommandSender:
        return MqCommandSender(scope)


class MqCommandSender(QueueEnd, CommandSender):
    def send(self, record: bytes) -> None:
        self._send(record)


class MqCommandReceiver(QueueEnd, CommandReceiver):
    def receive(self) -> bytes:
        return self._receive()


@dataclass(frozen=True)
class PosixMqData(DataTransport):
    """chunk: bytes of a message; an ordinary user is limited to /proc/sys/fs/mqueue/msgsize_max.
    depth: messages that the queue of a lane holds; with chunk it says how many lanes `ulimit -q` allows.
    """

    name = "posix_mq"
    chunk: int = 8192
    depth: int = 4

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES or self.depth < 1:
            raise ValueError(
                f"chunk={self.chunk}, depth={self.depth}: chunk must be over {HEAD_BYTES} bytes, depth at least 1"
            )

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with provision(scope, self.depth, self.chunk):
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return MqReceiver(scope)

    def sender(self, scope: Scope) -> Sender:
        return MqSender(scope, self.chunk)


class MqSender(QueueEnd, Sender):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope)
        self._buffer = memoryview(bytearray(chunk))

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        self._send(self._buffer[:count])  # the empty message says that the sender gives up


class MqReceiver(QueueEnd, Receiver):
    def take(self) -> memoryview:
        message = self._receive()
        if not message:
            raise EOFError("the sender gave up")
        return memoryview(message)

    def give_back(self) -> None:
        pass


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [PosixMqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [PosixMqData]
