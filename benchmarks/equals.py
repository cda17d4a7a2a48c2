"""Are equal cells found equal? Many studies of cells that differ in nothing, and how often their intervals miss 1.

    python benchmarks/equals.py run DIR --studies 5     adds studies below DIR, each of 8 pairs on one core and 8 free
    python benchmarks/equals.py tell DIR                what all studies below DIR say

An interval at 95 % must hold 1 in 93 to 97 % of the pairs. A verdict, from intervals that hold all at once, must be
false in 5 % of the studies at most. Run it at several hours of the day: slow noise is what it is about.
"""

import argparse
import glob
import os
import subprocess
import sys

from harness.analysis import run_files
from harness.analysis.cells import THROUGHPUT, StudyTrials
from harness.analysis.ratios import ratios, to_baselines

# A timeout does not act where nothing fails: cells that differ in it alone are equal.
PAIRS = 8
STUDY = f"""
question: Are equal cells found equal?
factors: {{timeout: [{", ".join(f"{5 + number / 100}s" for number in range(PAIRS + 1))}]}}
zip: [{{placement: [same-core, free], clients: [1, 4]}}]
settings: {{proxy_processes: 2, cache_processes: 2, lanes: 2, warmup: 10ms}}
slices: {{rounds: 20}}
repeats: 6
baseline: {{timeout: 5s}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "tell"))
    parser.add_argument("directory")
    parser.add_argument("--studies", type=int, default=1)
    args = parser.parse_args()
    if args.what == "run":
        run(args.directory, args.studies)
    return tell(sorted(glob.glob(f"{args.directory}/*/trials.csv")))


def run(directory: str, studies: int) -> None:
    os.makedirs(directory, exist_ok=True)
    file = f"{directory}/equals.yaml"
    for _ in range(studies):
        number = 1 + max((int(os.path.basename(one)) for one in glob.glob(f"{directory}/[0-9]*")), default=0)
        with open(file, "w") as text:
            text.write(f"{STUDY}seed: {number}\n")
        command = [sys.executable, "-m", "harness", "run", file, "-o", f"{directory}/{number:03}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def tell(files: list[str]) -> int:
    held: dict[str, list[bool]] = {}
    false_verdicts: dict[str, list[bool]] = {}
    reaches: dict[str, list[float]] = {}
    for file in files:
        trials, _, slices = run_files.load_run(os.path.dirname(file))
        sorted_trials = StudyTrials(trials, slices)
        for context in sorted_trials.contexts(sorted_trials.compared({"timeout": 5.0})):
            placement = str(context.levels["placement"])
            pairs = to_baselines([context], [context.baseline({"timeout": 5.0})], THROUGHPUT)
            pointwise = [one for one in ratios(pairs, 1) if one]
            together = [one for one in ratios(pairs) if one]
            held.setdefault(placement, []).extend(one.low <= 1 <= one.high for one in pointwise)
            reaches.setdefault(placement, []).extend(one.high / one.value - 1 for one in pointwise)
            false_verdicts.setdefault(placement, []).append(any(not one.low <= 1 <= one.high for one in together))
    for placement, holds in held.items():
        reach = sorted(reaches[placement])[len(holds) // 2]
        wrong = false_verdicts[placement]
        print(
            f"{placement}: {len(holds)} pairs of equal cells in {len(wrong)} studies; the interval at 95 % holds 1 in "
            f"{100 * sum(holds) / len(holds):.1f} % (it reaches {100 * reach:.1f} % to each side, median); a false "
            f"verdict in {sum(wrong)} studies"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
