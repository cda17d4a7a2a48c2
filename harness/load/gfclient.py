"""`harness gfclient`: requests files from a GETFILE server, counts and times the replies. It is the load of trials."""

import argparse
import itertools
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial

from harness import console
from harness.load import loader, sinks
from harness.load.arguments import add_load_arguments, check_load_arguments
from harness.load.arrivals import arrivals, deadline
from harness.load.load_processes import Order, run_processes, run_slices
from harness.load.slices import (
    FIXED,
    POISSON,
    ClientAsk,
    SliceTally,
    open_windows,
    read_ask,
    slice_tallies,
    summarise_slice,
)
from harness.load.tally import Tally, all_ok, check_all_ok, shared_tallies
from harness.load.totals import print_result, progress, summarise
from harness.load.workload import check_apart, check_below, part, read_workload, share
from harness.protocol.dialects import DIALECTS

_PORT, _CLIENTS = 25496, 4  # where neither the command line nor a slice says


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness gfclient",
        description="Request the paths of a workload from a GETFILE server, round-robin, one connection a request.",
        epilog="Exit codes: 0 every reply was OK and right, 1 some were not, 2 misused. Latency counts to the last "
        "byte: from before the connection is made, or with --rate from when the request was due.",
    )
    add = parser.add_argument
    add("-s", dest="host", default="127.0.0.1", help="server (%(default)s)")
    add("-p", dest="port", type=console.port, default=None, help=f"port ({_PORT})")
    add("-t", dest="clients", type=console.positive, default=None, help=f"requests under way at a time ({_CLIENTS})")
    add("--processes", type=console.positive, default=None, help="processes that make them (default: one a CPU)")
    add("--timeout", type=console.seconds, default=30.0, metavar="SECONDS", help="bound on a request (%(default)g)")
    add("--dialect", choices=DIALECTS, default="getfile", help="dialect of GETFILE to speak (%(default)s)")
    add(
        "--verify",
        default=None,
        metavar="DIR",
        help="compare content with the files below DIR (with --discard or --copy: in the warm-up and for as long after "
        "the load, or in slices that ask for it)",
    )
    add(
        "--rate",
        type=console.rate,
        default=None,
        metavar="REQUESTS_PER_S",
        help="send requests at this rate whatever comes back, an open loop; -t bounds how many are under way: the "
        "others wait",
    )
    add(
        "--arrivals",
        choices=(POISSON, FIXED),
        default=POISSON,
        help="with --rate: at random times, or at equal distances (%(default)s)",
    )
    add("--seed", type=console.count, default=1, help="seed of the random times (%(default)s)")
    add_load_arguments(parser)
    sink = parser.add_mutually_exclusive_group()
    sink.add_argument("-o", dest="output", default=None, metavar="DIR", help="keep the files below DIR")
    sink.add_argument("--discard", action="store_true", help="have the kernel drop content without copying it")
    sink.add_argument("--copy", action="store_true", help="copy content to memory")
    sink.add_argument("--checksum", action="store_true", help="compare its CRC-32 with that of the files of --verify")
    return parser


def main(argv: Sequence[str]) -> int:
    """`harness gfclient`: make the load and print its result. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if (args.discard or args.copy) and args.verify and not (args.warmup or args.slices):
        parser.error("--verify needs content that --discard and --copy drop, unless there is a --warmup to do it in")
    if args.checksum and not args.verify:
        parser.error("--checksum needs files to compare with: --verify DIR")
    check_load_arguments(parser, args, **{"-p": args.port, "-t": args.clients, "--rate": args.rate})
    args.clients = args.clients or _CLIENTS
    return console.main("gfclient", lambda: _run(args), stopped=130)


def _run(args: argparse.Namespace) -> int:
    dialect = DIALECTS[args.dialect]
    workloads = [read_workload(file, dialect) for file in args.workloads]
    for paths in workloads:
        for directory, wanted in ((args.output, "keep"), (args.verify, "compare")):
            if directory is not None:
                check_below(directory, paths, wanted)
    sums = sinks.checksums(args.verify, itertools.chain(*workloads)) if args.checksum else {}
    processes = args.processes or os.cpu_count() or 1
    if args.slices:
        return _run_slices(args, workloads, sums, processes)
    (paths,) = workloads
    if args.apart:
        check_apart(args.workloads[0], paths, args.clients)
    processes = min(processes, args.clients)
    if args.requests is not None:
        processes = min(processes, args.requests)
    target = loader.find_target(args.host, _PORT if args.port is None else args.port, args.timeout, dialect)
    tallies = shared_tallies(processes, args.requests)
    work = partial(_work, args, target, paths, sums, tallies)
    gate = "gfclient" if args.gate else ""
    live = partial(progress, tallies) if args.live else None
    compares = args.warmup and args.verify and (args.discard or args.copy)
    begun = run_processes(processes, work, gate, live, lambda: bool(compares) and all_ok(tallies))
    asked = args.seconds or args.requests / args.rate if args.rate else None
    return print_result(summarise(tallies, begun), args.json, asked)


def _work(
    args: argparse.Namespace,
    target: loader.Target,
    paths: list[str],
    sums: dict[str, int],
    tallies: list[Tally],
    index: int,
    stop_requested: Callable[[], bool],
) -> Generator[None, Order]:
    """One process: see load_processes.Work."""
    processes = len(tallies)
    clients = range(index, args.clients, processes)  # of this process, among all
    parts = [part(len(paths), client, args.clients) for client in clients if args.apart]

    def compare(one: loader.Loader, tally: Tally, when: str) -> None:
        """Load with all clients, as when it counts, and compare what comes with the files of --verify."""
        compared = [_compared(args, sinks.Sink()) for _ in clients]
        one.run(compared, share(None, len(paths), index, processes), deadline(args.warmup), parts=parts)
        check_all_ok([tally], when)

    one = loader.Loader(target, paths, tallies[index], stop_requested)
    if args.warmup:
        compare(one, tallies[index], "warm-up")
    measured = [_sink(args, f"{os.getpid()}-{client}", sums) for client in clients]
    requests = share(args.requests, len(paths), index, processes)
    _be_punctual()
    yield
    until = deadline(args.seconds)
    due_times = _due_times(time.monotonic_ns(), args.rate, args.arrivals, args.seed, index, processes)
    one.run(measured, requests, until, due_times, parts)
    yield
    (uncounted,) = shared_tallies(1, 1)
    compare(loader.Loader(target, paths, uncounted, stop_requested), uncounted, "after the load")
    yield


def _run_slices(args: argparse.Namespace, workloads: list[list[str]], sums: dict[str, int], processes: int) -> int:
    tallies = slice_tallies(processes)

    def read(line: bytes) -> Order:
        open_windows(tallies)
        return vars(read_ask(ClientAsk, line, len(workloads), can_verify=args.verify is not None))

    work = partial(_work_in_slices, args, workloads, sums, tallies)
    run_slices(processes, work, "gfclient", read, lambda order: summarise_slice(tallies, ClientAsk(**order)))
    return 0


def _work_in_slices(
    args: argparse.Namespace,
    workloads: list[list[str]],
    sums: dict[str, int],
    tallies: list[SliceTally],
    index: int,
    stop_requested: Callable[[], bool],
) -> Generator[None, Order]:
    """One process of a load in slices: see load_processes.Work.

    A slice goes on in its workload where the last one over it ended.
    """
    tally = tallies[index]
    following = [share(None, len(paths), index, len(tallies)).start for paths in workloads]

    @cache
    def loader_of(port: int, workload: int) -> loader.Loader:
        target = loader.find_target(args.host, port, args.timeout, DIALECTS[args.dialect])
        return loader.Loader(target, workloads[workload], tally, stop_requested)

    @cache
    def sink_of(client: int, verify: bool) -> sinks.Sink:
        return _compared(args, sinks.Sink()) if verify else _sink(args, f"{os.getpid()}-{client}", sums)

    _be_punctual()
    while True:
        ask = ClientAsk(**(yield))
        tally.await_window(ask)
        if index >= ask.clients:
            tally.take_no_part()
            continue
        own = [sink_of(client, ask.verify) for client in range(index, ask.clients, len(tallies))]
        due_times = _due_times(ask.start_ns, ask.rate, ask.arrivals, ask.seed, index, min(ask.clients, len(tallies)))
        give_up = ask.closes + int(args.timeout * 1e9)
        loader_of(ask.port, ask.workload).run(own, tally.requests(following[ask.workload]), give_up, due_times)
        following[ask.workload] += sum(tally.counts)


def _be_punctual() -> None:
    """Have the kernel wake this process when a request is due, and not up to 50 us later, proc(5)."""
    with suppress(OSError), open("/proc/self/timerslack_ns", "w") as slack:
        slack.write("1")


def _due_times(
    begun: int, rate: float | None, times: str, seed: int, index: int, processes: int
) -> Iterator[int] | None:
    """When the requests of process `index` are due in a load that began at `begun`, ns; None in a closed loop."""
    return (begun + due for due in arrivals(rate, times == FIXED, seed, index, processes)) if rate else None


def _sink(args: argparse.Namespace, suffix: str, sums: dict[str, int]) -> sinks.Sink:
    """What becomes of the content of the requests that count."""
    if args.discard or args.copy:
        return sinks.Discard() if args.discard else sinks.Sink()
    if args.checksum:
        return sinks.Checksum(sums)
    return _compared(args, sinks.Save(args.output, suffix) if args.output is not None else sinks.Sink())


def _compared(args: argparse.Namespace, behind: sinks.Sink) -> sinks.Sink:
    """The sink, behind one that compares content with files where there is --verify."""
    return behind if args.verify is None else sinks.Compare(args.verify, behind)
