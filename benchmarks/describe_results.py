"""Writes results/README.md: what the kept studies asked, and what became of every claim.

    .venv/bin/python benchmarks/describe_results.py > results/README.md
"""

import sys
from pathlib import Path

from harness.analysis import answers, directory, study

ROOT = Path(__file__).parent.parent


def main() -> int:
    print(page())
    return 0


def page() -> str:
    parts = [
        "# Kept results",
        "Runs that the documentation quotes, as `harness run` wrote them, and what they answer. Written by\n"
        "`benchmarks/describe_results.py`. Your own runs land beside them, in `<experiment>-<UTC time>/`, and are not\n"
        "under version control. Look at one with `harness show DIR`, or `harness report DIR` and a browser.\n"
        "What the columns mean: `docs/results.md`; what intervals and verdicts mean: `docs/statistics.md`.",
    ]
    for place in sorted(ROOT.glob("results/*/experiment.yaml")):
        if (ROOT / f"experiments/{place.parent.name}.yaml").exists():
            parts.append(_study(place.parent))
    return "\n\n".join(parts)


def _study(place: Path) -> str:
    trials, experiment = directory.load(str(place))
    found = study.analyse(trials, experiment)
    lines = [
        f"## {place.name}",
        "",
        f"{experiment['question']}",
        f"{found.counts.ok} good trials of {found.counts.trials}, {found.counts.disturbed} of them disturbed.",
        found.control.line,
    ]
    lines += [f"Fastest{f' ({one.label})' if one.label else ''}: {one.line}." for one in found.crossovers]
    for answer in found.answers:
        said, *more = answers.lines(answer)
        lines += ["", f"- **{said.replace(':', ':**', 1)}", *(f"  - {line.strip()}" for line in more)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
