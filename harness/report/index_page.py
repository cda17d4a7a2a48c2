"""The index of all runs in a directory."""

import os

from harness import results
from harness.analysis import run_files, study
from harness.report import best_table, page, run_page
from harness.report.markup import Markup, el

NAME = "index.html"
_MOST_CONTEXTS = 8  # of a run that are shown


def write(root: str, output: str | None = None) -> str:
    """Write the report of each run in a directory and an index of them, and return the path of the index. A run that
    cannot be read is listed with the reason. Raises OSError."""
    path = output or f"{root}/{NAME}"
    cards = []
    for name in sorted(os.listdir(root)):
        place = f"{root}/{name}"
        if not any(os.path.exists(f"{place}/{file}") for file in (results.TRIALS, run_files.EXPERIMENT)):
            continue
        try:
            cards.append(_card(place, name, path))
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
    run = run_files.load_begun(place)
    found = study.analyse(*run)
    written = run_page.write_analysed(place, run, found)
    link = os.path.relpath(written, os.path.dirname(os.path.abspath(path)))
    outcomes = [answer.outcome for answer in found.answers]
    badges = [
        [page.badge(f"{outcomes.count(one)} {one}", kind), " "]
        for one, kind in (("supported", "good"), ("refuted", "bad"), ("undecided", "unsure"))
        if one in outcomes
    ]
    if found.coarse:
        badges.append([page.badge("coarse", "unsure"), " "])
    shown = found.contexts[:_MOST_CONTEXTS]
    lines = [f"{one.label or 'all trials'}: {best_table.headline(one)}" for one in shown if len(one.cells) > 1]
    lines += [f"{len(found.contexts) - len(shown)} more contexts"] if len(found.contexts) > len(shown) else []
    return el(
        "article",
        el("p", f"{name} \u00b7 ", " \u00b7 ".join(run_page.facts(found, run.trials)), class_="kicker"),
        el("h3", el("a", str(run.experiment.get("question") or found.name or name), href=f"./{link}")),
        el("p", badges) if badges else None,
        el("ul", [el("li", line) for line in lines], class_="soft") if lines else None,
        class_="claim",
    )
