"""`harness run`: runs a plan, keeps each trial as soon as it is measured, and prints what came of it."""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from harness import results, trial
from harness.analysis import summary
from harness.experiment import plan
from harness.roles import program
from harness.spec import Spec


def main(argv: Sequence[str]) -> int:
    """Run an experiment file. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="harness run",
        description="Run an experiment file: fresh processes for every trial, cells interleaved in shuffled blocks.",
        epilog="Exit codes: 0 all trials are good, 1 some failed, 2 the file is wrong, 130 interrupted. "
        "Rows are durable one by one: what a killed run has measured is there.",
    )
    parser.add_argument("experiment", metavar="FILE", help="such as experiments/quick.yaml")
    parser.add_argument("-o", dest="output", metavar="DIR",
                        help="where results go (default: results/<name>-<UTC time>)")  # fmt: skip
    args = parser.parse_args(argv)
    return program.main("run", lambda: _run(args.experiment, args.output), stopped=130)


def _run(file: str, output: str | None) -> int:
    experiment = plan.load(file)
    directory = output or f"results/{experiment.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    path = f"{directory}/{results.TRIALS}"
    if os.path.exists(path):
        raise ValueError(f"{path} is there already: name another directory with -o")
    os.makedirs(directory, exist_ok=True)
    failed = 0
    try:
        with _progress(len(experiment.cells) * experiment.repeats) as told:
            for slot in itertools.chain.from_iterable(experiment.blocks()):
                cell = experiment.cells[slot.cell - 1]
                told.begin(slot.number, cell)
                row = results.Trial(
                    experiment=experiment.name, trial=slot.number, block=slot.block, cell=slot.cell,
                    seed=experiment.seed,
                )  # fmt: skip
                trial.run(cell, row)
                results.append(path, row)
                if row.status != "ok" or row.swept:
                    failed += 1
                    told.trouble(row.reason or f"{row.swept} objects had to be swept", cell)
    except KeyboardInterrupt:
        program.say("interrupted; this is what was measured until then")
        failed = -1
    if os.path.exists(path):
        summary.show(list(results.read(path)))
        print(f"\n{path}")
    return 130 if failed < 0 else min(failed, 1)


class _Progress:
    """Says what runs now, how much is done and how long it will take; draws only between trials."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = time.monotonic()

    def begin(self, number: int, cell: Spec) -> None:
        done = number - 1
        left = (time.monotonic() - self._begun) / done * (self._total - done) if done else 0
        self._show(number, f"{cell.command} x {cell.data} x {cell.files}", left)

    def trouble(self, reason: str, cell: Spec) -> None:
        program.say(f"{cell.command} x {cell.data} x {cell.files}: {reason}")

    def _show(self, number: int, what: str, left: float) -> None:
        if number == 1 or number % 10 == 0 or number == self._total:
            print(f"{number}/{self._total} {what}" + (f", {left:.0f} s left" if left else ""), flush=True)


class _Bar(_Progress):
    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

        super().__init__(total)
        self.bar = Progress(
            TextColumn("{task.description:44}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"), auto_refresh=False,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=total, left="")

    def _show(self, number: int, what: str, left: float) -> None:
        remaining = f"{left:.0f} s left" if left else ""
        self.bar.update(self.task, completed=number - 1, description=what, left=remaining, refresh=True)


@contextmanager
def _progress(total: int) -> Iterator[_Progress]:
    if not sys.stdout.isatty():
        yield _Progress(total)
        return
    told = _Bar(total)
    with told.bar:
        yield told
        told.bar.update(told.task, completed=total, description="done", left="", refresh=True)
