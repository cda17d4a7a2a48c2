"""The two channels alone: asks a cache for files as a proxy does, takes the content itself, and times each request.

No client, no TCP. A worker sends a command, receives the reply over a lane of its own, and sends the next command.
Latency counts from before the command is made to when the content is where `--sink` wants it. A lane whose end needs
a client's socket gets the one of a drain (harness/load/socket_reader.py), whose reading is not waited for: latency then
counts to when the last byte is in the socket. The CPU time and the memory of the result are those of the drains.
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
from harness.load import gfclient, load_processes, loader
from harness.load.socket_reader import Drain
from harness.pipeline import transfer
from harness.pipeline.cache_link import CacheLink, NoCache, open_proxy_home, wait_for_cache
from harness.pipeline.exchange import Exchange, Lane, provision_lanes
from harness.pipeline.webproxy import add_lanes
from harness.protocol import wire

SINKS = ("discard", "copy", "checksum")

_WARM, _COUNTS = range(2)  # the phases
_LOOK = 0.25  # seconds between looks whether to stop, and between tellings of what has come
_OUTCOME = {wire.STATUS_NOT_FOUND: loader.NOT_FOUND, wire.STATUS_ERROR: loader.ERROR}
_COPY = 1 << 20


class Copy(loader.Sink):
    """Copies content to memory of its own, one part over the other."""

    def __init__(self) -> None:
        self._memory = memoryview(bytearray(_COPY))

    def write(self, piece: memoryview) -> bool:
        if len(piece) <= _COPY:
            self._memory[: len(piece)] = piece
        else:
            for start in range(0, len(piece), _COPY):
                self.write(piece[start : start + _COPY])
        return True


class Worker:
    """One thread's requests, one after the other, over one lane.

    sinks: what becomes of content, in each phase; None: it is taken and given back. drain: where the lane's end needs
    a client's socket. stopping: set it to have no request follow the one under way.
    """

    def __init__(
        self,
        lane: Lane,
        exchange: Exchange,
        paths: Sequence[str],
        sinks: Sequence[loader.Sink | None],
        drain: Drain | None,
    ) -> None:
        self._lane, self._exchange, self._drain = lane, exchange, drain
        self._paths = [(path, os.fsencode(path)) for path in paths]
        self._sinks = sinks
        self._sink: loader.Sink | None = None  # of the phase
        self._content = 0  # of the latest request
        self.stopping = False

    def run(self, phase: int, indices: range, until: int, tally: loader.Tally) -> None:
        """Ask for the paths of `indices` (modulo their number) until they or the time end, ns of time.monotonic_ns().

        Raises OSError where the drain fails.
        """
        clock, ask, drain = time.monotonic_ns, self._ask, self._drain
        end = check = clock()
        tally.begin()
        self._sink = self._sinks[phase]
        if drain is not None:
            drain.begin(phase)
        for index in indices:
            begun = clock()
            if begun >= until or self.stopping:
                break
            outcome = ask(index)
            end = clock()
            tally.add(outcome, self._content, end - begun)
            if end > check:
                check = end + int(_LOOK * 1e9)
                tally.tell(end)
        if drain is not None:
            wrong = drain.end()
            tally.counts[loader.OK] -= wrong
            tally.counts[loader.WRONG] += wrong
        tally.end(end, (0, 0, 0, 0) if drain is None else drain.used)

    def _ask(self, index: int) -> int:
        """One request, of which `index` is the id, too. Returns its outcome."""
        number = index % len(self._paths)
        path, name = self._paths[number]
        exchange, drain, sink = self._exchange, self._drain, self._sink
        client, header = -1, b""
        self._content = 0
        try:
            relay = exchange.begin(self._lane)
            if drain is not None:
                client = drain.sink
                if header := drain.header(number):
                    drain.await_room()
            status, length = exchange.ask(index, name, client, header)
            right = True
            if isinstance(relay, transfer.CopyingRelay):
                if sink is None or status:
                    relay.spend(None)
                else:
                    sink.open(path)
                    right = relay.spend(sink.write)
                    right = sink.close(complete=True) and right
            elif drain is not None:
                header = header % length if header and not status else b""
                relay.pass_on(drain.sink, header)
                drain.delivered += len(header) + length
            self._content = length
            if status:
                return _OUTCOME[status]
            return loader.OK if right else loader.WRONG
        except transfer.ClientGone as error:
            raise OSError(f"the drain has gone: {error}") from None
        except NoCache as error:
            self.stopping = True  # there is nobody to ask
            wrong = str(error)
        except Exception as error:  # noqa: BLE001  whatever a stranger's transport raises, its lane is retired
            wrong = f"{path}: {type(error).__name__}: {error}"
        console.say(wrong)
        exchange.undo(client)
        if drain is not None and (exchange.given or exchange.sent):
            drain.renew()
        return loader.ERROR


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness lane",
        description="Ask the cache at a rendezvous for the paths of a workload, round-robin, over the two channels "
        "alone: no client, no TCP.",
        epilog="Exit codes: 0 every reply was OK and right, 1 some were not, 2 misused. CPU time and memory of the "
        "result are those of the processes that read from sockets, where lanes need such.",
    )
    add = parser.add_argument
    add("-t", dest="threads", type=console.positive, default=1, help="worker threads a process (%(default)s)")
    add("--processes", type=console.positive, default=1, help="worker processes (%(default)s)")
    add(
        "--sink",
        choices=SINKS,
        default=SINKS[0],
        help="what becomes of content: nobody looks at it, it is copied to private memory, or its CRC-32 is compared "
        "with that of the files (%(default)s)",
    )
    add(
        "--verify",
        default=None,
        metavar="DIR",
        help="compare content with the files below DIR: all of it in the warm-up",
    )
    gfclient.add_common(parser)
    add_lanes(parser)
    console.add_rendezvous(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """`harness lane`: ask, then say what came. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if args.sink == "checksum" and not args.verify:
        parser.error("--sink checksum needs files to compare with: --verify DIR")
    if args.verify and args.sink != "checksum" and not args.warmup:
        parser.error(f"--verify needs content that --sink {args.sink} loses, unless there is a --warmup to do it in")
    gfclient.check_common(parser, args)
    return console.main("lane", lambda: _run(args), stopped=130)


def _run(args: argparse.Namespace) -> int:
    workers = args.processes * args.threads
    args.lanes = args.lanes or workers
    if args.lanes < workers:
        raise ValueError(f"-n {args.lanes}: each of the {workers} workers needs a lane of its own")
    data = registry.data_transport(args.data, chunk=args.chunk)
    command = registry.command_transport(args.command) if args.command else None
    paths = gfclient.read_workload(args.workload)
    gfclient.check_apart(args, paths, workers)
    if args.verify:
        gfclient.check_below(args.verify, paths, "compare")
    sums = loader.checksums(args.verify, paths) if args.sink == "checksum" else {}
    tallies = loader.tallies(workers, args.requests)
    with ExitStack() as undo:
        home = open_proxy_home(undo, args.name)
        wait_for_cache(args.name, args.wait, command)
        work = partial(_ask, args, home, data, paths, sums, tallies)
        begun = load_processes.drive(
            args.processes, work, args.gate, partial(gfclient.tick, tallies) if args.live else None
        )
    return gfclient.report(gfclient.summarise(tallies, begun), args.json)


def _ask(
    args: argparse.Namespace,
    home: rendezvous.Home,
    data: DataTransport,
    paths: list[str],
    sums: dict[str, int],
    tallies: list[loader.Tally],
    process: int,
    abandoned: Callable[[], bool],
) -> Generator[None]:
    """One process: see load_processes.Work."""
    sys.setswitchinterval(supervisor.SWITCH_INTERVAL)  # its threads are those of a proxy without clients
    numbers = range(process, len(tallies), args.processes)  # of its workers, among all
    parts = [loader.part(len(paths), number, len(tallies)) for number in numbers]
    asked = [paths[part.start : part.stop] if args.apart else paths for part in parts]
    sinks = [_sinks(args, sums) for _ in numbers]
    with ExitStack() as undo:
        drains: list[Drain | None] = [None for _ in numbers]
        if (end := registry.shape(data)[1]) != "copy":
            for index, (own, some) in enumerate(zip(asked, sinks, strict=True)):  # forks: before there are threads
                drains[index] = drain = Drain(own, some, end == "hand-off", args.timeout)
                undo.callback(drain.close)
        slots = [f"{process}.{lane}" for lane in range(process, args.lanes, args.processes)]
        lanes = provision_lanes(undo, home, data, slots, args.timeout)  # those beyond one a worker stand by
        link = CacheLink(args.name)
        workers = [
            Worker(lane, Exchange(link, args.timeout), own, some, drain)
            for lane, own, some, drain in zip(lanes, asked, sinks, drains, strict=False)
        ]
        threads = _Threads(len(workers))

        def run(phase: int, until: int, requests: int | None) -> None:
            shares = [loader.share(requests, len(paths), number, len(tallies)) for number in numbers]
            tasks = [
                partial(worker.run, phase, some, until, tallies[number])
                for number, worker, some in zip(numbers, workers, shares, strict=True)
            ]
            try:
                threads.run(tasks, abandoned)
            except BaseException:
                for worker in workers:
                    worker.stopping = True  # lest it provision a lane that nobody would remove
                raise

        if args.warmup:
            run(_WARM, gfclient.after(args.warmup), None)
            loader.check_warm([tallies[number] for number in numbers])
        yield
        run(_COUNTS, gfclient.after(args.seconds), args.requests)
        yield


def _sinks(args: argparse.Namespace, sums: dict[str, int]) -> tuple[loader.Sink | None, loader.Sink | None]:
    """What becomes of content, in each phase."""
    measured = {"discard": None, "copy": Copy(), "checksum": loader.Checksum(sums)}[args.sink]
    return loader.Compare(args.verify, loader.Sink()) if args.verify else measured, measured


class _Threads:
    """Threads that are there until the process ends, so that what they have used can be looked at until then."""

    def __init__(self, count: int) -> None:
        self._tasks: list[queue.SimpleQueue[Callable[[], None]]] = [queue.SimpleQueue() for _ in range(count)]
        self._ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        for tasks in self._tasks:
            threading.Thread(target=self._work, args=(tasks,), daemon=True).start()

    def run(self, tasks: Sequence[Callable[[], None]], abandoned: Callable[[], bool]) -> None:
        """Run a task in each. Raises what one raises, and KeyboardInterrupt where they are to be abandoned."""
        for ours, task in zip(self._tasks, tasks, strict=True):
            ours.put(task)
        left = len(tasks)
        while left:
            try:
                if (error := self._ended.get(timeout=_LOOK)) is not None:
                    raise error
                left -= 1
            except queue.Empty:
                if abandoned():
                    raise KeyboardInterrupt from None

    def _work(self, tasks: "queue.SimpleQueue[Callable[[], None]]") -> None:
        while True:
            try:
                tasks.get()()
                self._ended.put(None)
            except Exception as error:  # noqa: BLE001  for run() to raise
                self._ended.put(error)
