"""The client: asks a GETFILE server for files, counts what comes and times it. Also the load of trials."""

import argparse
import json
import os
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import Any

from harness import console
from harness.load import load_processes, loader
from harness.load.histogram import bucket, upper_bound
from harness.load.loader import BYTES, COUNT, END, EXACT, FIRSTS, OUTCOMES, RSS_KIB, SWITCHES, SYSTEM, USER, Tally
from harness.protocol import getfile
from harness.protocol.dialects import DIALECTS, Dialect

PERCENTILES = (50, 90, 99, 99.9, 99.99)
POISSON, FIXED = "poisson", "fixed"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness gfclient",
        description="Ask a GETFILE server for the paths of a workload, round-robin, one connection a request.",
        epilog="Exit codes: 0 every reply was OK and right, 1 some were not, 2 misused. "
        "Latency counts from before the connection is made, with --rate from when that was due, to the last byte.",
    )
    add = parser.add_argument
    add("-s", dest="host", default="127.0.0.1", help="server (%(default)s)")
    add("-p", dest="port", type=console.port, default=25496, help="port (%(default)s)")
    add("-t", dest="threads", type=console.positive, default=4, help="requests under way at a time (%(default)s)")
    add("--processes", type=console.positive, default=None, help="processes to drive them (default: one a CPU)")
    add("--timeout", type=console.seconds, default=30.0, metavar="SECONDS", help="bound on a request (%(default)g)")
    add("--dialect", choices=DIALECTS, default="getfile", help="of GETFILE (%(default)s)")
    add(
        "--verify",
        default=None,
        metavar="DIR",
        help="compare content with the files below DIR (with --discard: in the warm-up only)",
    )
    add(
        "--rate",
        type=console.rate,
        default=None,
        metavar="REQUESTS_PER_S",
        help="ask this often whatever comes back, an open loop; -t bounds how many are under way: others wait",
    )
    add(
        "--arrivals",
        choices=(POISSON, FIXED),
        default=POISSON,
        help="with --rate: at random times, or at equal distances (%(default)s)",
    )
    add("--seed", type=console.count, default=1, help="of the random times (%(default)s)")
    add_common(parser)
    sink = parser.add_mutually_exclusive_group()
    sink.add_argument("-o", dest="output", default=None, metavar="DIR", help="keep the files below DIR")
    sink.add_argument("--discard", action="store_true", help="let the kernel drop content without copying it")
    sink.add_argument("--copy", action="store_true", help="copy content to memory, and compare in the warm-up only")
    sink.add_argument("--checksum", action="store_true", help="compare its CRC-32 with that of the files of --verify")
    return parser


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of every program that asks and counts."""
    add = parser.add_argument
    add("-w", dest="workload", required=True, metavar="WORKLOAD", help="a file with a path a line")
    add(
        "--warmup",
        type=console.seconds,
        default=None,
        metavar="SECONDS",
        help="requests before those that count; all must be OK",
    )
    add(
        "--apart",
        action="store_true",
        help="never ask for a file that is on its way: each that asks has a part of WORKLOAD for itself",
    )
    add("--json", action="store_true", help="print the result as one line of JSON")
    add(
        "--gate",
        action="store_true",
        help="print `warm` after the warm-up, and wait for a line on standard input; print `done` when the requests "
        "have ended, and wait for another; end early where standard input does",
    )
    add("--live", action="store_true", help="with --gate: print `tick` and JSON each second, what came until then")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("-r", dest="requests", type=console.positive, help="requests in all")
    amount.add_argument("--seconds", type=console.seconds, help="ask for this long instead")


def main(argv: Sequence[str]) -> int:
    """`harness gfclient`: ask, then say what came. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if (args.discard or args.copy) and args.verify and not args.warmup:
        parser.error("--verify needs content that --discard and --copy drop, unless there is a --warmup to do it in")
    if args.checksum and not args.verify:
        parser.error("--checksum needs files to compare with: --verify DIR")
    check_common(parser, args)
    return console.main("gfclient", lambda: _run(args), stopped=130)


def check_common(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what add_common's options cannot be."""
    if args.live and not args.gate:
        parser.error("--live goes with --gate")


def read_workload(path: str, dialect: Dialect = getfile) -> list[str]:
    """The request paths of a workload file. Raises ValueError with the line of the first that cannot be one."""
    paths = []
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            request_path = line.strip()
            try:
                dialect.encode_request(request_path)
            except getfile.Malformed as error:
                raise ValueError(f"{path}:{number}: {request_path!r}: {error}; write `/path`") from None
            paths.append(request_path)
    if not paths:
        raise ValueError(f"{path}: no paths in it; write one a line, such as /file")
    return paths


def _run(args: argparse.Namespace) -> int:
    dialect = DIALECTS[args.dialect]
    paths = read_workload(args.workload, dialect)
    check_apart(args, paths, args.threads)
    for directory, wanted in ((args.output, "keep"), (args.verify, "compare")):
        if directory is not None:
            check_below(directory, paths, wanted)
    processes = min(args.processes or os.cpu_count() or 1, args.threads)
    if args.requests is not None:
        processes = min(processes, args.requests)
    target = loader.find_target(args.host, args.port, args.timeout, dialect)
    tallies = loader.tallies(processes, args.requests)
    sums = loader.checksums(args.verify, paths) if args.checksum else {}
    work = partial(_ask, args, target, paths, sums, tallies)
    begun = load_processes.drive(processes, work, args.gate, partial(tick, tallies) if args.live else None)
    return report(summarise(tallies, begun), args.json)


def check_apart(args: argparse.Namespace, paths: list[str], requests: int) -> None:
    """Raises ValueError where --apart has too few files for `requests` at a time."""
    if args.apart and not requests <= len(set(paths)) == len(paths):
        raise ValueError(f"--apart: {args.workload} must name {requests} different files or more, each once")


def check_below(directory: str, paths: list[str], wanted: str) -> None:
    """Raises ValueError where a path is none below `directory`, or names no file there that is to be compared."""
    for path in paths:
        if ".." in path.split("/") or path.endswith("/"):
            raise ValueError(f"{path}: cannot {wanted} this below {directory}")
        if wanted == "compare" and not os.path.isfile(directory + path):
            raise ValueError(f"{directory}{path}: no such file to compare with")


def _ask(
    args: argparse.Namespace,
    target: loader.Target,
    paths: list[str],
    sums: dict[str, int],
    tallies: list[Tally],
    index: int,
    abandoned: Callable[[], bool],
) -> Generator[None]:
    """One process: see load_processes.Work."""
    processes = len(tallies)
    slots = [f"{os.getpid()}-{slot}" for slot in range(index, args.threads, processes)]
    own = [loader.part(len(paths), slot, args.threads) for slot in range(index, args.threads, processes) if args.apart]
    asker = loader.Loader(target, paths, tallies[index], abandoned)
    if args.warmup:
        sinks = [_compare(args, loader.Sink()) for _ in slots]
        asker.run(sinks, loader.share(None, len(paths), index, processes), after(args.warmup), own=own)
        loader.check_warm([tallies[index]])
    sinks = [_sink(args, slot, sums) for slot in slots]
    requests = loader.share(args.requests, len(paths), index, processes)
    with suppress(OSError), open("/proc/self/timerslack_ns", "w") as slack:
        slack.write("1")  # else the kernel wakes it up to 50 us after a request is due, proc(5)
    yield
    asker.run(sinks, requests, after(args.seconds), _dues(args, index, processes), own)


def _dues(args: argparse.Namespace, index: int, processes: int) -> Iterator[int] | None:
    """When this process is to send its requests, from now on; None in a closed loop."""
    if args.rate is None:
        return None
    begun = time.monotonic_ns()
    return (begun + due for due in loader.arrivals(args.rate, args.arrivals == FIXED, args.seed, index, processes))


def after(seconds: float | None) -> int:
    """When so much time will have passed, ns on the clock of time.monotonic_ns(); None: never."""
    return sys.maxsize if seconds is None else time.monotonic_ns() + int(seconds * 1e9)


def _sink(args: argparse.Namespace, slot: str, sums: dict[str, int]) -> loader.Sink:
    if args.discard or args.copy:
        return loader.Discard() if args.discard else loader.Sink()
    if args.checksum:
        return loader.Checksum(sums)
    return _compare(args, loader.Save(args.output, slot) if args.output is not None else loader.Sink())


def _compare(args: argparse.Namespace, behind: loader.Sink) -> loader.Sink:
    return behind if args.verify is None else loader.Compare(args.verify, behind)


def tick(tallies: list[Tally], begun: int) -> None:
    """Print what has come until now; `seconds` is when that was counted."""
    ends, requests, content = ([tally.words[word] for tally in tallies] for word in (END, COUNT, BYTES))
    seconds = (sum(ends) / len(ends) - begun) / 1e9
    told = {"seconds": seconds, "requests": sum(requests), "content_bytes": sum(content)}
    print("tick", json.dumps(told), flush=True)


def summarise(tallies: list[Tally], begun: int) -> dict[str, Any]:
    """What the tallies say together; `begun` is on their clock, ns.

    histogram: pairs of an upper bound in ns and a count, see harness.histogram. Percentiles are of it where there are
    more requests than could be kept one by one.
    """
    words = [tally.words for tally in tallies]
    elapsed = max(max(word[END] for word in words) - begun, 1) / 1e9
    requests = sum(word[COUNT] for word in words)
    exact = sorted(ns for tally in tallies for ns in tally.latencies[: tally.words[EXACT]])
    buckets = Counter(map(bucket, exact))
    for tally in tallies:
        buckets.update({index: count for index, count in enumerate(tally.histogram) if count})
    histogram = [(upper_bound(index), count) for index, count in sorted(buckets.items())]
    firsts = sorted(ns for tally in tallies for ns in tally.firsts[: tally.words[FIRSTS]])
    latencies = exact
    up_to: Sequence[int] = range(1, requests + 1)
    if len(exact) < requests:
        latencies, up_to = [bound for bound, _ in histogram], list(accumulate(count for _, count in histogram))
    return {
        "requests": requests,
        **{outcome: sum(word[kind] for word in words) for kind, outcome in enumerate(OUTCOMES)},
        "seconds": elapsed,
        "requests_per_s": requests / elapsed,
        "content_bytes": sum(word[BYTES] for word in words),
        **{f"latency_p{p:g}_us": percentile(latencies, up_to, p) / 1e3 for p in PERCENTILES},
        "first_byte_p50_us": percentile(firsts, range(1, len(firsts) + 1), 50) / 1e3,
        "latency_max_us": percentile(latencies, up_to, 100) / 1e3,
        "user_s": sum(word[USER] for word in words) / 1e9,
        "kernel_s": sum(word[SYSTEM] for word in words) / 1e9,
        "busy": min(1.0, max(word[USER] + word[SYSTEM] for word in words) / 1e9 / elapsed),
        "switches": sum(word[SWITCHES] for word in words),
        "peak_rss_bytes": sum(word[RSS_KIB] for word in words) * 1024,
        "histogram": histogram,
    }


def percentile(values: Sequence[int], up_to: Sequence[int], percent: float) -> int:
    """The nearest-rank percentile: the smallest value that `percent` of all do not exceed; 0 where there are none.

    up_to: how many are as large as each of the values, which ascend, or smaller.
    """
    return values[bisect_left(up_to, -(-up_to[-1] * round(percent * 100) // 10000))] if values else 0


def report(result: dict[str, Any], as_json: bool) -> int:
    """Print what summarise() returned. Returns the exit code."""
    print(json.dumps(result) if as_json else _describe(result))
    return 0 if result["OK"] == result["requests"] else 1


def _describe(result: dict[str, Any]) -> str:
    spectrum = "  ".join(f"p{p:g} {result[f'latency_p{p:g}_us']:.0f}" for p in PERCENTILES)
    note = ""
    if result["busy"] > 0.9:
        note = f"\nThe client itself was busy {result['busy']:.0%} of the time: it may be what you measure."
    return (
        f"{result['requests']} requests in {result['seconds']:.3f} s: {result['requests_per_s']:.0f} requests/s, "
        f"{result['content_bytes'] / result['seconds'] / 1e6:.1f} MB/s\n"
        f"latency in us: {spectrum}  max {result['latency_max_us']:.0f}\n"
        + "  ".join(f"{outcome} {result[outcome]}" for outcome in OUTCOMES)
        + note
    )
