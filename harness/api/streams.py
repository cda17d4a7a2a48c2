"""The two ends of a lane over stream sockets: for transports over Unix sockets, TCP and the like.

A reply is a stream of bytes, of which each end moves at most `chunk` at a time. Each cache worker that serves the lane
has a connection of its own. A reply ends where its head says. A connection that ends within a reply means that the
sender gave up or was killed; one that ends between replies means nothing, as the next reply may come over another.
"""

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from harness.api.contract import HEAD_BYTES, Receiver, Sender, content_length
from harness.api.sockets import limit_waits


class StreamSender(Sender):
    """Sends over a connection that it owns from now on. timeout: what limit_waits was given, for the message."""

    def __init__(self, connection: socket.socket, chunk: int, timeout: float) -> None:
        self._timeout = timeout
        self._buffer = memoryview(bytearray(chunk))
        self._connection = connection

    def loan(self) -> memoryview:
        return self._buffer

    def publish(self, count: int) -> None:
        if not count:
            self.close()
            return
        try:
            sent = self._connection.send(self._buffer[:count])
        except BlockingIOError:
            sent = 0
        if sent < count:  # a blocking socket takes all, unless its SO_SNDTIMEO passes first
            raise TimeoutError(f"the socket stayed full for {self._timeout} s")

    def close(self) -> None:
        self._connection.close()


class StreamReceiver(Receiver):
    """Receives over the connections to a listener that it owns from now on.

    Between replies it waits with poll(2) for the connection that speaks next. Within a reply it stays with that one,
    and needs recv(2) alone.

    accept: accepts a connection, or refuses it and returns None. TCP needs tcp_accepted here; without `accept` every
        connection is accepted, and gets limit_waits.
    """

    def __init__(
        self,
        listener: socket.socket,
        chunk: int,
        timeout: float,
        accept: Callable[[], socket.socket | None] | None = None,
    ) -> None:
        self._timeout = timeout
        self._buffer = memoryview(bytearray(chunk))
        self._left = 0  # bytes of the reply under way
        self._listener, self._accept = listener, accept or self._accept_plain
        self._connections: dict[int, socket.socket] = {}
        self._current = listener  # then the connection that the reply comes over
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def take(self) -> memoryview:
        if self._left:
            count = self._receive(self._buffer)
        else:
            count = self._first_piece()
            while count < HEAD_BYTES:
                count += self._receive(self._buffer[count:])
            self._left = HEAD_BYTES + content_length(self._buffer)
        self._left -= count
        return self._buffer[:count]

    def receive(self, connection: socket.socket, room: memoryview) -> int:
        """Put the next bytes of `connection` to the front of `room`. Returns how many; 0: the connection has ended.

        Raises BlockingIOError if none come in time. A transport whose connections only say where the bytes are
        overrides this.
        """
        return connection.recv_into(room)

    def _first_piece(self) -> int:
        deadline = time.monotonic() + self._timeout
        while ready := self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            for fd, _ in ready:
                if fd not in self._connections:
                    if (connection := self._accept()) is not None:
                        self._connections[connection.fileno()] = connection
                        self._poll.register(connection, select.POLLIN)
                    continue
                self._current = self._connections[fd]
                with suppress(ConnectionError):  # the sender was killed before it read all that we sent
                    if count := self.receive(self._current, self._buffer):
                        return count
                self._poll.unregister(fd)
                self._connections.pop(fd).close()
        raise TimeoutError(f"no reply for {self._timeout} s")

    def _accept_plain(self) -> socket.socket:
        connection, _ = self._listener.accept()
        limit_waits(connection, self._timeout)
        return connection

    def _receive(self, room: memoryview) -> int:
        try:
            count = self.receive(self._current, room)
        except BlockingIOError:
            raise TimeoutError(f"nothing in the socket for {self._timeout} s") from None
        if not count:
            raise EOFError("the sender closed its end within the reply")
        return count

    def give_back(self) -> None:
        """The buffer is this end's own."""

    def close(self) -> None:
        for end in (self._listener, *self._connections.values()):
            end.close()
