"""`harness lane`: requests files from a cache over the two channels alone, as a proxy does, and times each request.

There is no client and no TCP. A worker sends a command, receives the reply over a lane of its own, then sends the next
command; or it sends a batch of commands, and then receives the replies. Latency counts from before the command is made
to when the content is where `--sink` wants it. A lane whose end needs a client's socket gets that of a SocketReader
(harness/load/socket_reader.py). The worker does not wait until that process has read the content: latency then counts
to when the last byte is in the socket. CPU time and memory of the result are those of these processes.
"""

import argparse
import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from functools import partial

from harness import console, registry
from harness.load.arguments import add_load_arguments, check_load_arguments
from harness.load.arrivals import deadline
from harness.load.lane_worker import MEASURED, VERIFIED, Team
from harness.load.load_processes import Order, run_processes, run_slices
from harness.load.sinks import checksums
from harness.load.slices import Ask, SliceTally, open_windows, read_ask, slice_tallies, summarise_slice
from harness.load.tally import Tally, all_ok, check_all_ok, shared_tallies
from harness.load.totals import print_result, progress, summarise
from harness.load.workload import check_apart, check_below, read_workload, share
from harness.pipeline import stages
from harness.pipeline.cache_link import open_proxy_home, wait_for_cache
from harness.pipeline.webproxy import add_lanes

SINKS = ("discard", "copy", "checksum")

# Starts the workers of a process, given its number, a function that returns whether to stop, and what undoes them.
_Start = Callable[[int, Callable[[], bool], ExitStack], Team]


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
        "--batch",
        type=console.positive,
        default=1,
        metavar="N",
        help="commands that a worker sends, each for a lane of its own, before it takes the first reply (%(default)s)",
    )
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
        help="compare content with the files below DIR: all of it in the warm-up and for as long after the load, or in "
        "slices that ask for it",
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
    if args.verify and args.sink != "checksum" and not (args.warmup or args.slices):
        parser.error(f"--verify needs content that --sink {args.sink} drops, unless there is a --warmup to do it in")
    check_load_arguments(parser, args)
    return console.main("lane", lambda: _run(args), stopped=130)


def _run(args: argparse.Namespace) -> int:
    stages.begin()
    workers = args.processes * args.threads
    args.lanes = args.lanes or workers * args.batch
    if args.lanes < workers * args.batch:
        needs = f"{args.batch} lanes" if args.batch > 1 else "a lane"
        raise ValueError(f"-n {args.lanes}: each of the {workers} workers needs {needs} of its own")
    data = registry.data_transport(args.data, chunk=args.chunk)
    if args.batch > 1 and registry.shape(data)[1] == "hand-off":
        raise ValueError(f"--batch {args.batch}: {data.name} gives its client away for one request at a time")
    command = registry.command_transport(args.command) if args.command else None
    workloads = [read_workload(file) for file in args.workloads]
    paths = list(itertools.chain(*workloads))
    if args.apart:
        check_apart(args.workloads[0], paths, workers)
    if args.verify:
        check_below(args.verify, paths, "compare")
    sums = checksums(args.verify, paths) if args.sink == "checksum" else {}
    with ExitStack() as undo:
        home = open_proxy_home(undo, args.name)
        wait_for_cache(args.name, args.wait, command)
        team = partial(Team, args, home, data, paths, sums)
        if args.slices:
            return _run_slices(args, team, list(map(len, workloads)), slice_tallies(workers))
        tallies = shared_tallies(workers, args.requests)
        work = partial(_work, args, team, len(paths), tallies)
        gate = "lane" if args.gate else ""
        live = partial(progress, tallies) if args.live else None
        compares = args.warmup and args.verify and args.sink != "checksum"
        begun = run_processes(args.processes, work, gate, live, lambda: bool(compares) and all_ok(tallies))
    return print_result(summarise(tallies, begun), args.json)


def _work(
    args: argparse.Namespace,
    team: _Start,
    paths: int,
    tallies: list[Tally],
    process: int,
    stop_requested: Callable[[], bool],
) -> Generator[None, Order]:
    """One process: see load_processes.Work."""
    with ExitStack() as undo:
        workers = team(process, stop_requested, undo)
        own = [tallies[number] for number in workers.numbers]

        def shares(requests: int | None) -> list[range]:
            return [share(requests, paths, number, len(tallies)) for number in workers.numbers]

        def compare(tallies: Sequence[Tally], when: str) -> None:
            workers.run(VERIFIED, shares(None), deadline(args.warmup), tallies)
            check_all_ok(tallies, when)

        if args.warmup:
            compare(own, "warm-up")
        yield
        workers.run(MEASURED, shares(args.requests), deadline(args.seconds), own)
        yield
        compare(shared_tallies(len(own), 1), "after the load")
        yield


def _run_slices(
    args: argparse.Namespace,
    team: _Start,
    lengths: list[int],
    tallies: list[SliceTally],
) -> int:
    """lengths: of the workloads, which follow each other in the paths of the team."""

    def read(line: bytes) -> Order:
        open_windows(tallies)
        return vars(read_ask(Ask, line, len(lengths), can_verify=args.verify is not None))

    work = partial(_work_in_slices, args, team, lengths, tallies)
    run_slices(args.processes, work, "lane", read, lambda order: summarise_slice(tallies, Ask(**order)))
    return 0


def _work_in_slices(
    args: argparse.Namespace,
    team: _Start,
    lengths: list[int],
    tallies: list[SliceTally],
    process: int,
    stop_requested: Callable[[], bool],
) -> Generator[None, Order]:
    """One process of a load in slices: see load_processes.Work.

    A slice goes on in its workload where the last one over it ended.
    """
    ends = list(itertools.accumulate(lengths))
    workloads = [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    with ExitStack() as undo:
        workers = team(process, stop_requested, undo)
        own = [tallies[number] for number in workers.numbers]
        following = [
            [share(None, length, number, len(tallies)).start for number in workers.numbers] for length in lengths
        ]
        while True:
            ask = Ask(**(yield))
            first = following[ask.workload]
            for tally in own:
                tally.await_window(ask)
            indices = [tally.requests(index) for tally, index in zip(own, first, strict=True)]
            give_up = ask.closes + int(args.timeout * 1e9)
            workers.run(VERIFIED if ask.verify else MEASURED, indices, give_up, own, workloads[ask.workload])
            first[:] = [index + sum(tally.counts) for tally, index in zip(own, first, strict=True)]
