"""`harness experiment`: what an experiment file would run, which studies come along, and a file to begin with."""

import argparse
import os
import shutil
import textwrap
from collections.abc import Callable, Sequence

from harness import console, registry, shipped
from harness.experiment.plan import cell_label
from harness.experiment.planner import load_plan
from harness.measure.feasible import refusals
from harness.new_transport import study

_FEW = 5  # blocks; with fewer, intervals are several times as wide as with twice as many
_DATA = ["posix_shm", "unix", "sendfile"]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harness experiment", description="Work on experiment files.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="act")
    check = commands.add_parser(
        "check",
        help="say what a file would run",
        description="Say what a file would run, and what of it cannot run here, without running it.",
        epilog="Exit codes: 0 right, 1 some cells cannot run here, 2 the file is wrong: each mistake has a line.",
    )
    check.add_argument("experiment", metavar="FILE", help="or the name of a study that comes along, such as `quick`")
    commands.add_parser(
        "list",
        help="list the studies that come along",
        description="List the studies that come with the package. `harness run NAME` runs one of them.",
    )
    new = commands.add_parser(
        "new",
        help="write a file to begin with",
        description="Write an experiment file with comments, to begin with: NAME.yaml in the working directory.",
    )
    new.add_argument("name", metavar="NAME")
    kind = new.add_mutually_exclusive_group()
    name = "NAME[:opt=val,...]"
    text = f"data transports; the others are compared with the first ({' '.join(_DATA)})"
    kind.add_argument("--data", nargs="+", metavar=name, default=_DATA, help=text)
    kind.add_argument("--command", nargs="+", metavar=name, help="command transports instead")
    return parser


def main(argv: Sequence[str]) -> int:
    """Check a file, list the studies, or write one. Returns the exit code."""
    args = arguments().parse_args(argv)
    return console.main("experiment", lambda: _ACTS[args.act](args))


def _check(args: argparse.Namespace) -> int:
    plan = load_plan(shipped.study(args.experiment))
    print(plan.question or plan.name)
    factors = plan.varying()
    refused = refusals(plan.cells)
    for number, cell in enumerate(plan.cells, 1):
        note = "  (A/A control)" if cell.control else ""
        note += f"  cannot run here: {refused[cell]}" if cell in refused else ""
        print(f"cell {number:3}: {cell_label(cell, factors)}{note}")
    if plan.left_out:
        print(f"left out, as they are not installed: {', '.join(plan.left_out)}")
    known = registry.installed().probes
    for name in plan.probes:
        if reason := known[name]().unusable():
            print(f"probe {name} cannot work here: {reason}")
    blocks = f"{plan.least} to {plan.repeats}" if plan.within else f"{plan.repeats}"
    amount = "as many blocks as fit" if plan.budget else f"{blocks} blocks: {len(plan.cells) * plan.repeats} trials"
    probing = f" and {len(plan.probing())} for probes" if plan.probes else ""
    print(f"{len(plan.cells)} cells, {amount}{probing}, about {_time(plan.seconds())}")
    print(f"design: {plan.design}, {plan.design_reason}")
    if len(plan.cells) > 1 and not plan.budget and plan.repeats < _FEW:
        print(
            f"few blocks: {plan.repeats} decide little, since intervals rest on how blocks differ; `repeats: 8`, or a "
            "`budget`, decides more"
        )
    if plan.baseline:
        print("baseline: " + " ".join(f"{name}={level}" for name, level in plan.baseline.items()))
    for claim in plan.claims:
        print(f"claim: {claim.text} ({claim.metric} {claim.expect})")
    return int(bool(refused))


def _list(_: argparse.Namespace) -> None:
    known = shipped.studies()
    width = max(map(len, known)) + 2
    columns = min(shutil.get_terminal_size().columns, 120)
    for name, path in known.items():
        plan = load_plan(path)
        cells = "1 cell" if len(plan.cells) == 1 else f"{len(plan.cells)} cells"
        text = f"{plan.question} ({cells}, {_time(plan.seconds())})"
        print(textwrap.fill(text, columns, initial_indent=f"{name:{width}}", subsequent_indent=" " * width))
    print(f"\nharness run NAME runs one of them. Their files are in {os.path.dirname(path)}")


def _new(args: argparse.Namespace) -> None:
    kind, names = ("command", args.command) if args.command else ("data", args.data)
    make = registry.command_transport if kind == "command" else registry.data_transport
    for name in names:
        make(name)  # raises ValueError with what may be meant
    if len(names) < 2:
        raise ValueError(f"--{kind} {names[0]}: name what it is to be compared with, too")
    file = args.name if args.name.endswith(".yaml") else f"{args.name}.yaml"
    text = study(file, kind, names)
    with open(file, "x", encoding="utf-8") as new:
        new.write(text)
    print(f"{file}: harness experiment check {file} says what it would run, harness run {file} runs it")


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


_ACTS: dict[str, Callable[[argparse.Namespace], int | None]] = {"check": _check, "list": _list, "new": _new}
