"""The web proxy: a GETFILE server whose replies come from the cache, or from its own files (the floor)."""

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from harness import registry
from harness.api import send_file
from harness.protocol import getfile
from harness.roles import program
from harness.roles.catalogue import COLD, Cold, Directory, Locals, open_source
from harness.roles.gfserver import CONGESTION, SYSTEM, Backend, Handler, Server, listen, write_refusal
from harness.roles.lanes import CacheBackend, wait_for_cache

DEFAULT_DATA = "posix_shm"


class DirectBackend:
    """Serves files by itself with sendfile(2): what every other figure is read against."""

    def __init__(self, catalogue: Directory | Locals | Cold, timeout: float) -> None:
        self._find = catalogue.find
        self._timeout = timeout

    def handler(self) -> Handler:
        """The handler of any worker thread: there is nothing to own."""
        return self._handle

    def close(self) -> None:
        """There is nothing to remove."""

    def _handle(self, client: int, path: bytes) -> None:
        try:
            fd = self._find(path)
        except OSError as error:
            program.say(f"{os.fsdecode(path)}: {error}")
            write_refusal(client, getfile.ERROR)
            return
        if fd is None:
            write_refusal(client, getfile.FILE_NOT_FOUND)
            return
        length = os.fstat(fd).st_size
        os.write(client, getfile.ok_header(length))
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
    add("-p", dest="port", type=program.port, default=25496, help="port; 0 picks one (%(default)s)")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("-t", dest="threads", type=program.positive, default=4, help="worker threads a process (%(default)s)")
    add("--processes", type=program.positive, default=1, help="worker processes (%(default)s)")
    add("--congestion", default=CONGESTION, metavar="NAME",
        help=f"TCP congestion control towards clients; `{SYSTEM}` leaves the machine's default (%(default)s)")
    add("--direct", default=None, metavar="SOURCE", help="no cache: serve SOURCE from here with sendfile(2)")
    add("--cold", action="store_true", help=f"with --direct: {COLD}")
    add_lanes(parser)
    program.add_common(parser)
    return parser


def add_lanes(parser: argparse.ArgumentParser) -> None:
    """The options of every program that has lanes to a cache."""
    add = parser.add_argument
    add("-n", dest="lanes", type=program.positive, default=None,
        help="lanes, dealt out to the processes (default: one for each worker)")
    add("-z", dest="chunk", type=program.size, default=None, metavar="CHUNK_BYTES",
        help="bytes that a lane moves at a time, such as 65536 or 64KiB (default: the transport's)")
    add("--data", default=DEFAULT_DATA, metavar="NAME[:opt=val,...]", help="data transport (%(default)s)")
    add("--command", default=None, metavar="NAME[:opt=val,...]",
        help="command transport that the cache must have (default: whichever it has)")
    add("--wait", type=program.seconds, default=30.0, metavar="SECONDS",
        help="how long to wait for a cache at the start (%(default)g)")


def main(argv: Sequence[str]) -> int:
    """`harness webproxy`: run until a signal asks to end. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if args.cold and args.direct is None:
        parser.error("--cold goes with --direct: files of a cache are dropped by `simplecached --cold`")
    return program.main("webproxy", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    lanes = args.lanes or args.processes * args.threads
    if lanes < args.processes:
        raise ValueError(f"-n {lanes}: each of the {args.processes} processes needs a lane of its own")
    data = registry.data_transport(args.data, chunk=args.chunk)
    command = registry.command_transport(args.command) if args.command else None
    with ExitStack() as undo:
        listener = undo.enter_context(listen(args.host, args.port, args.timeout, args.congestion))
        backend: Callable[[int], Backend]
        if args.direct is not None:
            catalogue = open_source(args.direct, args.cold)
            what = f"{args.direct} by sendfile"

            def backend(_: int) -> Backend:
                return DirectBackend(catalogue, args.timeout)
        else:
            home = program.open_home(undo, args.name, f"proxy-{os.getpid()}-{os.urandom(3).hex()}")
            wait_for_cache(args.name, args.wait, command)
            what = f"rendezvous {args.name!r} over {lanes} lanes of {registry.describe(data)}"

            def backend(process: int) -> Backend:
                slots = [f"{process}.{lane}" for lane in range(process, lanes, args.processes)]
                return CacheBackend(home, args.name, data, slots, args.timeout)

        host, port = listener.getsockname()[:2]
        program.run(
            args.processes,
            lambda process: Server(listener, args.threads, backend(process), args.timeout),
            lambda: print(f"webproxy: listening on {host}:{port}, serving {what}", flush=True),
            until_eof=args.until_eof,
        )
