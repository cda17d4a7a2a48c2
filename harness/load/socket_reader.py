"""The stand-in for a client where a lane's end needs a socket: a connected Unix stream socket, and a forked process
that reads its other end and throws away what comes.

A process, since a thread would fight the one that asks for the interpreter's lock. What comes is copied once more, to
the process's memory, for want of a call that drops it: MSG_TRUNC does so for TCP alone, tcp(7). Replies follow each
other over one connection, with a header only where somebody looks at them, or a hand-off must have one. A connection
on which something went wrong is left: nobody knows where its next reply begins.
"""

import io
import os
import resource
import select
import signal
import socket
import struct
from collections.abc import Sequence
from typing import NoReturn

from harness import console
from harness.api import DescriptorSocket, limit_waits
from harness.load import loader

_READ = 1 << 20
_LOOK = 0.25  # seconds between looks for the parent
_RESULT = struct.Struct("@6Q")  # bytes that came, replies that were wrong, and the words of loader.used_since


class Drain:
    """From construction to close(); it has one connection at a time, from begin() to end(), and one thread uses it.

    sink: the descriptor to deliver to. delivered: bytes, counted by whoever delivers them.
    used: what the process has used since begin(), in the words of loader.used_since.
    """

    def __init__(
        self, paths: Sequence[str], sinks: Sequence[loader.Sink | None], hand_off: bool, timeout: float
    ) -> None:
        """sinks: what becomes of content, for each phase; None: nobody looks at it."""
        self._sinks, self._timeout = sinks, timeout
        self._bare = b"%d\n" if hand_off else b""
        self._numbered = [b"%%d %d\n" % number for number in range(len(paths))]
        self._looks = False
        self._phase, self.sink, self.delivered, self.used = 0, -1, 0, [0, 0, 0, 0]
        self._room = select.poll()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._control = DescriptorSocket(timeout, ours.detach())
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            _read(DescriptorSocket(_LOOK, theirs.detach()), parent, paths, sinks)
        theirs.close()

    def begin(self, phase: int) -> None:
        """Connect for content of the phase."""
        self.used = [0, 0, 0, 0]
        self._connect(phase)

    def _connect(self, phase: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._control.send(bytes([phase]), theirs.fileno())
        limit_waits(ours, self._timeout)
        self._phase, self._looks = phase, self._sinks[phase] is not None
        self.sink, self.delivered = ours.detach(), 0
        self._room = select.poll()
        self._room.register(self.sink, select.POLLOUT)

    def header(self, number: int) -> bytes:
        """What must precede the content of path `number`, with `%d` for its length; empty where nothing must."""
        return self._numbered[number] if self._looks else self._bare

    def await_room(self) -> None:
        """Return when there is room for a header: the content before it may still be there. Raises TimeoutError."""
        if not self._room.poll(self._timeout * 1000):
            raise TimeoutError(f"the drain took nothing for {self._timeout} s")

    def renew(self) -> None:
        """Leave the connection, on which something went wrong, for another. Raises OSError."""
        self._disconnect()
        self._connect(self._phase)

    def end(self) -> int:
        """End the connection. Returns how many replies were wrong. Raises OSError where bytes have been lost."""
        received, wrong = self._disconnect()
        if received != self.delivered:
            raise OSError(f"of {self.delivered} bytes that were said to be delivered {received} came")
        return wrong

    def _disconnect(self) -> tuple[int, int]:
        os.close(self.sink)
        try:
            result, _ = self._control.receive(_RESULT.size)
        except TimeoutError:
            raise TimeoutError("the drain does not answer") from None
        received, wrong, *used, peak = _RESULT.unpack(result)
        self.used = [*(before + more for before, more in zip(self.used, used, strict=False)), peak]
        return received, wrong

    def close(self) -> None:
        """End the process, which has nothing to clean up."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _read(
    control: DescriptorSocket, parent: int, paths: Sequence[str], sinks: Sequence[loader.Sink | None]
) -> NoReturn:
    """The process: reads one connection after the other, and says what came."""
    buffer = memoryview(bytearray(_READ))
    try:
        while os.getppid() == parent:
            try:
                phase, connection = control.receive(1)
            except TimeoutError:
                continue
            before = resource.getrusage(resource.RUSAGE_SELF)
            replies, wrong = _Replies(connection, parent), 0
            if (sink := sinks[phase[0]]) is not None:
                wrong = _look(replies, paths, sink)
            while replies.readinto(buffer):
                pass
            control.send(_RESULT.pack(replies.received, wrong, *loader.used_since(before)))
            replies.close()
    except (OSError, ValueError) as error:
        console.say(f"drain: {error}")
    finally:
        os._exit(1)


class _Replies(io.RawIOBase):
    """What comes over one connection, until it or the parent ends. received: bytes so far."""

    def __init__(self, connection: int, parent: int) -> None:
        self._socket, self._parent, self.received = socket.socket(fileno=connection), parent, 0
        limit_waits(self._socket, _LOOK)

    def readable(self) -> bool:
        return True

    def readinto(self, room: memoryview) -> int:  # type: ignore[override]
        while os.getppid() == self._parent:
            try:
                count = self._socket.recv_into(room)
            except BlockingIOError:
                continue
            self.received += count
            return count
        return 0

    def close(self) -> None:
        self._socket.close()
        super().close()


def _look(replies: _Replies, paths: Sequence[str], sink: loader.Sink) -> int:
    """How many of the replies that are complete are not what the sink expects."""
    wrong = 0
    pieces = io.BufferedReader(replies, _READ)
    while (header := pieces.readline()).endswith(b"\n"):
        left, number = map(int, header.split())
        sink.open(paths[number])
        right = True
        while left and (piece := pieces.read1(min(left, _READ))):
            right = sink.write(memoryview(piece)) and right
            left -= len(piece)
        right = sink.close(complete=not left) and right
        wrong += not left and not right
    pieces.detach()
    return wrong
