"""SysV message queue, sysvipc(7) and msgop(2).

A command goes msgsnd(2) -> the kernel copies it into a message -> msgrcv(2). Content goes preadv(2) -> buffer of the
cache -> msgsnd(2) -> message -> msgrcv(2) -> bytes. A message starts with its type, so sysv_ipc copies once more at
either end: two copies more than a pipe has.

Limits: a queue holds msgmnb bytes (16384), a message msgmax (8192), and the machine msgmni queues (32000).

Killed peers: the queue outlives them. These calls have no timeouts, so a thread ends waits that are overdue
(transports/common/sysv_waits.py):

- on a lane, by removing the queue: both ends find it gone, and a lane that timed out is retired anyway. This also ends
  the wait of a cache worker whose proxy was killed.
- of a command receiver, by a message of a type of its own, WAKE. The kernel gives it to the receiver that has waited
  longest.
- A command sender does not wait in the kernel: the queue must outlive it, and only room would wake it. A sender that
  finds the queue full looks again each millisecond, so it may be that late, and senders do not take turns.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import sysv_ipc

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
from transports.common.sysv_waits import Waiter, raise_unless_interrupted, remove

MESSAGE, WAKE = 1, 2  # message types; a receiver takes any, in order
_LOOK_AGAIN = 0.001
_ROOM = 8192  # for a record: one of a wrong size is taken out, and the harness refuses it; else it would stay in front


@dataclass(frozen=True)
class SysvMqCommands(CommandTransport):
    """Commands in a queue; it holds 32 of them if msgmnb is 16384."""

    name = "sysv_mq"

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_queue(scope, COMMAND_BYTES)

    def receiver(self, scope: Scope) -> CommandReceiver:
        return SysvCommandReceiver(scope)

    def sender(self, scope: Scope) -> CommandSender:
        return SysvCommandSender(scope)


class SysvCommandSender(CommandSender):
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._queue = opened_queue(scope, COMMAND_BYTES)

    def send(self, record: bytes) -> None:
        deadline = None
        while True:
            try:
                self._queue.send(record, False, MESSAGE)
            except sysv_ipc.BusyError:
                now = time.monotonic()
                deadline = deadline or now + self._timeout
                if now >= deadline:
                    raise TimeoutError(f"the queue stayed full for {self._timeout} s") from None
                time.sleep(_LOOK_AGAIN)
            except (sysv_ipc.Error, OSError) as error:
                raise_unless_interrupted(error)
            else:
                return

    def close(self) -> None:
        """A queue has no descriptor."""


class SysvCommandReceiver(Waiter, CommandReceiver):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope.timeout)
        self._queue = opened_queue(scope, _ROOM)

    def receive(self) -> bytes:
        self._waits[self] = until = time.monotonic() + self._timeout
        try:
            while True:
                try:
                    record, kind = self._queue.receive()
                except (sysv_ipc.Error, OSError) as error:
                    raise_unless_interrupted(error)
                    continue
                if kind == MESSAGE:
                    return bytes(record)
                if time.monotonic() >= until:  # else it was meant for another receiver, whose watch repeats it
                    raise TimeoutError(f"no command for {self._timeout} s")
        finally:
            del self._waits[self]

    def end_wait(self) -> None:
        self._queue.send(b"", False, WAKE)  # fails if the queue is full: then no receiver waits for long


@dataclass(frozen=True)
class SysvMqData(DataTransport):
    """chunk: bytes of a message, at most /proc/sys/kernel/msgmax; msgmnb says how many are under way."""

    name = "sysv_mq"
    chunk: int = 8192

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_queue(scope, self.chunk)

    def receiver(self, scope: Scope) -> Receiver:
        return MessageReceiver(SysvLaneQueue(scope, self.chunk))

    def sender(self, scope: Scope) -> Sender:
        return MessageSender(SysvLaneQueue(scope, self.chunk), self.chunk)


class SysvLaneQueue(Waiter):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope.timeout)
        self._queue = opened_queue(scope, chunk)
        self._send = self.in_time(self._queue.send, f"the queue stayed full for {scope.timeout} s")
        self._receive = self.in_time(self._queue.receive, f"no message for {scope.timeout} s")

    def send(self, message: bytes | memoryview) -> None:
        self._send(message, True, MESSAGE)

    def receive(self) -> bytes:
        try:
            message: bytes = self._receive()[0]
        except FileNotFoundError as error:  # the sender timed out, or the lane was retired
            raise EOFError(str(error)) from None
        return message

    def end_wait(self) -> None:
        remove(self._queue)


@contextmanager
def provisioned_queue(scope: Scope, size: int) -> Iterator[None]:
    for limit in ("msgmax", "msgmnb"):
        check_limit(size, "bytes a message", f"/proc/sys/kernel/{limit}")
    try:
        queue = sysv_ipc.MessageQueue(scope.sysv_key("msg", "queue"), sysv_ipc.IPC_CREX, mode=0o600)
    except (sysv_ipc.Error, OSError) as error:
        raise OSError(
            f"no queue: {error}; see `ipcs -q`, and /proc/sys/kernel/msgmni for the most there can be"
        ) from error
    try:
        yield
    finally:
        remove(queue)


def opened_queue(scope: Scope, room: int) -> sysv_ipc.MessageQueue:
    try:
        return sysv_ipc.MessageQueue(scope.sysv_key("msg", "queue"), max_message_size=room)
    except sysv_ipc.ExistentialError as error:
        raise FileNotFoundError(str(error)) from error


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [SysvMqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [SysvMqData]
