"""The table of the answer: in each context the designs to use, and by how much they differ from the baseline."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import CPU_TIME, MEDIAN_LATENCY
from harness.analysis.intervals import Estimate, more
from harness.analysis.resolution import Resolution, percents
from harness.analysis.study import Cell, Context, Study
from harness.report import vocabulary
from harness.report.markup import Markup, el
from harness.report.page import badge, scrolled
from harness.report.plot import micros, number

_MOST_CONTEXTS = 60  # that are shown
_MANY = 6  # contexts from which on each shows its best design only
_MOST_NAMED = 3  # designs of a context that have a row


def table(study: Study, fixed: Mapping[str, Any]) -> Markup:
    """The table. Contexts that differ in their files only stand together, and each size has its own answer. fixed:
    column -> level, of the factors that do not vary."""
    contexts = study.contexts[:_MOST_CONTEXTS]
    said = vocabulary.of_study(study)
    groups: dict[str, list[Context]] = defaultdict(list)
    for context in contexts:
        groups[said.label(_but_files(context))].append(context)
    # Where no two contexts differ in their files only, a heading for each would say all twice.
    grouped = len(groups) > 1 and len(groups) < len(contexts)
    latency = contexts[0].metric == MEDIAN_LATENCY
    median = f"median {said.latency}"
    heads = [said.files if grouped else "where", "use"]
    heads += [*(("p50", "p99") if latency else (said.rate, "p50")), "ratio"]
    heads += ["p50 \u00b5s" if latency else "wall \u00b5s", "CPU \u00b5s", "resolves"]
    most = _MOST_NAMED if len(contexts) < _MANY else 1
    bodies = []
    for label, members in groups.items():
        meaning = _meaning({**fixed, **members[0].levels})
        if grouped:
            text = [el("strong", label), el("span", f" \u2014 {meaning}", class_="soft") if meaning else None]
            bodies.append(el("tbody", el("tr", el("th", text, colspan=len(heads), scope="rowgroup"), class_="group")))
        for context in members:
            name = naming.value("files", context.levels["files"]) if grouped else context.label or "all trials"
            bodies.append(el("tbody", _rows(context, name, heads, most)))
    base = next((context.baseline.label for context in contexts if context.baseline), "")
    caption = [
        f"p50: the {median}. Against the baseline, {base}: " if base else "",
        f"the ratio of {median if latency else said.rate}, and how many microseconds a {said.request} takes more (+) ",
        f"or less (-): {median if latency else 'wall time of the whole system'}, {said.cpu}. "
        "All intervals of a column hold at once, with 95 % probability. Resolves: how "
        "far the intervals of ratios reach to each side, from the median of the cells to the largest.",
    ]
    meanings = {_meaning({**fixed, **context.levels}) for context in contexts} - {""}
    if not grouped and len(meanings) == 1:
        caption.append(f" Measured: {meanings.pop()}.")
    head = [el("th", one, scope="col", class_="n" if 2 <= place <= 6 else None) for place, one in enumerate(heads)]
    drawn = el("table", el("thead", el("tr", head)), bodies, class_="best fitting")
    # No caption: in a wide table it would be as wide.
    return el("div", scrolled(drawn, "The best designs in each context"), el("p", caption, class_="soft"))


def headline(context: Context) -> str:
    """What a context answers, in a line: `sendfile or handoff`."""
    leaders = [cell.label for cell in context.leaders]
    rivals = sum(not cell.floor for cell in context.cells)
    if not leaders:
        return "not said: see the notes"
    if _too_many(context):
        return f"cannot tell, {len(leaders)} of {rivals} are unbeaten"
    more = f" or {len(leaders) - _MOST_NAMED} more" if len(leaders) > _MOST_NAMED else ""
    return f"{' or '.join(leaders[:_MOST_NAMED])}{more}"


def _too_many(context: Context) -> bool:
    """Whether so many designs are unbeaten that they are no answer."""
    rivals = sum(not cell.floor for cell in context.cells)
    return len(context.leaders) > _MOST_NAMED and 2 * len(context.leaders) > rivals


def _but_files(context: Context) -> dict[str, Any]:
    return {name: level for name, level in context.levels.items() if name != "files"}


def _meaning(levels: Mapping[str, Any]) -> str:
    """What a load on this placement measures; empty where it is neither of the two plain cases."""
    if levels.get("rate") or levels.get("scope", "pipeline") != "pipeline":
        return ""
    if levels.get("placement") == "same-core" and levels.get("clients") == 1:
        return "what a request costs in all: one core, one request at a time"
    if levels.get("placement") == "free" and levels.get("clients", 1) > 1:
        return "what the machine serves: free placement, several requests at a time"
    return ""


def _rows(context: Context, name: str, heads: Sequence[str], most: int) -> list[Markup]:
    """The rows of a context."""
    rows = _designs(context, most)
    drawn = []
    for place, (cell, text) in enumerate(rows):
        cells = [
            el("td", text, data_head="use"),
            *(
                el("td", value, class_="n none" if value == "-" else "n", data_head=head)
                for head, value in zip(heads[2:7], _values(context, cell), strict=True)
            ),
        ]
        if not place:
            size = None if heads[0] == "where" else "size"
            cells.insert(0, el("th", name, scope="row", rowspan=len(rows), class_=size))
            cells.append(el("td", _resolves(context.resolution), rowspan=len(rows), data_head="resolves"))
        drawn.append(el("tr", cells))
    return drawn


def _designs(context: Context, most: int) -> list[tuple[Cell, list[Any]]]:
    """The designs of a context that have a row, and what the row calls them: the unbeaten ones, or the best one where
    these are too many to be an answer, or verdicts are withheld. Behind a single unbeaten one comes the next."""
    rivals = [cell for cell in context.cells if not cell.floor] or context.cells
    leaders = context.leaders
    if not leaders:
        return [(rivals[0], [badge("not said", "bad"), f" first here: {rivals[0].label}"])]
    if _too_many(context):
        folded = _folded(f"{len(leaders)} of {len(rivals)} are unbeaten", leaders)
        return [(leaders[0], [badge("cannot tell", "unsure"), f" first here: {leaders[0].label}", folded])]
    rows = [
        (cell, ["or " if place else "", el("strong", cell.label), " (baseline)" if cell.baseline else ""])
        for place, cell in enumerate(leaders[:most])
    ]
    if rest := leaders[most:]:
        named = f" or {', '.join(cell.label for cell in rest)}" if most + len(rest) <= _MOST_NAMED else None
        rows[-1][1].append(named or _folded(f"{len(rest)} more {'are' if len(rest) > 1 else 'is'} unbeaten", rest))
    elif len(leaders) == 1 and len(rivals) > 1 and most > 1:
        after = rivals[1] if rivals[0] is leaders[0] else rivals[0]
        rows.append((after, [el("span", f"next: {after.label}", class_="soft")]))
    return rows


def _folded(summary: str, cells: Sequence[Cell]) -> Markup:
    return el("details", el("summary", summary), ", ".join(cell.label for cell in cells))


def _values(context: Context, cell: Cell) -> list[Any]:
    """The columns between the name and the resolution."""
    measured, cpu = cell.measurements.get(context.metric), cell.measurements.get(CPU_TIME)
    median, slow = (cell.measurements.get(name) for name in (MEDIAN_LATENCY, "latency_p99_us"))
    latencies = [micros(one.value.value) if one else "-" for one in (median, slow)]
    if context.metric != MEDIAN_LATENCY:
        latencies = [number(measured.value.value) if measured else "-", latencies[0]]
    if cell.baseline:
        return [*latencies, "baseline", "-", "-"]
    places = context.resolution.places if context.resolution else 2
    return [
        *latencies,
        _ratio(measured.ratio if measured else None, places),
        *(more(one.difference) if one and one.difference else "-" for one in (measured, cpu)),
    ]


def _ratio(one: Estimate | None, places: int) -> Any:
    if not one:
        return "-"
    ends = f"{one.low:.{places}f} to {one.high:.{places}f}" if one.bounded else ""
    return [f"{one.value:.{places}f} ", el("span", ends, class_="soft")]


def _resolves(one: Resolution | None) -> str | Markup:
    """What differences of a context can be seen: the median and the largest of its intervals."""
    if not one:
        return "nothing to compare it with"
    if math.isinf(one.median):
        return badge("no interval", "unsure")
    largest = one.largest if math.isfinite(one.largest) else one.median
    return badge(percents(one.median, largest), "unsure" if one.coarse else "good")
