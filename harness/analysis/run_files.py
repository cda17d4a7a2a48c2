"""The files in the directory of a run: their names, how they are read, and the exit code of commands that read them.

The names of the files that datapackage.json describes are in harness.results.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness import results, suggest
from harness.results import Trial

if TYPE_CHECKING:  # importing it loads numpy, which only an analysis needs
    from harness.analysis.slices import Slices

FLEET = "fleet.json"  # only where a fleet ran: which hosts; their results are in directories of their own
EXPERIMENT = "experiment.yaml"  # the plan, every value spelled out
ENVIRONMENT = "environment.json"  # the machine, the versions, and the command, as the run began
LOGS = "logs"  # a directory: the output of the programs of failed trials
PROBES = "probes.csv"  # what probes observed
SYMBOLS = "symbols.csv"  # what the probe `perf` observed


class Run(NamedTuple):
    """What a run's directory says. trials: its rows. experiment: the resolved one, {} where there is none. slices: of
    the trials of live blocks, None where there are none."""

    trials: list[Trial]
    experiment: dict[str, Any]
    slices: "Slices | None"


def is_fleet(directory: str) -> bool:
    """Whether a directory is that of a fleet's run: harness.analysis.fleet reads it."""
    return os.path.exists(f"{directory}/{FLEET}")


def load_run(directory: str) -> Run:
    """What a run's directory says. Raises OSError, ValueError."""
    return Run(list(results.read(f"{directory}/{results.TRIALS}")), experiment(directory), slices_of(directory))


def load_begun(directory: str) -> Run:
    """As load_run(), but a run that ended before its first trial, and so has no trials.csv, has no trials."""
    if os.path.exists(f"{directory}/{results.TRIALS}") or not os.path.exists(f"{directory}/{EXPERIMENT}"):
        return load_run(directory)
    return Run([], experiment(directory), None)


def slices_of(directory: str) -> "Slices | None":
    """The slices of a run, None where it has none. Raises OSError, ValueError."""
    path = f"{directory}/{results.SLICES}"
    if not os.path.exists(path):
        return None
    from harness.analysis import slices  # noqa: PLC0415

    return slices.read(path)


def experiment(directory: str) -> dict[str, Any]:
    """The resolved experiment of a run, {} where there is none. Raises OSError, ValueError."""
    path = f"{directory}/{EXPERIMENT}"
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            given = YAML(typ="safe", pure=True).load(file)
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path}: not an experiment: a mapping is expected")
    return given


def environment(directory: str) -> dict[str, Any]:
    """The content of environment.json, {} where there is none, or where it is cut off."""
    try:
        with open(f"{directory}/{ENVIRONMENT}", encoding="utf-8") as file:
            given = json.load(file)
    except (OSError, ValueError):
        return {}
    return given if isinstance(given, dict) else {}


def exit_code(program: str, body: Callable[[], int]) -> int:
    """The exit code of a command: what its body returns, or 2 and a line on standard error where the body raises
    OSError or ValueError. Other codes describe what the trials say."""
    try:
        return body()
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError) and suggest.unread():
            raise  # harness.cli ends quietly
        print(f"{program}: {suggest.reason(error)}", file=sys.stderr)
        return 2
