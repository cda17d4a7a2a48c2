"""What a host of a fleet runs: `python -m harness.fleet.host`. Standard input has a JSON object, and so has the output.

    {"act": "facts"}                   what the host is, and what is installed: harness/fleet/alike.py compares it
    {"act": "part", "plan": TEXT, "name": STUDY, "directory": DIR, "rows": N, "block": B, "traits": {...}, ...}
                                       measures the next block of a study, answers all rows but the first N. traits:
                                       those of the host as the run began, harness/fleet/alike.py

A host keeps a run directory of its own, which is the truth: what a part has measured is on disk there before it is
answered. So an answer that is lost is no loss. The next part is asked for the rows from the same number on.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from harness import console, machine, results
from harness.analysis import run_files
from harness.contents import contents
from harness.doctor import examine
from harness.experiment.language import Source
from harness.experiment.plan import Plan
from harness.experiment.planner import plan_of
from harness.experiment.run import DONE, SPENT, Part, measure
from harness.fleet import alike

Facts = dict[str, Any]

_MOST_SAID = 64 * 1024  # bytes of a log of a failed trial that are kept


def facts() -> Facts:
    """What the host is: harness.machine.facts(), the installed code, and the findings of `harness doctor`."""
    known = machine.facts()
    found = [one for one in examine(known) if one.verdict in {"limits", "biases"}]
    findings = [f"{one.name}: {one.text}" for one in found]
    return {"machine": known, "code": contents(), "findings": findings}


def part(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the next block of a study, unless nothing is left.

    Returns what is new in the files of the run: table -> CSV with its header. rows: all rows of trials.csv here. spent:
    seconds of a budget. widest: how far the widest interval reaches, a share; none: there is none yet. Raises
    ValueError where this is another machine, or has other code, than the host that the run began with.
    """
    now = alike.traits({"machine": machine.facts(), "code": contents()}, "share")
    if unlike := alike.changed(asked["traits"] or now, now):
        raise ValueError(f"this is not the host that the run began with: {unlike}")
    directory = os.path.expanduser(asked["directory"])
    plan = plan_of(Source(asked["name"], asked["plan"]), asked["name"])
    begun = os.path.exists(f"{directory}/{run_files.EXPERIMENT}")
    if _rows(directory) < asked["rows"]:
        raise ValueError(f"{directory} has lost blocks that this host has measured: measure it in a new run")
    args = argparse.Namespace(
        resume=directory if begun else None,
        experiment="" if begun else asked["name"],
        output=directory,
        patience=asked["patience"],
        quiet=asked["quiet"],
        beside=asked["beside"],
    )
    where, stopped = measure(None if begun else plan, args, [], "fleet run", Part(1, asked["block"]))
    if stopped:
        raise console.Failure("a signal has ended the block early")
    noted = where.environment()
    answer = {
        "rows": 0,
        "done": noted[DONE],
        "spent": noted.get(SPENT, 0.0),
        "widest": _widest(plan, directory),
        "environment": _text(f"{directory}/{run_files.ENVIRONMENT}"),
        "experiment": _text(f"{directory}/{run_files.EXPERIMENT}"),
        "tables": {},
        "logs": {},
    }
    return answer | _news(directory, asked["rows"])


def _news(directory: str, known: int) -> dict[str, Any]:
    """What the files have beyond the first `known` rows of trials.csv."""
    path = f"{directory}/{results.TRIALS}"
    if not os.path.exists(path):
        return {}
    rows = list(results.read(path))
    new = rows[known:]
    tables = {results.TRIALS: _lines(path, known)}
    good = {str(row.trial) for row in new if row.status == "ok"}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".csv") and name != results.TRIALS:
            tables[name] = _lines_of(f"{directory}/{name}", good)
    return {"rows": len(rows), "tables": tables, "logs": _logs(directory) if len(good) < len(new) else {}}


def _rows(directory: str) -> int:
    path = f"{directory}/{results.TRIALS}"
    return sum(1 for _ in results.read(path)) if os.path.exists(path) else 0


def _lines(path: str, known: int) -> str:
    header, *lines = _text(path).splitlines(keepends=True)
    return header + "".join(lines[known:])


def _lines_of(path: str, trials: set[str]) -> str:
    """The lines of these trials: a line begins with its trial's number."""
    header, *lines = _text(path).splitlines(keepends=True) or [""]
    return header + "".join(line for line in lines if line.partition(",")[0] in trials)


def _logs(directory: str) -> dict[str, str]:
    """What the programs of failed trials said."""
    logs = f"{directory}/{run_files.LOGS}"
    names = sorted(os.listdir(logs)) if os.path.isdir(logs) else []
    return {name: _text(f"{logs}/{name}")[-_MOST_SAID:] for name in names if os.path.isfile(f"{logs}/{name}")}


def _widest(plan: Plan, directory: str) -> float | None:
    path = f"{directory}/{results.TRIALS}"
    if not plan.baseline or not os.path.exists(path):
        return None
    from harness.analysis.study import widest  # noqa: PLC0415  it loads numpy, after the block

    far, _ = widest(results.read(path), plan.baseline, slices=run_files.slices_of(directory))
    return far if math.isfinite(far) else None


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()


def main() -> int:
    """Answer what standard input asks. Returns the exit code."""
    output = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed is no part of the answer

    def answer() -> None:
        asked = json.load(sys.stdin)
        said = facts() if asked["act"] == "facts" else part(asked)
        with open(output, "w", encoding="utf-8") as file:
            json.dump(said, file)

    return console.main("fleet", answer, stopped=130)


if __name__ == "__main__":
    sys.exit(main())
