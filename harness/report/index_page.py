"""The index of all runs in a directory: what each study found, in a line, and the place to begin first."""

import os

from harness import results
from harness.analysis import run_files, study
from harness.analysis.claims import UNDECIDED
from harness.analysis.fleet import files
from harness.analysis.fleet import study as of_fleet
from harness.analysis.fleet.show import headline, interactions
from harness.analysis.study import Study
from harness.report import best_table, fleet_page, page, run_page
from harness.report.markup import Markup, el

NAME = "index.html"
_BEGIN = "quick"  # the study to begin with, which stands first
_MOST_NAMED = 2  # designs of a range of sizes that are named
_OUTCOMES = {"supported": "good", "refuted": "bad", UNDECIDED: "unsure"}


def runs(root: str) -> list[str]:
    """The names of the directories in `root` that hold a run, the study to begin with first. Raises OSError."""
    names = [
        name
        for name in os.listdir(root)
        if any(os.path.exists(f"{root}/{name}/{file}") for file in (results.TRIALS, run_files.EXPERIMENT))
    ]
    return sorted(names, key=lambda name: (name.partition("-")[0] != _BEGIN, name))


def write(root: str, output: str | None = None) -> str:
    """Write the report of each run in a directory and an index of them, and return the path of the index. A run that
    cannot be read is listed with the reason. Raises OSError."""
    path = output or f"{root}/{NAME}"
    cards = []
    for name in runs(root):
        try:
            cards.append(_card(f"{root}/{name}", name, path))
        except (OSError, ValueError) as error:
            cards.append(
                el("article", el("h3", name), el("p", page.badge("cannot be read", "bad"), f" {error}"), class_="claim")
            )
    parts = [
        page.head("Transport harness", "Studies", [f"{len(cards)} runs in {root}"]),
        el("div", cards or el("p", "There are no runs here. `harness run FILE` makes one."), class_="answers"),
    ]
    return page.save(path, page.page("Studies", [el("main", parts)]))


def _card(place: str, name: str, path: str) -> Markup:
    """Write the report of a run, and return its entry in the index at `path`."""
    if run_files.is_fleet(place):
        return _fleet_card(place, name, path)
    run = run_files.load_begun(place)
    found = study.analyse(*run)
    written = run_page.write_analysed(place, run, found)
    link = os.path.relpath(written, os.path.dirname(os.path.abspath(path)))
    outcomes = [answer.outcome for answer in found.answers]
    counted = [(f"{outcomes.count(one)} {one}", kind) for one, kind in _OUTCOMES.items() if one in outcomes]
    begin = [("begin here", "good")] if name.partition("-")[0] == _BEGIN else []
    badges = begin + counted + ([("coarse", "unsure")] if found.coarse else [])
    lines = [f"{one.label or 'all trials'}: {best_table.headline(one)}" for one in found.contexts if len(one.cells) > 1]
    return el(
        "article",
        el("p", f"{name} \u00b7 ", " \u00b7 ".join(run_page.facts(found, run.trials)), class_="kicker"),
        el("h3", el("a", str(run.experiment.get("question") or found.name or name), href=f"./{link}")),
        [el("p", line, class_="soft" if place else None) for place, line in enumerate(finding(found))],
        el("p", [[page.badge(*one), " "] for one in badges]) if badges else None,
        el("details", el("summary", f"all {len(lines)} contexts"), el("ul", [el("li", line) for line in lines]))
        if lines
        else None,
        class_="claim",
    )


def _fleet_card(place: str, name: str, path: str) -> Markup:
    found = of_fleet.analyse(files.load(place))
    written = fleet_page.write_analysed(place, found)
    link = os.path.relpath(written, os.path.dirname(os.path.abspath(path)))
    return el(
        "article",
        el("p", f"{name} \u00b7 {headline(found)}", class_="kicker"),
        el("h3", el("a", found.question or found.name or name, href=f"./{link}")),
        [el("p", line) for line in interactions(found)[:2]],
        class_="claim",
    )


def finding(found: Study) -> list[str]:
    """What a study found, in a line or two: the first claim that it decided, and the best designs."""
    lines = [f"{one.outcome.capitalize()}: {one.claim.text}." for one in found.answers if one.outcome != UNDECIDED][:1]
    if found.crossovers:
        first = found.crossovers[0]
        best = "; ".join(f"{part.where}: {_named(part.designs)}" for part in first.ranges)
        where = f" ({first.label})" if first.label else ""
        lines.append(f"Best{where}: {best}.")
    if not found.crossovers:  # the control is off, cells did not run, or there is nothing to choose from
        lines += [best_table.headline(one) for one in found.contexts[:1] if len(one.cells) > 1]
    return lines or [f"{found.counts.ok} of {found.counts.trials} trials are good; nothing is compared."]


def _named(designs: list[str]) -> str:
    many = f"no winner, {len(designs)} are unbeaten"
    return " or ".join(designs) if len(designs) <= _MOST_NAMED else many
