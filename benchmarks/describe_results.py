"""Writes the parts of pages that quote kept results: results/README.md, with the question of each study and the answer
to each of its claims, and in README.md the tables of the study `quick`.

    .venv/bin/python benchmarks/describe_results.py
"""

import sys
from pathlib import Path

from harness.analysis import judgements, run_files, study

ROOT = Path(__file__).parent.parent
_BEGIN, _END = "<!-- results/quick, written by benchmarks/describe_results.py -->\n", "<!-- end -->\n"
_COLUMNS = (
    "command",
    "data",
    "requests/s",
    "min to max",
    "ratio",
    "interval",
    "verdict",
    "MB/s",
    "CPU us",
    "p50 us",
    "p99 us",
)


def main() -> int:
    for file, text in pages().items():
        file.write_text(text)
    return 0


def pages() -> dict[Path, str]:
    """file -> the text that it should have."""
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    return {ROOT / "results/README.md": page(), readme: f"{before}{_BEGIN}\n{tables()}\n{_END}{after}"}


def tables() -> str:
    """The results of the study `quick`, which `make study` runs: a table for each file size."""
    trials, experiment = run_files.load(str(ROOT / "results/quick"))
    found = study.analyse(trials, experiment)
    lines = [f"{found.counts.ok} good trials, {found.counts.disturbed} of them disturbed. {found.control.line}", ""]
    for context in found.contexts:
        lines += [
            f"**{context.label}**",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            "|---|---|--:|--:|--:|--:|---|--:|--:|--:|--:|",
            *(_row(cell, context.file_size_bytes) for cell in context.cells),
            "",
        ]
    return "\n".join(lines)


def _row(cell: study.Cell, size: int) -> str:
    rate = cell.measurements["requests_per_s"]
    value = rate.value.value
    ratio = ["1.00", "-"]
    if rate.ratio:
        ratio = [f"{rate.ratio.value:.2f}", f"{rate.ratio.low:.2f} to {rate.ratio.high:.2f}"]
    others = [
        cell.measurements[name].value.value for name in ("cpu_us_per_request", "latency_p50_us", "latency_p99_us")
    ]
    columns = [
        cell.design["command"],
        cell.design["data"],
        f"{value:,.0f}",
        f"{rate.least:,.0f} to {rate.most:,.0f}",
        *ratio,
        rate.verdict or ("baseline" if cell.baseline else "floor"),
        f"{value * size / 1e6:,.0f}",
        *(f"{other:,.0f}" for other in others),
    ]
    return f"| {' | '.join(columns)} |"


def page() -> str:
    parts = [
        "# Kept results",
        "The runs that the documentation quotes, as `harness run` wrote them, with the answers to their questions.\n"
        "`benchmarks/describe_results.py` writes this page. Your own runs are in directories beside these, called\n"
        "`<experiment>-<UTC time>/`, and are not under version control. Look at one with `harness show DIR`, or with\n"
        "`harness report DIR` and a browser. `docs/results.md` says what the columns mean, `docs/statistics.md` what\n"
        "intervals and verdicts mean.",
    ]
    for place in sorted(ROOT.glob("results/*/experiment.yaml")):
        if (ROOT / f"experiments/{place.parent.name}.yaml").exists():
            parts.append(_study(place.parent))
    return "\n\n".join(parts) + "\n"


def _study(place: Path) -> str:
    trials, experiment = run_files.load(str(place))
    found = study.analyse(trials, experiment)
    lines = [
        f"## {place.name}",
        "",
        f"{experiment['question']}",
        f"{found.counts.ok} good trials of {found.counts.trials}, {found.counts.disturbed} of them disturbed.",
        found.control.line,
    ]
    lines += [one.sentence for one in found.crossovers]
    for answer in found.answers:
        outcome, *more = judgements.lines(answer)
        lines += ["", f"- **{outcome.replace(':', ':**', 1)}", *(f"  - {line.strip()}" for line in more)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
