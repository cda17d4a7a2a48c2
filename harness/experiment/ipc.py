"""`harness ipc`: which mechanism for messages between two processes? A study of lanes, made without a file.

One process asks with a command, over the command channel, and another one replies with a message, over a lane of the
mechanism. Nothing else takes part: no client, no TCP. All mechanisms are alive at once, and take turns: the design of
every study, docs/statistics.md.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence

from harness import console, registry, report, units
from harness.analysis import run_files, show
from harness.api import COMMAND_BYTES
from harness.experiment.language import Mistakes, Source
from harness.experiment.plan import Plan
from harness.experiment.planner import plan_of
from harness.experiment.run import add_measuring_options, run
from harness.factors import FACTORS
from harness.measure.feasible import HELD
from harness.suggest import unknown

_NAME = "ipc"
# Sizes of messages, the finest ladder last. The time decides which.
_LADDERS = (
    ("64", "64KiB", "4MiB"),
    ("64", "4KiB", "64KiB", "1MiB", "4MiB"),
    ("64", "256", "1KiB", "4KiB", "16KiB", "64KiB", "256KiB", "1MiB", "4MiB"),
)
_BLOCKS = 8  # that are to fit into the time
_CELL_S = 0.045  # seconds that a mechanism takes in a block at one size, with three rounds
_COMMAND = "posix_mq"
_BASELINE = "unix"  # what differences are taken to where it is among the mechanisms: what people use unless they choose
_BUDGET = 30.0
_PLACEMENTS = {"one-core": ["same-core"], "across": ["spread"], "both": ["same-core", "spread"]}

# The experiment, a line each, and what is said of it.
_EXPERIMENT = (
    ("question: Which mechanism for messages between two processes, and at which size?", ""),
    ("factors:", ""),
    ("  data: [{data}]", ""),
    ("  files: [{sizes}]", "sizes of the messages"),
    ("  placement: [{placement}]", "same-core: both processes on one; spread: each on one of its own"),
    ("zip:", "each thread that asks has a lane for each command of a batch"),
    ("  - {{lanes: [{lanes}], batch: [{batch}], proxy_threads: [{threads}], cache_threads: [{cache_threads}]}}", ""),
    ("settings:", ""),
    ("  scope: lane", "two processes and the two channels: no client, no TCP"),
    ("  command: {command}", "how the one asks the other for a message"),
    ("  proxy_processes: 1", "the one that asks and receives"),
    ("  cache_processes: 1", "the one that sends"),
    ("  sink: {sink}", "discard: messages stay where the mechanism puts them; copy: to memory of one's own"),
    ("  copies: 1", "files of each size: the messages are alike"),
    ("  warmup: 2ms", "content is compared with the file for so long, before and after the rounds"),
    ("baseline: {{data: {baseline}}}", "what differences are taken to"),
    ("control: true", "the baseline twice: does this machine tell equals apart?"),
    ("budget: {budget:g}s", ""),
)
_COMMENT = 36  # the column where a remark begins, if there is room


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness ipc",
        description="Which mechanism for messages between two processes, at which size, and by how many microseconds? "
        "Measures every installed data transport side by side, and keeps the results as those of every study.",
        epilog="Exit codes: 0 measured, 1 some could not be, 2 misused, 130 interrupted. `harness docs ipc` says what "
        "is measured and what is not.",
    )
    add = parser.add_argument
    add(
        "--sizes",
        metavar="SIZE,...",
        help="of the messages, such as 64,64KiB,4MiB (default: 3 to 9 sizes from 64 B to 4 MiB, as the time allows)",
    )
    add("--only", metavar="NAME,...", help="mechanisms, such as unix,posix_shm,mine (default: all installed)")
    add(
        "--in-flight",
        type=_counts,
        default=[1],
        metavar="N,...",
        help="threads that ask, each for one message at a time (1); with several numbers, each of them",
    )
    add(
        "--batch",
        type=_counts,
        default=[1],
        metavar="N,...",
        help="messages that each thread asks for before it takes the first one (1); as above. Over 1 leaves out "
        "mechanisms that give their client away",
    )
    add(
        "--placement",
        choices=_PLACEMENTS,
        default="both" if len(os.sched_getaffinity(0)) > 1 else "one-core",
        help="where the two processes run (%(default)s)",
    )
    add("--command", default=_COMMAND, metavar="NAME", help="how the one asks the other (%(default)s)")
    add(
        "--sink",
        choices=("discard", "copy"),
        default="discard",
        help="what the receiver does with a message: leaves it where the mechanism puts it, or copies it to memory of "
        "its own (%(default)s)",
    )
    add("--baseline", metavar="NAME", help=f"what differences are taken to ({_BASELINE}, or the first mechanism)")
    add("--budget", type=console.seconds, default=_BUDGET, metavar="TIME", help="time for all of it (%(default)gs)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--yaml", action="store_true", help="print the experiment, for one of your own; run nothing")
    shown.add_argument("--json", action="store_true", help="print one JSON object, as of `harness show --json`")
    shown.add_argument("--markdown", action="store_true", help="print Markdown")
    add_measuring_options(parser)
    parser.set_defaults(experiment="")  # for environment.json
    return parser


def main(argv: Sequence[str]) -> int:
    """Compare mechanisms. Returns the exit code."""
    args = arguments().parse_args(argv)
    return console.main(_NAME, lambda: _run(args, list(argv)), stopped=130)


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    text = experiment(args)
    try:
        plan = plan_of(Source(_NAME, text), _NAME)
    except Mistakes as error:  # each begins with a place in a file, and the user wrote options
        raise ValueError(str(error).splitlines()[0].partition(": ")[2]) from None
    if args.yaml:
        print(text, end="")
        return 0
    return run(plan, args, argv, _NAME, lambda directory: _present(directory, plan, args))


def experiment(args: argparse.Namespace) -> str:
    """The experiment file that the options describe. Raises ValueError where one of them is wrong."""
    mechanisms = _mechanisms(args.only, batches=max(args.batch) > 1)
    registry.command_transport(args.command)
    streams = [(threads, batch) for threads in args.in_flight for batch in args.batch]
    for threads, batch in streams:
        try:
            FACTORS["lanes"].kind.parse(threads * batch, "")
        except ValueError as error:
            raise ValueError(f"--in-flight {threads} --batch {batch}: {error}") from None
    rivals = [name for name in mechanisms if not registry.data_transport(name).floor] or mechanisms
    baseline = args.baseline or (_BASELINE if _BASELINE in rivals else rivals[0])
    if baseline not in mechanisms:
        raise ValueError(f"--baseline {unknown('mechanism', baseline, mechanisms)}")
    cells = len(mechanisms) * len(_PLACEMENTS[args.placement]) * len(streams)
    wanted = args.sizes.split(",") if args.sizes else _ladder(args.budget, cells)
    sizes = sorted({units.size(one) for one in wanted})
    values = {
        "data": ", ".join(map(json.dumps, mechanisms)),
        "sizes": ", ".join(units.show_size(size).removesuffix(" B").replace(" ", "") for size in sizes),
        "placement": ", ".join(_PLACEMENTS[args.placement]),
        "command": json.dumps(args.command),
        "lanes": ", ".join(str(threads * batch) for threads, batch in streams),
        "threads": ", ".join(str(threads) for threads, _ in streams),
        # Beyond what a channel holds each command needs a thread, or a batch could wait for its own first reply.
        "cache_threads": ", ".join(str(max(threads, threads * batch - HELD)) for threads, batch in streams),
        "batch": ", ".join(str(batch) for _, batch in streams),
        "sink": args.sink,
        "baseline": json.dumps(baseline),
        "budget": args.budget,
    }
    lines = [(line.format(**values), remark) for line, remark in _EXPERIMENT]
    return "".join(f"{line:{_COMMENT}}  # {remark}\n" if remark else f"{line}\n" for line, remark in lines)


def _counts(text: str) -> list[int]:
    return sorted({console.positive(one) for one in text.split(",")})


def _ladder(budget: float, cells: int) -> tuple[str, ...]:
    """The finest ladder of sizes that leaves time for blocks enough. cells: for each size."""
    most = budget / _BLOCKS / (_CELL_S * cells)
    return next((ladder for ladder in reversed(_LADDERS) if len(ladder) <= most), _LADDERS[0])


def _mechanisms(only: str | None, batches: bool) -> list[str]:
    """Names of data transports. Raises ValueError where there is no such one."""
    installed = registry.installed().data
    if only is None:
        # A lane that gives its client away takes one request at a time.
        return sorted(name for name, kind in installed.items() if not batches or registry.shape(kind)[1] != "hand-off")
    # A comma before `option=value` belongs to the options of a transport.
    names = list(dict.fromkeys(filter(None, map(str.strip, re.split(r",(?![^,:]*=)", only)))))
    for name in names:
        registry.data_transport(name)
    if not names:
        raise ValueError(f"--only {only!r}: name mechanisms, such as unix,posix_shm")
    return names


def _present(directory: str, plan: Plan, args: argparse.Namespace) -> None:
    measured = run_files.load_run(directory)
    page = report.write(directory)
    if args.json:
        show.print_json(*measured)
        return
    from harness.analysis import messages, study  # noqa: PLC0415  numpy and scipy: half of the start of a run

    fixed = {"placement": plan.cells[0].placement, "lanes": plan.cells[0].lanes}
    messages.render(study.analyse(*measured), about(plan), args.markdown, fixed, sockets(plan))
    print(f"\n{page}")


def sockets(plan: Plan) -> set[str]:
    """The mechanisms whose end is a socket, and not memory of the receiver."""
    return {
        name for name in {one.data for one in plan.cells} if registry.shape(registry.data_transport(name))[1] != "copy"
    }


def about(plan: Plan) -> list[str]:
    """What was measured, in sentences."""
    cell = plan.cells[0]
    names = {one.data for one in plan.cells}
    depths = sorted({one.lanes for one in plan.cells})
    flight = "one at a time" if depths == [1] else f"{' or '.join(map(str, depths))} in flight"
    left = "left where the mechanism puts it" if cell.sink == "discard" else "copied to memory of the receiver's own"
    lines = [
        f"Measured: a command of {COMMAND_BYTES} bytes over {cell.command} asks for each message, {flight}. The "
        f"message is that of a file in the page cache, and {left}. See `harness docs ipc`."
    ]
    if sockets(plan):
        lines.append(
            "Marked with a plus, what ends in a socket: a third process reads the message from it, which is not part "
            "of the round trip."
        )
    lines.append(
        "In C the order of mechanisms is the same, and differences of small messages are about half as large: "
        "`harness docs validity`."
    )
    floors = sorted({name for name in names if registry.data_transport(name).floor})
    if floors and len(floors) < len(names):
        lines.append(f"Marked with a star, what the harness itself costs: {', '.join(floors)}.")
    return lines
