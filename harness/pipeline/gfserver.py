"""The GETFILE server: worker threads that accept, read a request, and let a handler write the reply.

Accepted sockets inherit the options of the listening one, which thus cost no system call per request. SO_RCVTIMEO and
SO_SNDTIMEO, socket(7): every wait for a client ends in time. TCP_CORK, tcp(7): header, content and the end of the
connection share segments, however many calls write them; only a reply that stalls halfway may be held for 200 ms.

A worker waits for no request. TCP_DEFER_ACCEPT, tcp(7): the kernel keeps a connection to itself until something has
come over it, or gives it up after some seconds of silence. What comes in pieces is collected in the lobby: one thread
waits there for all such clients, and another one answers them. A worker does wait for a client to take its reply,
SO_SNDTIMEO for each piece; but where others wait for a worker, a client that takes too little has to go.

The dialect is chosen when the server starts, and costs a request nothing.
"""

import errno
import math
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from harness.api import limit_waits
from harness.console import say
from harness.pipeline.lobby import ROOM, Lobby, reader
from harness.pipeline.siege import ACCEPTING, IDLE, Siege
from harness.protocol import getfile
from harness.protocol.dialects import Dialect

# (client's socket, path): writes the whole reply and leaves the socket open. Raises OSError or EOFError if the reply
# was cut; then the server ends the connection.
Handler = Callable[[int, bytes], None]

# BBR paces with a timer a packet, which on a virtual machine costs more than all copies of a large file do; Reno is
# in every kernel, allowed for every user, and does not pace (docs/decisions/0003-congestion-control.md).
CONGESTION = "reno"
SYSTEM = "system"

_LINGER = 1.0  # seconds to wait for a client that should close first, or that has sent more than a request
_BACKLOG = 4096
_REQUEST = 10.0  # seconds for a request that comes in pieces, where the timeout is not shorter


class Backend(Protocol):
    """Where replies come from."""

    def handler(self) -> Handler:
        """The handler of one worker thread."""

    def close(self) -> None:
        """Remove the names that this process made. Requests may still be in flight."""


def listen(host: str, port: int, timeout: float, congestion: str, cork: bool = True) -> socket.socket:
    """A listening TCP socket (port 0 picks one) whose clients have `timeout` seconds for each read and write.

    congestion: TCP's congestion control for them, tcp(7) TCP_CONGESTION; SYSTEM leaves the machine's default.
    cork: whether what is written to a client waits for the end of its connection; otherwise it is sent at once.
    Connections over which nothing has come are not accepted for about as long: the kernel counts in times of 1, 3, 7,
    15, ... seconds.
    """
    try:
        listener = socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    limit_waits(listener, timeout)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, math.ceil(timeout))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK if cork else socket.TCP_NODELAY, 1)
    if congestion != SYSTEM:
        try:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        except OSError:
            with open("/proc/sys/net/ipv4/tcp_allowed_congestion_control") as allowed:
                there = allowed.read().strip()
            raise ValueError(f"no congestion control {congestion!r} here; there is {there}") from None
    return listener


class Server:
    """`threads` workers on `listener`, serving from `backend`, from construction to stop()."""

    def __init__(
        self, listener: socket.socket, threads: int, backend: Backend, timeout: float, dialect: Dialect
    ) -> None:
        self._listener = listener
        self._limit, self._parse, self._end = dialect.HEADER_LIMIT, dialect.parse_request, dialect.END
        self._plain = dialect.PLAIN.fullmatch
        self._refusal = dialect.refusal_header(getfile.INVALID)
        self._backend = backend
        self._stopping = False
        handlers = [backend.handler() for _ in range(threads + 1)]
        if dialect.CLIENT_CLOSES_FIRST:
            handlers = [_await_close_after(handler) for handler in handlers]
        self._late: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._late_thread = threading.Thread(target=self._work_late, args=(handlers.pop(),), daemon=True)
        self._lobby = Lobby(reader(self._limit), self._complete, self._hand_on, min(timeout, _REQUEST))
        self._siege = Siege(listener, threads)
        self._threads = [threading.Thread(target=self._work, args=one, daemon=True) for one in enumerate(handlers)]
        for thread in self._threads:
            thread.start()
        self._siege.start()

    def stop(self, grace: float) -> None:
        """Accept no more, give requests in flight `grace` seconds, and let the backend remove its names."""
        self._stopping = True
        self._siege.stop()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the workers of all processes from accept
        except OSError:
            pass  # another process has shut it down
        deadline = time.monotonic() + grace
        self._late.put(None)
        for thread in (*self._threads, self._late_thread):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        self._backend.close()

    def _work(self, number: int, handle: Handler) -> None:
        # socket.accept() would also build a socket object and ask the kernel for its name, which takes 3 us.
        accept = self._listener._accept  # type: ignore[attr-defined]
        received = reader(self._limit)
        siege, serving = self._siege, self._siege.serving
        while True:
            serving[number] = ACCEPTING
            try:
                if siege.hands_over:
                    serving[number] = IDLE
                    client = siege.next()
                else:
                    client, _ = accept()
            except OSError as error:
                if self._stopping:
                    return
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    say(f"no descriptor for a client: {error.strerror}; raise ulimit -n")
                    time.sleep(0.1)
                continue  # BlockingIOError: no client came for `timeout` seconds
            data: bytes | bytearray = b""
            try:
                data = received(client)
            except BlockingIOError:
                pass  # silent for so long that the kernel gave up; or the connection was made with a SYN cookie, tcp(7)
            except OSError:  # the client has gone
                os.close(client)
                continue
            else:
                serving[number] = client
                if self._answer(handle, client, data):
                    continue
                serving[number] = IDLE
            try:
                self._lobby.admit(client, bytes(data))
            except (OSError, RuntimeError) as error:
                say(f"no room for a client whose request is not complete: {error}")
                os.close(client)

    def _answer(self, handle: Handler, client: int, data: bytes | bytearray) -> bool:
        """Answer the request that has come, and close the connection. Returns False, and does nothing, if more of the
        request has to come. Empty data: the client has closed."""
        complete, match = True, self._plain
        try:
            if plain := match(data):
                handle(client, plain[1])
            elif (path := self._parse(bytes(data))) is not None:
                handle(client, path)
                if not data.endswith(self._end):
                    _linger(client)
            elif data:
                complete = False
        except getfile.Malformed:
            self._refuse(client)
        except (OSError, EOFError):
            pass  # the client went away or was silent for too long, or its file ended early
        except Exception as error:  # noqa: BLE001  a defect costs its request, not the worker
            say(f"request failed: {type(error).__name__}: {error}")
        finally:
            if complete:
                os.close(client)
        return complete

    def _complete(self, data: bytes) -> bool:
        """Whether a request has come as a whole, or never can."""
        try:
            return self._parse(data) is not None
        except getfile.Malformed:
            return True

    def _hand_on(self, client: int, data: bytes) -> None:
        """Have a request answered that came in pieces: one after the other, by a thread beside the workers."""
        if self._late.qsize() >= ROOM:
            os.close(client)
            return
        try:
            if self._late_thread.ident is None:
                self._late_thread.start()
        except RuntimeError as error:
            say(f"no thread for requests that come in pieces: {error}")
            os.close(client)
            return
        self._late.put((client, data))

    def _work_late(self, handle: Handler) -> None:
        while (late := self._late.get()) is not None:
            self._answer(handle, *late)

    def _refuse(self, client: int) -> None:
        with suppress(OSError):
            os.write(client, self._refusal)
            _linger(client)


def readable(fd: int, deadline: float) -> bool:
    """Whether data or the end of the stream can be read before `deadline`, on the clock of time.monotonic()."""
    poll = select.poll()  # not select(2), which ends at descriptor 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _await_close_after(handle: Handler) -> Handler:
    """A handler that also waits for the client to close: for dialects in which the client closes first."""

    def answer(client: int, path: bytes) -> None:
        handle(client, path)
        push(client)
        _await_close(client)

    return answer


def push(client: int) -> None:
    """Send what TCP_CORK and Nagle's algorithm hold back, tcp(7)."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=client)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cork in (0, 1):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, cork)
    finally:
        connection.detach()


def _linger(client: int) -> None:
    """End what is sent, then read what the client still sends: close(2) with unread data would reset the connection
    before the client has read the reply, tcp(7)."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=client)
    try:
        connection.shutdown(socket.SHUT_WR)
        _await_close(client)
    finally:
        connection.detach()


def _await_close(client: int) -> None:
    """Return when the client has closed, or after _LINGER seconds."""
    deadline = time.monotonic() + _LINGER
    while readable(client, deadline) and os.read(client, 1 << 16):
        pass
