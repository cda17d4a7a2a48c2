"""The content of the tables of a page, for page.js: columns and rows. A row ends with the number of its design, or
-1."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import CPU_TIME, MEDIAN_LATENCY
from harness.analysis.compare import Comparison
from harness.analysis.intervals import Estimate
from harness.analysis.stages import STAGES, WHOLE, Spreads, until
from harness.analysis.study import Cell, Study
from harness.report import vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.vocabulary import PIPELINE, Words
from harness.results import Trial

Rows = list[list[Any]]

_TITLES = {column.name: column.metadata["text"] for column in fields(Trial)}


def column(name: str, title: str = "", kind: str = "text", digits: int = 0, text: str = "") -> dict[str, Any]:
    """A column of a table.

    kind: `text`; `number`, with so many digits after the point; `rows`, the numbers of trials. text: what the head
    shows under the pointer; by default the description of the column of trials.csv.
    """
    return {"name": name, "title": title or name, "kind": kind, "digits": digits, "text": text or _TITLES.get(name, "")}


def _factor(name: str, levels: Iterable[Any], said: Words) -> dict[str, Any]:
    """The column of a factor, whose levels stand in the table as people write them: `64 KiB`, `2 ms`. Where that is not
    how text sorts, the column has the number of each."""
    numbers = {naming.value(name, one): _number(one) for one in levels if one is not None}
    made = column(name, said.factor(name), text="" if said is PIPELINE else f"`{name}` of trials.csv")
    if all(number is not None for number in numbers.values()):
        made["numbers"] = numbers
    return made


def _number(level: Any) -> float | None:
    """The number that a level is, or spells: sizes are text in trials.csv."""
    if isinstance(level, bool):
        return None
    try:
        return float(level)
    except ValueError:
        return None


def of_cells(study: Study, styles: DesignStyles) -> dict[str, Any]:
    """A row for each cell of each context."""
    said = vocabulary.of_study(study)
    apart = list(dict.fromkeys(name for context in study.contexts for name in context.levels))
    compared = styles.factors or list(study.compared)
    floors = any(cell.above_floor for cell in styles.cells)
    columns = [
        *(_factor(name, (one.levels.get(name) for one in study.contexts), said) for name in apart),
        *(_factor(name, (one.design[name] for one in styles.cells), said) for name in compared),
        column("requests_per_s", said.rate, "number", 0, "geometric mean of the cell's trials"),
        column("least", "least", "number", 0, "smallest of its trials"),
        column("most", "most", "number", 0, "largest of its trials"),
        column("ratio", "ratio", "number", 3, "to the baseline, within blocks"),
        column("low", "from", "number", 3, "lower end of the ratio's interval"),
        column("high", "to", "number", 3, "upper end of the ratio's interval"),
        column("verdict", "verdict"),
        *_difference_columns(study),
        *(_above_columns(study) if floors else ()),
        column("mb_per_s", "MB/s", "number", 1, "content, 10^6 bytes a second"),
        column("cpu_us_per_request", "CPU \u00b5s", "number", 1, f"{said.cpu}, for each {said.request}"),
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
                    *(_above(cell) if floors else ()),
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
    said = vocabulary.of_study(study)
    latency = bool(study.contexts) and study.contexts[0].metric == MEDIAN_LATENCY
    columns = []
    for name, title, what in (
        (
            "difference",
            "p50 \u00b5s more" if latency else "\u00b5s more",
            f"median {said.latency}" if latency else "wall time",
        ),
        ("cpu_difference", "CPU \u00b5s more", said.cpu),
    ):
        columns += [
            column(
                f"{name}_us", title, "number", 1, f"{what} of a {said.request} beyond the baseline's, within blocks"
            ),
            column(f"{name}_low_us", "from", "number", 1, f"lower end of the interval of the difference in {what}"),
            column(f"{name}_high_us", "to", "number", 1, f"upper end of the interval of the difference in {what}"),
        ]
    return columns


def _above_columns(study: Study) -> list[dict[str, Any]]:
    """The microseconds that a request takes above the floor of its shape, the ends of the interval, and that floor."""
    request = vocabulary.of_study(study).request
    text = f"time of a {request} beyond that of the floor of its shape, copying or not, within blocks"
    return [
        column("above_floor_us", "\u00b5s above floor", "number", 1, text),
        column("above_floor_low_us", "from", "number", 1, "lower end of the interval of that difference"),
        column("above_floor_high_us", "to", "number", 1, "upper end of the interval of that difference"),
        column("its_floor", "floor", "text", 0, "the design that is the floor of its shape here"),
    ]


def _above(cell: Cell) -> list[float | str | None]:
    above = cell.above_floor
    return [*_ends(above.micros), above.floor] if above else [None, None, None, "-"]


def _ends(one: Estimate | None) -> list[float | None]:
    """A value and the ends of its interval."""
    if not one:
        return [None] * 3
    return [one.value, one.low, one.high] if one.bounded else [one.value, None, None]


def _measured(said: Words) -> Iterable[tuple[str, dict[str, Any], float]]:
    """Measured columns of the table of trials: the column of trials.csv, the one here, what one unit here is there."""
    given = [
        ("requests_per_s", said.rate, f"{said.request}s a second", 1.0),
        ("content_bytes_per_s", "MB/s", "content, 10^6 bytes a second", 1e6),
        ("cpu_us_per_request", "CPU \u00b5s", f"{said.cpu}, user and kernel, for each {said.request}", 1.0),
        ("latency_p50_us", "p50 \u00b5s", f"median {said.latency}", 1.0),
        ("latency_p99_us", "p99 \u00b5s", f"99 of 100 have at most this {said.latency}", 1.0),
        ("latency_max_us", "max \u00b5s", f"largest {said.latency}", 1.0),
    ]
    if said is PIPELINE:
        given.append(("client_busy", "client busy", "", 1.0))
    for name, title, text, unit in given:
        yield name, column("mb_per_s" if unit != 1.0 else name, title, "number", text=text), unit


def of_trials(trials: Sequence[Trial], varying: Sequence[str], study: Study, styles: DesignStyles) -> dict[str, Any]:
    """A row for each trial: its status, the factors that vary, and what was measured."""
    said = vocabulary.of_study(study)
    keys = {row: styles.key(cell) for context in study.contexts for cell in context.cells for row in cell.rows}
    columns, values = [], []
    for name in ("trial", "block", "cell", "status"):
        columns.append(column(name, kind="text" if name == "status" else "number"))
        values.append([getattr(trial, name) for trial in trials])
    for name in varying:
        levels = [getattr(trial, name) for trial in trials]
        columns.append(_factor(name, levels, said))
        values.append([naming.value(name, level) for level in levels])
    for name, made, unit in _measured(said):
        given = [getattr(trial, name) / unit for trial in trials]
        if any(given):
            columns.append({**made, "digits": _digits(given) if unit == 1.0 else 1})
            values.append(given)
    for name in ("control", "disturbed", "probe", "reason"):
        texts = [str(given) if (given := getattr(trial, name)) else "" for trial in trials]
        if any(texts):
            columns.append(column(name))
            values.append(texts)
    rows = [
        [*row, keys.get(trial.trial, -1) if trial.status == "ok" else -1]
        for trial, row in zip(trials, zip(*values, strict=True), strict=True)
    ]
    return {"columns": columns, "rows": _rounded(rows)}


def of_stages(study: Study, styles: DesignStyles, stages: Mapping[int, Spreads]) -> dict[str, Any]:
    """A row for each stage of the requests of each cell. stages: by the number of a cell."""
    said = vocabulary.of_study(study)
    columns = [
        column("context"),
        column("design"),
        column("stage", "until", text="what ends the stage"),
        column("place", "where", text="`channel`: on the way, or until the other process has woken up"),
        column("low_us", "25 % \u00b5s", "number", 1, f"a quarter of the {said.request}s took at most so long"),
        column("median_us", "median \u00b5s", "number", 1, f"half of the {said.request}s took at most so long"),
        column("high_us", "75 % \u00b5s", "number", 1, f"three quarters of the {said.request}s took at most so long"),
        column("mean_us", "mean \u00b5s", "number", 1, "the means of the stages add up to that of the whole"),
        column("share", "share %", "number", 1, "of the mean of the whole"),
    ]
    rows: Rows = []
    for context in study.contexts:
        for cell in context.cells:
            spreads = stages.get(cell.number, {})
            for name, spread in spreads.items():
                place = "" if name == WHOLE else STAGES[name].place
                share = 100 * spread.mean / spreads[WHOLE].mean
                stage = [until(name), said.roles.get(place, place)]
                rows.append([context.label, styles.name(cell), *stage, *spread, share, styles.key(cell)])
    return {"columns": columns, "rows": _rounded(rows)}


def _digits(values: Sequence[float]) -> int:
    """Digits after the point, so that the largest value has about three significant ones."""
    most = max(map(abs, values), default=0)
    return 0 if most >= 1000 else 1 if most >= 10 else 3


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
    unit, scale = (", MB/s", 1e6) if comparison.metric == "content_bytes_per_s" else ("", 1.0)
    digits = _digits([pair.first.value / scale for pair in comparison.pairs])
    columns = [
        *(_factor(name, (pair.levels.get(name) for pair in comparison.pairs), PIPELINE) for name in names),
        column("a", f"A{unit}", "number", digits),
        column("b", f"B{unit}", "number", digits),
        column("ratio", "B to A", "number", 3),
        column("low", "from", "number", 3),
        column("high", "to", "number", 3),
        column("verdict"),
        column("n", "n", "number", 0, "good trials of the run that has fewer"),
    ]
    rows: Rows = [
        [
            *("-" if given in ("", None) else naming.value(name, given) for name, given in pair.levels.items()),
            pair.first.value / scale,
            pair.second.value / scale,
            *_ends(pair.ratio),
            pair.verdict,
            pair.ratio.n,
            place,
        ]
        for place, pair in enumerate(comparison.pairs)
    ]
    return {"columns": columns, "rows": _rounded(rows)}
