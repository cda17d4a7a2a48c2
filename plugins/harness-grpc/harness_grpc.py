"""gRPC over a Unix socket: each piece is a unary call of the cache to a server in the proxy, grpc.io.

A call is a stream of frames of HTTP/2. preadv(2) -> buffer of the cache -> bytes object -> sendmsg(2) -> Unix socket ->
recvmsg(2) -> bytes object -> the client. The proxy's end is a server with one thread for calls, and threads of gRPC's
own; each call wakes several.

The server answers a call once it has put the piece where the proxy takes it from. There is room for one: the next call
waits for it, and that pushes back.

Limits: about 7 threads in each process with an end open, and one more for each proxy's end. An empty piece stands for a
sender that gave up.

Killed peers: a sender notices a killed receiver at once (UNAVAILABLE), a receiver a killed sender by the timeout.
"""

import os
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it prints now and then that a peer has gone
import grpc

from harness.api import HEAD_BYTES, DataTransport, Receiver, Scope, Sender, check_least, hookimpl, socket_name

_SERVICE, _PUT = "harness.Lane", "Put"
_OPTIONS = [("grpc.max_receive_message_length", -1)]  # no limit; the default is 4 MiB


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises OSError in place of gRPC's own errors, which are not derived from it."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimeoutError("gRPC: no answer in time") from None
        raise OSError(f"gRPC: {error.code().name}: {error.details()}") from None
    except (RuntimeError, ValueError) as error:  # of a path that is too long, a channel that is closed
        raise OSError(f"gRPC: {error}") from None


@dataclass(frozen=True)
class GrpcData(DataTransport):
    """chunk: bytes of a piece."""

    name = "grpc"
    not_kept: ClassVar[dict[str, str]] = {
        "an end opens in a fork of a process that has one open": "calls then hang now and then, for gRPC's fork "
        "handlers do nothing while a server runs"
    }
    chunk: int = 1 << 20

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return socket_name(scope.path("grpc"))

    @plain_errors()
    def receiver(self, scope: Scope) -> Receiver:
        return GrpcReceiver(scope)

    @plain_errors()
    def sender(self, scope: Scope) -> Sender:
        return GrpcSender(scope, self.chunk)


class GrpcReceiver(Receiver):
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        self._pieces: queue.Queue[bytes] = queue.Queue(maxsize=1)
        self._pool = ThreadPoolExecutor(1)
        self._server = grpc.server(self._pool, options=_OPTIONS)
        put = grpc.unary_unary_rpc_method_handler(self._put)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {_PUT: put})])
        self._server.add_insecure_port(f"unix:{scope.path('grpc')}")
        self._server.start()

    def _put(self, piece: bytes, call: grpc.ServicerContext) -> bytes:
        try:
            self._pieces.put(piece, timeout=self._timeout)
        except queue.Full:
            call.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the piece before it was not taken")
        return b""

    def take(self) -> memoryview:
        try:
            piece = self._pieces.get(timeout=self._timeout)
        except queue.Empty:
            raise TimeoutError(f"no piece came for {self._timeout} s") from None
        if not piece:
            raise EOFError("the sender gave up")
        return memoryview(piece)

    def give_back(self) -> None:
        """The piece is this process's own."""

    def close(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown(wait=False)


class GrpcSender(Sender):
    def __init__(self, scope: Scope, chunk: int) -> None:
        self._timeout = scope.timeout
        path = scope.path("grpc")
        os.stat(path)  # a channel would wait for it to appear
        self._channel = grpc.insecure_channel(f"unix:{path}")
        self._put = self._channel.unary_unary(f"/{_SERVICE}/{_PUT}")
        self._buffer = memoryview(bytearray(chunk))

    def loan(self) -> memoryview:
        return self._buffer

    @plain_errors()
    def publish(self, count: int) -> None:
        self._put(bytes(self._buffer[:count]), timeout=self._timeout)

    def close(self) -> None:
        self._channel.close()


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [GrpcData]
