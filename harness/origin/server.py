"""A small HTTP/1.1 server of files, an origin that trials of the web proxy start: GET and HEAD, kept connections.

One epoll(7) loop a process, sendfile(2) for the content: it is to be faster than whoever asks, and slower only where it
is told to be. --latency delays each response; --bandwidth has the kernel pace each connection, SO_MAX_PACING_RATE of
socket(7), from the first half MiB on, which leaves at once.
"""

import argparse
import heapq
import os
import select
import socket
import threading
import time
from _socket import socket as RawSocket  # noqa: N812
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from urllib.parse import unquote_to_bytes

from harness import console, rendezvous, supervisor
from harness.origin import nginx
from harness.pipeline.catalogue import open_source
from harness.pipeline.gfserver import CONGESTION, listen

Find = Callable[[bytes], int | None]

_SO_MAX_PACING_RATE = 47  # asm-generic/socket.h; not in Python's socket
_REQUEST_LIMIT = 1 << 16
_END = b"\r\n\r\n"
SERVERS = ("own", "nginx", "auto")


class Connection:
    """One client: a request is answered when it is due, and then the next one is looked at."""

    def __init__(self, client: RawSocket, find: Find) -> None:
        self._client, self._find = client, find
        self.fd = client.fileno()
        self._data = b""  # of requests
        self._closing = False  # after the response under way
        self._file, self._offset, self._end = -1, 0, 0

    def receive(self) -> bool:
        """Take what has come. Returns whether there is a whole request. Raises OSError or EOFError where the client
        has gone, or sends what is none."""
        data = self._client.recv(_REQUEST_LIMIT)
        if not data or len(self._data) > _REQUEST_LIMIT:
            raise EOFError
        self._data += data
        return _END in self._data

    def respond(self) -> bool:
        """Answer the request. Returns whether all has been sent."""
        request, _, self._data = self._data.partition(_END)
        line, _, headers = request.partition(b"\r\n")
        method, target, version = line.split(b" ")
        self._closing = b"connection: close" in headers.lower() or version == b"HTTP/1.0"
        self._file, self._offset, self._end = -1, 0, 0
        if method not in {b"GET", b"HEAD"}:
            self._client.send(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n")
        elif (file := self._find(unquote_to_bytes(target.partition(b"?")[0]))) is None:
            self._client.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            length = os.fstat(file).st_size
            content = length if method == b"GET" else 0
            header = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
            self._client.send(header, socket.MSG_MORE if content else 0)  # it waits for the content
            self._file, self._end = file, content
        return self.send()

    def send(self) -> bool:
        """Send more of the content. Returns whether that was all."""
        while self._offset < self._end:
            try:
                sent = os.sendfile(self.fd, self._file, self._offset, self._end - self._offset)
            except BlockingIOError:
                return False
            if not sent:
                raise EOFError  # the file has become shorter
            self._offset += sent
        if self._closing:
            raise EOFError
        return True

    def has_request(self) -> bool:
        """Whether another whole request has come with the one before."""
        return _END in self._data

    def close(self) -> None:
        self._client.close()


class Server:
    """Serves in one thread, from construction to stop(). latency: seconds that each response waits."""

    def __init__(self, listener: socket.socket, find: Find, latency: float) -> None:
        self._listener, self._find, self._latency = listener, find, latency
        self._open: dict[int, Connection] = {}
        self._due: list[tuple[float, int, Connection]] = []  # a heap; the number tells equal times apart
        self._stopping, self._stop = os.pipe2(os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._epoll.register(self._stopping, select.EPOLLIN)
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self, grace: float) -> None:
        """Stop at once: what is under way is cut."""
        os.write(self._stop, b"x")

    def _work(self) -> None:
        while True:
            events = self._wait()
            for fd, event in events:
                if fd == self._stopping:
                    return
                if fd == self._listener.fileno():
                    self._accept()
                elif (connection := self._open.get(fd)) is not None:
                    self._guarded(self._advance, connection, event)
            while self._due and self._due[0][0] <= time.monotonic():
                self._guarded(self._respond, heapq.heappop(self._due)[2])

    def _wait(self) -> list[tuple[int, int]]:
        if not self._due:
            return self._epoll.poll()
        # epoll_wait(2) counts in milliseconds, select(2) in microseconds.
        select.select([self._epoll], [], [], max(0.0, self._due[0][0] - time.monotonic()))
        return self._epoll.poll(0)

    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return  # another process was faster
        client = RawSocket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
        client.setblocking(False)
        self._open[fd] = Connection(client, self._find)
        self._epoll.register(fd, select.EPOLLIN)

    def _guarded(self, step: Callable[..., None], connection: Connection, *arguments: int) -> None:
        try:
            step(connection, *arguments)
        except (OSError, EOFError, ValueError):
            if self._open.get(connection.fd) is connection:
                del self._open[connection.fd]
            connection.close()

    def _advance(self, connection: Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            if connection.send():
                self._next(connection)
        elif connection.receive():
            self._schedule(connection)

    def _schedule(self, connection: Connection) -> None:
        if self._latency:
            self._epoll.modify(connection.fd, 0)  # what comes meanwhile waits
            heapq.heappush(self._due, (time.monotonic() + self._latency, id(connection), connection))
        else:
            self._respond(connection)

    def _respond(self, connection: Connection) -> None:
        if connection.respond():
            self._next(connection)
        else:
            self._epoll.modify(connection.fd, select.EPOLLOUT)

    def _next(self, connection: Connection) -> None:
        if connection.has_request():
            self._schedule(connection)
        else:
            self._epoll.modify(connection.fd, select.EPOLLIN)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness origin",
        description="Serve files over HTTP, for `harness webproxy -s` and `harness simplecached --origin`.",
        epilog="Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 misused, 3 nginx is not able to.",
    )
    add = parser.add_argument
    add(
        "-c",
        dest="source",
        required=True,
        metavar="SOURCE",
        help="a directory, or a file of lines `/key path` (paths from the working directory)",
    )
    add("-p", dest="port", type=console.port, default=8080, help="port; 0 picks one (%(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--processes", type=console.positive, default=os.cpu_count(), help="worker processes (one a CPU)")
    add("--latency", type=console.count, default=0, metavar="MICROSECONDS", help="that each response waits (none)")
    add("--bandwidth", type=console.size, default=None, metavar="BYTES", help="a second for each connection (no limit)")
    add(
        "--server",
        choices=SERVERS,
        default="own",
        help="who serves: this program, nginx, or `auto`: nginx where that is installed and able to (%(default)s)",
    )
    add(
        "--name",
        default=rendezvous.DEFAULT,
        metavar="RENDEZVOUS",
        help="with nginx: where its configuration is kept while it runs (%(default)s)",
    )
    add("--until-eof", action="store_true", help="end when standard input does: for programs that start this one")
    return parser


def main(argv: Sequence[str]) -> int:
    """`harness origin`: run until a signal asks to end. Returns the exit code."""
    args = arguments().parse_args(argv)
    return console.main("origin", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    find = open_source(args.source).find
    unable = "" if args.server == "own" else nginx.unable(args.source, bool(args.latency or args.bandwidth))
    if args.server == "nginx" and unable:
        raise console.Refused(unable)
    with listen(args.host, args.port, 1.0, CONGESTION, cork=False) as listener:
        listener.setblocking(False)
        host, port = listener.getsockname()[:2]

        def ready(server: str) -> None:
            print(f"origin: listening on http://{host}:{port}, serving {args.source} by {server}", flush=True)

        if args.server != "own" and not unable:
            with ExitStack() as undo:
                home = supervisor.open_home(undo, args.name, f"origin-{os.getpid()}-{os.urandom(3).hex()}")
                nginx.serve(listener, args.source, args.processes, home, ready, args.until_eof)
            return
        if args.bandwidth is not None:
            listener.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, args.bandwidth)
        supervisor.run(
            args.processes,
            lambda _: Server(listener, find, args.latency / 1e6),
            lambda: ready("harness origin"),
            until_eof=args.until_eof,
        )
