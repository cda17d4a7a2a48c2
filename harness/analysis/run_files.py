"""The files in the directory of a run: their names, how they are read, and the exit code of commands that read them.

The names of the files that datapackage.json describes are in harness.results.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness import results
from harness.results import Trial

EXPERIMENT = "experiment.yaml"  # the plan, every value spelled out
ENVIRONMENT = "environment.json"  # the machine, the versions, and the command, as the run began
LOGS = "logs"  # a directory: the output of the programs of failed trials
PROBES = "probes.csv"  # what probes observed
SYMBOLS = "symbols.csv"  # what the probe `perf` observed


def load_run(directory: str) -> tuple[list[Trial], dict[str, Any]]:
    """The trials of a run and its resolved experiment, {} where there is none. Raises OSError, ValueError."""
    return list(results.read(f"{directory}/{results.TRIALS}")), experiment(directory)


def load_begun(directory: str) -> tuple[list[Trial], dict[str, Any]]:
    """As load_run(), but a run that ended before its first trial, and so has no trials.csv, has no trials."""
    if os.path.exists(f"{directory}/{results.TRIALS}") or not os.path.exists(f"{directory}/{EXPERIMENT}"):
        return load_run(directory)
    return [], experiment(directory)


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
        print(f"{program}: {error}", file=sys.stderr)
        return 2
