"""The files in the directory of a fleet's run: fleet.json, and a whole results directory for each host.

    fleet.json       {"schema": 1, "mode": "each" or "share", "hosts": [names], "refused": {name: reason}}, and it may
                     have the "name" of the study, and "missing": {name: reason}
    experiment.yaml  as of any run
    hosts/NAME/      what `harness run` wrote on that host; the column `host` of its rows is NAME

Mode `each`: every host ran the whole study. Mode `share`: like hosts ran some blocks each of one study.
"""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from harness import results
from harness.analysis import run_files
from harness.analysis.run_files import Run
from harness.analysis.slices import joined
from harness.results import Trial
from harness.suggest import unknown

HOSTS = "hosts"
SCHEMA = 1
EACH, SHARE = "each", "share"


class Fleet(NamedTuple):
    """What fleet.json says, and the study of all hosts. refused: name of a host -> why it took no part. missing: name
    of a host -> why it did not do its part."""

    directory: str
    name: str
    mode: str
    hosts: list[str]
    refused: dict[str, str]
    missing: dict[str, str]
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
    hosts, refused, missing = given.get("hosts"), given.get("refused", {}), given.get("missing", {})
    if not isinstance(hosts, list) or not isinstance(refused, dict) or not isinstance(missing, dict):
        raise ValueError(
            f"{path}: `hosts` is no list of names, or `refused` or `missing` no mapping of names to reasons"
        )
    if wrong := [name for name in hosts if not isinstance(name, str) or name in ("", ".", "..") or "/" in name]:
        raise ValueError(f"{path}: {wrong[0]!r} is no name of a host")
    if len(set(hosts)) < len(hosts):
        raise ValueError(f"{path}: a host is named twice")
    name = str(given.get("name") or "")
    reasons = [{str(host): str(reason) for host, reason in one.items()} for one in (refused, missing)]
    return Fleet(directory, name, given["mode"], hosts, reasons[0], reasons[1], run_files.experiment(directory))


def load_host(fleet: Fleet, host: str) -> Run:
    """The results of a host; no trials where it has none yet. Raises OSError, ValueError.

    Its experiment is that of the fleet: reading it again would take longer than all else.
    """
    directory = fleet.path(host)
    if not os.path.exists(f"{directory}/{results.TRIALS}"):
        return Run([], fleet.experiment, None)
    trials = list(results.read(f"{directory}/{results.TRIALS}"))
    return Run(trials, fleet.experiment, run_files.slices_of(directory))


def load_together(fleet: Fleet, hosts: Sequence[str]) -> Run:
    """The results of some hosts, as those of one run: for hosts that shared the blocks of one study. Trials and blocks
    get numbers of their own. Rows whose processor, kernel or versions differ are still in contexts of their own.
    Raises OSError, ValueError."""
    trials: list[Trial] = []
    parts = []
    block = 0
    for host in hosts:
        own, _, slices = load_host(fleet, host)
        more, most = max((trial.trial for trial in trials), default=0), block
        for trial in own:
            trial.trial, trial.block, trial.host = trial.trial + more, trial.block + most, ""
            block = max(block, trial.block)
        trials += own
        if slices:
            parts.append((slices, more))
    return Run(trials, fleet.experiment, joined(parts) if parts else None)
