"""Writes what the pages say of kept results: results/README.md, what each study asked and what became of every claim,
and in README.md the answer of the study `quick`, in short.

    .venv/bin/python benchmarks/describe_results.py
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.analysis import intervals, judgements, run_files, study

ROOT = Path(__file__).parent.parent
_BEGIN, _END = "<!-- written by benchmarks/describe_results.py -->\n", "<!-- end -->\n"
_FULL = ["command", "data", "requests/s", "min to max", "ratio", "interval", "verdict", "MB/s", "CPU us"]
_FULL += ["p50 us", "p99 us"]
_SHORT = ["files", "command + data", "requests/s", "ratio", "interval", "us more", "verdict"]
_TABLES_OF = "quick"  # results/README.md has the tables of this study; the README has a part of them


def main() -> int:
    for file, text in pages().items():
        file.write_text(text)
    return 0


def pages() -> dict[Path, str]:
    """The files with what they should say. What stands before the first marker and after the second is not touched."""
    return {
        ROOT / name: _with(ROOT / name, text) for name, text in (("results/README.md", page()), ("README.md", answer()))
    }


def _with(file: Path, text: str) -> str:
    before, rest = file.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{text}\n\n{_END}{after}"


def answer() -> str:
    """What `make study` says in short: in each context on one core the fastest cell and the slowest one."""
    found = study.analyse(*run_files.load_run(str(ROOT / f"results/{_TABLES_OF}")))
    shown = [context for context in found.contexts if context.levels["placement"] == "same-core"]
    rows = [_short_row(cell, context.label) for context in shown for cell in _telling(context.cells)]
    return "\n".join(_table(_SHORT, rows, 2))


def _telling(cells: Sequence[study.Cell]) -> list[study.Cell]:
    """The fastest cell and the slowest one, but for the baseline. Cells come fastest first; floors are not ranked."""
    ranked = [cell for cell in cells if not cell.floor and not cell.baseline]
    return [ranked[0], ranked[-1]]


def _short_row(cell: study.Cell, label: str) -> list[str]:
    rate = _rate(cell)
    more = intervals.more(rate.difference) if rate.difference else "-"
    where = label.replace(" files", "").replace("placement ", "")
    return [where, _pair(cell), f"{rate.value.value:,.0f}", *_ratio(cell), more, _verdict(cell)]


def tables(found: study.Study) -> list[str]:
    """Everything that a study says of its cells, a table for each context."""
    lines = []
    for context in found.contexts:
        rows = [_full_row(cell, context.file_size_bytes) for cell in context.cells]
        lines += ["", f"**{context.label}**", "", *_table(_FULL, rows, 2)]
    return lines


def _full_row(cell: study.Cell, size: int) -> list[str]:
    rate = _rate(cell)
    value = rate.value.value
    others = [
        cell.measurements[name].value.value for name in ("cpu_us_per_request", "latency_p50_us", "latency_p99_us")
    ]
    return [
        cell.design["command"],
        cell.design["data"],
        f"{value:,.0f}",
        f"{rate.least:,.0f} to {rate.most:,.0f}",
        *_ratio(cell),
        _verdict(cell),
        f"{value * size / 1e6:,.0f}",
        *(f"{other:,.0f}" for other in others),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """A Markdown table; the first `texts` columns and the verdict are words, the others numbers."""
    kinds = ["---" if at < texts or name == "verdict" else "--:" for at, name in enumerate(columns)]
    lines = [columns, kinds, *rows]
    return [f"| {' | '.join(line)} |" if line is not kinds else f"|{'|'.join(line)}|" for line in lines]


def _rate(cell: study.Cell) -> Any:
    return cell.measurements["requests_per_s"]


def _pair(cell: study.Cell) -> str:
    return f"{cell.design['command']} + {cell.design['data']}"


def _ratio(cell: study.Cell) -> tuple[str, str]:
    ratio = _rate(cell).ratio
    return (f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}") if ratio else ("1.000", "-")


def _verdict(cell: study.Cell) -> str:
    return _rate(cell).verdict or ("baseline" if cell.baseline else "floor")


def page() -> str:
    """What each kept study asked, and what became of its claims."""
    places = sorted(ROOT.glob("results/*/experiment.yaml"))
    kept = [one.parent for one in places if (ROOT / f"experiments/{one.parent.name}.yaml").exists()]
    return "\n\n".join(_study(place) for place in kept)


def _study(place: Path) -> str:
    trials, experiment, slices = run_files.load_run(str(place))
    found = study.analyse(trials, experiment, slices)
    lines = [
        f"## {place.name}",
        "",
        f"{experiment['question']}",
        f"{found.counts.ok} good trials of {found.counts.trials}, {found.counts.disturbed} of them disturbed.",
        found.control.line,
    ]
    lines += [one.sentence for one in found.crossovers]
    for judged in found.answers:
        outcome, *more = judgements.lines(judged)
        lines += ["", f"- **{outcome.replace(':', ':**', 1)}", *(f"  - {line.strip()}" for line in more)]
    return "\n".join([*lines, *(tables(found) if place.name == _TABLES_OF else [])])


if __name__ == "__main__":
    sys.exit(main())
