"""The content of the tables of a page, for page.js: columns and rows. A row ends with the number of its design, or
-1."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from harness.analysis import naming
from harness.analysis.cells import CPU_TIME, MEDIAN_LATENCY
from harness.analysis.compare import Comparison
from harness.analysis.intervals import Estimate
from harness.analysis.study import Study
from harness.report.design_styles import DesignStyles
from harness.results import Trial

Rows = list[list[Any]]

_TYPES = get_type_hints(Trial)
_TITLES = {column.name: column.metadata["text"] for column in fields(Trial)}


def column(name: str, title: str = "", kind: str = "text", digits: int = 0, text: str = "") -> dict[str, Any]:
    """A column of a table.

    kind: `text`; `number`, with so many digits after the point; `rows`, the numbers of trials. text: what the head
    shows under the pointer; by default the description of the column of trials.csv.
    """
    return {"name": name, "title": title or name, "kind": kind, "digits": digits, "text": text or _TITLES.get(name, "")}


def of_cells(study: Study, styles: DesignStyles) -> dict[str, Any]:
    """A row for each cell of each context."""
    apart = list(dict.fromkeys(name for context in study.contexts for name in context.levels))
    compared = styles.factors or list(study.compared)
    columns = [
        *(column(name) for name in (*apart, *compared)),
        column("requests_per_s", "requests/s", "number", 0, "geometric mean of the cell's trials"),
        column("least", "least", "number", 0, "smallest of its trials"),
        column("most", "most", "number", 0, "largest of its trials"),
        column("ratio", "ratio", "number", 3, "to the baseline, within blocks"),
        column("low", "from", "number", 3, "lower end of the ratio's interval"),
        column("high", "to", "number", 3, "upper end of the ratio's interval"),
        column("verdict", "verdict"),
        *_difference_columns(study),
        column("mb_per_s", "MB/s", "number", 1, "content, 10^6 bytes a second"),
        column("cpu_us_per_request", "CPU \u00b5s", "number", 1),
        column("latency_p50_us", "p50 \u00b5s", "number", 0),
        column("latency_p99_us", "p99 \u00b5s", "number", 0),
        column("disturbed", "disturbed", "number", 0, "of its trials"),
        column("trials", "trials", "rows", 0, "the rows of trials.csv behind these values"),
    ]
    rows: Rows = []
    for context in study.contexts:
        for cell in context.cells:
            throughput, judged = cell.measurements.get("requests_per_s"), cell.measurements.get(context.metric)
            ratio = judged.ratio if judged else None
            direct = cell.design.get("source") == "direct"
            verdict = "baseline" if cell.baseline else "floor" if cell.floor else judged.verdict if judged else ""
            design = ["direct" if direct else naming.value(name, cell.design[name]) or "-" for name in compared]
            cpu = cell.measurements.get(CPU_TIME)
            rows.append(
                [
                    *(naming.value(name, context.levels[name]) if name in context.levels else "-" for name in apart),
                    *design,
                    *(
                        (throughput.value.value, throughput.least, throughput.most)
                        if throughput
                        else (None, None, None)
                    ),
                    *_ends(ratio),
                    verdict,
                    *_ends(judged.difference if judged else None),
                    *_ends(cpu.difference if cpu else None),
                    *(
                        measured.value.value / scale if (measured := cell.measurements.get(name)) else None
                        for name, scale in (
                            ("content_bytes_per_s", 1e6),
                            ("cpu_us_per_request", 1),
                            ("latency_p50_us", 1),
                            ("latency_p99_us", 1),
                        )
                    ),
                    cell.disturbed,
                    cell.rows,
                    styles.key(cell),
                ]
            )
    return {"columns": columns, "rows": _rounded(rows)}


def _difference_columns(study: Study) -> list[dict[str, Any]]:
    """The microseconds that a request takes more than with the baseline, and the ends of the interval."""
    latency = bool(study.contexts) and study.contexts[0].metric == MEDIAN_LATENCY
    columns = []
    for name, title, what in (
        ("difference", "p50 \u00b5s more" if latency else "\u00b5s more", "median latency" if latency else "wall time"),
        ("cpu_difference", "CPU \u00b5s more", "CPU time of proxy and cache"),
    ):
        columns += [
            column(f"{name}_us", title, "number", 1, f"{what} of a request beyond the baseline's, within blocks"),
            column(f"{name}_low_us", "from", "number", 1, f"lower end of the interval of the difference in {what}"),
            column(f"{name}_high_us", "to", "number", 1, f"upper end of the interval of the difference in {what}"),
        ]
    return columns


def _ends(one: Estimate | None) -> list[float | None]:
    """A value and the ends of its interval."""
    if not one:
        return [None] * 3
    return [one.value, one.low, one.high] if one.bounded else [one.value, None, None]


_MEASURED = (
    "requests_per_s",
    "content_bytes_per_s",
    "cpu_us_per_request",
    "latency_p50_us",
    "latency_p99_us",
    "latency_max_us",
    "client_busy",
)


def of_trials(trials: Sequence[Trial], varying: Sequence[str], study: Study, styles: DesignStyles) -> dict[str, Any]:
    """A row for each trial: its status, the factors that vary, and what was measured."""
    keys = {row: styles.key(cell) for context in study.contexts for cell in context.cells for row in cell.rows}
    shown = [
        "trial",
        "block",
        "cell",
        "status",
        *[name for name in varying if name not in ("trial", "block")],
        *_MEASURED,
        "control",
        "disturbed",
        "probe",
        "reason",
    ]
    shown = [name for name in shown if name in ("trial", "status") or any(getattr(trial, name) for trial in trials)]
    columns = [
        column(name)
        if _TYPES[name] is str
        else column(name, kind="number", digits=_digits([getattr(trial, name) for trial in trials], _TYPES[name]))
        for name in shown
    ]
    rows = [
        [*(getattr(trial, name) for name in shown), keys.get(trial.trial, -1) if trial.status == "ok" else -1]
        for trial in trials
    ]
    return {"columns": columns, "rows": _rounded(rows)}


def _digits(values: Sequence[float], kind: type) -> int:
    """Digits after the point, so that the largest value has about three significant ones."""
    most = max(map(abs, values), default=0)
    return 0 if kind is int or most >= 1000 else 1 if most >= 10 else 3


def _rounded(rows: Rows) -> Rows:
    """The rows with numbers rounded to five significant digits, which keeps the page small; trials.csv has all
    digits."""
    return [[_short(one) if isinstance(one, float) else one for one in row] for row in rows]


def _short(value: float) -> float:
    rounded = float(f"{value:.5g}")
    return int(rounded) if rounded.is_integer() else rounded


def of_pairs(comparison: Comparison) -> dict[str, Any]:
    """A row for each cell that two runs share."""
    names = list(comparison.pairs[0].levels) if comparison.pairs else []
    digits = _digits([pair.first.value for pair in comparison.pairs], float)
    columns = [
        *(column(name) for name in names),
        column("a", "A", "number", digits),
        column("b", "B", "number", digits),
        column("ratio", "B to A", "number", 3),
        column("low", "from", "number", 3),
        column("high", "to", "number", 3),
        column("verdict"),
        column("n", "n", "number", 0, "good trials of the run that has fewer"),
    ]
    rows: Rows = [
        [
            *("-" if given in ("", None) else naming.value(name, given) for name, given in pair.levels.items()),
            pair.first.value,
            pair.second.value,
            *_ends(pair.ratio),
            pair.verdict,
            pair.ratio.n,
            place,
        ]
        for place, pair in enumerate(comparison.pairs)
    ]
    return {"columns": columns, "rows": _rounded(rows)}
