"""`harness experiment check`: what an experiment file would run, without running it."""

import argparse
from collections.abc import Sequence

from harness import console, registry
from harness.experiment.plan import cell_label
from harness.experiment.planner import load_plan
from harness.measure.feasible import refusals


def main(argv: Sequence[str]) -> int:
    """Check a file. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="harness experiment", description="Work on experiment files.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="say what a file would run",
        description="Say what a file would run, and what of it cannot run here, without running it.",
        epilog="Exit codes: 0 right, 1 some cells cannot run here, 2 the file is wrong: each mistake has a line.",
    )
    check.add_argument("experiment", metavar="FILE")
    args = parser.parse_args(argv)
    return console.main("experiment", lambda: _check(args.experiment))


def _check(path: str) -> int:
    plan = load_plan(path)
    print(plan.question or plan.name)
    factors = plan.varying()
    refused = refusals(plan.cells)
    for number, cell in enumerate(plan.cells, 1):
        note = "  (A/A control)" if cell.control else ""
        note += f"  cannot run here: {refused[cell]}" if cell in refused else ""
        print(f"cell {number:3}: {cell_label(cell, factors)}{note}")
    known = registry.installed().probes
    for name in plan.probes:
        if reason := known[name]().unusable():
            print(f"probe {name} cannot work here: {reason}")
    blocks = f"{plan.least} to {plan.repeats}" if plan.within else f"{plan.repeats}"
    amount = "as many blocks as fit" if plan.budget else f"{blocks} blocks: {len(plan.cells) * plan.repeats} trials"
    probing = f" and {len(plan.probing())} for probes" if plan.probes else ""
    print(f"{len(plan.cells)} cells, {amount}{probing}, about {_time(plan.seconds())}")
    print(f"design: {plan.design}, {plan.design_reason}")
    if plan.baseline:
        print("baseline: " + " ".join(f"{name}={level}" for name, level in plan.baseline.items()))
    for claim in plan.claims:
        print(f"claim: {claim.text} ({claim.metric} {claim.expect})")
    return int(bool(refused))


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
