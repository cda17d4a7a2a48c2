"""`harness origin`: a small HTTP/1.1 server of files, the origin in trials: GET and HEAD, kept connections.

Each process runs one epoll(7) loop and sends content with sendfile(2), so that the origin is faster than its clients
unless an option slows it down. --latency delays each response. --bandwidth makes the kernel pace each connection,
SO_MAX_PACING_RATE of socket(7); the first half MiB is not paced.
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
    """One client's connection: each request is answered when it is due, then the next one."""

    def __init__(self, client: RawSocket, find: Find) -> None:
        self._client, self._find = client, find
        self.fd = client.fileno()
        self._data = b""  # requests that have come
        self._closing = False  # after the response under way
        self._file, self._offset, self._end = -1, 0, 0

    def receive(self) -> bool:
        """Read what has come. Returns whether there is a whole request. Raises OSError or EOFError if the client has
        gone, or sends no valid request."""
        data = self._client.recv(_REQUEST_LIMIT)
        if not data or len(self._data) > _REQUEST_LIMIT:
            raise EOFError
        self._data += data
        return _END in self._data

    def respond(self) -> bool:
        """Answer the request. Returns whether the whole response has been sent."""
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
            self._client.send(header, socket.MSG_MORE if content else 0)  # leaves with the content
            self._file, self._end = file, content
        return self.send()

    def send(self) -> bool:
        """Send more of the content. Returns whether all of it has been sent."""
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
        """Whether another whole request has come already."""
        return _END in self._data

    def close(self) -> None:
        self._client.close()


class OriginServer:
    """Serves in one thread, from construction to stop(). latency: seconds that each response waits."""

    def __init__(self, listener: socket.socket, find: Find, latency: float) -> None:
        self._listener, self._find, self._latency = listener, find, latency
        self._open: dict[int, Connection] = {}
        self._due: list[tuple[float, int, Connection]] = []  # a heap; the number orders equal times
        self._stopping, self._stop = os.pipe2(os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._epoll.register(self._stopping, select.EPOLLIN)
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self, grace: float) -> None:
        """Stop at once: responses under way are cut."""
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
            self._epoll.modify(connection.fd, 0)  # further requests wait in the socket
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
        epilog="Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 misused, 3 nginx cannot serve this.",
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
    add("--latency", type=console.count, default=0, metavar="MICROSECONDS", help="delay each response by so much (0)")
    add(
        "--bandwidth",
        type=console.bandwidth,
        default=None,
        metavar="BYTES",
        help="bytes a second for each connection (no limit)",
    )
    add(
        "--server",
        choices=SERVERS,
        default="own",
        help="what serves: this program, nginx, or `auto`: nginx if that is installed and can (%(default)s)",
    )
    add(
        "--name",
        default=rendezvous.DEFAULT,
        metavar="RENDEZVOUS",
        help="with nginx: rendezvous where its configuration is kept while it runs (%(default)s)",
    )
    console.add_serving(parser)
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
            url = f"http://{host}:{port}"
            text = f"listening on {url}, serving {args.source} by {server}"
            console.greet(args.json, text, url=url, server=server)

        if args.server != "own" and not unable:
            with ExitStack() as undo:
                home = supervisor.open_home(undo, args.name, f"origin-{os.getpid()}-{os.urandom(3).hex()}")
                nginx.serve(listener, args.source, args.processes, home, ready, args.until_eof)
            return
        if args.bandwidth is not None:
            listener.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, args.bandwidth)
        supervisor.run(
            args.processes,
            lambda _: OriginServer(listener, find, args.latency / 1e6),
            lambda: ready("harness origin"),
            until_eof=args.until_eof,
        )
