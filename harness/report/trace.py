"""`harness trace`: writes where requests spent their time as a file that Perfetto and Chrome open.

The format is the Trace Event Format of Chrome, "JSON Object Format": phases M (names), X (what a thread does), b and e
(a request and its stages, nested), s and f (an arrow from one thread to another). Times are microseconds since the
go-ahead of a trial. Trials lie side by side, each with its own processes.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness import results
from harness.analysis import naming, run_files
from harness.analysis.stages import STAGES, moments
from harness.factors import FACTORS
from harness.results import Request, Trial

NAME = "trace.json"
Event = dict[str, Any]

_REQUEST = "request"  # the category of all events, and the name of some
_IN_CACHE = {name for name, stage in STAGES.items() if stage.place == "cache"} | {"received"}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness trace",
        description="Write where the requests of a run spent their time, as the probe `stages` noted it, to "
        f"DIR/{NAME}: open it at ui.perfetto.dev, or at chrome://tracing.",
        epilog="Exit codes: 0 written, 2 DIR has no stages.csv (run the experiment with `probes: [stages]`), or no "
        "such cell.",
    )
    parser.add_argument("directory", metavar="DIR", help="a directory that `harness run` wrote")
    parser.add_argument("--cell", type=int, metavar="N", help="of this cell only, by its number in trials.csv")
    parser.add_argument("-o", dest="output", metavar="FILE", help="where to write the trace")
    return parser


def main(argv: Sequence[str]) -> int:
    """Write the trace of a run. Returns the exit code."""
    args = arguments().parse_args(argv)

    def body() -> int:
        path = args.output or f"{args.directory}/{NAME}"
        text = json.dumps(of_run(args.directory, args.cell), separators=(",", ":"))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        print(path)
        return 0

    return run_files.exit_code("trace", body)


def of_run(directory: str, cell: int | None = None) -> dict[str, Any]:
    """The trace of a run, or of one cell of it. Raises OSError, ValueError."""
    if run_files.is_fleet(directory):
        raise ValueError(f"{directory} is the run of a fleet; trace one of its hosts: {directory}/hosts/NAME")
    trials = list(results.read(f"{directory}/{results.TRIALS}"))
    chosen = {one.trial: one for one in trials if one.status == "ok" and cell in {None, one.cell}}
    requests = [one for one in results.read_requests(f"{directory}/{results.STAGES}") if one.trial in chosen]
    if not requests:
        raise ValueError(f"{directory}/{results.STAGES} has no request" + (f" of cell {cell}" if cell else ""))
    varying = [name for name in FACTORS if name != "control" and len({getattr(one, name) for one in trials}) > 1]
    return {"traceEvents": list(events(requests, chosen, varying)), "displayTimeUnit": "ns"}


def events(requests: Iterable[Request], trials: Mapping[int, Trial], varying: Sequence[str]) -> Iterator[Event]:
    """The events of a trace. trials: by number. varying: the factors whose levels name the processes of a trial."""
    named: set[tuple[int, int]] = set()
    for number, request in enumerate(requests, 1):
        trial = trials[request.trial]
        name = naming.label({factor: getattr(trial, factor) for factor in varying}) or trial.experiment
        for role in ("proxy", "cache"):
            pid, thread = getattr(request, f"{role}_pid"), getattr(request, f"{role}_thread")
            for tid, what, text in ((0, "process_name", f"{name}: {role}"), (thread, "thread_name", f"{role} worker")):
                if pid and (pid, tid) not in named:
                    named.add((pid, tid))
                    yield {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": text}}
        yield from _of_request(request, number)
        yield from _of_threads(request, number, trial.batch > 1)


def _of_request(request: Request, number: int) -> Iterator[Event]:
    """A request and, within it, its stages one after the other, wherever they take place: they nest by their id."""
    times = list(moments(request).items())
    where = {"pid": request.proxy_pid, "tid": request.proxy_thread}
    same = {"cat": _REQUEST, "id2": {"local": f"{number:#x}"}, **where}  # local: shown within its process
    # All have one name: Perfetto then puts those that follow each other on one line.
    yield {"ph": "b", "name": _REQUEST, "ts": times[0][1] / 1e3, **same, "args": {"number": request.request}}
    for (_, begin), (stage, end) in pairwise(times):
        yield {"ph": "b", "name": STAGES[stage].ends, "ts": begin / 1e3, **same}
        yield {"ph": "e", "name": STAGES[stage].ends, "ts": end / 1e3, **same}
    yield {"ph": "e", "name": _REQUEST, "ts": times[-1][1] / 1e3, **same}


def _of_threads(request: Request, number: int, in_batches: bool) -> Iterator[Event]:
    """What each of the two threads did, and arrows where one had to wait for the other.

    in_batches: the thread that asks has several requests under way, and what it does is left out: slices of a thread
    must not overlap.
    """
    times = moments(request)
    proxy = {"pid": request.proxy_pid, "tid": request.proxy_thread}
    cache = {"pid": request.cache_pid, "tid": request.cache_thread}
    in_cache = {name: time for name, time in times.items() if name in _IN_CACHE}
    in_proxy = {} if in_batches else {name: time for name, time in times.items() if name not in _IN_CACHE}
    if in_cache and in_proxy:
        for arrow, (begin, end, ends) in enumerate(
            (("sent", "received", (proxy, cache)), ("published", "taken", (cache, proxy)))
        ):
            if begin not in times or end not in times:  # it failed before
                continue
            same = {"cat": _REQUEST, "name": STAGES[end].ends, "id": 2 * number + arrow}
            yield {"ph": "s", "ts": times[begin] / 1e3, **same, **ends[0]}
            yield {"ph": "f", "bp": "e", "ts": times[end] / 1e3, **same, **ends[1]}
    if in_cache:
        in_cache["answered"] = request.answered_ns
    for where, own in ((proxy, in_proxy), (cache, in_cache)):
        reached = list(own.items())
        if reached:
            yield _slice(f"request {request.request}", reached[0][1], reached[-1][1], where)
        for (_, begins), (name, time) in pairwise(reached):
            yield _slice(STAGES[name].ends if name in STAGES else name, begins, time, where)


def _slice(name: str, begin: int, end: int, where: Mapping[str, int]) -> Event:
    return {"ph": "X", "cat": _REQUEST, "name": name, "ts": begin / 1e3, "dur": (end - begin) / 1e3, **where}
