"""The course's programs, `webproxy`, `simplecached` and `gfclient_download`: the course's options, our programs.

These take everything that the course's programs take, also ` 8` for a number and the flags that its graders pass. All
other options are passed to `harness webproxy` and `harness simplecached`. The defaults are those of the course's code;
its help texts do not always show them.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from harness import console
from harness.load import loader, sinks, tally, workload
from harness.protocol import gios

_PORT = 25496
_ROW = 1 << 20  # bytes: as many small segments follow each other without a wait
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_REQUEST = 30.0  # seconds that a request of the client may take
_NEVER = sys.maxsize


def webproxy(argv: Sequence[str] | None = None) -> int:
    """The command `webproxy`. Returns the exit code."""
    parser = _Parser(
        prog="webproxy",
        description="Serve GETFILE clients from the cache, which may start later; with -s alone from an HTTP server.",
        epilog="Further options: `harness webproxy --help`.",
    )
    add = parser.add_argument
    add("-n", "--segment-count", type=_from_to(1, 1000), metavar="COUNT", help="segments to the cache (13)")
    add("-p", "--listen-port", "--port", type=_from_to(0, 65535), default=_PORT, metavar="PORT", help="(%(default)s)")
    add("-t", "--thread-count", type=_from_to(1, 420), default=33, metavar="COUNT", help="workers (%(default)s)")
    add(
        "-s",
        "--server",
        metavar="URL",
        help="serve from this HTTP server; ignored with -n or -z, which say that there is a cache",
    )
    add("-z", "--segment-size", type=_from_to(822, 64 << 20), metavar="BYTES", help="bytes of a segment (5313)")
    parser.add_ignored("-i", "--hidden", "-q", "-x", "-l")
    args, more = parser.parse_known_args(argv)
    options = ["--dialect", "gios", "--wait", "0", "-p", str(args.listen_port), "-t", str(args.thread_count)]
    if args.server is None or args.segment_count or args.segment_size:
        # A worker uses one segment at a time: segments beyond one for each worker would never be used.
        segments = min(args.segment_count or 13, args.thread_count)
        # Several small segments in a row, up to a MiB in all, are four times as fast as one that both sides wait for.
        size = args.segment_size or 5313
        depth = max(1, min(8, _ROW // size))
        if segments * depth * size > _free_memory():
            parser.error(
                f"{segments} segments of {size} bytes do not fit into the free memory: use fewer or smaller ones"
            )
        options += ["-n", str(segments), "-z", str(size), "--data", f"posix_shm:depth={depth}"]
        if args.server is not None:
            print("webproxy: -n or -z means that files come from a cache: -s is ignored", file=sys.stderr)
    else:
        options += ["-s", args.server]
    from harness.pipeline import webproxy as ours  # noqa: PLC0415  the client needs none of it

    return ours.main([*options, *more])


def simplecached(argv: Sequence[str] | None = None) -> int:
    """The command `simplecached`. Returns the exit code."""
    parser = _Parser(
        prog="simplecached",
        description="Serve files to web proxies, which may start earlier.",
        epilog="Further options: `harness simplecached --help`.",
    )
    add = parser.add_argument
    add(
        "-c",
        "--cachedir",
        default="locals.txt",
        metavar="SOURCE",
        help="a directory, or a file of lines `/key path` (%(default)s)",
    )
    add("-t", "--nthreads", type=_from_to(1, 420), default=8, metavar="COUNT", help="workers (%(default)s)")
    add(
        "-d",
        "--delay",
        type=_from_to(0, 2_500_000),
        default=0,
        metavar="MICROSECONDS",
        help="wait so long before each lookup",
    )
    parser.add_ignored("-i", "--hidden", "-l", "-x")
    args, more = parser.parse_known_args(argv)
    from harness.pipeline import simplecached as ours  # noqa: PLC0415

    return ours.main(["-c", args.cachedir, "-t", str(args.nthreads), "-d", str(args.delay), *more])


def gfclient_download(argv: Sequence[str] | None = None) -> int:
    """The command `gfclient_download`. Returns the exit code: 0 if every request was answered, whatever the status."""
    parser = _Parser(
        prog="gfclient_download",
        description="Download the files of a workload, each to its path below the working directory, and print the "
        "outcome of each.",
    )
    add = parser.add_argument
    add("-s", "--server", default="127.0.0.1", help="(%(default)s)")
    add("-p", "--port", type=_from_to(1, 65535), default=_PORT, help="(%(default)s)")
    add(
        "-w",
        "--workload-path",
        "--workload",
        default="workload.txt",
        metavar="FILE",
        help="a path a line (%(default)s)",
    )
    add(
        "-t",
        "--nthreads",
        type=_from_to(1, 4096),
        default=8,
        metavar="COUNT",
        help="requests under way at a time (%(default)s)",
    )
    add(
        "-r",
        "-n",
        "--nrequests",
        type=_from_to(1, 10_000_000),
        metavar="COUNT",
        help="downloads in all, round-robin (each path once)",
    )
    args = parser.parse_args(argv)
    return console.main("gfclient_download", partial(_download, args), stopped=130)


def _download(args: argparse.Namespace) -> int:
    paths = workload.read_workload(args.workload_path, gios)
    workload.check_below(".", paths, "keep")
    target = loader.find_target(args.server, args.port, _REQUEST, gios)
    requests = args.nrequests or len(paths)
    saves = [sinks.Save(".", f"{os.getpid()}-{client}") for client in range(min(args.nthreads, requests))]
    (counted,) = tally.shared_tallies(1, requests)
    # Signals are blocked and polled for: one could come between the creation of a file and its entry for removal.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    stop: Callable[[], bool] = lambda: bool(signal.sigpending() & _STOP)  # noqa: E731
    loader.Loader(target, paths, counted, stop, _Reporting).run(saves, range(requests), _NEVER)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return 1 if any(counted.counts[outcome] for outcome in (tally.SHORT, tally.WRONG, tally.FAILED)) else 0


class _Reporting(loader.Client):
    """Prints the outcome of each request, in the words of the course's client."""

    def start(self, path: str, request: bytes, due: int, now: int) -> int:
        if (fd := super().start(path, request, due, now)) < 0:
            self._report()
        return fd

    def finish(self) -> bool:
        super().finish()
        self._report()
        return True

    def _report(self) -> None:
        print(
            f"Requesting {self._target.address[0]}{self._path}\nStatus: {tally.OUTCOMES[self.outcome]}\n"
            f"Received {self.content} of {max(0, self._length)} bytes",
            flush=True,
        )


def _free_memory() -> int:
    """Bytes that shared memory can take. It is all filled at the start: if it were too much, other programs would be
    killed."""
    with open("/proc/meminfo") as info:
        available = next(int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable:"))
    room = os.statvfs("/dev/shm")  # noqa: S108  where shm_open(3) makes it
    return min(available, room.f_bavail * room.f_frsize)


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def add_ignored(self, *names: str) -> None:
        """Accept flags that the course's programs take and ignore."""
        for name in names:
            self.add_argument(name, action="store_true", dest="ignored", help=argparse.SUPPRESS)


def _from_to(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)  # int() ignores blanks: stress scripts pass `-t 8` as one argument
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not from {least} to {most}")
        return value

    return number
