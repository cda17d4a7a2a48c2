"""`harness run`: runs a plan, keeps each trial as soon as it is measured, and prints what came of it."""

import argparse
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import NamedTuple

from harness import console, machine, registry, rendezvous, report, results, shipped
from harness.analysis import run_files, show
from harness.api import Probe
from harness.experiment.live_blocks import LiveBlocks
from harness.experiment.machine_lock import alone
from harness.experiment.plan import Plan, Slot, cell_label, find_cell
from harness.experiment.planner import load_plan
from harness.experiment.progress import Progress, progress
from harness.experiment.run_directory import VERSIONS, RunDirectory
from harness.factors import Spec
from harness.measure import apart
from harness.measure.feasible import refusals
from harness.measure.probing import Seen
from harness.measure.versions import versions

_ATTEMPTS = 2  # a trial that fails is tried once more
_QUIET = 0.25  # share of the CPUs that others may use when a trial begins
# What environment.json has of a budget: a run that is resumed has the rest, and knows what blocks cost.
SPENT, _COSTS = "budget_spent_s", "budget_costs"
DONE = "done"  # in environment.json of a run that is measured in parts: whether nothing is left
_NOTICEABLE = 1.0  # seconds of waiting that are reported
_PATIENCE = 3.0  # seconds that a trial waits for the machine to be as quiet as that, unless --quiet sets another time


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness run",
        description="Run an experiment file: fresh processes for every trial, cells interleaved in shuffled blocks.",
        epilog="Exit codes: 0 all trials are good, 1 some failed or were refused, 2 the file or an argument is wrong, "
        "130 interrupted. Ctrl-C ends after the current trial, a second one at once. Each row is on disk: what a "
        "killed run has measured is there, and --resume goes on from it.",
    )
    add = parser.add_argument
    add(
        "experiment",
        metavar="FILE",
        nargs="?",
        help="or the name of a study that comes along, such as `quick`; not needed with --resume",
    )
    add("--resume", metavar="DIR", help="go on with a run that ended early, where nothing has changed since")
    add_options(parser)
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that runs an experiment file."""
    add = parser.add_argument
    add("--only", metavar="CELL", help="one cell: its number, or its levels, 'data=fifo files=1KiB'")
    add("--repeat", type=console.positive, metavar="N", help="blocks, instead of the file's")
    add("--budget", type=console.seconds, metavar="TIME", help="time for live blocks, such as 60s, instead of repeats")
    add("--scale", type=console.multiplier, metavar="X", help="X times the load in each trial, such as 0.01")
    add_measuring_options(parser)


def add_measuring_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that measures: where results go, and what else may run meanwhile."""
    add = parser.add_argument
    add("-o", dest="output", metavar="DIR", help="where results go (default: results/<name>-<UTC time>)")
    add(
        "--patience",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="how long to wait for another study on this machine to end; 0 refuses at once (%(default)g)",
    )
    add("--beside", action="store_true", help="measure beside another study; each then disturbs the other")
    add(
        "--quiet",
        type=float,
        default=_PATIENCE,
        metavar="SECONDS",
        help="how long each trial waits, at most, for others to leave the CPUs alone; 0 does not wait (%(default)g)",
    )


def main(argv: Sequence[str]) -> int:
    """Run an experiment file. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if not args.resume and not args.experiment:
        parser.error("name an experiment FILE, or --resume DIR")
    if args.resume and (args.output or args.only or args.repeat or args.scale or args.budget):
        parser.error("--resume goes on with a run as it was begun: no -o, --only, --repeat, --scale or --budget")
    check_options(parser, args)
    return console.main("run", lambda: run(None if args.resume else chosen(args), args, list(argv)), stopped=130)


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a message about what add_options() has added, where it does not go together."""
    if args.repeat and args.budget:
        parser.error("--repeat and --budget both say when a run ends: keep one")


def print_run(directory: str) -> None:
    """Print what came of a run, from its directory, and write its report."""
    show.show_run(directory)
    print(f"\n{directory}/{results.TRIALS}\n{report.write(directory)}")


def run(
    plan: Plan | None,
    args: argparse.Namespace,
    argv: list[str],
    command: str = "run",
    present: Callable[[str], None] = print_run,
) -> int:
    """Run a plan, or go on with a run where there is none, and print what came of it. Returns the exit code.

    args: with what add_measuring_options() has added, and `experiment`, the file; empty where there is none. command,
    argv: what the user wrote, for environment.json. present: prints what came of it, from its directory.
    """
    directory, interrupted = measure(plan, args, argv, command)
    rows = directory.rows()
    if rows:
        present(directory.path)
    if interrupted:
        return 130
    last = {row.trial: row for row in rows}
    return int(any(row.status != "ok" or (row.swept and not row.kills) for row in last.values()))


class Part(NamedTuple):
    """What of a run is measured at a time. blocks: how many, at most; 0: all that are left.

    block: the number of the block, where the blocks of a study are dealt to several machines: the numbers of its trials
    follow from it, so that none comes twice. 0: the block that follows.
    """

    blocks: int = 0
    block: int = 0


WHOLE = Part()


def measure(
    plan: Plan | None, args: argparse.Namespace, argv: list[str], command: str, part: Part = WHOLE
) -> tuple[RunDirectory, bool]:
    """Measure a plan, or go on with a run, as run() has it, and print no results. Returns the directory, and whether a
    signal has ended it early.

    A part ends where its blocks are done: `DONE` in environment.json says whether that was all.
    """
    with alone(args.patience, beside=args.beside):
        failed: list[str] = []
        rendezvous.sweep(failed=failed)  # what killed runs left
        for line in failed:
            console.say(f"cannot remove {line}")
        if plan is None:
            directory, plan = _reopen(args)
            refused = refusals(plan.cells)
            directory.check_versions(versions(plan.cells))
        else:
            refused = refusals(plan.cells)
            if all(cell in refused for cell in plan.cells):
                raise ValueError(f"no cell can run here: {next(iter(refused.values()))}")
            where = args.output or f"results/{plan.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            directory = RunDirectory.create(where, plan, args.experiment, argv, command)
            directory.note(VERSIONS, versions(plan.cells))
        if plan.left_out:
            console.say(f"left out, as they are not installed: {', '.join(plan.left_out)}")
        for reason, count in Counter(refused.values()).items():
            console.say(f"{count} of {len(plan.cells)} cells cannot run here: {reason}")
        measuring = _Run(plan, directory, refused, args.quiet, part)
        interrupted = measuring.all()
        if part.blocks:
            directory.note(DONE, not measuring.left and not interrupted)
    directory.write_datapackage()
    return directory, interrupted


def _reopen(args: argparse.Namespace) -> tuple[RunDirectory, Plan]:
    """The run to resume. Raises ValueError where its experiment file, or the one named now, makes another plan."""
    directory, plan = RunDirectory.reopen(args.resume)
    begun = directory.environment()["experiment"]
    if begun.get("program", "run") == "run" and os.path.exists(begun["file"]):
        before = arguments().parse_args(begun["command"])
        before.experiment = begun["file"]
        directory.check_plan(plan, begun["file"], chosen(before))
    if args.experiment:
        directory.check_plan(plan, args.experiment, load_plan(shipped.study(args.experiment)))
    return directory, plan


def chosen(args: argparse.Namespace) -> Plan:
    """The plan of args.experiment, as the options have it."""
    args.experiment = shipped.study(args.experiment)
    plan = load_plan(args.experiment)
    if args.scale:
        plan = plan.scaled(args.scale)
    if args.only:
        plan = plan.only(find_cell(plan, args.only))
    if args.repeat:
        plan = plan.repeated(args.repeat)
    return plan.limited(args.budget) if args.budget else plan


class _Run:
    """The trials of a plan that have no row yet, one after another."""

    def __init__(
        self, plan: Plan, directory: RunDirectory, refused: dict[Spec, str], patience: float, part: Part
    ) -> None:
        self._plan, self._directory, self._refused, self._patience = plan, directory, refused, patience
        self._part = part
        self.left = False  # whether the part has ended before the plan
        self._rows = directory.rows()
        self._attempts = {row.trial: row.attempt if row.status == "failed" else _ATTEMPTS for row in self._rows}
        self._varying = plan.varying()
        self._probes = self._usable_probes()
        self._stop = False
        self._say = console.say

    def all(self) -> bool:
        """Run them. Returns whether a signal ended it early."""
        plan = self._plan
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        try:
            if plan.design == results.LIVE:
                self._live()
                if self.left:
                    return self._stop
                last = max((row.trial for row in self._rows if not row.probe), default=0)
                if probing := self._probing(last + 1):
                    with progress(len(probing)) as shown:
                        self._say = shown.say
                        self._apart(probing, shown)
            else:
                probing = self._probing(plan.repeats * len(plan.cells) + 1)
                with progress(plan.repeats * len(plan.cells) + len(probing)) as shown:
                    self._say = shown.say
                    self._blocks_apart(shown)
                    if not self.left:
                        self._apart(probing, shown)
        except KeyboardInterrupt:
            self._stop = True
        return self._stop

    def _blocks_apart(self, shown: Progress) -> None:
        measured = 0
        for block in self._plan.blocks():
            if self._part.block not in {0, block[0].block}:
                self.left = True
                continue
            lacking = any(self._attempts.get(slot.number, 0) < _ATTEMPTS for slot in block)
            if lacking and self._part.blocks and measured == self._part.blocks:
                self.left = True
                return
            measured += lacking
            self._apart(block, shown)
            if self._stop or self._precise(block[0].block):
                return

    def _probing(self, first: int) -> list[Slot]:
        return [slot for slot in self._plan.probing(first) if slot.probe in self._probes]

    def _live(self) -> None:
        plan = self._plan
        if self._part.block in {row.block for row in self._rows if row.block}:  # its program ended without an answer
            self.left = True
            return
        blocks = LiveBlocks(plan, self._directory, self._rows, self._refused, self._part.block, bool(self._part.blocks))
        budget = None
        if plan.budget:
            from harness.experiment.budget import Budget  # noqa: PLC0415  as in _precise

            noted = self._directory.environment()
            budget = Budget(plan, noted.get(SPENT, 0.0), noted.get(_COSTS, ()))
            if _COSTS in noted:
                budget.learn(self._rows, run_files.slices_of(self._directory.path))
        rounds = measured = 0
        unit = "s" if plan.budget else ""
        with progress(round(plan.budget) or plan.repeats, each=1, unit=unit) as shown:
            self._say = shown.say
            while not self._stop and not self._precise(blocks.done):
                if budget and not (rounds := budget.rounds()):
                    break
                if self._part.blocks and measured == self._part.blocks:
                    self.left = blocks.done < plan.repeats
                    break
                measured += 1
                if blocks.done < plan.repeats:
                    text = f"block {blocks.done + 1} of {len(plan.cells)} cells"
                    at = min(int(budget.passed) + 1, int(plan.budget)) if budget else blocks.done + 1
                    shown.begin(at, f"{text}; {budget.line}" if budget else text)
                outcome = blocks.run_one(self._quiet, self._cheap_probes, shown.within, rounds)
                if outcome is None:
                    break
                if budget:
                    self._directory.note(SPENT, round(budget.passed, 3))
                if budget and outcome.rounds:
                    cells = len({one.trial for one in outcome.slices})
                    budget.block(outcome.rounds, outcome.round_s, outcome.seconds, cells)
                    self._directory.note(_COSTS, budget.costs)
                    budget.learn(self._rows, run_files.slices_of(self._directory.path))

    def _apart(self, slots: Sequence[Slot], shown: Progress) -> None:
        for slot in slots:
            self._trial(slot, shown)

    def _quiet(self) -> float:
        waited = machine.quiet(_QUIET, self._patience)
        if waited >= _NOTICEABLE:
            self._say(f"waited {waited:.1f} s for others to use less than {_QUIET:.0%} of the CPUs")
        return waited

    def _cheap_probes(self) -> list[Probe]:
        return [kind() for kind in self._probes.values() if not kind.costly]

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            signal.default_int_handler(number, frame)
        self._stop = True
        console.say(
            f"ending after this {'block' if self._plan.design == results.LIVE else 'trial'}; once more ends it at once"
        )

    def _usable_probes(self) -> dict[str, type[Probe]]:
        """The probes that the plan asks for. The reason of each that cannot work here is printed and noted."""
        known = registry.installed().probes
        reasons = {name: known[name]().unusable() for name in self._plan.probes}
        for name, reason in reasons.items():
            if reason:
                console.say(f"going on without probe {name}: {reason}")
        self._directory.note("unusable_probes", {name: reason for name, reason in reasons.items() if reason})
        return {name: known[name] for name, reason in reasons.items() if not reason}

    def _precise(self, block: int) -> bool:
        plan = self._plan
        if not plan.within or block < plan.least or self._part.block:  # who deals blocks looks at those of all
            return False
        # Imported here because it loads numpy and scipy: half of the start of a run that needs them at its end only.
        from harness.analysis.study import narrow_enough  # noqa: PLC0415

        slices = run_files.slices_of(self._directory.path)
        return narrow_enough(self._rows, plan.baseline, plan.within * 100, least=plan.least, slices=slices)

    def _trial(self, slot: Slot, shown: Progress) -> None:
        cell = self._plan.cells[slot.cell - 1]
        for attempt in range(self._attempts.get(slot.number, 0) + 1, _ATTEMPTS + 1):
            if self._stop:
                return
            shown.begin(slot.number, what := cell_label(cell, self._varying))
            row = results.Trial(
                experiment=self._plan.name,
                trial=slot.number,
                block=slot.block,
                cell=slot.cell,
                seed=self._plan.seed,
                attempt=attempt,
                probe=slot.probe,
            )
            if cell in self._refused:
                apart.refuse(cell, row, self._refused[cell])
            else:
                row.quiet_wait_s = self._quiet()
                self._measure(cell, row, slot)
            results.append(self._directory.trials, row)
            self._rows.append(row)
            if row.reason:
                self._say(f"{what}: {row.reason}")
            if row.swept and not row.kills:
                self._say(f"{what}: {row.swept} objects had to be swept")
            if row.status != "failed":
                return

    def _measure(self, cell: Spec, row: results.Trial, slot: Slot) -> None:
        """Run the trial, and keep all that it leaves but its row, which comes last."""
        probes = [kind() for name, kind in self._probes.items() if not kind.costly or name == slot.probe]
        seen: Seen = {}
        apart.run(cell, row, probes, seen, self._directory.logs, _print_live if self._plan.live else None)
        if row.status != "ok":
            return
        if self._plan.live:
            print(
                f"growth: proxy {row.proxy_rss_growth_bytes / 2**20:.1f} MiB and {row.proxy_fds_growth} descriptors, "
                f"cache {row.cache_rss_growth_bytes / 2**20:.1f} MiB and {row.cache_fds_growth}; {row.swept} left"
            )
        for table, observations in seen.items():
            self._directory.keep(f"{table}.csv", observations)


def _print_live(now: Mapping[str, float]) -> None:
    print(
        "  ".join(f"{name} {value:,.0f}" if value >= 10 else f"{name} {value:.2f}" for name, value in now.items()),
        flush=True,
    )
