"""Made-up fleets, in the files that `harness fleet run` writes: copies of a kept run whose rows are changed.

PYTHONPATH=tests python -m support.fleets DIRECTORY
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from harness import results

ROOT = Path(__file__).parent.parent.parent
KEPT = ROOT / "results/posix-vs-sysv"
SLICED = {"requests_per_s", "content_bytes_per_s"}
FACTS = {"kernel": ("kernel", "release"), "cpu": ("cpu", "model"), "congestion": ("tcp", "congestion")}


def fleet(place, hosts, mode="each", kept=KEPT, refused=(), blocks=None):
    """A fleet. hosts: name -> what sets it apart: `faster`: {level of `data`: how many times as fast as in the kept
    run}; `kernel`, `cpu`, `congestion`: facts; `seed`: of noise of 1 % on each block of a cell; `blocks`: which of the
    kept run's it has."""
    place = Path(place)
    place.mkdir(parents=True)
    shutil.copy(kept / "experiment.yaml", place)
    for name, given in hosts.items():
        host(place / "hosts" / name, name, kept, given)
    about = {"schema": 1, "mode": mode, "hosts": [*hosts], "refused": dict(refused)}
    (place / "fleet.json").write_text(json.dumps(about))
    return place


def host(directory, name, kept, given):
    """The results directory of one host of a fleet."""
    directory.mkdir(parents=True)
    shutil.copy(kept / "experiment.yaml", directory)
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
