"""The files in the directory of a fleet's run: fleet.json, and a whole results directory for each host.

    fleet.json       {"schema": 1, "mode": "each" or "share", "hosts": [names], "refused": {name: reason}}
    experiment.yaml  as of any run
    hosts/NAME/      what `harness run` wrote on that host; the column `host` of its rows is NAME

Mode `each`: every host ran the whole study. Mode `share`: like hosts ran some blocks each of one study.
"""

import json
import os
from typing import Any, NamedTuple

from harness import results
from harness.analysis import run_files
from harness.analysis.run_files import Run
from harness.suggest import unknown

HOSTS = "hosts"
SCHEMA = 1
EACH, SHARE = "each", "share"


class Fleet(NamedTuple):
    """What fleet.json says, and the study of all hosts. refused: name of a host -> why it took no part."""

    directory: str
    mode: str
    hosts: list[str]
    refused: dict[str, str]
    experiment: dict[str, Any]

    def path(self, host: str) -> str:
        """The directory of a host's results."""
        return f"{self.directory}/{HOSTS}/{host}"


def load(directory: str) -> Fleet:
    """What the directory says, but for the results of its hosts. Raises OSError, ValueError."""
    path = f"{directory}/{run_files.FLEET}"
    try:
        with open(path, encoding="utf-8") as file:
            given = json.load(file)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(given, dict) or given.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not of schema {SCHEMA}; read it with the version that wrote it")
    if given.get("mode") not in (EACH, SHARE):
        raise ValueError(f"{path}: {unknown('mode', str(given.get('mode')), [EACH, SHARE])}")
    hosts, refused = given.get("hosts"), given.get("refused", {})
    if not isinstance(hosts, list) or not isinstance(refused, dict):
        raise ValueError(f"{path}: `hosts` is no list of names, or `refused` no mapping of names to reasons")
    if wrong := [name for name in hosts if not isinstance(name, str) or name in ("", ".", "..") or "/" in name]:
        raise ValueError(f"{path}: {wrong[0]!r} is no name of a host")
    if len(set(hosts)) < len(hosts):
        raise ValueError(f"{path}: a host is named twice")
    reasons = {str(name): str(reason) for name, reason in refused.items()}
    return Fleet(directory, given["mode"], hosts, reasons, run_files.experiment(directory))


def load_host(fleet: Fleet, host: str) -> Run:
    """The results of a host; no trials where it has none yet. Raises OSError, ValueError.

    Its experiment is that of the fleet: reading it again would take longer than all else.
    """
    directory = fleet.path(host)
    if not os.path.exists(f"{directory}/{results.TRIALS}"):
        return Run([], fleet.experiment, None)
    trials = list(results.read(f"{directory}/{results.TRIALS}"))
    return Run(trials, fleet.experiment, run_files.slices_of(directory))
