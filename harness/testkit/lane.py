"""A lane under test: its proxy end is open here, replies come from other processes and go over TCP to a client."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from harness.api import DataTransport, FileSender, Scope, Sender, limit_waits
from harness.api.sockets import reset_on_close
from harness.pipeline import transfer
from harness.protocol import wire
from harness.testkit import leaks
from harness.testkit.files import open_file
from harness.testkit.processes import LIMIT, Child, Descriptor
from harness.testkit.promise import expect

HEADER = b"the header of %d bytes "  # what precedes the content on the client's connection


class LaneUnderTest:
    """A lane with the proxy's end open here. Each reply comes from a second process, and goes over TCP to a client."""

    def __init__(self, transport: DataTransport, scope: Scope) -> None:
        self.scope, self._transport = scope, transport
        self.received = b""  # the content that the client got of the last reply
        self._requests = 0
        self._awaited = False  # whether the head of the reply in flight was taken
        self._sockets: tuple[socket.socket, ...] = ()
        self._ask = -1

    def __enter__(self) -> "LaneUnderTest":
        self.relay = transfer.relay_over(self._transport.receiver(self.scope))
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()
        if self._ask >= 0:
            os.close(self._ask)
        self.relay.close()

    def fork(self, work: Callable[..., None], *arguments: object, waits: bool = False) -> Child:
        """A second process that calls `work` with a sender and the arguments."""
        return Child(with_sender, self._transport, self.scope, work, arguments, waits=waits)

    def start(
        self,
        content: bytes,
        status: int = wire.STATUS_OK,
        announced: int | None = None,
        request_id: int | None = None,
        waits: bool = False,
    ) -> Child:
        """Connect a client, and start a second process that sends one reply."""
        self._requests += 1
        number = request_id or self._requests
        self.connect()
        length = len(content) if announced is None else announced
        with open_file(content) as fd:
            return self.fork(send_one, number, status, Descriptor(fd), length, waits=waits)

    def start_many(self, contents: Sequence[bytes]) -> Child:
        """A second process that sends replies 1, 2, ... each from a new file, when finish(None, ...) asks for it."""
        return self._when_asked(_send_many, contents)

    def start_again(self, fd: int, length: int, times: int, may_open: bool = True) -> Child:
        """As start_many(), but the content of each reply is `length` bytes of the same file.

        may_open: False has the process fail where the later replies leave more descriptors open than the first one did.
        """
        return self._when_asked(_send_again, Descriptor(fd), length, times, may_open)

    def _when_asked(self, work: Callable[..., None], *arguments: object) -> Child:
        asked = self.asks()
        child = self.fork(work, Descriptor(asked), *arguments)
        os.close(asked)
        return child

    def asks(self) -> int:
        """A pipe that bears a byte for each reply that finish(None, ...) asks for: the end that reads it."""
        if self._ask >= 0:
            os.close(self._ask)
        asked, self._ask = os.pipe()
        return asked

    def connect(self) -> None:
        """Connect a client, and give its socket away where the transport wants it before the reply."""
        self.ours, self.theirs = self._sockets = connection(self.scope.timeout * 4)
        if isinstance(self.relay, transfer.HandOffRelay):
            self.relay.give(self.ours.fileno(), HEADER)

    def finish(
        self,
        child: Child | None,
        content: bytes,
        request_id: int | None = None,
        announced: int | None = None,
        status: int = wire.STATUS_OK,
        reads_after: float = 0,
        gone: bool = False,
    ) -> None:
        """Take the reply that was started and check what the client gets."""
        wanted = len(content) if announced is None else announced
        if child is None:
            self.connect()
            os.write(self._ask, b"x")
        else:
            child.go()
        got: list[bytes] = []

        def read() -> None:
            time.sleep(reads_after)
            got.append(collected(self.theirs))

        reader = threading.Thread(target=read)
        with self.theirs:
            if not gone:
                reader.start()
            try:
                with self.ours:
                    self.pass_on(request_id or self._requests, wanted, self.ours, status)
            finally:
                if not gone:
                    reader.join()
                    self.received = got[0].removeprefix(HEADER % wanted)
        if child is not None:
            expect(child.ended() == 0, "the sender failed")
        what = "" if self._transport.moves_content else ", as so many zeros (moves_content = False)"
        whole = HEADER % wanted + self.sent(content)
        expect(got == [whole], f"a body of {len(content)} bytes did not arrive intact{what}")

    def sent(self, content: bytes) -> bytes:
        """What a client gets of a file's content: zeros, where the transport says that it does not move content."""
        return content if self._transport.moves_content else bytes(len(content))

    def pass_on(self, request_id: int, length: int, sink: socket.socket, status: int = wire.STATUS_OK) -> None:
        """Await the reply, unless that was done, and pass it on to `sink`."""
        if not self._awaited:
            self.await_head(length, request_id, status)
        self._awaited = False
        self.relay.pass_on(sink.fileno(), HEADER % length)

    def await_head(self, length: int, request_id: int | None = None, status: int = wire.STATUS_OK) -> None:
        """Await the head of the reply that was started, and with it the first piece where the end copies."""
        answer = self.relay.await_head(request_id or self._requests)
        expect(answer == (status, length), f"status and length {answer} instead of {(status, length)}")
        self._awaited = True

    def check_reply(self, content: bytes, status: int = wire.STATUS_OK, reads_after: float = 0) -> None:
        """Check one reply, from a process of its own."""
        self.finish(self.start(content, status), content, status=status, reads_after=reads_after)

    def reply_to_a_client_gone(self, content: bytes) -> None:
        """One reply to a client that has disconnected. Raises what the relay raises; the sender may fail."""
        child = self.start(content, waits=True)
        reset_on_close(self.theirs)
        self.theirs.close()
        time.sleep(0.01)
        try:
            self.finish(child, content, gone=True)
        finally:
            child.ended()


def with_sender(transport: DataTransport, scope: Scope, work: Callable[..., None], arguments: Sequence[object]) -> None:
    """Call `work` with a sender, which is closed in the end: a sender may keep content back until then."""
    with contextlib.closing(transport.sender(scope)) as sender:
        work(sender, *arguments)


def send_one(sender: Sender | FileSender, number: int, status: int, fd: int, length: int) -> None:
    with contextlib.suppress(EOFError):  # of a file that is short on purpose
        transfer.answerer_over(sender)(number, status, fd, length)


def _send_many(sender: Sender | FileSender, asked: int, contents: Sequence[bytes]) -> None:
    for _ in answers_when_asked(asked, sender, files_of(contents)):
        pass


def _send_again(sender: Sender | FileSender, asked: int, fd: int, length: int, times: int, may_open: bool) -> None:
    opened = [leaks.descriptors() for _ in answers_when_asked(asked, sender, [(fd, length)] * times)]
    assert may_open or opened[-1] == opened[0], opened


def answers_when_asked(asked: int, sender: Sender | FileSender, replies: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Send replies 1, 2, ... each when the pipe `asked` says so. replies: (file, length of its content in bytes)."""
    answer = transfer.answerer_over(sender)
    for number, (fd, length) in enumerate(replies, 1):
        os.read(asked, 1)
        answer(number, wire.STATUS_OK, fd, length)
        yield


def connection(timeout: float) -> tuple[socket.socket, socket.socket]:
    """A TCP connection on the loopback: (the proxy's socket, the client's)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    limit_waits(ours, timeout)
    theirs.settimeout(LIMIT)
    return ours, theirs


def collected(client: socket.socket, at_most: int | None = None) -> bytes:
    received = bytearray()
    with contextlib.suppress(OSError):  # the connection was reset, or ended with a check that has failed
        while len(received) != at_most and (piece := client.recv(at_most or 1 << 16)):
            received += piece
    return bytes(received)


def files_of(contents: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """(a new file, its length in bytes) for each content; a file is closed when the next one is asked for."""
    for content in contents:
        with open_file(content) as fd:  # gets the same number each time
            yield fd, len(content)
