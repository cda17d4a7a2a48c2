"""The table of microseconds above the floor: how much more a request takes than at the floor of its shape."""

from harness.analysis.intervals import more
from harness.analysis.study import Study, floors_of
from harness.report import page, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.markup import Markup, el

_MOST_CONTEXTS = 12  # that are shown; the table of cells has all


def section(study: Study, styles: DesignStyles) -> Markup | None:
    """The heading and the table. None where no cell has a floor of its shape in its context."""
    contexts = [context for context in study.contexts if any(cell.above_floor for cell in context.cells)]
    contexts = contexts[:_MOST_CONTEXTS]
    if not contexts:
        return None
    said = vocabulary.of_study(study)
    rows: dict[str, dict[int, str]] = {}
    for place, context in enumerate(contexts):
        for cell in context.cells:
            if above := cell.above_floor:
                rows.setdefault(styles.name(cell), {})[place] = more(above.micros)
    heads = ["design", *(said.label(context.levels) or "all trials" for context in contexts)]
    names = ", ".join(floors_of(contexts))
    text = (
        f"Microseconds that a {said.request} takes more than at the floor of its shape ({names}), copying or not: what "
        "is left for the mechanism. All intervals hold at once."
    )
    head = [el("th", one, scope="col", class_="n" if place else None) for place, one in enumerate(heads)]
    body = []
    for name, values in rows.items():
        texts = [el("td", values.get(place, "-"), class_="n") for place in range(len(contexts))]
        body.append(el("tr", el("th", name, scope="row"), texts))
    table = el("table", el("thead", el("tr", head)), el("tbody", body), class_="fitting")
    title = "Above the floor"
    return el("div", el("h3", title), el("p", text, class_="soft"), page.scrolled(table, title))
