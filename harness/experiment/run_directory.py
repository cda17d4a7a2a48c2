"""The directory of a run: what is in it, and how a run that was killed goes on.

trials.csv        one row a trial; it comes last of all that a trial or block leaves, so what has one is complete
slices.csv        the slices of the trials of live blocks
latency.csv       the latency histogram of each trial
probes.csv ...    what probes saw
environment.json  the machine, the versions, and the command, as the run began
experiment.yaml   the plan, every value spelled out
datapackage.json  the columns of the files, with types and units
logs/             what the programs of failed trials said
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import machine, results
from harness.analysis.run_files import ENVIRONMENT, EXPERIMENT, LOGS
from harness.contents import contents
from harness.experiment.plan import Plan
from harness.experiment.planner import load_plan

# What must be the same for two halves of a run to be one.
_ALIKE = {
    "host": ("host",),
    "processor": ("cpu", "model"),
    "kernel": ("kernel", "release"),
    "Python": ("software", "python"),
    "harness": ("software", "harness"),
    "commit": ("software", "commit"),
}
_CODE = ("software", "code")  # distribution -> hash, see harness/contents.py
VERSIONS = "versions"  # in environment.json: interpreter -> what it runs
# What of a plan decides what is measured, and how it is judged.
_DECIDED = "question cells repeats seed least within baseline claims probes design slicing budget".split()


class RunDirectory:
    """The directory of a run, for the run that writes it.

    path: of the directory. trials: of its trials.csv. logs: of what the programs of failed trials wrote.
    """

    def __init__(self, directory: str) -> None:
        self.path = directory
        self.trials = f"{directory}/{results.TRIALS}"
        self.logs = f"{directory}/{LOGS}"

    @classmethod
    def create(
        cls, directory: str, plan: Plan, source: str, arguments: list[str], program: str = "run"
    ) -> "RunDirectory":
        """A new directory. source: the experiment file. program, arguments: that and how it was run. Raises ValueError
        where it has results already, OSError."""
        run = cls(directory)
        for name in (results.TRIALS, EXPERIMENT):
            if os.path.exists(f"{directory}/{name}"):
                raise ValueError(
                    f"{directory}/{name} is there already: name another directory with -o, or go on with it by "
                    f"`harness run --resume {directory}`"
                )
        os.makedirs(directory, exist_ok=True)
        facts = _facts()
        facts["experiment"] = {"name": plan.name, "file": source, "program": program, "command": arguments}
        _write_json(f"{directory}/{ENVIRONMENT}", facts)
        run.write_datapackage()
        _write(f"{directory}/{EXPERIMENT}", plan.text())
        return run

    @classmethod
    def reopen(cls, directory: str) -> "tuple[RunDirectory, Plan]":
        """A directory whose run ended early, mended, and its plan.

        Raises ValueError where there is nothing to resume, or where machine, code or experiment have changed: the two
        halves could not be compared.
        """
        try:
            with open(f"{directory}/{ENVIRONMENT}", encoding="utf-8") as file:
                before = json.load(file)
            plan = load_plan(f"{directory}/{EXPERIMENT}", before["experiment"]["name"])
        except FileNotFoundError as error:
            raise ValueError(f"{error.filename}: no such file: nothing to resume in {directory}") from None
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{directory}/{ENVIRONMENT}: no run wrote this: run the experiment anew") from None
        now = _facts()
        installed = {*(_at(before, _CODE) or ()), *_at(now, _CODE)}
        alike = _ALIKE | {f"the code of {name}": (*_CODE, name) for name in sorted(installed)}
        unlike = [
            f"{name} was {_at(before, path)!r} and is {_at(now, path)!r}"
            for name, path in alike.items()
            if _at(before, path) != _at(now, path)
        ]
        if unlike:
            raise ValueError(f"cannot resume {directory}: {'; '.join(unlike)}: run the experiment anew")
        run = cls(directory)
        run.mend()
        return run, plan

    def check_plan(self, plan: Plan, file: str, given: Plan) -> None:
        """Raises ValueError where the experiment file makes another plan than the one that was begun."""
        for name in _DECIDED:
            if getattr(plan, name) != getattr(given, name):
                raise ValueError(f"cannot resume {self.path}: {file} has other {name} than when the run began")

    def check_versions(self, now: Mapping[str, Sequence[str]]) -> None:
        """Raises ValueError where an interpreter runs something else than when the run began."""
        for interpreter, before in self.environment().get(VERSIONS, {}).items():
            if before != now.get(interpreter):
                was, found = (" or ".join(some or ["nothing"]) for some in (before, now.get(interpreter)))
                raise ValueError(f"cannot resume {self.path}: {interpreter} was {was} and is {found}: run it anew")

    def keep(self, table: str, rows: Sequence[results.Row]) -> None:
        """Add rows to a table; durable on return."""
        _fail_impossible(rows)
        if rows:
            results.append(f"{self.path}/{table}", *rows)

    def keep_block(self, rows: Sequence[results.Trial]) -> None:
        """Add the rows of a block, all or none: what is in trials.csv is complete; durable on return."""
        _fail_impossible(rows)
        results.append_all(self.trials, *rows)

    def note(self, key: str, value: Any) -> None:
        """Add a fact to environment.json."""
        _write_json(f"{self.path}/{ENVIRONMENT}", {**self.environment(), key: value})

    def rows(self) -> list[results.Trial]:
        """The rows so far."""
        return list(results.read(self.trials)) if os.path.exists(self.trials) else []

    def mend(self) -> None:
        """Cut off a torn last line, and drop what there is of trials without a good row in trials.csv."""
        for name in _tables(self.path):
            _cut_torn_line(f"{self.path}/{name}")
        whole = {row.trial for row in self.rows() if row.status == "ok"}
        for name in _tables(self.path):
            if name != results.TRIALS:
                _keep_lines(f"{self.path}/{name}", whole)

    def write_datapackage(self) -> None:
        """Write datapackage.json for the files that are there."""
        package = results.datapackage(_tables(self.path), self.environment()["experiment"]["name"])
        _write_json(f"{self.path}/{results.DATAPACKAGE}", package)

    def environment(self) -> Mapping[str, Any]:
        with open(f"{self.path}/{ENVIRONMENT}", encoding="utf-8") as file:
            facts: Mapping[str, Any] = json.load(file)
        return facts


def _facts() -> dict[str, Any]:
    """What environment.json says of machine and code."""
    facts = machine.facts()
    facts["software"]["code"] = contents()
    return facts


def _fail_impossible(rows: Sequence[results.Row]) -> None:
    """A good trial with a figure that no load gives, as of a probe that errs, has failed: no file with it is read."""
    for row in rows:
        if isinstance(row, results.Trial) and (reason := results.impossible(row)):
            row.status, row.reason = "failed", reason


def _at(facts: Any, path: Iterable[str]) -> Any:
    for key in path:
        facts = facts[key] if isinstance(facts, dict) and key in facts else None
    return facts


def _tables(directory: str) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.endswith(".csv"))


def _cut_torn_line(path: str) -> None:
    with open(path, "rb+") as file:
        text = file.read()
        file.truncate(text.rfind(b"\n") + 1)
        file.flush()
        os.fsync(file.fileno())


def _keep_lines(path: str, trials: Iterable[int]) -> None:
    """Keep only the lines of these trials. A line begins with its trial's number."""
    known = {str(number) for number in trials}
    with open(path, encoding="utf-8", newline="") as file:
        header, *lines = file.read().splitlines(keepends=True) or [""]
    _write(path, header + "".join(line for line in lines if line.partition(",")[0] in known))


def _write_json(path: str, value: Any) -> None:
    _write(path, json.dumps(value, indent=1) + "\n")


def _write(path: str, text: str) -> None:
    """The whole file, durably, or none of it: rename(2)."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
    results.make_name_durable(path)
