"""The page of a fleet's run: what turns round and what holds, the charts, the hosts, and how far to trust it."""

import os
from collections import Counter
from typing import Any

from harness.analysis import claims
from harness.analysis.fleet import files, study
from harness.analysis.fleet.claims import FleetAnswer
from harness.analysis.fleet.over_hosts import DIFFER, EVERYWHERE, PARTLY, TOGETHER, TURNS
from harness.analysis.fleet.show import headline, interactions, said, summarised
from harness.analysis.fleet.study import FleetCell, FleetContext, FleetStudy
from harness.analysis.verdicts import CANNOT_TELL, WITHHELD
from harness.report import fleet_charts, page, tables
from harness.report.markup import Markup, el
from harness.report.plot import Chart
from harness.report.tooltips import ratio_text

NAME = "report.html"
_MOST_CONTEXTS = 60
_MOST_RATIOS = 20_000  # rows of the table of ratios
_BADGES = {
    claims.SUPPORTED: "good",
    claims.REFUTED: "bad",
    EVERYWHERE: "good",
    TURNS: "bad",
    DIFFER: "bad",
    TOGETHER: "good",
}
_MANY = {EVERYWHERE: "hold everywhere", TURNS: "turn round", PARTLY: "hold on some"}
_HEADS = ("design", "outcome", "mean", "interval", "next", "tau", "I\u00b2", "hosts")


def write(directory: str, output: str | None = None) -> str:
    """Write the page of a fleet, and return its path. Raises OSError, ValueError."""
    return write_analysed(directory, study.analyse(files.load(directory)), output)


def write_analysed(directory: str, found: FleetStudy, output: str | None = None) -> str:
    """Write the page of a fleet whose analysis is `found`, and return its path. Raises OSError."""
    path = output or f"{directory}/{NAME}"
    return page.save(path, _page(directory, path, found))


def charts_of(directory: str) -> list[Chart]:
    """The charts of a fleet. Raises OSError, ValueError."""
    return fleet_charts.charts(study.analyse(files.load(directory)))


def _page(directory: str, path: str, found: FleetStudy) -> str:
    name = found.name or os.path.basename(os.path.abspath(directory))
    question = found.question or name
    figures = [page.figure(chart) for chart in fleet_charts.charts(found) if chart.panels]
    began = min((host.began for host in found.hosts if host.began), default="")
    trials = sum(host.trials for host in found.hosts)
    parts: list[Any] = [
        page.head(f"Fleet {name}", question, [f"{len(found.hosts)} hosts", f"{trials:,} trials", began[:10]]),
        el("h2", "The answer", id="answer"),
        el("p", headline(found), class_="soft"),
        el("p", _counted(found), class_="lead"),
        el("ul", [el("li", line) for line in interactions(found)]),
        _table(found) if found.contexts else el("p", "No host has results that can be read."),
    ]
    if found.answers:
        parts += [
            el("h3", "Claims, written before the run"),
            el("div", [_claim(answer) for answer in found.answers], class_="answers"),
        ]
    parts += [el("h3", "How far to trust this"), el("ul", [el("li", note) for note in found.notes])]
    if figures:
        parts += [el("h2", "Charts", id="charts"), figures]
    parts += [el("h2", "Tables", id="tables"), el("h3", "Hosts"), page.table("hosts", "Hosts", "A row for each host.")]
    caption = "A row for each design in each context on each host. The intervals of a host hold at once."
    if sum(len(cell.there) for context in found.contexts for cell in context.cells) > _MOST_RATIOS:
        caption += f" The first {_MOST_RATIOS:,} rows; `harness show --json` has all."
    parts += [el("h3", "Ratios"), page.table("ratios", "Ratios", caption)]
    parts += _others(directory, path, found)
    given = {"hosts": _hosts(found), "ratios": _ratios(found)}
    return page.page(f"{name}: {question}", [el("main", parts)], given)


def _counted(found: FleetStudy) -> list[Any]:
    outcomes = Counter(cell.outcome for _, cell in found.rivals)
    return [
        [page.badge(f"{count} {one if count == 1 else _MANY.get(one, one)}", _BADGES.get(one, "unsure")), " "]
        for one, count in outcomes.items()
    ]


def _table(found: FleetStudy) -> Markup:
    """The outcomes: in each context the designs, what became of their verdicts, and the summary."""
    heads = [el("th", head, scope="col", class_="n" if place > 1 else None) for place, head in enumerate(_HEADS)]
    bodies = []
    for context in found.contexts[:_MOST_CONTEXTS]:
        label = el("th", el("strong", context.label or "all trials"), colspan=len(_HEADS), scope="rowgroup")
        rows = [_row(cell) for cell in context.cells if cell.summary or cell.outcome]
        bodies.append(el("tbody", el("tr", label, class_="group"), rows))
    table = el("table", el("thead", el("tr", heads)), bodies, class_="best fitting")
    base = next((cell.label for context in found.contexts for cell in context.cells if cell.baseline), "")
    caption = f"Ratios to {base}. Means are of {found.like}, and hold at once."
    caption += " next is the next such machine." if found.apart else " Nothing is said of the next machine."
    return el("div", page.scrolled(table, "Outcomes over hosts"), el("p", caption, class_="soft"))


def _row(cell: FleetCell) -> Markup:
    values = summarised(cell.mean, cell.summary)
    decided = cell.outcome != TOGETHER or cell.verdict not in (CANNOT_TELL, WITHHELD)
    kind = _BADGES.get(cell.outcome, "unsure") if decided else "unsure"
    badge = el("span", "floor", class_="soft") if cell.floor else page.badge(said(cell), kind)
    cells = [el("td", cell.label, data_head="use"), el("td", badge, data_head="outcome")]
    cells += [
        el("td", value, class_="n none" if value == "-" else "n", data_head=head)
        for head, value in zip(_HEADS[2:], [*values, str(len(cell.there))], strict=True)
    ]
    return el("tr", cells)


def _claim(answer: FleetAnswer) -> Markup:
    lines = []
    for one in answer.findings:
        counts = ", ".join(f"{outcome} on {len(hosts)}" for outcome, hosts in one.hosts.items())
        over = f"over hosts {fleet_charts.over_text(one.summary.ratio)}" if one.summary else ""
        whole = f"all blocks {ratio_text(one.together)}" if one.together else ""
        spans = [
            el("span", one.label or "all trials", class_="where"),
            el("span", ", ".join(filter(None, (counts, one.silence)))),
            el("span", "; ".join(filter(None, (over, whole))), class_="soft"),
        ]
        lines.append(el("div", spans, class_="finding"))
    return el(
        "article",
        page.badge(answer.outcome, _BADGES.get(answer.outcome, "unsure")),
        el("h3", answer.claim.text),
        lines or el("p", answer.reason, class_="soft"),
        class_="claim",
    )


def _hosts(found: FleetStudy) -> dict[str, Any]:
    names = ("processor", "CPUs", "kernel", "congestion control", "Python", "harness")
    columns = [
        tables.column("host"),
        *(tables.column(name, text=f"{name}, from environment.json") for name in names),
        tables.column("ok", "good trials", "number", 0, "good trials, without those for probes"),
        tables.column("control", "A/A control", text="OFF: the host is left out of summaries"),
        tables.column("problem", text="why the host says nothing"),
    ]
    rows = [
        [
            host.name,
            *(host.facts.get(name, "-") for name in names),
            host.ok,
            f"OFF: {host.off}" if host.off else host.control if host.contexts else "-",
            host.problem or "-",
            number,
        ]
        for number, host in enumerate(found.hosts)
    ]
    return {"columns": columns, "rows": rows}


def _ratios(found: FleetStudy) -> dict[str, Any]:
    columns = [
        tables.column("where", text="the context"),
        tables.column("design", text="the compared factors"),
        tables.column("host"),
        tables.column("ratio", "ratio", "number", 3, "to the baseline, on this host"),
        tables.column("low", "from", "number", 3, "lower end of its interval"),
        tables.column("high", "to", "number", 3, "upper end"),
        tables.column("verdict", text="on this host"),
        tables.column("blocks", "blocks", "number", 0, "that it rests on"),
    ]
    keys = {host.name: number for number, host in enumerate(found.hosts)}
    rows = [row for context in found.contexts for cell in context.cells for row in _rows(context, cell, keys)]
    return {"columns": columns, "rows": rows[:_MOST_RATIOS]}


def _rows(context: FleetContext, cell: FleetCell, keys: dict[str, int]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for host, one in cell.there.items():
        if one.ratio:
            low, high = (round(one.ratio.low, 4), round(one.ratio.high, 4)) if one.ratio.bounded else (None, None)
            numbers = [round(one.ratio.value, 4), low, high]
            label = context.label or "all trials"
            rows.append([label, cell.label, host, *numbers, one.verdict or "-", one.ratio.n, keys[host]])
    return rows


def _others(directory: str, path: str, found: FleetStudy) -> list[Markup]:
    """Refused hosts, and links to the reports of hosts that have one."""
    parts = []
    if found.refused:
        lines = [el("li", f"{name}: {reason}") for name, reason in found.refused.items()]
        parts.append(
            el("details", el("summary", f"Refused: {len(lines)} hosts"), el("ul", lines), open=len(lines) <= 10)
        )
    place = os.path.dirname(os.path.abspath(path))
    own = [host.name for host in found.hosts if os.path.exists(f"{directory}/{files.HOSTS}/{host.name}/{NAME}")]
    links = [
        [" ", el("a", name, href="./" + os.path.relpath(f"{directory}/{files.HOSTS}/{name}/{NAME}", place))]
        for name in own[:200]
    ]
    text = "Each host has a whole results directory in hosts/: `harness report DIR/hosts/NAME` writes its own page."
    return [*parts, el("p", text, links, class_="soft")]
