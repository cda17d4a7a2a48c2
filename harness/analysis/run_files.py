"""The directory of a run as the analysis reads it, and the frame of the commands that do."""

import os
import sys
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness import results
from harness.results import Trial

EXPERIMENT = "experiment.yaml"


def load(directory: str) -> tuple[list[Trial], dict[str, Any]]:
    """The trials of a run and its resolved experiment, {} where there is none. Raises OSError, ValueError."""
    return list(results.read(f"{directory}/{results.TRIALS}")), experiment(directory)


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
        raise ValueError(f"{path}: no experiment")
    return given


def main(program: str, body: Callable[[], int]) -> int:
    """The exit code of a command's body, 2 with one line on standard error where it is misused: its other codes say
    what the trials say."""
    try:
        return body()
    except (OSError, ValueError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
