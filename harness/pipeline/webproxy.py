"""`harness webproxy`: serves GETFILE clients from the cache, from an HTTP origin, or by itself (the floor)."""

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from harness import console, registry, supervisor
from harness.api import send_file
from harness.pipeline import stages
from harness.pipeline.cache_link import open_proxy_home, wait_for_cache
from harness.pipeline.catalogue import COLD, Catalogue, open_source
from harness.pipeline.from_cache import CacheBackend
from harness.pipeline.gfserver import CONGESTION, SYSTEM, Backend, Handler, Server, listen
from harness.protocol import getfile
from harness.protocol.dialects import DIALECTS, Dialect

DEFAULT_DATA = "posix_shm"
STRATEGIES = ("head-then-get", "single-get", "buffered")  # ways to get a file from an HTTP origin


class DirectBackend:
    """Serves files by itself with sendfile(2): the floor that every other figure is read against."""

    def __init__(self, catalogue: Catalogue, timeout: float, dialect: Dialect) -> None:
        self._find = catalogue.find
        self._timeout = timeout
        self._ok_header, self._refusal_header = dialect.OK_HEADER, dialect.refusal_header

    def handler(self) -> Handler:
        """The handler of every worker thread: they share it."""
        return self._handle

    def close(self) -> None:
        """There is nothing to remove."""

    def _handle(self, client: int, path: bytes) -> None:
        try:
            fd = self._find(path)
        except OSError as error:
            console.say(f"{os.fsdecode(path)}: {error}")
            os.write(client, self._refusal_header(getfile.ERROR))
            return
        if fd is None:
            os.write(client, self._refusal_header(getfile.FILE_NOT_FOUND))
            return
        length = os.lseek(fd, 0, os.SEEK_END)
        os.write(client, self._ok_header % length)
        if length:
            send_file(client, fd, 0, length, self._timeout)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness webproxy",
        description="Serve GETFILE clients from the cache at a rendezvous. Either program may start first.",
        epilog="Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 misused, 3 refused by "
        "the transport or this machine.",
    )
    add = parser.add_argument
    add("-p", dest="port", type=console.port, default=25496, help="port; 0 picks one (%(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("-t", dest="threads", type=console.positive, default=4, help="worker threads a process (%(default)s)")
    add("--processes", type=console.positive, default=1, help="worker processes (%(default)s)")
    add("--dialect", choices=DIALECTS, default="getfile", help="dialect of GETFILE that clients speak (%(default)s)")
    add(
        "--congestion",
        default=CONGESTION,
        metavar="NAME",
        help=f"TCP congestion control towards clients; `{SYSTEM}` leaves the machine's default (%(default)s)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--direct", default=None, metavar="SOURCE", help="no cache: serve SOURCE from here with sendfile(2)"
    )
    add("--cold", action="store_true", help=f"with --direct: {COLD}")
    source.add_argument(
        "-s", "--server", default=None, metavar="URL", help="no cache: serve from this HTTP origin, /path from URL/path"
    )
    add(
        "--strategy",
        choices=STRATEGIES,
        default="single-get",
        help="with -s: ask for the length first, pass on what one GET brings, or collect it first (%(default)s)",
    )
    add("--reuse", action=argparse.BooleanOptionalAction, default=True, help="with -s: keep connections to the origin")
    add(
        "--memory",
        type=console.size,
        default=1 << 20,
        metavar="BYTES",
        help="with -s: bytes of a collected body that are kept in memory; the rest is kept in a file (1MiB)",
    )
    add(
        "--largest",
        type=console.size,
        default=4 << 30,
        metavar="BYTES",
        help="with -s: the largest body that is collected (4GiB); a larger one is answered with ERROR",
    )
    add(
        "--spool",
        default="/var/tmp",  # noqa: S108  not /tmp: that may be memory
        metavar="DIR",
        help="with -s: directory of that file, which has no name (%(default)s)",
    )
    add_lanes(parser)
    console.add_common(parser)
    return parser


def add_lanes(parser: argparse.ArgumentParser) -> None:
    """The options of every program that has lanes to a cache."""
    add = parser.add_argument
    add(
        "-n",
        dest="lanes",
        type=console.positive,
        default=None,
        help="lanes, dealt out to the processes (default: one for each worker)",
    )
    add(
        "-z",
        dest="chunk",
        type=console.size,
        default=None,
        metavar="CHUNK_BYTES",
        help="bytes that a lane moves at a time, such as 65536 or 64KiB (default: the transport's); a client must take "
        "so many within --timeout",
    )
    add("--data", default=DEFAULT_DATA, metavar="NAME[:opt=val,...]", help="data transport (%(default)s)")
    add(
        "--command",
        default=None,
        metavar="NAME[:opt=val,...]",
        help="command transport that the cache must have (default: any)",
    )
    add(
        "--wait",
        type=console.seconds_or_0,
        default=30.0,
        metavar="SECONDS",
        help="seconds to wait for a cache at the start (%(default)g); with 0 a proxy starts without one",
    )


def main(argv: Sequence[str]) -> int:
    """`harness webproxy`: run until a signal asks to end. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if args.cold and args.direct is None:
        parser.error("--cold goes with --direct: files of a cache are dropped by `simplecached --cold`")
    return console.main("webproxy", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    dialect = DIALECTS[args.dialect]
    noting = stages.begin()
    with ExitStack() as undo:
        listener = undo.enter_context(listen(args.host, args.port, args.timeout, args.congestion))
        backend, what = _choose_backend(args, undo, dialect)
        host, port = listener.getsockname()[:2]
        if noting is not None:
            listener, backend = noting.server(listener, backend)
        supervisor.run(
            args.processes,
            lambda process: Server(listener, args.threads, backend(process), args.timeout, dialect),
            lambda: console.greet(args.json, f"listening on {host}:{port}, serving {what}", host=host, port=port),
            until_eof=args.until_eof,
        )


def _choose_backend(
    args: argparse.Namespace, undo: ExitStack, dialect: Dialect
) -> tuple[Callable[[int], Backend], str]:
    """(process number -> the backend of that process, what they serve for the greeting)."""
    if args.direct is not None:
        catalogue = open_source(args.direct, args.cold)
        return lambda _: DirectBackend(catalogue, args.timeout, dialect), f"{args.direct} by sendfile"
    if args.server is not None:
        from harness.pipeline import from_http, http_session  # noqa: PLC0415  libcurl costs a sixth of the start

        origin = http_session.parse_url(args.server, args.timeout, args.reuse)
        bounds = from_http.Bounds(args.memory, args.largest, args.spool)
        return (
            lambda _: from_http.HttpBackend(origin, args.strategy, bounds, args.timeout, dialect),
            f"{origin.url} by {args.strategy}",
        )
    lanes = args.lanes or args.processes * args.threads
    if lanes < args.processes:
        raise ValueError(f"-n {lanes}: each of the {args.processes} processes needs a lane of its own")
    data = registry.data_transport(args.data, chunk=args.chunk)
    command = registry.command_transport(args.command) if args.command else None
    home = open_proxy_home(undo, args.name)
    if args.wait:
        wait_for_cache(args.name, args.wait, command, args.until_eof)

    def from_cache(process: int) -> Backend:
        slots = [f"{process}.{lane}" for lane in range(process, lanes, args.processes)]
        return CacheBackend(home, args.name, data, slots, args.timeout, dialect)

    return from_cache, f"rendezvous {args.name!r} over {lanes} lanes of {registry.describe(data)}"
