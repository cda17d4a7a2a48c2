"""SysV message queue, sysvipc(7) and msgop(2).

A command goes msgsnd(2) -> the kernel copies it into a message -> msgrcv(2). Content goes preadv(2) -> buffer of the
cache -> msgsnd(2) -> message -> msgrcv(2) -> bytes. A message starts with its type, so sysv_ipc copies once more at
either end: two copies more than a pipe has. A queue holds msgmnb bytes (16384), a message msgmax (8192).

These calls have no timeouts. Nobody polls on the way of a byte: ends note until when they may wait, which costs no
system call, and one thread a process sleeps until the first of these times and ends the waits that are overdue:

- on a lane, by removing the queue: both ends find it gone, and a lane that timed out is retired anyway. This also
  serves the cache worker whose proxy was killed.
- of a command receiver, by a message of a type of its own, WAKE. The kernel gives it to whoever waits longest.
- A command sender is no such wait: the queue must outlive it, and only room would wake it. One that finds the queue
  full looks again each _LOOK_AGAIN seconds, so it learns of room that much late, and not in turn.
"""

import errno
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

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
    hookimpl,
)

MESSAGE, WAKE = 1, 2  # message types; a receiver takes any, in order
_LOOK_AGAIN = 0.001
_END_AGAIN = 0.01  # seconds until a wait that is still there is ended again: it may only have been about to begin
_ROOM = 8192  # for a record: one of a wrong size is taken out, and refused by the harness, instead of staying in front


@contextmanager
def provision(scope: Scope, size: int) -> Iterator[None]:
    for limit in ("msgmax", "msgmnb"):
        with open(f"/proc/sys/kernel/{limit}") as file:
            most = int(file.read())
        if size > most:
            raise OSError(
                f"a message of {size} bytes is over the {most} of /proc/sys/kernel/{limit}: "
                "take a smaller chunk, or have root raise it"
            )
    try:
        queue = sysv_ipc.MessageQueue(_key(scope), sysv_ipc.IPC_CREX, mode=0o600)
    except (sysv_ipc.Error, OSError) as error:
        raise OSError(f"no queue: {error}; see `ipcs -q` and /proc/sys/kernel/msgmni, the most there can be") from error
    try:
        yield
    finally:
        remove(queue)


def _key(scope: Scope) -> int:
    return scope.sysv_key("msg", "queue")


def remove(queue: sysv_ipc.MessageQueue) -> None:
    with suppress(sysv_ipc.ExistentialError):  # a wait on it may have been overdue
        queue.remove()


class Watchdog:
    """Ends the overdue waits of this process. Sleeps until the first time at which one can be overdue."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A forked process has neither the thread nor the waits of its parent."""
        self._ends: set[WaitingEnd] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, end: "WaitingEnd") -> None:
        with self._changed:
            self._ends.add(end)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
            self._changed.notify()

    def discard(self, end: "WaitingEnd") -> None:
        with self._changed:
            self._ends.discard(end)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                look = now + threading.TIMEOUT_MAX / 2
                for end in self._ends:
                    if end.deadline <= now:
                        end.end_wait()
                        look = min(look, now + _END_AGAIN)
                    look = min(look, max(end.deadline, now + _END_AGAIN), now + end.timeout)
                self._changed.wait(look - now)


_watchdog = Watchdog()
os.register_at_fork(after_in_child=_watchdog.reset)


class QueueEnd:
    def __init__(self, scope: Scope, room: int) -> None:
        self.timeout = scope.timeout
        try:
            self._queue = sysv_ipc.MessageQueue(_key(scope), max_message_size=room)
        except sysv_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error

    def _call(self, call: Callable[..., Any], *arguments: object) -> Any:
        """The result of a call of msgop(2), begun again where a signal interrupted it.

        Raises BrokenPipeError where the queue is gone, sysv_ipc.BusyError where the call does not wait and had to.
        """
        while True:
            try:
                return call(*arguments)
            except sysv_ipc.ExistentialError:
                raise BrokenPipeError("the queue was removed") from None
            except OSError as error:
                if error.errno in {errno.EINVAL, errno.EIDRM}:  # an id that is no more
                    raise BrokenPipeError("the queue was removed") from None
                raise
            except sysv_ipc.Error as error:
                if type(error) is not sysv_ipc.Error:  # which is what EINTR becomes
                    raise

    def close(self) -> None:
        pass  # a queue has no descriptor


class WaitingEnd(QueueEnd, ABC):
    """deadline: on the clock of time.monotonic(), of the wait under way."""

    def __init__(self, scope: Scope, room: int) -> None:
        super().__init__(scope, room)
        self.deadline = math.inf
        _watchdog.add(self)

    @abstractmethod
    def end_wait(self) -> None:
        """Have the wait end, from the watchdog's thread."""

    def close(self) -> None:
        _watchdog.discard(self)


@dataclass(frozen=True)
class SysvMqCommands(CommandTransport):
    """Commands in a queue; it holds 32 of them where msgmnb is 16384."""

    name = "sysv_mq"

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with provision(scope, COMMAND_BYTES):
            yield

    def receiver(self, scope: Scope) -> CommandReceiver:
        return SysvCommandReceiver(scope, _ROOM)

    def sender(self, scope: Scope) -> CommandSender:
        return SysvCommandSender(scope, COMMAND_BYTES)


class SysvCommandSender(QueueEnd, CommandSender):
    def send(self, record: bytes) -> None:
        deadline = math.inf
        while True:
            try:
                self._call(self._queue.send, record, False, MESSAGE)
            except sysv_ipc.BusyError:
                now = time.monotonic()
                deadline = min(deadline, now + self.timeout)
                if now >= deadline:
                    raise TimeoutError(f"the queue stayed full for {self.timeout} s") from None
                time.sleep(_LOOK_AGAIN)
                continue
            return


class SysvCommandReceiver(WaitingEnd, CommandReceiver):
    def receive(self) -> bytes:
        until = time.monotonic() + self.timeout
        while True:
            self.deadline = until
            try:
                record, kind = self._call(self._queue.receive)
            finally:
                self.deadline = math.inf
            if kind == MESSAGE:
                return bytes(record)
            if time.monotonic() >= until:  # else it was meant for another, whose watchdog repeats it
                raise TimeoutError(f"no command for {self.timeout} s")

    def end_wait(self) -> None:
        with suppress(sysv_ipc.Error, OSError):  # full: then nobody waits for long; removed: nobody waits
            self._queue.send(b"", False, WAKE)


@dataclass(frozen=True)
class SysvMqData(DataTransport):
    """chunk: bytes of a message, at most /proc/sys/kernel/msgmax; msgmnb says how many are under way."""

    name = "sysv_mq"
    chunk: int = 8192

    def __post_init__(self) -> None:
        if self.chunk <= HEAD_BYTES:
            raise ValueError(f"chunk={self.chunk}: must be over {HEAD_BYTES} bytes")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with provision(scope, self.chunk):
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return SysvReceiver(scope, self.chunk)

    def sender(self, scope: Scope) -> Sender:
        return SysvSender(scope, self.chunk)


class LaneEnd(WaitingEnd):
    def _wait(self, what: str, call: Callable[..., Any], *arguments: object) -> Any:
        self.deadline = until = time.monotonic() + self.timeout
        try:
            return self._call(call, *arguments)
        except BrokenPipeError:
            if time.monotonic() >= until:
                raise TimeoutError(f"{what} for {self.timeout} s") from None
            raise  # the other end timed out, or retired the lane
        finally:
            self.deadline = math.inf

    def end_wait(self) -> None:
        remove(self._queue)


class SysvSender(LaneEnd, Sender):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope, chunk)
        self._buffer = memoryview(bytearray(chunk))

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:  # the empty message says that the sender gives up
        self._wait("the queue stayed full", self._queue.send, self._buffer[:count], True, MESSAGE)


class SysvReceiver(LaneEnd, Receiver):
    def take(self) -> memoryview:
        try:
            message, _ = self._wait("no message", self._queue.receive)
        except BrokenPipeError as error:
            raise EOFError(str(error)) from None
        if not message:
            raise EOFError("the sender gave up")
        return memoryview(message)

    def give_back(self) -> None:
        pass


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [SysvMqCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [SysvMqData]
