"""Do short slices tell the same as long loads? Ratios from slices of several lengths, and from trials apart.

    python benchmarks/bias.py DIR --minutes 10

The same cells are measured in turn: live, with windows as the engine chooses them, of 100 ms, and of 300 ms; and apart,
with programs of their own and 1 s of load. What differs between their ratios, beyond the intervals, is the bias of
short slices. DIR keeps all runs; calling again adds to them.
"""

import argparse
import csv
import glob
import os
import subprocess
import sys
import time
from collections import defaultdict

from harness import results
from harness.analysis import slices, study
from harness.results import Trial

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long to measure; 0: only print")
    args = parser.parse_args()
    os.makedirs(args.directory, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    number = len(os.listdir(args.directory))
    while time.monotonic() < end:
        number += 1
        for way, (settings, keys) in WAYS.items():
            where = f"{args.directory}/{number:03}-{way.replace(', ', '-').replace(' ', '')}"
            os.makedirs(where)
            with open(f"{where}.yaml", "w") as text:
                text.write(f"{CELLS % settings}{keys}seed: {number}\n")
            command = [sys.executable, "-m", "harness", "run", f"{where}.yaml", "-o", where]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    tell(args.directory)
    return 0


def tell(directory: str) -> None:
    """Put the runs of each way together, as the blocks of one study, and print their ratios."""
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for way in WAYS:
        name = way.replace(", ", "-").replace(" ", "")
        ends = f"-{name}/report.html"  # which a run writes last
        runs = [os.path.dirname(one) for one in sorted(glob.glob(f"{directory}/*{ends}"))]
        trials, sliced = merged(runs)
        analysed = study.analyse(trials, {"baseline": {"data": "posix_shm"}}, sliced)
        for context in analysed.contexts:
            for cell in context.cells:
                if ratio := cell.measurements["requests_per_s"].ratio:
                    text = f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
                    found[context.label, cell.label][way] = text
    print(f"{'':44} " + "".join(f"{way:28}" for way in WAYS))
    for (context, cell), by_way in found.items():
        print(f"{context + ' ' + cell:44} " + "".join(f"{by_way.get(way, '-'):28}" for way in WAYS))


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
