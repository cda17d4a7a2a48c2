"""The first section of a page: which design to use, what became of the claims, and how far to trust both."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis import claims, naming
from harness.analysis.claims import REFUTED, SUPPORTED
from harness.analysis.intervals import Estimate
from harness.analysis.judgements import Answer, Finding
from harness.analysis.study import Study
from harness.report import best_table, plot, trust
from harness.report.markup import Markup, el
from harness.report.page import badge
from harness.report.plot import Scale
from harness.report.tooltips import ratio_text
from harness.results import Trial

_BADGES = {SUPPORTED: "good", REFUTED: "bad"}


def section(study: Study, trials: Sequence[Trial], fixed: Mapping[str, Any]) -> Markup:
    """The section `The answer`. fixed: column -> level, of the factors that do not vary."""
    parts: list[Any] = [el("h2", "The answer", id="answer")]
    if not study.contexts:
        parts.append(_nothing(study))
    parts += [trust.resolved(study), trust.badges(study)]
    if study.contexts:
        parts.append(best_table.table(study, fixed))
    parts += [el("p", line, class_="soft") for line in trust.designs(trials)]
    if study.answers:
        parts += [
            el("h3", "Claims, written before the run"),
            el("div", [_claim(one) for one in study.answers], class_="answers"),
        ]
    parts.append(trust.section(study))
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
