"""Stands in for a client where a lane's end needs the client's socket: a connected Unix stream socket, and a process
that reads from its other end and throws the content away.

It is a forked process, since a thread would compete with the thread that makes the requests for the interpreter's
lock. It copies the content once more, to its own memory, because no call drops what a Unix socket received: MSG_TRUNC
does so for TCP alone, tcp(7). Replies follow each other over one connection. They have a header where the process
compares content, and in a hand-off, which must have one. After an error the connection is replaced: where its next
reply begins is unknown.
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
from harness.load.sinks import Sink
from harness.load.tally import Usage, usage_since

_READ = 1 << 20
_CHECK = 0.25  # seconds between checks whether the parent still runs
_RESULT = struct.Struct("@6Q")  # bytes that came, replies that were wrong, and the four numbers of a Usage


class SocketReader:
    """A process that reads from a socket, from construction to close(). One thread uses it.

    It has one connection at a time, between begin() and end(). sink: the descriptor to deliver content to.
    delivered: the bytes delivered there; the thread that delivers them must add them up here. usage: what the process
    has used since begin().
    """

    def __init__(self, paths: Sequence[str], sinks: Sequence[Sink | None], hand_off: bool, timeout: float) -> None:
        """sinks: what becomes of the content of `paths` in each phase; None: the process drops it. timeout: seconds."""
        self._sinks, self._timeout = sinks, timeout
        self._length_only = b"%d\n" if hand_off else b""
        self._length_and_number = [b"%%d %d\n" % number for number in range(len(paths))]
        self._has_sink = False
        self._phase, self.sink, self.delivered, self.usage = 0, -1, 0, Usage()
        self._room = select.poll()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._control = DescriptorSocket(timeout, ours.detach())
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            _serve(DescriptorSocket(_CHECK, theirs.detach()), parent, paths, sinks)
        theirs.close()

    def begin(self, phase: int) -> None:
        """Connect, for the content of a phase. Raises OSError."""
        self.usage = Usage()
        self._connect(phase)

    def _connect(self, phase: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._control.send(bytes([phase]), theirs.fileno())
        limit_waits(ours, self._timeout)
        self._phase, self._has_sink = phase, self._sinks[phase] is not None
        self.sink, self.delivered = ours.detach(), 0
        self._room = select.poll()
        self._room.register(self.sink, select.POLLOUT)

    def header(self, number: int) -> bytes:
        """The header that must precede the content of path `number`, with `%d` for its length; empty: none."""
        return self._length_and_number[number] if self._has_sink else self._length_only

    def await_room(self) -> None:
        """Wait until the socket has room for a header, behind content that may still be unread. Raises TimeoutError."""
        if not self._room.poll(self._timeout * 1000):
            raise TimeoutError(f"the process that reads from the socket took nothing for {self._timeout} s")

    def renew(self) -> None:
        """Replace the connection, after an error on it. Raises OSError."""
        self._disconnect()
        self._connect(self._phase)

    def end(self) -> int:
        """End the connection. Returns how many replies had wrong content. Raises OSError where bytes have been lost."""
        received, wrong = self._disconnect()
        if received != self.delivered:
            raise OSError(
                f"{self.delivered} bytes were reported as delivered to the socket, but {received} came out of it"
            )
        return wrong

    def _disconnect(self) -> tuple[int, int]:
        os.close(self.sink)
        try:
            result, _ = self._control.receive(_RESULT.size)
        except TimeoutError:
            message = f"the process that reads from the socket sent no result within {self._timeout} s"
            raise TimeoutError(message) from None
        received, wrong, *usage = _RESULT.unpack(result)
        self.usage = self.usage.plus(Usage(*usage))
        return received, wrong

    def close(self) -> None:
        """Kill the process, which has nothing to clean up."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _serve(control: DescriptorSocket, parent: int, paths: Sequence[str], sinks: Sequence[Sink | None]) -> NoReturn:
    """The process: reads one connection after another to its end, and reports what came over each."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # it stands for a client, not for the proxy
    buffer = memoryview(bytearray(_READ))
    wanted = select.poll()
    try:
        wanted.register(control, select.POLLIN)
        wanted.register(os.pidfd_open(parent), select.POLLIN)  # so that the wait for a connection uses no CPU
        while wanted.poll() and os.getppid() == parent:
            phase, connection = control.receive(1)
            before = resource.getrusage(resource.RUSAGE_SELF)
            replies, wrong = _Replies(connection, parent), 0
            if (sink := sinks[phase[0]]) is not None:
                wrong = _count_wrong(replies, paths, sink)
            while replies.readinto(buffer):
                pass
            control.send(_RESULT.pack(replies.received, wrong, *usage_since(before)))
            replies.close()
    except (OSError, ValueError) as error:
        console.say(f"the process that reads from the socket: {error}")
    finally:
        os._exit(1)


class _Replies(io.RawIOBase):
    """The bytes that come over one connection, until it ends or the parent does. received: how many so far."""

    def __init__(self, connection: int, parent: int) -> None:
        self._socket, self._parent, self.received = socket.socket(fileno=connection), parent, 0
        limit_waits(self._socket, _CHECK)

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


def _count_wrong(replies: _Replies, paths: Sequence[str], sink: Sink) -> int:
    """Read the replies to the end. Returns how many of those that are complete are not what the sink expects."""
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
