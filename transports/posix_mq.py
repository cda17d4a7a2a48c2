"""POSIX message queue, mq_overview(7).

A command goes mq_timedsend(2) -> the kernel copies it into a message -> mq_timedreceive(2). Content goes preadv(2) ->
buffer of the cache -> mq_timedsend(2) -> message -> mq_timedreceive(2) -> bytes that posix_ipc copies once more into
an object of its own -> the client: one system call a message at either end, and one copy more than a pipe has.

Killed peers: the queue keeps senders and receivers waiting in order, and does not report a killed one. Senders find it
full, receivers find it empty, until the timeout, which the calls take from the wall clock.

Limits: an ordinary user's queue may hold msg_max messages (10) of msgsize_max bytes (8192), and the machine
queues_max queues (256), mq_overview(7). A user may have RLIMIT_MSGQUEUE bytes of queues, usually 819200, and a queue
counts in full from its creation to its last close. A lane of 4 x 8192 bytes takes a 24th of that; one of 8 x 8192,
which is somewhat faster with large files, takes a 12th.
"""

import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
    check_least,
    hookimpl,
)
from transports.common.message_queues import MessageReceiver, MessageSender, check_limit

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
        return MessageReceiver(PosixQueue(scope))

    def sender(self, scope: Scope) -> Sender:
        return MessageSender(PosixQueue(scope), self.chunk)


class PosixQueue(CommandSender, CommandReceiver):
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._open = True
        try:
            self._queue = posix_ipc.MessageQueue(scope.posix_name("queue"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error

    def send(self, message: bytes | memoryview) -> None:
        while True:
            try:
                self._queue.send(message, self._timeout)
            except posix_ipc.BusyError:
                raise TimeoutError(f"the queue stayed full for {self._timeout} s") from None
            except posix_ipc.SignalError:
                continue  # posix_ipc does not retry as PEP 475 does
            return

    def receive(self) -> bytes:
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


@contextmanager
def provisioned_queue(scope: Scope, depth: int, size: int) -> Iterator[None]:
    name = scope.posix_name("queue")
    try:
        queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600, max_messages=depth, max_message_size=size)
    except (ValueError, OSError, posix_ipc.Error) as error:
        explain(depth, size)
        raise OSError(f"no queue of {depth} messages x {size} bytes: {error}") from error
    queue.close()
    try:
        yield
    finally:
        posix_ipc.unlink_message_queue(name)


def explain(depth: int, size: int) -> None:
    """Raises OSError with the limit that a refused queue is over; the kernel says EINVAL or too many open files."""
    check_limit(depth, "messages", f"{_LIMITS}/msg_max")
    check_limit(size, "bytes a message", f"{_LIMITS}/msgsize_max")
    quota = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]
    counts = depth * (size + _OVERHEAD)
    if quota != resource.RLIM_INFINITY:
        raise OSError(
            f"a queue of {depth} messages x {size} bytes counts {counts} bytes, and of the {quota} that this user may "
            f"have in queues (room for {quota // counts} such) less is left: take fewer lanes, a smaller chunk or "
            "depth, or raise RLIMIT_MSGQUEUE (`ulimit -q`)"
        )


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [PosixMqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [PosixMqData]
