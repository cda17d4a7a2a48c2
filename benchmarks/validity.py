"""Do the differences between mechanisms that the harness measures hold for programs in C? Writes the tables of
docs/validity.md from a run of benchmarks/native/validity.yaml.

    make native
    .venv/bin/harness run benchmarks/native/validity.yaml -o DIR
    .venv/bin/python benchmarks/validity.py DIR

Each block has every mechanism as a lane of the harness, and as two programs in C with the same exchange. So what a
mechanism takes more than another one is known three times, from the same rounds.
"""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from scipy.stats import spearmanr

from harness.analysis import intervals, run_files
from harness.analysis.cells import CellTrials, ContextTrials, StudyTrials
from harness.analysis.intervals import Estimate
from harness.units import show_size

PAGE = Path(__file__).parent.parent / "docs/validity.md"
KEPT = PAGE.parent.parent / "results/validity"
_BEGIN, _END = "<!-- written by benchmarks/validity.py -->\n", "<!-- end -->\n"
_TIME = "requests_per_s"  # as a difference: the time of a message
HERE, BARE, BOUNDED = "here", "bare", "bounded"
_BASE = "unix"
_CLOSE_US, _CLOSE = 1.0, 0.2  # a difference here that is as near as this to that in C carries over

Cells = Mapping[tuple[str, str], CellTrials]  # (mechanism, HERE or a kind of C) -> its trials


class Row(NamedTuple):
    """A mechanism at one size and placement. micros: of a message, by kind. more: what it takes more than _BASE, by
    kind. apart: the difference here, less that in C with bounded waits. The last two are empty for _BASE."""

    mechanism: str
    micros: Mapping[str, float]
    more: Mapping[str, Estimate]
    apart: Estimate | None


class Table(NamedTuple):
    """At one size and placement. ranks: rank correlation of the mechanisms' times here and in C. agreed: how many pairs
    of mechanisms there are, by what the two sides say of them. opposite: those of which they say the opposite."""

    placement: str
    size: int
    rows: Sequence[Row]
    ranks: float
    agreed: Counter[str]
    opposite: Sequence[str]


def main() -> int:
    directory = sys.argv[1] if len(sys.argv) > 1 else str(KEPT)
    before, rest = PAGE.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{written(directory)}\n\n{_END}{after}")
    return 0


def written(directory: str) -> str:
    """What the page says of a run."""
    found = tables(directory)
    lines = summary(found)
    for table in found:
        lines += ["", f"**{table.placement}, {show_size(table.size)}**", ""]
        lines += ["| mechanism | C | C, bounded | here | more in C | more here | here - C |"]
        lines += ["|---|--:|--:|--:|--:|--:|--:|"]
        for row in table.rows:
            micros = [f"{row.micros[kind]:,.1f}" for kind in (BARE, BOUNDED, HERE)]
            more = (
                [intervals.more(one) for one in (row.more[BOUNDED], row.more[HERE], row.apart)]
                if row.apart
                else ["-"] * 3
            )
            lines.append(f"| `{row.mechanism}` | {' | '.join([*micros, *more])} |")
    return "\n".join(lines)


def tables(directory: str) -> list[Table]:
    """The tables of a run, one core first, by size. Mechanisms without good trials of all three kinds are left out."""
    trials, _, slices = run_files.load_run(directory)
    contexts = StudyTrials(trials, slices).contexts(("data", "interpreter"), always=("files", "placement"))
    found = [_table(context, len(contexts)) for context in contexts]
    return sorted(found, key=lambda table: (table.placement != "same-core", table.size))


def _table(context: ContextTrials, contexts: int) -> Table:
    cells = {_key(cell): cell for cell in context.good}
    whole = [name for name, kind in cells if kind == HERE and all((name, other) in cells for other in (BARE, BOUNDED))]
    if _BASE not in whole:
        raise ValueError(f"no good trials of {_BASE}, here and in C, among those of {context.any_trial.files} bytes")
    others = [name for name in whole if name != _BASE]
    level = intervals.corrected(len(others) * contexts)

    def more(kind: str) -> list[Mapping[int, float]]:
        return [cells[name, kind].differences(cells[_BASE, kind], _TIME) for name in others]

    found = {kind: _estimates(more(kind), level) for kind in (HERE, BARE, BOUNDED)}
    differences = [
        {block: ours[block] - theirs[block] for block in ours.keys() & theirs.keys()}
        for ours, theirs in zip(more(HERE), more(BOUNDED), strict=True)
    ]
    apart = _estimates(differences, level)
    rows = [Row(_BASE, _micros(cells, _BASE), {}, None)]
    for at, name in enumerate(others):
        rows.append(Row(name, _micros(cells, name), {kind: some[at] for kind, some in found.items()}, apart[at]))
    rows.sort(key=lambda row: row.micros[BOUNDED])
    ranks = spearmanr([row.micros[BOUNDED] for row in rows], [row.micros[HERE] for row in rows]).statistic
    agreed, opposite = _pairs(cells, whole, contexts)
    trial = context.any_trial
    return Table(trial.placement, trial.file_size_bytes, rows, float(ranks), agreed, opposite)


def _key(cell: CellTrials) -> tuple[str, str]:
    return cell.design["data"], os.path.basename(cell.design["interpreter"]) or HERE


def _micros(cells: Cells, name: str) -> dict[str, float]:
    """The time of a message by kind: of the geometric mean of the blocks' rates."""
    return {
        kind: 1e6 / intervals.means([list(cells[name, kind].logs(_TIME).values())])[0].value
        for kind in (HERE, BARE, BOUNDED)
    }


def _estimates(samples: Sequence[Mapping[int, float]], level: float) -> list[Estimate]:
    return intervals.differences([list(one.values()) for one in samples], level, ["alike"] * len(samples))


def _pairs(cells: Cells, mechanisms: Sequence[str], contexts: int) -> tuple[Counter[str], list[str]]:
    """What the two sides say of each pair of mechanisms, at the level at which all pairs of the study hold at once."""
    pairs = list(combinations(mechanisms, 2))
    level = intervals.corrected(2 * len(pairs) * contexts)
    said = {
        kind: _estimates([cells[one, kind].differences(cells[two, kind], _TIME) for one, two in pairs], level)
        for kind in (HERE, BOUNDED)
    }
    agreed: Counter[str] = Counter()
    opposite = []
    for (one, two), ours, theirs in zip(pairs, said[HERE], said[BOUNDED], strict=True):
        here, there = _sign(ours), _sign(theirs)
        if here and there:
            agreed["same" if here == there else "opposite"] += 1
        else:
            agreed["only here" if here else "only in C" if there else "neither"] += 1
        if here * there < 0:
            opposite.append(f"`{one}` against `{two}`: {intervals.more(theirs)} us in C, {intervals.more(ours)} here")
    return agreed, opposite


def _sign(one: Estimate) -> int:
    return (one.low > 0) - (one.high < 0)


def summary(found: Sequence[Table]) -> list[str]:
    """The counts over all tables, and where the harness misleads."""
    lines = [
        "| where | size | rank correlation | pairs: same order | opposite | only C tells | only here | neither | "
        "differences that carry over | do not | not known |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for table in found:
        verdicts = Counter(carries_over(row) for row in table.rows if row.apart)
        counts = [table.agreed[what] for what in ("same", "opposite", "only in C", "only here", "neither")]
        counts += [verdicts[what] for what in ("yes", "no", "not known")]
        where = f"{table.placement} | {show_size(table.size)} | {table.ranks:.2f}"
        lines.append(f"| {where} | {' | '.join(map(str, counts))} |")
    if wrong := [f"- {table.placement}, {show_size(table.size)}: {one}" for table in found for one in table.opposite]:
        lines += ["", "Where the two say the opposite:", "", *wrong]
    return lines


def carries_over(row: Row) -> str:
    """Whether what a mechanism takes more here is as near to that in C as this page asks for, by the whole interval."""
    assert row.apart
    margin = max(_CLOSE_US, _CLOSE * abs(row.more[BOUNDED].value))
    if -margin <= row.apart.low and row.apart.high <= margin:
        return "yes"
    return "no" if row.apart.low > margin or row.apart.high < -margin else "not known"


if __name__ == "__main__":
    sys.exit(main())
