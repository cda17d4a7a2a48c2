"""The directory of a fleet's run: what each host has measured, durable here before it counts.

fleet.json       mode, hosts, who is refused and why, who is missing, and how to go on
.lock            held by the coordinator that writes here, flock(2)
experiment.yaml  the plan, as of any run
hosts/NAME/      a whole run directory of that host, as `harness run` writes it there; the column `host` is NAME
"""

import csv
import fcntl
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from harness import results
from harness.analysis.run_files import ENVIRONMENT, EXPERIMENT, LOGS
from harness.experiment.plan import Plan
from harness.experiment.planner import load_plan
from harness.experiment.run_directory import RunDirectory

SCHEMA = 1
_WRITERS = 16  # hosts whose rows are written at once
FLEET = "fleet.json"
HOSTS = "hosts"
_LOCK = ".lock"
_TRIAL, _BLOCK, _ATTEMPT, _STATUS, _HOST = map(results.COLUMNS.index, "trial block attempt status host".split())


@dataclass
class Kept:
    """What is kept of a host. rows: (trial, attempt) of each. blocks: their numbers, but not 0, of costly probes."""

    rows: set[tuple[str, str]] = field(default_factory=set)
    blocks: set[int] = field(default_factory=set)


class FleetDirectory:
    """The directory of a fleet's run, for the coordinator that writes it.

    mode: `each` or `share`. fleet: what fleet.json says. kept: host -> what is kept of it.
    """

    def __init__(self, directory: str, fleet: dict[str, Any]) -> None:
        self.path, self.fleet = directory, fleet
        self.mode: str = fleet["mode"]
        self.kept: dict[str, Kept] = {}
        self.owners: dict[int, str] = {}  # where blocks are shared: block -> the host that has measured it
        self._written: dict[str, str] = {}  # path -> text
        self._lock = -1

    @classmethod
    def create(
        cls, directory: str, plan: Plan, mode: str, hosts: Sequence[str], refused: Mapping[str, str], engine: Any
    ) -> "FleetDirectory":
        """A new directory. engine: what reaches the hosts, ready for JSON. Raises ValueError where there is a run."""
        if os.path.exists(f"{directory}/{FLEET}") or os.path.exists(f"{directory}/{results.TRIALS}"):
            raise ValueError(
                f"{directory} has a run already: name another directory with -o, or go on with it by "
                f"`harness fleet run --resume {directory}`"
            )
        os.makedirs(f"{directory}/{HOSTS}", exist_ok=True)
        fleet = {
            "schema": SCHEMA,
            "mode": mode,
            "hosts": list(hosts),
            "refused": dict(refused),
            "missing": {},
            "name": plan.name,
            "id": f"{plan.name}-{secrets.token_hex(4)}",
            "engine": engine,
            "traits": {},
        }
        made = cls(directory, fleet)
        made._lock = _locked(directory)
        _write(f"{directory}/{EXPERIMENT}", plan.text())
        made.note()
        return made

    @classmethod
    def reopen(cls, directory: str) -> "tuple[FleetDirectory, Plan]":
        """A run that ended early, mended, and its plan. Raises ValueError where there is none."""
        try:
            with open(f"{directory}/{FLEET}", encoding="utf-8") as file:
                fleet = json.load(file)
            lock = _locked(directory)
            plan = load_plan(f"{directory}/{EXPERIMENT}", fleet["name"])
        except FileNotFoundError as error:
            raise ValueError(f"{error.filename}: no such file: no fleet's run to resume in {directory}") from None
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{directory}/{FLEET}: no run of a fleet wrote this: begin it anew") from None
        opened = cls(directory, {**fleet, "missing": {}})
        opened._lock = lock
        for host in fleet["hosts"]:
            opened._recall(host)
        return opened, plan

    def of_host(self, host: str) -> str:
        """The directory of a host's run."""
        return f"{self.path}/{HOSTS}/{host}"

    def note(self, **facts: Any) -> None:
        """Write fleet.json, with these facts added."""
        self.fleet |= facts
        _write(f"{self.path}/{FLEET}", json.dumps(self.fleet, indent=1) + "\n")

    def keep(self, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Keep what hosts have answered, durably on return, and each row once. Returns host -> why its answer cannot be
        kept.

        answers: host -> what harness.fleet.host.part() says. Where blocks are shared, a block that another host has
        measured meanwhile is not kept again. Hosts are written at once: most of the time goes into fsync(2), and the
        file system puts those that come together into one of its own transactions.
        """
        new, wrong = {}, {}
        for host, answer in answers.items():
            try:
                if rows := self._new(host, answer):
                    new[host] = rows
            except ValueError as error:
                wrong[host] = str(error)
        if len(new) == 1:
            self._write_host(*next(iter(new.items())), answers)
        elif new:
            with ThreadPoolExecutor(_WRITERS) as writers:
                list(writers.map(lambda host: self._write_host(host, new[host], answers), new))
        return wrong

    def finish(self) -> None:
        """Write what describes the tables of each host, and let other coordinators go on."""
        for host in self.kept:
            RunDirectory(self.of_host(host)).write_datapackage()
        os.close(self._lock)

    def _new(self, host: str, answer: Mapping[str, Any]) -> list[list[str]]:
        """The rows of trials.csv that are kept nowhere yet; from now on they are known to be this host's. Raises
        ValueError where the answer cannot be kept."""
        for name in (*answer["tables"], *answer["logs"]):
            _check_plain(name)
        try:
            table = [*csv.reader(io.StringIO(answer["tables"].get(results.TRIALS, "")), strict=True)]
        except csv.Error as error:
            raise ValueError(f"{results.TRIALS} there is no CSV: {error}") from None
        if not table:
            return []
        header, *rows = table
        if header != results.COLUMNS:
            raise ValueError(f"{results.TRIALS} there has other columns than this version of the harness")
        if any(len(row) != len(header) for row in rows):
            raise ValueError(f"{results.TRIALS} there has a torn line")
        known = self.kept.get(host, Kept()).rows
        new = [
            row
            for row in rows
            if (row[_TRIAL], row[_ATTEMPT]) not in known and self.owners.get(int(row[_BLOCK]), host) == host
        ]
        if new:
            self._know(host, [(row[_TRIAL], row[_ATTEMPT], int(row[_BLOCK])) for row in new])
        return new

    def _write_host(self, host: str, rows: Sequence[list[str]], answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Tables come first, and the rows of trials.csv last and together: what is in trials.csv is complete."""
        directory, answer = self.of_host(host), answers[host]
        os.makedirs(f"{directory}/{LOGS}" if answer["logs"] else directory, exist_ok=True)
        for name, text in ((ENVIRONMENT, answer["environment"]), (EXPERIMENT, answer["experiment"])):
            self._write_changed(f"{directory}/{name}", text)
        for name, text in answer["logs"].items():
            self._write_changed(f"{directory}/{LOGS}/{name}", text)
        trials = {row[_TRIAL] for row in rows}
        for name, text in answer["tables"].items():
            if name != results.TRIALS:
                head, *lines = text.splitlines() or [""]
                named = host if head.endswith(",host") else ""  # the last column, empty there
                mine = [f"{line}{named}\n" for line in lines if line.partition(",")[0] in trials]
                _append(f"{directory}/{name}", f"{head}\n", mine)
        for row in rows:
            row[_HOST] = host
        self._append_rows(f"{directory}/{results.TRIALS}", rows)

    def _know(self, host: str, rows: Iterable[tuple[str, str, int]]) -> None:
        """Count rows: trial, attempt and block of each."""
        kept = self.kept.setdefault(host, Kept())
        for trial, attempt, block in rows:
            kept.rows.add((trial, attempt))
            if block:
                kept.blocks.add(block)
                if self.mode == "share":
                    self.owners[block] = host

    def _recall(self, host: str) -> None:
        """Know the rows of a host again, and drop what its tables have of trials without a good row.

        It is that of a coordinator that was killed while it wrote; the host sends it again.
        """
        directory = self.of_host(host)
        if not os.path.isdir(directory):
            return
        rows: list[list[str]] = []
        if os.path.exists(f"{directory}/{results.TRIALS}"):
            with open(f"{directory}/{results.TRIALS}", encoding="utf-8", newline="") as file:
                _, *rows = csv.reader(file, strict=True)
            self._know(host, [(row[_TRIAL], row[_ATTEMPT], int(row[_BLOCK])) for row in rows])
        good = {row[_TRIAL] for row in rows if row[_STATUS] == "ok"}
        for name in os.listdir(directory):
            if name.endswith(".csv") and name != results.TRIALS:
                _keep_lines(f"{directory}/{name}", good)

    def _write_changed(self, path: str, text: str) -> None:
        if self._written.get(path) != text:
            _write(path, text)
            self._written[path] = text

    def _append_rows(self, path: str, rows: Sequence[Sequence[str]]) -> None:
        """All of the rows or none, where this process is killed: rename(2)."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if os.path.exists(path):
            with open(path, encoding="utf-8", newline="") as file:
                text.write(file.read())
        else:
            writer.writerow(results.COLUMNS)
        writer.writerows(rows)
        _write(path, text.getvalue())


def _locked(directory: str) -> int:
    """The descriptor of the lock of a fleet's directory, held as long as it is open. Raises ValueError where another
    process holds it."""
    lock = os.open(f"{directory}/{_LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ValueError(f"another `harness fleet run` is at work in {directory}: wait until it has ended") from None
    return lock


def _check_plain(name: str) -> None:
    """Raises ValueError where the name of a file that a host has sent would lead out of the host's directory."""
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise ValueError(f"a file there has the name {name!r}")


def _keep_lines(path: str, trials: set[str]) -> None:
    """Keep only the whole lines of these trials: a line begins with its trial's number. A file whose header is torn
    goes: it is begun anew."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *lines = file.read().splitlines(keepends=True) or [""]
    if not header.endswith("\n"):
        os.unlink(path)
        return
    kept = [line for line in lines if line.partition(",")[0] in trials and line.endswith("\n")]
    if kept != lines:
        _write(path, "".join([header, *kept]))


def _append(path: str, header: str, lines: Sequence[str]) -> None:
    """Add lines to a table, and the header where it is new; durable on return."""
    if not lines:
        return
    new = not os.path.exists(path) or not os.path.getsize(path)
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write("".join([header, *lines] if new else lines))
        file.flush()
        os.fsync(file.fileno())
    if new:
        results.make_name_durable(path)


def _write(path: str, text: str) -> None:
    """The whole file, durably, or none of it: rename(2)."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    results.make_name_durable(path)
