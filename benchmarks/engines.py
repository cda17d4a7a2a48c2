"""Live blocks against trials apart: both engines in turn on one machine, the same cells, the same seconds.

    python benchmarks/engines.py DIR --seconds 60 --turns 3

Prints how far the intervals of the ratios reach with each, for each context: the median over its cells, from all turns
put together.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median

from bias import merged

from harness.analysis import study

CELLS = """
factors:
  data: [posix_shm, fifo, unix, sendfile, mmap]
  files: [1KiB, 1MiB]
zip: [{placement: [same-core, free], clients: [1, 4]}]
settings: {proxy_processes: 2, cache_processes: 2, lanes: 2, %s}
baseline: {data: posix_shm}
control: true
"""
LIVE = "warmup: 10ms, seconds: 60ms"
APART = "warmup: 50ms, seconds: 150ms"  # as experiments/quick.yaml had it before there were live blocks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each engine in each turn (%(default)g)")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    os.makedirs(args.directory, exist_ok=True)
    runs: dict[str, list[str]] = {"live": [], "apart": []}
    for turn in range(1, args.turns + 1):
        runs["live"].append(live(f"{args.directory}/{turn}-live", turn, args.seconds))
        runs["apart"] += apart(f"{args.directory}/{turn}-apart", turn, args.seconds)
    reaches = {way: reach(directories) for way, directories in runs.items()}
    for context, live_reach in reaches["live"].items():
        other = reaches["apart"].get(context, float("inf"))
        print(f"{context}: live {live_reach:.2%}, apart {other:.1%}: {other / live_reach:.1f} times narrower")
    return 0


def live(where: str, turn: int, seconds: float) -> str:
    run(where, f"{CELLS % LIVE}budget: {seconds:g}s\nseed: {turn}\n")
    return where


def apart(where: str, turn: int, seconds: float) -> list[str]:
    """Blocks one by one, until the time has passed."""
    end, made = time.monotonic() + seconds, []
    while time.monotonic() < end:
        made.append(f"{where}-{len(made) + 1}")
        run(made[-1], f"{CELLS % APART}design: apart\nrepeats: 1\nseed: {turn * 100 + len(made)}\n")
    return made


def run(where: str, text: str) -> None:
    os.makedirs(where)
    with open(f"{where}.yaml", "w") as file:
        file.write(text)
    command = [sys.executable, "-m", "harness", "run", f"{where}.yaml", "-o", where]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def reach(directories: list[str]) -> dict[str, float]:
    """Context -> how far intervals reach from their ratios, the median of its cells."""
    trials, sliced = merged(directories)
    found = {}
    for context in study.analyse(trials, {"baseline": {"data": "posix_shm"}}, sliced).contexts:
        ratios = [one for cell in context.cells if (one := cell.measurements["requests_per_s"].ratio)]
        found[context.label] = median(one.high / one.value - 1 for one in ratios)
    return found


if __name__ == "__main__":
    sys.exit(main())
