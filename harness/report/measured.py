"""The section `How it was measured` of the page of a run: the command, the machine, the plan, and what went wrong."""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from harness import results
from harness.analysis import naming, run_files
from harness.analysis.cells import PROVENANCE
from harness.analysis.study import Study
from harness.report import page, vocabulary
from harness.report.markup import Markup, el
from harness.results import Trial

_MOST = 200  # trials and cells that a list names
_MOST_PLAN = 200_000  # characters of the experiment file


def section(
    directory: str,
    trials: Sequence[Trial],
    experiment: Mapping[str, Any],
    found: Study,
    fixed: Mapping[str, Any],
    unreadable: Sequence[str],
) -> Markup:
    """The section. fixed: column -> level, of the factors that do not vary. unreadable: sentences about files that
    could not be read whole."""
    environment = run_files.environment(directory)
    parts: list[Any] = [
        el("h2", "How it was measured", id="measured"),
        page.facts(_facts(directory, trials, experiment, environment, found, fixed)),
    ]
    if bad := [trial for trial in trials if trial.status != "ok"]:
        parts.append(_bad_trials(bad))
    parts += [el("p", page.badge("cannot be read", "bad"), f" {sentence}") for sentence in unreadable]
    if found.missing:
        parts += [
            el("h3", "Cells without a good trial"),
            el("ul", [el("li", f"{label}: {reason}") for label, reason in found.missing[:_MOST]]),
        ]
    if machine := {name: value for name, value in environment.items() if name != "experiment"}:
        summary = el("summary", "The machine: limits, settings, versions")
        parts.append(el("details", summary, page.facts(page.flat(machine))))
    path = f"{directory}/{run_files.EXPERIMENT}"
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            plan = el("pre", file.read(_MOST_PLAN), tabindex="0")
        parts.append(el("details", el("summary", "The plan, as it was run"), plan))
    parts.append(
        el(
            "p",
            "Beside this page: ",
            ", ".join(_files(directory)),
            ". What columns mean: `harness docs results`; what intervals and verdicts mean: `harness docs statistics`.",
            class_="soft",
        )
    )
    return el("section", parts)


def _facts(
    directory: str,
    trials: Sequence[Trial],
    experiment: Mapping[str, Any],
    environment: Mapping[str, Any],
    found: Study,
    fixed: Mapping[str, Any],
) -> list[tuple[str, Any]]:
    run = environment.get("experiment")
    run = run if isinstance(run, dict) else {}
    command = run.get("command") or [f"{directory}/{run_files.EXPERIMENT}"] * bool(experiment)
    if isinstance(command, list):  # the arguments of `harness run`, or of what the environment names
        program = str(run.get("program", "run"))
        command = shlex.join(("harness", program, *map(str, command))) if command or program != "run" else ""
    counts = found.counts
    seeds = sorted({trial.seed for trial in trials})
    machines = {
        name: sorted({str(getattr(trial, name)) for trial in trials if trial.status == "ok"} - {""})
        for name in PROVENANCE
    }
    times = dict.fromkeys((trials[0].started_utc, trials[-1].started_utc)) if trials else ()
    return [
        ("to run it again", el("code", command) if command else ""),
        ("experiment file", run.get("file")),
        ("cells", len({trial.cell for trial in trials}) or ""),
        ("blocks", len({trial.block for trial in trials if not trial.probe}) or ""),
        ("seed of the order", ", ".join(map(str, seeds))),
        ("began, ended", " \u2013 ".join(times)),
        ("the same in all trials", page.settings(fixed, vocabulary.of_study(found))),
        (
            "trials",
            f"{counts.trials}: {counts.ok} good ({counts.disturbed} of them disturbed), {counts.failed} failed, "
            f"{counts.refused} refused, {counts.probes} for probes",
        ),
        *((name, ", ".join(values)) for name, values in machines.items()),
    ]


def _bad_trials(bad: Sequence[Trial]) -> Markup:
    lines = [
        el(
            "li",
            f"trial {trial.trial}, block {trial.block}, {trial.command} + {trial.data}, "
            f"{naming.value('files', trial.files)}: {trial.status}: {trial.reason}",
        )
        for trial in bad[:_MOST]
    ]
    summary = el("summary", f"Trials that failed or were refused: {len(bad)}")
    return el("details", summary, el("ul", lines), open=len(bad) <= 10)


def _files(directory: str) -> list[str]:
    """The files of the run that are there."""
    names = (
        results.TRIALS,
        results.SLICES,
        results.LATENCY,
        run_files.PROBES,
        run_files.SYMBOLS,
        run_files.ENVIRONMENT,
        run_files.EXPERIMENT,
        results.DATAPACKAGE,
        run_files.LOGS,
    )
    return [name for name in names if os.path.exists(f"{directory}/{name}")]
