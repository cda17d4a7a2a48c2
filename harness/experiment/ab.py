"""`harness ab`: what another version changes. The cells of an experiment file run with both, in the same live blocks.

A run before a change and one after it differ in more than the change, and `harness compare` cannot take that out. Here
each block has each cell three times: with this version, with this version again, the A/A control, and with the other.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from harness import console
from harness.experiment.plan import Plan
from harness.experiment.run import add_options, check_options, chosen, run
from harness.factors import FACTORS
from harness.measure.versions import ask, unfit

_INTERPRETER = FACTORS["interpreter"].kind


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness ab",
        description="Run the cells of an experiment file with this version of the harness and with another one, side "
        "by side: the ratio of the other to this, for each cell. The client is this version's for both.",
        epilog="Exit codes: as of `harness run`. `harness run --resume DIR` goes on with a run that ended early.",
    )
    add = parser.add_argument
    add("other", metavar="OTHER", help="a checkout, whose .venv/bin/python is taken, or the path of a Python")
    add("experiment", metavar="FILE", help="or the name of a study that comes along, such as `quick`")
    add("--yaml", action="store_true", help="print the experiment file of this study, and run nothing")
    add_options(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Compare two versions. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    check_options(parser, args)
    return console.main("ab", lambda: _run(args, list(argv)), stopped=130)


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    plan = against(chosen(args), interpreter_of(args.other))
    if args.yaml:
        print(plan.text(), end="")
        return 0
    ask(plan.cells)
    if all(reasons := [unfit(cell) for cell in plan.cells if cell.interpreter]):
        raise ValueError(reasons[0])
    return run(plan, args, argv, "ab")


def interpreter_of(other: str) -> str:
    """The interpreter that a directory or path names. Raises ValueError where there is none, or it is this one."""
    path = f"{other}/.venv/bin/python" if os.path.isdir(other) else other
    if path != other and not os.path.exists(path):
        raise ValueError(
            f"{path}: no such file; install that version first: "
            f"python3 -m venv {other}/.venv && {other}/.venv/bin/pip install -e {other}"
        )
    found: str = _INTERPRETER.parse(path, os.getcwd())
    if all(of(found) == of(os.path.abspath(sys.executable)) for of in (os.path.dirname, os.path.realpath)):
        raise ValueError(f"{found} is what runs this: name another version")
    return found


def against(plan: Plan, other: str) -> Plan:
    """The study that compares each cell of a plan with itself, as this interpreter and another one run it."""
    cells = list(dict.fromkeys(replace(cell, control=False) for cell in plan.cells))
    if any(cell.interpreter for cell in cells):
        raise ValueError("the file sets `interpreter` itself: use `harness run`")
    this = _INTERPRETER.parse("", "")
    trios = ((cell, replace(cell, control=True), replace(cell, interpreter=other)) for cell in cells)
    return replace(
        plan,
        name=f"{plan.name}-ab",
        question=f"What does {_INTERPRETER.show(other)} change, against {_INTERPRETER.show(this)}?",
        cells=tuple(cell for trio in trios for cell in trio),
        baseline={"interpreter": this},
        claims=(),
        probes=(),
    )
