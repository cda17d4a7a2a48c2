"""Moves one reply over a lane, whatever the shapes of its ends: an answerer in the cache, a relay in the proxy.

The content is never copied here: the cache reads the file into the memory that the transport lends, and the proxy
sends from the memory that the transport hands out. The shape of an end is looked up once, when it is opened.
Header and content may be written by several calls: the client's socket is corked, so they share segments.
"""

import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

from harness.api import HEAD_BYTES, ClientGiver, FileSender, Receiver, Sender, SocketReceiver
from harness.protocol.wire import decode_head, encode_head, encode_head_into, read_head

# Bytes of a reply that are read although its client has gone. For more a new lane is cheaper here; but a cache over
# shared memory waits at the old one until its timeout.
DRAIN_LIMIT = 256 << 20

_STALLED = "the client stalled"

Answerer = Callable[[int, int, int, int], None]


class ClientGone(Exception):
    """The client did not take its reply. The lane is at rest and can be used again."""


class Relay(Protocol):
    """The proxy's side of one lane. For each reply, call `await_head` once, then `pass_on` once.

    Both raise OSError, EOFError or ValueError if the lane failed and cannot be used again.
    """

    def await_head(self, request_id: int) -> tuple[int, int]:
        """(status, content length in bytes) of the reply to `request_id`."""

    def pass_on(self, sink: int, header: bytes) -> None:
        """Send `header` and the content to the client's socket. Raises ClientGone."""

    def close(self) -> None:
        """Close the receiver."""


def relay_over(receiver: Receiver | SocketReceiver | ClientGiver) -> Relay:
    """The relay that fits an end's shape."""
    if isinstance(receiver, ClientGiver):
        return HandOffRelay(receiver)
    return SocketRelay(receiver) if isinstance(receiver, SocketReceiver) else CopyingRelay(receiver)


def answerer_over(sender: Sender | FileSender) -> Answerer:
    """The function (request id, status, fd, length) that sends one reply over `sender`.

    The content is the first `length` bytes of `fd`; with length 0 there is none. It raises EOFError if the file is
    shorter, OSError if the lane fails; either way the lane cannot be used again.
    """
    return _sending(sender) if isinstance(sender, FileSender) else _filling(sender)


# Functions over local names: a method, or a partial, would look more up for each reply.


def _sending(sender: FileSender) -> Answerer:
    send_file = sender.send_file

    def answer(request_id: int, status: int, fd: int, length: int) -> None:
        send_file(encode_head(request_id, status, length), fd, 0, length)

    return answer


def _filling(sender: Sender) -> Answerer:
    loan, publish, preadv = sender.loan, sender.publish, os.preadv

    def answer(request_id: int, status: int, fd: int, length: int) -> None:
        room = loan()
        encode_head_into(room, 0, request_id, status, length)
        sent = preadv(fd, (room[HEAD_BYTES : HEAD_BYTES + length],), 0) if length else 0
        publish(HEAD_BYTES + sent)
        while sent < length:
            room = loan()
            left = length - sent
            count = preadv(fd, (room if len(room) <= left else room[:left],), sent)
            publish(count)
            if not count:
                raise EOFError(f"the file ended after {sent} of {length} bytes")
            sent += count

    return answer


class CopyingRelay:
    """Sends from the memory that a Receiver hands out."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._piece: memoryview | None = None  # the first one of the reply: the head, and content if there is any
        self._length = 0

    def await_head(self, request_id: int) -> tuple[int, int]:
        piece = self._receiver.take()
        try:
            answered, status, length = read_head(piece)
        except struct.error:  # a stream may hand the head out in parts
            piece = self._whole_head(piece)
            answered, status, length = read_head(piece)
        if status or answered != request_id:
            _check_head(decode_head(piece)[0], request_id)
        self._piece, self._length = piece, length
        return status, length

    def _whole_head(self, piece: memoryview) -> memoryview:
        while len(piece) < HEAD_BYTES:
            start = bytes(piece)
            self._receiver.give_back()
            piece = memoryview(start + self._receiver.take())
        return piece

    def pass_on(self, sink: int, header: bytes) -> None:
        receiver, length, piece = self._receiver, self._length, self._piece
        assert piece is not None
        self._piece = None
        piece = piece[HEAD_BYTES:]
        sent = len(piece)
        if sent > length:
            raise ValueError(f"{sent} bytes of content, {length} announced")
        gone = ""  # not the exception: its traceback would keep this frame, and with it a view of the lane's memory
        try:
            # Header and first content leave in one call. It is _send, but for the cost of a call of it.
            if os.writev(sink, (header, piece)) != len(header) + sent:
                gone = _STALLED
        except BlockingIOError:
            gone = _STALLED
        except (ConnectionError, TimeoutError) as error:
            gone = str(error)
        del piece  # a view that stayed, even in a traceback, would keep the lane mapped
        receiver.give_back()
        if sent == length and not gone:
            return
        while sent < length and not (gone and length - sent > DRAIN_LIMIT):
            piece = receiver.take()
            sent += len(piece)
            if not gone and sent <= length:
                try:
                    _send(os.write, sink, piece, len(piece))
                except (ConnectionError, TimeoutError) as error:
                    gone = str(error)
            piece.release()
            receiver.give_back()
        if gone and sent < length:
            raise TimeoutError(f"{gone}, and {length - sent} bytes are too many to take for nothing")
        if sent != length:
            raise ValueError(f"{sent} bytes of content, {length} announced")
        if gone:
            raise ClientGone(gone)

    def spend(self, use: Callable[[memoryview], bool] | None) -> bool:
        """Call `use` with each piece of the content, instead of sending it; None: take the pieces and give them back.

        Returns whether `use` returned true for all pieces. Raises as pass_on does, but not ClientGone.
        """
        receiver, length, piece = self._receiver, self._length, self._piece
        assert piece is not None
        self._piece = None
        right, taken = True, len(piece) - HEAD_BYTES
        if use is not None:
            right = use(piece[HEAD_BYTES:])
        del piece
        receiver.give_back()
        while taken < length:
            piece = receiver.take()
            taken += len(piece)
            if use is not None:
                right = use(piece) and right
            del piece
            receiver.give_back()
        if taken != length:
            raise ValueError(f"{taken} bytes of content, {length} announced")
        return right

    def close(self) -> None:
        self._piece = None
        self._receiver.close()


class SocketRelay:
    """Lets a SocketReceiver move the content to the client's socket."""

    def __init__(self, receiver: SocketReceiver) -> None:
        self._receiver = receiver
        self._length = 0

    def await_head(self, request_id: int) -> tuple[int, int]:
        answered, status, self._length = decode_head(self._receiver.take())
        _check_head(answered, request_id)
        return status, self._length

    def pass_on(self, sink: int, header: bytes) -> None:
        gone = ""
        try:
            if header:
                _send(os.write, sink, header, len(header))
            if self._length:
                self._receiver.deliver(sink, self._length)
        except ConnectionError as error:
            gone = str(error)
        self._receiver.give_back()
        if gone:
            raise ClientGone(gone)

    def close(self) -> None:
        self._receiver.close()


class HandOffRelay:
    """Lets the cache answer the client: call `give` before the command is sent, `take_back` after a failure."""

    def __init__(self, giver: ClientGiver) -> None:
        self._giver = giver
        self._length = 0
        self.give = giver.give

    def await_head(self, request_id: int) -> tuple[int, int]:
        answered, status, self._length = decode_head(self._giver.take())
        _check_head(answered, request_id)
        return status, self._length

    def pass_on(self, sink: int, header: bytes) -> None:
        try:
            if self._length:
                self._giver.finish()
            elif self._giver.take_back():
                _send(os.write, sink, header, len(header))
            else:
                raise ValueError("the client was taken for a reply without content")
        except ConnectionError as error:
            raise ClientGone(str(error)) from None

    def take_back(self, client: int) -> bool:
        """Whether the client is the proxy's again. If not, its connection is ended here: the cache may have it."""
        if self._giver.take_back():
            return True
        connection = socket.socket(fileno=client)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client has closed already
        finally:
            connection.detach()
        return False

    def close(self) -> None:
        self._giver.close()


def _check_head(answered: int, request_id: int) -> None:
    if answered != request_id:
        raise ValueError(f"the reply is to request {answered}, not {request_id}")


def _send(write: Callable[[int, Any], int], sink: int, data: object, count: int) -> None:
    """Have `write` send all of the data, `count` bytes, to the client's socket.

    Raises TimeoutError if a blocking socket took less: its SO_SNDTIMEO passed, socket(7). So a client has one timeout
    for each piece that a lane moves. In the cache the sender waits as long for room.
    """
    try:
        written = write(sink, data)
    except BlockingIOError:
        written = 0
    if written < count:
        raise TimeoutError(_STALLED) from None
