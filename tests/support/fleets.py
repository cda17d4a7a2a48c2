"""Made-up fleets, in the files that `harness fleet run` writes: copies of a kept run whose rows are changed.

PYTHONPATH=tests python -m support.fleets DIRECTORY
"""

import csv
import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from harness import results

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / "results/posix-vs-sysv"
SLICED = {"requests_per_s", "content_bytes_per_s"}
FACTS = {"kernel": ("kernel", "release"), "cpu": ("cpu", "model"), "congestion": ("tcp", "congestion")}


@cache
def asked(kept):
    """What the experiment of a kept run asks, without its list of cells, which takes longer to read than all else."""
    plan = YAML(typ="safe", pure=True).load((kept / "experiment.yaml").read_text())
    return json.dumps({name: value for name, value in plan.items() if name != "cells"})


def fleet(place, hosts, mode="each", kept=KEPT, refused=()):
    """A fleet. hosts: name -> how it differs: `faster`: {level of `data`: how many times as fast as in the kept
    run}; `kernel`, `cpu`, `congestion`: facts; `seed`: of noise of 1 % on each block of a cell; `blocks`: which of the
    kept run's it has; `control`: how many times as fast the second copies of an A/A control are."""
    place = Path(place)
    place.mkdir(parents=True)
    (place / "experiment.yaml").write_text(asked(kept))
    for name, given in hosts.items():
        host(place / "hosts" / name, name, kept, given)
    about = {"schema": 1, "mode": mode, "hosts": [*hosts], "refused": dict(refused)}
    (place / "fleet.json").write_text(json.dumps(about))
    return place


def host(directory, name, kept, given):
    """The results directory of one host of a fleet."""
    directory.mkdir(parents=True)
    (directory / "experiment.yaml").write_text(asked(kept))
    environment = json.loads((kept / "environment.json").read_text())
    environment["host"] = name
    for fact, (part, key) in FACTS.items():
        if fact in given:
            environment[part][key] = given[fact]
    (directory / "environment.json").write_text(json.dumps(environment))
    random = np.random.default_rng(given.get("seed", 0))
    speeds = {}
    rows = []
    for row in results.read(str(kept / results.TRIALS)):
        if given.get("blocks") and row.block not in given["blocks"]:
            continue
        noise = float(np.exp(random.normal(0, 0.01))) if given.get("seed") else 1.0
        speeds[row.trial] = given.get("faster", {}).get(row.data, 1.0) * noise
        speeds[row.trial] *= given.get("control", 1.0) if row.control else 1.0
        row.host = name
        for figure in SLICED:
            setattr(row, figure, getattr(row, figure) * speeds[row.trial])
        rows.append(row)
    results.append(str(directory / results.TRIALS), *rows)
    with open(kept / results.SLICES, newline="") as file, open(directory / results.SLICES, "w", newline="") as out:
        slices = csv.DictReader(file)
        writer = csv.DictWriter(out, [*slices.fieldnames, "host"], lineterminator="\n")
        writer.writeheader()
        for one in slices:
            if int(one["trial"]) in speeds:
                one["seconds"] = f"{float(one['seconds']) / speeds[int(one['trial'])]:.9g}"
                writer.writerow({**one, "host": name})


# A fleet whose verdicts turn round with the congestion control, and one more host that could not take part.
TURNING = {
    "ash": {"seed": 1, "congestion": "bbr", "faster": {"sysv_shm": 0.7}},
    "birch": {"seed": 2, "congestion": "reno", "faster": {"sysv_shm": 1.4}, "kernel": "6.1.0"},
    "cedar": {"seed": 3, "congestion": "bbr", "faster": {"sysv_shm": 0.75}, "cpu": "Ampere Altra"},
    "elm": {"seed": 4, "congestion": "reno", "faster": {"sysv_shm": 1.5}},
}


if __name__ == "__main__":
    print(fleet(sys.argv[1], TURNING, refused={"fir": "another version of harness-zmq: 0.1.0, not 0.2.0"}))
