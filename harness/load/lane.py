"""`harness lane`: requests files from a cache over the two channels alone, as a proxy does, and times each request.

There is no client and no TCP. A worker sends a command, receives the reply over a lane of its own, then sends the next
command. Latency counts from before the command is made to when the content is where `--sink` wants it. A lane whose
end needs a client's socket gets that of a SocketReader (harness/load/socket_reader.py). The worker does not wait until
that process has read the content: latency then counts to when the last byte is in the socket. CPU time and memory of
the result are those of these processes.
"""

import argparse
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial

from harness import console, registry, rendezvous, supervisor
from harness.api import DataTransport
from harness.load.arguments import add_load_arguments, check_load_arguments
from harness.load.arrivals import deadline
from harness.load.load_processes import Order, run_processes
from harness.load.sinks import Checksum, Compare, Copy, Sink, checksums
from harness.load.socket_reader import SocketReader
from harness.load.tally import ERROR, NOT_FOUND, OK, WRONG, Tally, Usage, check_warm_up, shared_tallies
from harness.load.totals import print_result, progress, summarise
from harness.load.workload import check_apart, check_below, part, read_workload, share
from harness.pipeline import transfer
from harness.pipeline.cache_link import CacheLink, NoCache, open_proxy_home, wait_for_cache
from harness.pipeline.exchange import Exchange, Lane, provision_lanes
from harness.pipeline.webproxy import add_lanes
from harness.protocol import wire

SINKS = ("discard", "copy", "checksum")

_WARM_UP, _MEASURED = range(2)  # the phases
_CHECK = 0.25  # seconds between checks whether to stop, and between flushes of the counts
_OUTCOME = {wire.STATUS_NOT_FOUND: NOT_FOUND, wire.STATUS_ERROR: ERROR}


class Worker:
    """Makes the requests of one thread, one after the other, over one lane.

    sinks: what becomes of content in each phase; None: it is taken and given back. reader: has the client's socket
    where the lane's end needs one. stopping: set it to make the request under way the last one.
    """

    def __init__(
        self,
        lane: Lane,
        exchange: Exchange,
        paths: Sequence[str],
        sinks: Sequence[Sink | None],
        reader: SocketReader | None,
    ) -> None:
        self._lane, self._exchange, self._reader = lane, exchange, reader
        self._paths = [(path, os.fsencode(path)) for path in paths]
        self._sinks = sinks
        self._sink: Sink | None = None  # of the phase
        self._content = 0  # of the latest request
        self.stopping = False

    def run(self, phase: int, indices: range, until: int, tally: Tally) -> None:
        """Request the paths of `indices` (into the workload, modulo its length) until these or the time end.

        until: ns on the clock of time.monotonic_ns(). Raises OSError where the process that reads from the socket
        fails.
        """
        clock, ask, reader = time.monotonic_ns, self._ask, self._reader
        end = check = clock()
        tally.begin()
        self._sink = self._sinks[phase]
        if reader is not None:
            reader.begin(phase)
        for index in indices:
            begun = clock()
            if begun >= until or self.stopping:
                break
            outcome = ask(index)
            end = clock()
            tally.add(outcome, self._content, begun, end)
            if end > check:
                check = end + int(_CHECK * 1e9)
                tally.flush(end)
        if reader is not None:
            wrong = reader.end()
            tally.counts[OK] -= wrong
            tally.counts[WRONG] += wrong
        tally.end(end, Usage() if reader is None else reader.usage)

    def _ask(self, index: int) -> int:
        """Make one request, whose id is `index`. Returns its outcome."""
        number = index % len(self._paths)
        path, name = self._paths[number]
        exchange, reader, sink = self._exchange, self._reader, self._sink
        client, header = -1, b""
        self._content = 0
        try:
            relay = exchange.begin(self._lane)
            if reader is not None:
                client = reader.sink
                if header := reader.header(number):
                    reader.await_room()
            status, length = exchange.ask(index, name, client, header)
            right = True
            if isinstance(relay, transfer.CopyingRelay):
                if sink is None or status:
                    relay.spend(None)
                else:
                    sink.open(path)
                    right = relay.spend(sink.write)
                    right = sink.close(complete=True) and right
            elif reader is not None:
                header = header % length if header and not status else b""
                relay.pass_on(reader.sink, header)
                reader.delivered += len(header) + length
            self._content = length
            if status:
                return _OUTCOME[status]
            return OK if right else WRONG
        except transfer.ClientGone as error:
            raise OSError(f"the process that reads from the socket has ended: {error}") from None
        except NoCache as error:
            self.stopping = True  # no cache answers: the next request would fail, too
            wrong = str(error)
        except Exception as error:  # noqa: BLE001  whatever a stranger's transport raises, its lane is retired
            wrong = f"{path}: {type(error).__name__}: {error}"
        console.say(wrong)
        exchange.undo(client)
        if reader is not None and (exchange.given or exchange.sent):
            reader.renew()
        return ERROR


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness lane",
        description="Request the paths of a workload from the cache at a rendezvous, round-robin, over the two "
        "channels alone: no client, no TCP.",
        epilog="Exit codes: 0 every reply was OK and right, 1 some were not, 2 misused. CPU time and memory of the "
        "result are those of the processes that read from sockets, where the lanes need sockets; else 0.",
    )
    add = parser.add_argument
    add("-t", dest="threads", type=console.positive, default=1, help="worker threads a process (%(default)s)")
    add("--processes", type=console.positive, default=1, help="worker processes (%(default)s)")
    add(
        "--sink",
        choices=SINKS,
        default=SINKS[0],
        help="what becomes of content: it is dropped unread, copied to private memory, or its CRC-32 is compared with "
        "that of the files (%(default)s)",
    )
    add(
        "--verify",
        default=None,
        metavar="DIR",
        help="compare content with the files below DIR: all of it in the warm-up",
    )
    add_load_arguments(parser)
    add_lanes(parser)
    console.add_rendezvous(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """`harness lane`: make the load and print its result. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if args.sink == "checksum" and not args.verify:
        parser.error("--sink checksum needs files to compare with: --verify DIR")
    if args.verify and args.sink != "checksum" and not args.warmup:
        parser.error(f"--verify needs content that --sink {args.sink} drops, unless there is a --warmup to do it in")
    check_load_arguments(parser, args)
    return console.main("lane", lambda: _run(args), stopped=130)


def _run(args: argparse.Namespace) -> int:
    workers = args.processes * args.threads
    args.lanes = args.lanes or workers
    if args.lanes < workers:
        raise ValueError(f"-n {args.lanes}: each of the {workers} workers needs a lane of its own")
    data = registry.data_transport(args.data, chunk=args.chunk)
    command = registry.command_transport(args.command) if args.command else None
    paths = read_workload(args.workloads[0])
    if args.apart:
        check_apart(args.workloads[0], paths, workers)
    if args.verify:
        check_below(args.verify, paths, "compare")
    sums = checksums(args.verify, paths) if args.sink == "checksum" else {}
    tallies = shared_tallies(workers, args.requests)
    with ExitStack() as undo:
        home = open_proxy_home(undo, args.name)
        wait_for_cache(args.name, args.wait, command)
        work = partial(_work, args, home, data, paths, sums, tallies)
        gate = "lane" if args.gate else ""
        begun = run_processes(args.processes, work, gate, partial(progress, tallies) if args.live else None)
    return print_result(summarise(tallies, begun), args.json)


def _work(
    args: argparse.Namespace,
    home: rendezvous.Home,
    data: DataTransport,
    paths: list[str],
    sums: dict[str, int],
    tallies: list[Tally],
    process: int,
    stop_requested: Callable[[], bool],
) -> Generator[None, Order]:
    """One process: see load_processes.Work."""
    sys.setswitchinterval(supervisor.SWITCH_INTERVAL)  # as in a proxy, whose threads these stand for
    numbers = range(process, len(tallies), args.processes)  # of its workers, among all
    parts = [part(len(paths), number, len(tallies)) for number in numbers]
    workloads = [paths[own.start : own.stop] if args.apart else paths for own in parts]
    sinks = [_sinks(args, sums) for _ in numbers]
    with ExitStack() as undo:
        readers: list[SocketReader | None] = [None for _ in numbers]
        if (end := registry.shape(data)[1]) != "copy":
            for index, (own_paths, own_sinks) in enumerate(zip(workloads, sinks, strict=True)):
                reader = SocketReader(own_paths, own_sinks, end == "hand-off", args.timeout)  # forks: no threads yet
                readers[index] = reader
                undo.callback(reader.close)
        slots = [f"{process}.{lane}" for lane in range(process, args.lanes, args.processes)]
        lanes = provision_lanes(undo, home, data, slots, args.timeout)  # a worker uses one; any others stay unused
        link = CacheLink(args.name)
        workers = [
            Worker(lane, Exchange(link, args.timeout), own_paths, own_sinks, reader)
            for lane, own_paths, own_sinks, reader in zip(lanes, workloads, sinks, readers, strict=False)
        ]
        threads = _Threads(len(workers))

        def run(phase: int, until: int, requests: int | None) -> None:
            shares = [share(requests, len(paths), number, len(tallies)) for number in numbers]
            tasks = [
                partial(worker.run, phase, indices, until, tallies[number])
                for number, worker, indices in zip(numbers, workers, shares, strict=True)
            ]
            try:
                threads.run(tasks, stop_requested)
            except BaseException:
                for worker in workers:
                    worker.stopping = True  # else it could provision one more lane, which would stay after the end
                raise

        if args.warmup:
            run(_WARM_UP, deadline(args.warmup), None)
            check_warm_up([tallies[number] for number in numbers])
        yield
        run(_MEASURED, deadline(args.seconds), args.requests)
        yield


def _sinks(args: argparse.Namespace, sums: dict[str, int]) -> tuple[Sink | None, Sink | None]:
    """What becomes of content in each phase, for one worker."""
    measured = {"discard": None, "copy": Copy(), "checksum": Checksum(sums)}[args.sink]
    return Compare(args.verify, Sink()) if args.verify else measured, measured


class _Threads:
    """Threads that stay until the process ends, so that a probe can read what they have used until then."""

    def __init__(self, count: int) -> None:
        self._tasks: list[queue.SimpleQueue[Callable[[], None]]] = [queue.SimpleQueue() for _ in range(count)]
        self._ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        for tasks in self._tasks:
            threading.Thread(target=self._work, args=(tasks,), daemon=True).start()

    def run(self, tasks: Sequence[Callable[[], None]], stop_requested: Callable[[], bool]) -> None:
        """Run one task in each thread. Raises what a task raises, and KeyboardInterrupt where a stop is requested."""
        for queued, task in zip(self._tasks, tasks, strict=True):
            queued.put(task)
        left = len(tasks)
        while left:
            try:
                if (error := self._ended.get(timeout=_CHECK)) is not None:
                    raise error
                left -= 1
            except queue.Empty:
                if stop_requested():
                    raise KeyboardInterrupt from None

    def _work(self, tasks: "queue.SimpleQueue[Callable[[], None]]") -> None:
        while True:
            try:
                tasks.get()()
                self._ended.put(None)
            except Exception as error:  # noqa: BLE001  for run() to raise
                self._ended.put(error)
