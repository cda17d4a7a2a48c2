"""POSIX message queue, mq_overview(7).

A command goes mq_timedsend(2) -> the kernel copies it into a message -> mq_timedreceive(2). Content goes preadv(2) ->
buffer of the cache -> mq_timedsend(2) -> message -> mq_timedreceive(2) -> bytes that posix_ipc copies once more into
an object of its own -> the client: one system call a message at either end, and one copy more than a pipe has.

Killed peers: the queue keeps senders and receivers waiting in order, and does not report a killed one. Senders find it
full, receivers find it empty, until the timeout. The calls take it from the wall clock. Lanes do not follow that where
it is set, transports/common/posix_waits.py. Commands do not end too early, but where it is set back, a worker of the
cache that has nothing to do waits for longer, and so does a sender that finds the queue full.

Limits: an ordinary user's queue may hold msg_max messages (10) of msgsize_max bytes (8192), and the machine
queues_max queues (256), mq_overview(7). A user may have RLIMIT_MSGQUEUE bytes of queues, usually 819200, and a queue
counts in full from its creation to its last close. A lane of 4 x 8192 bytes takes a 24th of that; one of 8 x 8192,
which is somewhat faster with large files, takes a 12th.
"""

import errno
import resource
import select
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

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
    check_least,
    hookimpl,
)
from transports.common.message_queues import MessageReceiver, MessageSender, check_limit
from transports.common.posix_waits import LATE, SHORT, call_again

_LIMITS = "/proc/sys/fs/mqueue"
_OVERHEAD = 96  # bytes that also count for each message: a msg_msg and a posix_msg_tree_node, mq_overview(7)


@dataclass(frozen=True)
class PosixMqCommands(CommandTransport):
    """depth: messages that the queue holds; an ordinary user is limited to /proc/sys/fs/mqueue/msg_max."""

    name = "posix_mq"
    depth: int = 10

    def __post_init__(self) -> None:
        check_least(self, depth=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_queue(scope, self.depth, COMMAND_BYTES)

    def receiver(self, scope: Scope) -> CommandReceiver:
        return PosixQueue(scope)

    def sender(self, scope: Scope) -> CommandSender:
        return PosixQueue(scope)


@dataclass(frozen=True)
class PosixMqData(DataTransport):
    """chunk: bytes of a message; an ordinary user is limited to /proc/sys/fs/mqueue/msgsize_max.
    depth: messages that the queue of a lane holds; with chunk it says how many lanes `ulimit -q` allows.
    """

    name = "posix_mq"
    chunk: int = 8192
    depth: int = 4

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1, depth=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_queue(scope, self.depth, self.chunk)

    def receiver(self, scope: Scope) -> Receiver:
        return MessageReceiver(LaneQueue(scope))

    def sender(self, scope: Scope) -> Sender:
        return MessageSender(LaneQueue(scope), self.chunk)


class PosixQueue(CommandSender, CommandReceiver):
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._open = True
        try:
            self._queue = posix_ipc.MessageQueue(scope.posix_name("queue"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        self._full, self._empty = (f"{what} for {self._timeout} s" for what in ("the queue stayed full", "no message"))

    # Many may wait for room or for a command. The kernel serves those first that wait in its own calls, in their order;
    # with poll(2) they would all be woken, and come too late.

    def send(self, message: bytes | memoryview) -> None:
        try:
            self._queue.send(message, 0)
        except LATE:
            self._send_when_there_is_room(message)

    def _send_when_there_is_room(self, message: bytes | memoryview) -> None:
        begun = time.monotonic()
        left = self._timeout
        while True:
            try:
                self._queue.send(message, left)
                return
            except LATE:
                if (left := begun + self._timeout - time.monotonic()) <= 0:
                    raise TimeoutError(self._full) from None

    def receive(self) -> bytes:
        begun = time.monotonic()
        left = self._timeout
        while True:
            try:
                message: bytes = self._queue.receive(left)[0]
                return message
            except LATE:
                if (left := begun + self._timeout - time.monotonic()) <= 0:
                    raise TimeoutError(self._empty) from None

    def close(self) -> None:
        if self._open:
            self._open = False
            self._queue.close()


class LaneQueue(PosixQueue):
    """The queue of a lane, with one process at either end."""

    def send(self, message: bytes | memoryview) -> None:
        try:
            self._queue.send(message, SHORT)
        except LATE:
            call_again(partial(self._queue.send, message), self._queue, select.POLLOUT, self._timeout, self._full)

    def receive(self) -> bytes:
        message: bytes
        try:
            message = self._queue.receive(SHORT)[0]
        except LATE:
            message = call_again(self._queue.receive, self._queue, select.POLLIN, self._timeout, self._empty)[0]
        return message


@contextmanager
def provisioned_queue(scope: Scope, depth: int, size: int) -> Iterator[None]:
    name = scope.posix_name("queue")
    try:
        queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600, max_messages=depth, max_message_size=size)
    except (ValueError, OSError, posix_ipc.Error) as error:
        raise OSError(f"no queue of {depth} messages x {size} bytes: {_reason(depth, size, error)}") from error
    queue.close()
    try:
        yield
    finally:
        posix_ipc.unlink_message_queue(name)


def _reason(depth: int, size: int, error: Exception) -> str:
    """Why a queue was refused, mq_open(3). EINVAL and EMFILE have several causes: this looks which one it is.

    It is not that this process has no descriptor left: the ledger has just had one.
    """
    if isinstance(error, posix_ipc.ExistentialError):
        return f"{error}: another program made it"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"this machine has as many queues as {_LIMITS}/queues_max allows: end what holds them, or raise it"
    check_limit(depth, "messages", f"{_LIMITS}/msg_max")
    check_limit(size, "bytes a message", f"{_LIMITS}/msgsize_max")
    quota = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]
    counts = depth * (size + _OVERHEAD)
    if quota == resource.RLIM_INFINITY:
        return str(error)
    return (
        f"it counts {counts} bytes, and of the {quota} that this user may have in queues (room for {quota // counts} "
        "such) less is left: take fewer lanes, a smaller chunk or depth, or raise RLIMIT_MSGQUEUE (`ulimit -q`)"
    )


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [PosixMqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [PosixMqData]
