"""POSIX message queue, mq_overview(7).

A command goes mq_timedsend(2) -> the kernel copies it into a message -> mq_timedreceive(2). The queue keeps senders
and receivers waiting in order, and reports a killed receiver to nobody: senders find the queue full.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import posix_ipc

from harness.api import COMMAND_BYTES, CommandReceiver, CommandSender, CommandTransport, Scope, hookimpl


@dataclass(frozen=True)
class PosixMq(CommandTransport):
    """depth: messages that the queue holds; an ordinary user is limited to /proc/sys/fs/mqueue/msg_max."""

    name = "posix_mq"
    depth: int = 10

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: a queue holds at least 1 message")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        name = scope.posix_name("commands")
        try:
            queue = posix_ipc.MessageQueue(
                name, posix_ipc.O_CREX, mode=0o600, max_messages=self.depth, max_message_size=COMMAND_BYTES
            )
        except (ValueError, OSError, posix_ipc.Error) as error:
            raise OSError(
                f"no queue of {self.depth} messages x {COMMAND_BYTES} bytes: {error}; "
                "see /proc/sys/fs/mqueue/msg_max and RLIMIT_MSGQUEUE (ulimit -q)"
            ) from error
        queue.close()
        try:
            yield
        finally:
            posix_ipc.unlink_message_queue(name)

    def receiver(self, scope: Scope) -> "End":
        return End(scope)

    def sender(self, scope: Scope) -> "End":
        return End(scope)


class End(CommandSender, CommandReceiver):
    def __init__(self, scope: Scope) -> None:
        try:
            self._queue = posix_ipc.MessageQueue(scope.posix_name("commands"))
        except posix_ipc.ExistentialError as error:
            raise FileNotFoundError(str(error)) from error
        self._timeout = scope.timeout
        self._open = True

    def send(self, record: bytes) -> None:
        while True:
            try:
                self._queue.send(record, self._timeout)
            except posix_ipc.BusyError:
                raise TimeoutError(f"the queue stayed full for {self._timeout} s") from None
            except posix_ipc.SignalError:
                continue  # posix_ipc does not retry as PEP 475 does
            return

    def receive(self) -> bytes:
        while True:
            try:
                record: bytes = self._queue.receive(self._timeout)[0]
            except posix_ipc.BusyError:
                raise TimeoutError(f"no command for {self._timeout} s") from None
            except posix_ipc.SignalError:
                continue
            return record

    def close(self) -> None:
        if self._open:
            self._open = False
            self._queue.close()


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [PosixMq]
