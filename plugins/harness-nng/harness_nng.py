"""nng over Unix sockets, nng_ipc(7): a REQ socket sends a piece, a REP socket answers once it is taken, nng_req(7).

A message goes from the caller to a thread of nng in its own process, sendmsg(2) -> Unix socket -> readv(2), and from
the thread there to the receiver: each message wakes two threads. preadv(2) -> buffer of the cache -> message -> Unix
socket -> message -> the client.

The answer is what tells the sender that a piece has arrived, and what pushes back: nng has no time to linger, so what a
PUSH or PAIR socket has not sent when it is closed is lost. The next piece is read while one is on its way.

Limits: a dozen threads in each process with an end open, however many ends. An empty message stands for a sender that
gave up.

Killed peers: noticed by the timeout.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar

import pynng

from harness.api import HEAD_BYTES, DataTransport, Receiver, Scope, Sender, check_least, hookimpl, socket_name

_TAKEN = b"+"
_NEVER = -1  # milliseconds


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises OSError in place of nng's own errors, which are not derived from it."""
    try:
        yield
    except pynng.Timeout:
        raise TimeoutError("nothing moved in time") from None
    except pynng.NNGException as error:
        raise OSError(f"nng: {error}") from None


@dataclass(frozen=True)
class NngData(DataTransport):
    """chunk: bytes of a piece."""

    name = "nng"
    not_kept: ClassVar[dict[str, str]] = {
        "an end opens in a fork of a process that has one open": "nng ends a process that uses it after such a fork: "
        "its threads are not in the fork"
    }
    chunk: int = 1 << 20

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("nng"))

    @plain_errors()
    def receiver(self, scope: Scope) -> Receiver:
        return NngReceiver(scope, pynng.Rep0())

    @plain_errors()
    def sender(self, scope: Scope) -> Sender:
        return NngSender(scope, pynng.Req0(), self.chunk)


class NngEnd:
    def __init__(self, scope: Scope, end: pynng.Socket) -> None:
        self._socket = end
        end.recv_timeout = end.send_timeout = max(1, round(scope.timeout * 1000))
        end.recv_max_size = 0  # no limit
        url = f"ipc://{scope.path('nng')}"
        try:
            if isinstance(self, Receiver):
                end.listen(url)
            else:
                end.resend_time = _NEVER  # else it would ask again, and the piece would come twice
                end.dial(url, block=True)
        except pynng.NNGException:
            end.close()
            raise

    def close(self) -> None:
        self._socket.close()


class NngReceiver(NngEnd, Receiver):
    _piece: pynng.Message | None = None  # that was taken

    @plain_errors()
    def take(self) -> memoryview:
        self._piece = self._socket.recv_msg()
        self._socket.send(_TAKEN)
        content = memoryview(self._piece._buffer)
        if not content:
            raise EOFError("the sender gave up")
        return content

    def give_back(self) -> None:
        self._piece = None


class NngSender(NngEnd, Sender):
    _under_way = False  # whether a piece has no answer yet

    def __init__(self, scope: Scope, end: pynng.Socket, chunk: int) -> None:
        super().__init__(scope, end)
        self._buffer = memoryview(bytearray(chunk))

    def loan(self) -> memoryview:
        return self._buffer

    @plain_errors()
    def publish(self, count: int) -> None:
        self._await_answer()
        self._socket.send(bytes(self._buffer[:count]))
        self._under_way = True

    def _await_answer(self) -> None:
        if self._under_way:
            self._under_way = False  # also where none comes: close() need not wait once more
            self._socket.recv()

    def close(self) -> None:
        with suppress(pynng.NNGException):
            self._await_answer()
        super().close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [NngData]
