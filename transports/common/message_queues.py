"""The ends of a lane over a message queue, POSIX or SysV, and the check of the kernel's limits.

A message is copied into a buffer of the kernel and out of it, so each end of the lane lends a buffer of its own. The
empty message says that the sender gives up.
"""

from typing import Protocol

from harness.api import Receiver, Sender


class Queue(Protocol):
    """send and receive raise TimeoutError in time; receive raises EOFError if it can tell that nothing will come."""

    def send(self, message: bytes | memoryview) -> None: ...

    def receive(self) -> bytes: ...

    def close(self) -> None: ...


class MessageSender(Sender):
    def __init__(self, queue: Queue, chunk: int) -> None:
        self._send, self._close = queue.send, queue.close
        self._buffer = memoryview(bytearray(chunk))

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        self._send(self._buffer[:count])

    def close(self) -> None:
        self._close()


class MessageReceiver(Receiver):
    def __init__(self, queue: Queue) -> None:
        self._receive, self._close = queue.receive, queue.close

    def take(self) -> memoryview:
        message = self._receive()
        if not message:
            raise EOFError("the sender gave up")
        return memoryview(message)

    def give_back(self) -> None:
        """The message is this process's own."""

    def close(self) -> None:
        self._close()


def check_limit(wanted: int, what: str, limit: str) -> None:
    """Raises OSError if `wanted` is over the number in the file `limit`, such as /proc/sys/fs/mqueue/msg_max."""
    with open(limit) as file:
        most = int(file.read())
    if wanted > most:
        raise OSError(f"{wanted} {what} are over the {most} of {limit}: ask for less, or have root raise it")
