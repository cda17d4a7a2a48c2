"""The page: one file that needs no network and no server. Its frame is `page.html`, its look `page.css`."""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from string import Template
from typing import Any

from harness.analysis import claims, naming
from harness.analysis.cells import MEDIAN_LATENCY
from harness.analysis.chart_data import FloorShare, floor_shares
from harness.analysis.claims import REFUTED, SUPPORTED
from harness.analysis.crossovers import Crossover, SizeRange
from harness.analysis.intervals import Estimate
from harness.analysis.judgements import Answer, Finding
from harness.analysis.study import Study
from harness.report import plot
from harness.report.design_styles import DesignStyles, told
from harness.report.markup import Markup, data, el, join
from harness.report.plot import Chart, Scale, micros, number

_TIP = re.compile(' data-tip="([^"]*)"')  # many marks tell the same, on wide and narrow pictures all do: once is enough
WIDE, NARROW = 860, 343
_BADGES = {SUPPORTED: "good", REFUTED: "bad"}


@cache
def asset(name: str) -> str:
    """A file of this package."""
    return resources.files("harness.report").joinpath(name).read_text(encoding="utf-8")


def page(title: str, body: Iterable[Any], tables: Mapping[str, Any] | None = None) -> str:
    """The whole page. Only its own script may run, and nothing may be loaded: the browser is told so."""
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    tips: dict[str, int] = {}
    text = _TIP.sub(lambda found: f' data-tip="{tips.setdefault(found[1], len(tips))}"', join(body))
    given = {"tables": tables or {}, "tips": [html.unescape(tip) for tip in tips]}
    return Template(asset("page.html")).substitute(
        title=el("b", title).removeprefix("<b>").removesuffix("</b>"),
        hash=f"sha256-{digest}",
        style=asset("page.css") + asset("chart.css"),
        body=text,
        data=data(given),
        script=f"\n{script}",
    )


# The answer


def head(kicker: str, title: str, facts: Iterable[str]) -> Markup:
    """What this is, in a few lines."""
    return el(
        "header",
        el("p", kicker, class_="kicker"),
        el("h1", title),
        el("p", " \u00b7 ".join(filter(None, facts)), class_="soft"),
    )


def badge(text: str, kind: str) -> Markup:
    return el("span", text, class_=f"badge {kind}")


def answer(study: Study) -> Markup:
    """The study's answer: what to use, what became of the claims, and whether this may be believed."""
    parts: list[Any] = [el("h2", "The answer", id="answer")]
    if not study.contexts:
        parts.append(_nothing(study))
    parts += _advice(study.crossovers)
    if study.contexts:
        parts.append(_leaders(study))
    if study.answers:
        parts += [
            el("h3", "Claims, written before the run"),
            el("div", [_claim(one) for one in study.answers], class_="answers"),
        ]
    parts.append(_trust(study, floor_shares(study.contexts)))
    return el("section", parts)


def _nothing(study: Study) -> Markup:
    reason = "has no trials" if not study.counts.trials else "has no good trial"
    return el(
        "p",
        badge("no answer", "bad"),
        f" This result {reason}, so there is nothing to compare. ",
        "What went wrong stands below." if study.counts.trials else "",
        class_="lead",
    )


def _advice(crossovers: Sequence[Crossover]) -> list[Markup]:
    """What to use where, in lines; those that say the same of several contexts are one."""
    contexts: dict[Markup, list[str]] = {}
    for crossover in crossovers:
        contexts.setdefault(join(_ranges(crossover.ranges)), []).append(crossover.label)
    lines = [
        el("p", el("span", f"{', '.join(labels) or 'Unbeaten'} \u2014 ", class_="soft"), said, class_="lead")
        for said, labels in list(contexts.items())[:8]
    ]
    if lines:
        lines.append(el("p", "Named are designs that no other one is told to beat at these sizes.", class_="soft"))
    return lines


def _ranges(ranges: Sequence[SizeRange]) -> Iterable[Markup]:
    """What to use in each range of sizes, in words."""
    for place, one in enumerate(ranges):
        if len(one.designs) == 1:
            text: list[Any] = ["use ", el("strong", one.designs[0])]
        else:
            more = f" or {one.unnamed} more" if one.unnamed else ""
            text = [el("strong", " or ".join(one.named)), more, ", with no difference found between them"]
        yield el("span", f"{one.where}: ", text, "; " if place < len(ranges) - 1 else ".")


def _leaders(study: Study) -> Markup:
    """The winner for each context."""
    rows = []
    for context in study.contexts[:60]:
        best = next((cell for cell in context.cells if not cell.floor), context.cells[0])
        figure = best.measurements.get(context.metric)
        latency = context.metric == MEDIAN_LATENCY
        value = "-" if not figure else micros(figure.value.value) if latency else f"{number(figure.value.value)}/s"
        ratio = figure.ratio if figure else None
        others = [cell.label for cell in context.leaders if cell is not best]
        if not context.leaders:
            alike: Any = "verdicts are withheld"
        elif not others:
            alike = "none: it leads" if len(context.cells) > 1 else "nothing to compare it with"
        elif len(others) <= 3:
            alike = ", ".join(others)
        else:
            alike = el("details", el("summary", f"{len(others)} others"), ", ".join(others))
        rows.append(
            el(
                "tr",
                el("th", context.label or "all trials", scope="row"),
                el("td", best.label),
                el("td", value, class_="n"),
                el("td", f"{ratio.value:.2f}" if ratio else "baseline" if best.baseline else "-", class_="n"),
                el("td", f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio and ratio.bounded else "-", class_="n"),
                el("td", alike),
            )
        )
    heads = (
        "where",
        "best",
        "median latency" if study.contexts[0].metric == MEDIAN_LATENCY else "requests",
        "to the baseline",
        "interval",
        "cannot be told from it",
    )
    table = el(
        "table",
        el("caption", "The best design in each context"),
        el(
            "thead",
            el(
                "tr",
                [
                    el("th", one, scope="col", class_="n" if 2 <= place <= 4 else None)
                    for place, one in enumerate(heads)
                ],
            ),
        ),
        el("tbody", rows),
    )
    return el("div", table, class_="scroll", tabindex="0", role="region", aria_label="The best design in each context")


def _claim(answer: Answer) -> Markup:
    claim = answer.claim
    sides = (
        f"{claim.metric} of {naming.design(claim.test)} to {naming.design(claim.baseline)}, expected: {claim.expect}"
    )
    return el(
        "article",
        badge(answer.outcome, _BADGES.get(answer.outcome, "unsure")),
        el("h3", claim.text),
        el("p", sides, class_="soft"),
        [_finding(answer, one) for one in answer.findings],
        el("p", answer.reason, class_="soft") if not answer.findings else None,
        class_="claim",
    )


def _finding(answer: Answer, finding: Finding) -> Markup:
    ratio = finding.ratio
    told_it = (
        f"{ratio.value:.3f}"
        + (f", {ratio.low:.3f} to {ratio.high:.3f}" if ratio.bounded else ", no interval")
        + f", {ratio.n} blocks"
        if ratio
        else ""
    )
    return el(
        "div",
        el("span", finding.label or "all trials", class_="where"),
        _strip(answer.claim.expect, ratio) if ratio else None,
        el("span", told_it),
        el("span", "; ".join(filter(None, (finding.outcome, finding.reason))), class_="soft"),
        class_="finding",
    )


def _strip(expect: str, ratio: Estimate) -> Markup:
    """The interval of a claim's ratio; what is expected is shaded, and 1 has a line."""
    low, high = claims.region(expect)
    ends = [one for one in (low, high, ratio.low, ratio.high) if 0.05 < one < 20]
    x = Scale(min([*ends, ratio.value, 1.0]) / 1.25, max([*ends, ratio.value, 1.0]) * 1.25, 2, 158, log=True)
    left, right = (x(min(max(one, x.low), x.high)) for one in (low or x.low, high))
    bar = (
        el("path", d=f"M{x(ratio.low or x.low):.1f} 11H{x(min(ratio.high, x.high)):.1f}", class_="bar c0")
        if ratio.bounded
        else None
    )
    return el(
        "svg",
        el("rect", x=left, y=1, width=right - left, height=20, rx=3, class_="region"),
        plot.rule(x(1), 1, x(1), 21, "zero"),
        bar,
        el("path", d=plot.marker(0, x(ratio.value), 11), class_="dot c0"),
        class_="chart",
        width=160,
        height=22,
        viewBox="0 0 160 22",
        role="img",
        aria_label=f"ratio {told(ratio)}; the shaded part is what the claim expects",
    )


def _trust(study: Study, some: Sequence[FloorShare]) -> Markup:
    counts, control = study.counts, study.control
    unsure = not control.checks or not any(ratio.bounded for _, ratio in control.checks)
    kind, state = ("bad", "off") if control.off else ("unsure", "not known") if unsure else ("good", "on")
    badges = [badge(f"A/A control: {state}", kind)]
    badges += [
        badge(f"{count} {what}", "bad")
        for count, what in ((counts.failed, "failed"), (counts.refused, "refused"))
        if count
    ]
    if counts.disturbed:
        # A study in which every fourth trial was disturbed is one of something else as well.
        kind = "bad" if counts.disturbed * 4 > counts.ok else "unsure"
        badges.append(badge(f"{counts.disturbed} of {counts.ok} disturbed", kind))
    if counts.trials and not (counts.failed or counts.refused or counts.disturbed):
        badges.append(badge("all trials good and undisturbed", "good"))
    lines = [el("li", _with_code(line)) for line in (control.line, *study.notes)]
    if some:
        lines.append(
            el("li", "How much of a request's time is the harness's own, for a floor needs it as well: ", _floors(some))
        )
    return el("div", el("h3", "May it be believed?"), el("p", [[one, " "] for one in badges]), el("ul", lines))


def _with_code(text: str) -> list[Any]:
    """A sentence in which what stands between backticks is code."""
    return [el("code", part) if odd % 2 else part for odd, part in enumerate(text.split("`"))]


def _floors(some: Sequence[FloorShare]) -> Any:
    def line(one: FloorShare) -> str:
        share = one.share
        ends = f" ({100 * share.low:.0f} to {100 * share.high:.0f} %)" if share.bounded else ""
        return f"{one.context}: {100 * share.value:.0f} %{ends} of {one.baseline} ({one.floor})"

    lines = el("ul", [el("li", line(one)) for one in some])
    firsts = [one for place, one in enumerate(some) if one.context not in {other.context for other in some[:place]}]
    if len(some) <= 4:
        return lines
    shares = ", ".join(f"{one.context} {100 * one.share.value:.0f} %" for one in firsts)
    return [f"{shares}.", el("details", el("summary", f"all {len(some)}, with intervals"), lines)]


# Pictures


def chips(styles: DesignStyles) -> Markup | None:
    """What can be marked in all pictures at once."""
    if len(styles.cells) < 2:
        return None
    buttons = []
    for name, keys, kind, shape in styles.chips()[:60]:
        sign = (
            el(
                "svg",
                el("path", d=plot.marker(shape, 6, 6), class_=f"dot {kind}"),
                class_="chart",
                viewBox="0 0 12 12",
                aria_hidden="true",
            )
            if kind
            else None
        )
        buttons.append(
            el(
                "button",
                sign,
                name,
                type="button",
                class_="chip",
                data_keys=" ".join(map(str, keys)),
                aria_pressed="false",
            )
        )
    clear = el("button", "Clear", type="button", id="none", hidden=True)
    return el(
        "div", el("span", "Mark"), clear, buttons, id="mark", role="toolbar", aria_label="Mark designs in all pictures"
    )


def picture(figure: Chart) -> Markup:
    """A figure, drawn for wide and for narrow screens: text keeps its size on both."""
    drawn = []
    for width, kind in ((WIDE, "wide"), (NARROW, "narrow")):
        panels = ", ".join(panel.title for panel in figure.panels[:6])
        label = f"{figure.title}: {panels}. Arrow keys walk through its values, Enter marks one."
        drawn.append(
            el(
                "div",
                figure.draw(width),
                class_=f"plot {kind}",
                tabindex="0",
                role="group",
                aria_label=label,
                aria_roledescription="chart",
            )
        )
    note = el("p", figure.note, class_="soft") if figure.note else None
    return el("figure", el("h3", figure.title), el("figcaption", figure.text), drawn, note, id=f"figure-{figure.name}")


# Tables


def table(name: str, title: str, caption: str) -> Markup:
    """The place of a table: page.js fills it."""
    buttons = [
        el("button", label, type="button", data_copy=form)
        for label, form in (("Copy CSV", "csv"), ("Copy Markdown", "markdown"))
    ]
    return el(
        "div",
        el(
            "div",
            el("input", type="search", placeholder="Filter: words that a row has", aria_label=f"Filter {title}"),
            buttons,
            el("button", "Reset", type="button", class_="reset", hidden=True),
            el("span", class_="count soft", role="status"),
            class_="tools",
        ),
        el("div", el("table", el("caption", caption)), class_="scroll", tabindex="0", role="region", aria_label=title),
        el("button", "Show all rows", type="button", class_="more", hidden=True),
        el("noscript", "Tables need JavaScript; the same figures are in trials.csv."),
        data_table=name,
        id=f"table-{name}",
    )


# How it was measured


def facts(given: Iterable[tuple[str, Any]]) -> Markup:
    """Names and values."""
    return el(
        "dl", [[el("dt", name), el("dd", value)] for name, value in given if value not in ("", None)], class_="facts"
    )


def flat(given: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """Nested facts, each with the way to it."""
    if isinstance(given, dict):
        for name, value in given.items():
            yield from flat(value, f"{path} {name}".strip())
    elif given is not None:
        yield path, ", ".join(map(str, given)) if isinstance(given, list) else str(given)


def settings(fixed: Mapping[str, Any]) -> str:
    """What was the same in all trials."""
    return ", ".join(
        f"{name} {naming.value(name, value)}" for name, value in fixed.items() if value not in ("", 0, 0.0)
    )
