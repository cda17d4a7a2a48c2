"""Do short slices tell the same as long loads? Ratios from slices of several lengths, and from trials apart.

    python benchmarks/bias.py DIR --minutes 10

The same cells are measured in turn: live, with windows as the engine chooses them, of 100 ms, and of 300 ms; and apart,
with programs of their own and 1 s of load. What differs between their ratios, beyond the intervals, is the bias of
short slices. DIR keeps all runs; calling again adds to them, and writes what each block says to DIR/ratios.csv. Without
DIR it tells what the kept ratios say, benchmarks/bias-ratios.csv.gz: those of docs/decisions/0017.
"""

import argparse
import csv
import glob
import gzip
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from harness import results
from harness.analysis import slices
from harness.analysis.cells import THROUGHPUT, StudyTrials
from harness.results import Trial
from harness.units import show_size

KEPT = Path(__file__).parent / "bias-ratios.csv.gz"
BASE = "posix_shm"
CELLS = """
factors:
  data: [posix_shm, fifo, sendfile, mmap]
  files: [1KiB, 100KiB, 3MiB, 16MiB]
zip: [{placement: [same-core, free], clients: [1, 4]}]
settings: {proxy_processes: 2, cache_processes: 2, lanes: 2, copies: 1, warmup: 20ms, %s}
baseline: {data: posix_shm}
repeats: 1
"""
# Way of measuring -> (settings, further keys).
WAYS = {
    "live": ("seconds: 100ms", ""),
    "live, long": ("seconds: 100ms", "slices: {lead_in: 40ms, window: 100ms, rounds: 4}\n"),
    "live, 300 ms": ("seconds: 100ms", "slices: {lead_in: 100ms, window: 300ms, rounds: 2}\n"),
    "apart": ("seconds: 1s", "design: apart\n"),
}


# (way, size, placement, data transport) -> log ratios to BASE, one for each block.
Ratios = Mapping[tuple[str, int, str, str], list[float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long to measure; 0: only print")
    args = parser.parse_args()
    if not args.directory:
        tell(read())
        return 0
    os.makedirs(args.directory, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    number = len(os.listdir(args.directory))
    while time.monotonic() < end:
        number += 1
        for way, (settings, keys) in WAYS.items():
            where = f"{args.directory}/{number:03}-{_name(way)}"
            os.makedirs(where)
            with open(f"{where}.yaml", "w") as text:
                text.write(f"{CELLS % settings}{keys}seed: {number}\n")
            command = [sys.executable, "-m", "harness", "run", f"{where}.yaml", "-o", where]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = measured(args.directory)
    with open(f"{args.directory}/ratios.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["way", "size", "placement", "data", "log_ratio"])
        rows.writerows((*key, f"{value:.5f}") for key, values in found.items() for value in values)
    tell(found)
    return 0


def _name(way: str) -> str:
    return way.replace(", ", "-").replace(" ", "")


def read() -> Ratios:
    """The kept ratios."""
    found = defaultdict(list)
    with gzip.open(KEPT, "rt", newline="") as file:
        for row in csv.DictReader(file):
            key = row["way"], int(row["size"]), row["placement"], row["data"]
            found[key].append(float(row["log_ratio"]))
    return found


def measured(directory: str) -> Ratios:
    """The ratios of all runs below a directory. Those of a way are put together, as the blocks of one study."""
    found = {}
    for way in WAYS:
        ends = f"-{_name(way)}/report.html"  # which a run writes last
        runs = [os.path.dirname(one) for one in sorted(glob.glob(f"{directory}/*{ends}"))]
        for context in StudyTrials(*merged(runs)).contexts(("data",), always=("files", "placement")):
            trial = context.any_trial
            (base,) = (cell for cell in context.good if cell.design["data"] == BASE)
            for cell in context.good:
                if cell is not base:
                    key = way, trial.file_size_bytes, trial.placement, cell.design["data"]
                    found[key] = list(cell.log_ratios(base, THROUGHPUT).values())
    return found


def tell(found: Ratios) -> None:
    """Print the ratios that each way gives, each with its 95 % interval, and by what factor the engine's own windows
    differ from each other way; a star where that interval leaves 1 out."""
    own, *others = WAYS
    print("| size | placement | data | " + " | ".join([*WAYS, *(f"to {way}" for way in others)]) + " |")
    print("|--:|---|---|" + "--:|" * (len(WAYS) + len(others)))
    for way, *cell in found:
        if way == own:
            size, placement, data = cell
            texts = [show_size(size), placement, data]
            texts += [_text(found[one, size, placement, data]) for one in WAYS]
            texts += [_factor(found[own, size, placement, data], found[one, size, placement, data]) for one in others]
            print(f"| {' | '.join(texts)} |")


def _text(values: list[float]) -> str:
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    middle = float(np.mean(values))
    return f"{math.exp(middle):.3f} ({math.exp(middle - half):.3f} to {math.exp(middle + half):.3f})"


def _factor(one: list[float], other: list[float]) -> str:
    ends = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    star = "" if ends.low < 0 < ends.high else " *"
    return (
        f"{math.exp(np.mean(one) - np.mean(other)):.3f} ({math.exp(ends.low):.3f} to {math.exp(ends.high):.3f}){star}"
    )


def merged(directories: list[str]) -> tuple[list[Trial], slices.Slices | None]:
    """The trials and slices of several runs as those of one, whose blocks they are."""
    trials, rows = [], []
    for number, directory in enumerate(directories):
        offset = number * 100_000
        for trial in results.read(f"{directory}/trials.csv"):
            trial.trial, trial.block = trial.trial + offset, trial.block + offset
            trials.append(trial)
        if os.path.exists(path := f"{directory}/slices.csv"):
            with open(path) as file:
                for row in csv.DictReader(file):
                    numbers = {name: float(text) for name, text in row.items()}
                    rows.append(results.Slice(**{**numbers, "trial": int(row["trial"]) + offset}))
    return trials, slices.of_rows(rows) if rows else None


if __name__ == "__main__":
    sys.exit(main())
