"""How sure the answer of a page is: its control, what it could resolve, how it was measured, what more would buy."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from harness.analysis import notes, precision
from harness.analysis.chart_data import FloorShare, floor_shares
from harness.analysis.crossovers import UNBEATEN
from harness.analysis.intervals import LEAST, reach
from harness.analysis.precision import Outlook
from harness.analysis.resolution import COARSE, percent, percents
from harness.analysis.study import Study
from harness.report import vocabulary
from harness.report.markup import Markup, el
from harness.report.page import badge, scrolled
from harness.results import LIVE, Trial


def resolved(study: Study) -> Markup | None:
    """What a reader has to know first: what the study could resolve, on amber where that is coarse, or where most of
    its trials were disturbed. None where nothing was compared."""
    reaches = sorted(one.largest for context in study.contexts if (one := context.resolution))
    if not reaches:
        return None
    known = [one for one in reaches if math.isfinite(one)]
    sentences = []
    if known:
        shares = percents(known[0], known[-1])
        varies = ", as the context may be" if " to " in shares else ""
        sentences.append(f"This run resolves differences of {shares}{varies}.")
    if len(known) < len(reaches):
        some = "In some contexts it" if known else "This run"
        sentences.append(f"{some} resolves nothing: an interval takes {LEAST} blocks.")
    if study.coarse:
        sentences.append("More blocks make it finer.")
    if _mostly_disturbed(study):
        sentences.append("Most trials were disturbed, so it measured the disturbance as well.")
    unsure = study.coarse or _mostly_disturbed(study)
    kind = "coarse" if study.coarse else "disturbed" if unsure else "fine"
    return el("p", badge(kind, "unsure" if unsure else "good"), " ", " ".join(sentences))


def _mostly_disturbed(study: Study) -> bool:
    return 2 * study.counts.disturbed > study.counts.ok


def badges(study: Study) -> Markup:
    """The state of the study at a glance."""
    counts, control = study.counts, study.control
    far = [100 * reach(ratio) for _, ratio in control.checks]
    kind, state = "good", "on"
    if control.off:
        kind, state = "bad", "off"
    elif not far or math.isinf(max(far)):
        kind, state = "unsure", "not known" if far else "none"
    elif max(far) > COARSE:  # where equal cells may look so different, equality says little
        kind, state = "unsure", f"on, to {percent(max(far))}"
    shown = [badge(f"A/A control: {state}", kind)]
    shown += [
        badge(f"{count} {what}", "bad")
        for count, what in ((counts.failed, "failed"), (counts.refused, "refused"))
        if count
    ]
    if counts.disturbed:
        # Where every fourth trial was disturbed, the study measured the disturbance as well.
        kind = "bad" if counts.disturbed * 4 > counts.ok else "unsure"
        shown.append(badge(f"{counts.disturbed} of {counts.ok} disturbed", kind))
    if counts.trials and not (counts.failed or counts.refused or counts.disturbed):
        shown.append(badge("all trials good and undisturbed", "good"))
    return el("p", [[one, " "] for one in shown])


def designs(trials: Iterable[Trial]) -> list[str]:
    """A sentence or two for each design of the good trials: what it was, and what that means."""
    good = [trial for trial in trials if trial.status == "ok" and not trial.probe]
    live = [trial for trial in good if trial.design == LIVE]
    apart = [trial for trial in good if trial.design != LIVE]
    lines = []
    if live:
        fewest, most = min(trial.rounds for trial in live), max(trial.rounds for trial in live)
        rounds = f"{fewest} to {most} rounds" if fewest < most else f"{most} round{'s' if most != 1 else ''}"
        slices = sum(trial.rounds for trial in live)
        lines.append(
            f"Live blocks: {_blocks(live)} of {rounds}, {slices:,} slices. In a round each cell got one in turn, while "
            "all were alive, so noise that lasts longer than a round falls out of ratios. Intervals rest on blocks, "
            "each with fresh programs."
        )
    if apart:
        lines.append(
            f"Trials apart: {_blocks(apart)}. Each trial had fresh programs and a time of its own, so the noise from "
            "one to the next is in every interval."
        )
    return lines


def _blocks(trials: Sequence[Trial]) -> str:
    count = len({trial.block for trial in trials})
    return f"{count} block{'s' if count != 1 else ''}"


def section(study: Study) -> Markup:
    """What the reader needs to know to judge how far the numbers can be trusted."""
    in_table = set(notes.scatter(study.contexts, study.comparisons))
    lines = [study.control.line, *(one for one in study.notes if one not in in_table)]
    lines += [UNBEATEN] if study.crossovers else []
    items = [el("li", _with_code(line)) for line in lines if line]
    if shares := floor_shares(study.contexts):
        request = vocabulary.of_study(study).request
        text = (
            f"How long a {request} takes at a floor, which shows the harness's own part, as a share of the baseline: "
        )
        items.append(el("li", text, _floors(shares)))
    outlooks = [(context.label or "all trials", one) for context in study.contexts if (one := context.outlook)]
    scatter = _scatter(outlooks, study.comparisons) if outlooks else None
    return el("div", el("h3", "How far to trust this"), el("ul", items), scatter)


_SCATTER = (
    ("where", "the context"),
    ("blocks", "how many, and of how many rounds on average"),
    ("a round", "how far the ratio of a round scatters: standard deviation"),
    ("a block", "how far the centre of a block would scatter by its rounds alone"),
    ("restarts add", "what a restart of the programs adds to that, slow noise as well"),
    ("reach", "how far an interval is expected to reach to each side"),
    ("twice the rounds", "how far it would then reach"),
    ("twice the blocks", "how far it would then reach"),
)


def _scatter(outlooks: Sequence[tuple[str, Outlook]], comparisons: int) -> Markup:
    """A table of how the ratios of live blocks scatter, and of what more would buy. outlooks: of each context."""
    rows = []
    for label, outlook in outlooks:
        one = outlook.scatter
        reaches = precision.reaches(outlook, comparisons)
        values = [f"{one.blocks} \u00d7 {one.rounds:.0f}"]
        values += [_share(value) for value in (one.round_sd, one.centre_sd, one.between_sd, *reaches)]
        rows.append(el("tr", el("th", label, scope="row"), [el("td", value, class_="n") for value in values]))
    caption = (
        "How far the ratio of a round scatters, the centre of a block by that alone, and what restarts add. Then how "
        "far intervals are expected to reach to each side: as it ran, with twice the rounds, and with twice the blocks."
    )
    heads = [
        el("th", name, scope="col", title=text, class_="n" if place else None)
        for place, (name, text) in enumerate(_SCATTER)
    ]
    table = el("table", el("caption", caption), el("thead", el("tr", heads)), el("tbody", rows), class_="fitting")
    return scrolled(table, "How ratios scatter")


def _share(value: float) -> str:
    return percent(100 * value) if math.isfinite(value) else "no interval"


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
