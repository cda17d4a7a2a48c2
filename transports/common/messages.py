"""What the message queues have in common: a reply in messages, and which limit of the kernel a queue is over.

A queue is an end that sends and receives messages; the ends of a lane are made of one. Its messages are copied into a
buffer of the kernel and out of it, so either end of the lane has a buffer of its own to lend. The empty message says
that the sender gives up.
"""

from typing import Protocol

from harness.api import Receiver, Sender


class Queue(Protocol):
    """send and receive raise TimeoutError in time, receive EOFError where it can tell that nothing will come."""

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
    """Raises OSError where `wanted` is over what the file `limit` says."""
    with open(limit) as file:
        most = int(file.read())
    if wanted > most:
        raise OSError(f"{wanted} {what} are over the {most} of {limit}: ask for less, or have root raise it")
