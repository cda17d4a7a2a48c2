"""`harness run`: runs a plan, keeps each trial as soon as it is measured, and prints what came of it."""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

from harness import console, machine, registry, rendezvous, report, results
from harness.analysis import run_files as directories
from harness.analysis import show
from harness.analysis.study import narrow_enough
from harness.api import Probe
from harness.experiment import plan
from harness.experiment.machine_lock import alone
from harness.experiment.plan import Plan, Slot
from harness.experiment.run_directory import Store
from harness.factors import Spec
from harness.measure import apart
from harness.measure.feasible import refusals
from harness.measure.probing import Seen

_ATTEMPTS = 2  # a trial that fails is tried once more
_QUIET = 0.25  # share of the CPUs that others may use when a trial begins
_PATIENCE = 3.0  # seconds that a trial waits for the machine to be as quiet as that, unless told otherwise


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness run",
        description="Run an experiment file: fresh processes for every trial, cells interleaved in shuffled blocks.",
        epilog="Exit codes: 0 all trials are good, 1 some failed or were refused, 2 the file or a word is wrong, 130 "
        "interrupted. Ctrl-C ends after the current trial, a second one at once. Rows are durable one by one: what a "
        "killed run has measured is there, and --resume goes on from it.",
    )
    add = parser.add_argument
    add("experiment", metavar="FILE", nargs="?", help="such as experiments/quick.yaml; not needed with --resume")
    add("-o", dest="output", metavar="DIR", help="where results go (default: results/<name>-<UTC time>)")
    add("--resume", metavar="DIR", help="go on with a run that ended early, where nothing has changed since")
    add("--only", metavar="CELL", help="one cell: its number, or what tells it apart, 'data=fifo files=1KiB'")
    add("--repeat", type=console.positive, metavar="N", help="blocks, instead of the file's")
    add("--scale", type=console.factor, metavar="X", help="X times the load in each trial, such as 0.01")
    add(
        "--patience",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="how long to wait for another study on this machine to end; 0 refuses at once (%(default)g)",
    )
    add(
        "--quiet",
        type=float,
        default=_PATIENCE,
        metavar="SECONDS",
        help="how long each trial waits, at most, for others to leave the CPUs alone; 0 does not wait (%(default)g)",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run an experiment file. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if not args.resume and not args.experiment:
        parser.error("name an experiment FILE, or --resume DIR")
    if args.resume and (args.output or args.only or args.repeat or args.scale):
        parser.error("--resume goes on with a run as it was begun: no -o, --only, --repeat or --scale")
    return console.main("run", lambda: _run(args, list(argv)), stopped=130)


def _run(args: argparse.Namespace, argv: list[str]) -> int:
    study = None if args.resume else _plan(args)
    with alone(args.patience):
        rendezvous.sweep()  # what killed runs left
        if study is None:
            store, study = _reopen(args)
            refused = refusals(study.cells)
        else:
            refused = refusals(study.cells)
            if all(cell in refused for cell in study.cells):
                raise ValueError(f"no cell can run here: {next(iter(refused.values()))}")
            directory = args.output or f"results/{study.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            store = Store.create(directory, study, args.experiment, argv)
        for reason, count in Counter(refused.values()).items():
            console.say(f"{count} of {len(study.cells)} cells cannot run here: {reason}")
        interrupted = _Run(study, store, refused, args.quiet).all()
    store.describe()
    rows = store.rows()
    if rows:
        show.show(*directories.load(store.directory))
        print(f"\n{store.trials}\n{report.write(store.directory)}")
    if interrupted:
        return 130
    last = {row.trial: row for row in rows}
    return int(any(row.status != "ok" or row.swept for row in last.values()))


def _reopen(args: argparse.Namespace) -> tuple[Store, Plan]:
    """The run to resume. Raises ValueError where its experiment file, or the one that is named now, says otherwise."""
    store, study = Store.reopen(args.resume)
    begun = store.environment()["experiment"]
    if os.path.exists(begun["file"]):
        before = arguments().parse_args(begun["command"])
        before.experiment = begun["file"]
        store.check_plan(study, begun["file"], _plan(before))
    if args.experiment:
        store.check_plan(study, args.experiment, plan.load(args.experiment))
    return store, study


def _plan(args: argparse.Namespace) -> Plan:
    study = plan.load(args.experiment)
    if args.scale:
        study = study.scaled(args.scale)
    if args.only:
        return study.only(plan.find(study, args.only), args.repeat or study.repeats)
    return study.repeated(args.repeat) if args.repeat else study


class _Run:
    """The trials of a plan that have no row yet, one after another."""

    def __init__(self, study: Plan, store: Store, refused: dict[Spec, str], patience: float) -> None:
        self._study, self._store, self._refused, self._patience = study, store, refused, patience
        self._rows = store.rows()
        self._attempts = {row.trial: row.attempt if row.status == "failed" else _ATTEMPTS for row in self._rows}
        self._varying = study.varying()
        self._probes = self._usable_probes()
        self._stop = False

    def all(self) -> bool:
        """Run them. Returns whether a signal ended it early."""
        study = self._study
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        probing = [slot for slot in study.probing() if slot.probe in self._probes]
        total = study.repeats * len(study.cells) + len(probing)
        try:
            with _progress(total) as told:
                for block in study.blocks():
                    for slot in block:
                        self._trial(slot, told)
                    if self._stop or self._precise(block[0].block):
                        break
                for slot in probing:
                    self._trial(slot, told)
        except KeyboardInterrupt:
            self._stop = True
        return self._stop

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            signal.default_int_handler(number, frame)
        self._stop = True
        console.say("ending after this trial; once more ends it at once")

    def _usable_probes(self) -> dict[str, type[Probe]]:
        """The probes that the plan asks for; of those that cannot work here it is told, and noted, why."""
        known = registry.load().probes
        reasons = {name: known[name]().unusable() for name in self._study.probes}
        for name, reason in reasons.items():
            if reason:
                console.say(f"going on without probe {name}: {reason}")
        self._store.note("unusable_probes", {name: reason for name, reason in reasons.items() if reason})
        return {name: known[name] for name, reason in reasons.items() if not reason}

    def _precise(self, block: int) -> bool:
        study = self._study
        if not study.within or block < study.least:
            return False
        return narrow_enough(self._rows, study.baseline, study.within * 100, least=study.least)

    def _trial(self, slot: Slot, told: "_Progress") -> None:
        cell = self._study.cells[slot.cell - 1]
        for attempt in range(self._attempts.get(slot.number, 0) + 1, _ATTEMPTS + 1):
            if self._stop:
                return
            told.begin(slot.number, what := plan.label(cell, self._varying))
            row = results.Trial(
                experiment=self._study.name,
                trial=slot.number,
                block=slot.block,
                cell=slot.cell,
                seed=self._study.seed,
                attempt=attempt,
                probe=slot.probe,
            )
            if cell in self._refused:
                apart.refuse(cell, row, self._refused[cell])
            else:
                row.quiet_wait_s = machine.quiet(_QUIET, self._patience)
                self._measure(cell, row, slot)
            results.append(self._store.trials, row)
            self._rows.append(row)
            if row.reason:
                console.say(f"{what}: {row.reason}")
            if row.swept:
                console.say(f"{what}: {row.swept} objects had to be swept")
            if row.status != "failed":
                return

    def _measure(self, cell: Spec, row: results.Trial, slot: Slot) -> None:
        """Run the trial, and keep all that it leaves but its row, which comes last."""
        probes = [kind() for name, kind in self._probes.items() if not kind.costly or name == slot.probe]
        seen: Seen = {}
        apart.run(cell, row, probes, seen, self._store.logs, self._live if self._study.live else None)
        if row.status != "ok":
            return
        if self._study.live:
            print(
                f"growth: proxy {row.proxy_rss_growth_bytes / 2**20:.1f} MiB and {row.proxy_fds_growth} descriptors, "
                f"cache {row.cache_rss_growth_bytes / 2**20:.1f} MiB and {row.cache_fds_growth}; {row.swept} left"
            )
        for table, observations in seen.items():
            self._store.keep(f"{table}.csv", observations)

    @staticmethod
    def _live(now: Mapping[str, float]) -> None:
        print(
            "  ".join(f"{name} {value:,.0f}" if value >= 10 else f"{name} {value:.2f}" for name, value in now.items()),
            flush=True,
        )


class _Progress:
    """Says what runs now, how much is done and how long it will take; draws only between trials."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = time.monotonic()
        self._first = 0

    def begin(self, number: int, what: str) -> None:
        self._first = self._first or number  # a run that is resumed does not begin at 1
        done = number - self._first
        left = (time.monotonic() - self._begun) / done * (self._total - number + 1) if done else 0
        self._show(number, what, left)

    def _show(self, number: int, what: str, left: float) -> None:
        if number == 1 or number % 10 == 0 or number == self._total:
            print(f"{number}/{self._total} {what}" + (f", {left:.0f} s left" if left else ""), flush=True)


class _Bar(_Progress):
    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

        super().__init__(total)
        self.bar = Progress(
            TextColumn("{task.description:60}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            auto_refresh=False,
        )
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
