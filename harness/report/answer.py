"""The first section of a page: which design to use, what became of the claims, and how far to trust both."""

from collections.abc import Iterable, Sequence
from typing import Any

from harness.analysis import claims, naming
from harness.analysis.cells import MEDIAN_LATENCY
from harness.analysis.chart_data import FloorShare, floor_shares
from harness.analysis.claims import REFUTED, SUPPORTED
from harness.analysis.crossovers import UNBEATEN, Crossover, SizeRange
from harness.analysis.intervals import Estimate
from harness.analysis.judgements import Answer, Finding
from harness.analysis.study import Context, Study
from harness.report import plot
from harness.report.markup import Markup, el, join
from harness.report.page import badge
from harness.report.plot import Scale, micros, number
from harness.report.tooltips import ratio_text

_BADGES = {SUPPORTED: "good", REFUTED: "bad"}
_MOST_ADVICE, _MOST_CONTEXTS = 8, 60  # that are shown


def section(study: Study) -> Markup:
    """The section `The answer`."""
    parts: list[Any] = [el("h2", "The answer", id="answer")]
    if not study.contexts:
        parts.append(_nothing(study))
    if study.coarse:
        parts.append(el("p", badge("coarse", "unsure"), f" {study.resolution_line}"))
    parts += _advice(study.crossovers)
    if study.contexts:
        parts.append(_best_designs(study))
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
        f" This run {reason}, so there is nothing to compare. ",
        "The reasons are listed below." if study.counts.trials else "",
        class_="lead",
    )


def _advice(crossovers: Sequence[Crossover]) -> list[Markup]:
    """Which designs to use at which sizes. Contexts with the same advice share a line."""
    contexts: dict[Markup, list[str]] = {}
    for crossover in crossovers:
        contexts.setdefault(join(_ranges(crossover.ranges)), []).append(crossover.label)
    lines = [
        el("p", el("span", f"{', '.join(labels) or 'Unbeaten'} \u2014 ", class_="soft"), advice, class_="lead")
        for advice, labels in list(contexts.items())[:_MOST_ADVICE]
    ]
    if lines:
        lines.append(el("p", UNBEATEN, class_="soft"))
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


def _best_designs(study: Study) -> Markup:
    """A table with the best design of each context."""
    heads = (
        "where",
        "best",
        "median latency" if study.contexts[0].metric == MEDIAN_LATENCY else "requests",
        "to the baseline",
        "interval",
        "not measurably worse",
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
        el("tbody", [_best_design(context) for context in study.contexts[:_MOST_CONTEXTS]]),
    )
    return el("div", table, class_="scroll", tabindex="0", role="region", aria_label="The best design in each context")


def _best_design(context: Context) -> Markup:
    """A row of that table."""
    best = next((cell for cell in context.cells if not cell.floor), context.cells[0])
    measured = best.measurements.get(context.metric)
    value = "-"
    if measured:
        latency = context.metric == MEDIAN_LATENCY
        value = micros(measured.value.value) if latency else f"{number(measured.value.value)}/s"
    ratio = measured.ratio if measured else None
    return el(
        "tr",
        el("th", context.label or "all trials", scope="row"),
        el("td", best.label),
        el("td", value, class_="n"),
        el("td", f"{ratio.value:.2f}" if ratio else "baseline" if best.baseline else "-", class_="n"),
        el("td", f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio and ratio.bounded else "-", class_="n"),
        el("td", _other_leaders(context, [cell.label for cell in context.leaders if cell is not best])),
    )


def _other_leaders(context: Context, labels: list[str]) -> str | Markup:
    if not context.leaders:
        return "verdicts are withheld"
    if not labels:
        return "none: it leads" if len(context.cells) > 1 else "nothing to compare it with"
    if len(labels) <= 3:
        return ", ".join(labels)
    return el("details", el("summary", f"{len(labels)} others"), ", ".join(labels))


def _claim(answer: Answer) -> Markup:
    """A claim, its outcome, and a line for each finding."""
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
    text = ""
    if ratio:
        interval = f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio.bounded else "no interval"
        text = f"{ratio.value:.3f}, {interval}, {ratio.n} blocks"
    return el(
        "div",
        el("span", finding.label or "all trials", class_="where"),
        _strip(answer.claim.expect, ratio) if ratio else None,
        el("span", text),
        el("span", "; ".join(filter(None, (finding.outcome, finding.reason))), class_="soft"),
        class_="finding",
    )


def _strip(expect: str, ratio: Estimate) -> Markup:
    """A small chart of the interval of a claim's ratio. The expected ratios are shaded, and 1 has a line."""
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
        aria_label=f"ratio {ratio_text(ratio)}; the claim expects the shaded part",
    )


def _trust(study: Study, shares: Sequence[FloorShare]) -> Markup:
    """What the reader needs to know to judge how far the numbers can be trusted."""
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
        # Where every fourth trial was disturbed, the study measured the disturbance as well.
        kind = "bad" if counts.disturbed * 4 > counts.ok else "unsure"
        badges.append(badge(f"{counts.disturbed} of {counts.ok} disturbed", kind))
    if counts.trials and not (counts.failed or counts.refused or counts.disturbed):
        badges.append(badge("all trials good and undisturbed", "good"))
    lines = [el("li", _with_code(line)) for line in (control.line, study.resolution_line, *study.notes) if line]
    if shares:
        text = "How long a request takes at a floor, which shows the harness's own part, as a share of the baseline: "
        lines.append(el("li", text, _floors(shares)))
    return el("div", el("h3", "How far to trust this"), el("p", [[one, " "] for one in badges]), el("ul", lines))


def _with_code(text: str) -> list[Any]:
    """A sentence, with the text between backticks as code."""
    return [el("code", part) if odd % 2 else part for odd, part in enumerate(text.split("`"))]


def _floors(shares: Sequence[FloorShare]) -> Any:
    """A list of the shares, or, where they are many, the first one of each context and the list folded away."""

    def line(one: FloorShare) -> str:
        share = one.share
        ends = f" ({100 * share.low:.0f} to {100 * share.high:.0f} %)" if share.bounded else ""
        return f"{one.context}: {100 * share.value:.0f} %{ends} of {one.baseline} ({one.floor})"

    lines = el("ul", [el("li", line(one)) for one in shares])
    if len(shares) <= 4:
        return lines
    first_of = {one.context: one for one in reversed(shares)}
    firsts = [one for one in shares if first_of[one.context] is one]
    text = ", ".join(f"{one.context} {100 * one.share.value:.0f} %" for one in firsts)
    return [f"{text}.", el("details", el("summary", f"all {len(shares)}, with intervals"), lines)]
