"""The frame and the parts of a page: one file that needs no network and no server.

The frame is page.html, the styles are page.css and chart.css, the script is page.js.
"""

import base64
import hashlib
import html
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from string import Template
from typing import Any

from harness.analysis import naming
from harness.report import plot, vocabulary
from harness.report.design_styles import DesignStyles
from harness.report.markup import Markup, data, el, join
from harness.report.plot import Chart
from harness.report.vocabulary import Words

WIDE, NARROW = 860, 343  # widths of charts, in CSS pixels, on wide and on narrow screens
# Every mark is drawn on both charts, and many marks have the same tooltip. The page holds each tooltip once.
_TIP = re.compile(' data-tip="([^"]*)"')


@cache
def asset(name: str) -> str:
    """The text of a file of this package."""
    return resources.files("harness.report").joinpath(name).read_text(encoding="utf-8")


def page(title: str, body: Iterable[Any], tables: Mapping[str, Any] | None = None) -> str:
    """The whole page. tables: name -> content, as harness.report.tables makes it. The page's Content-Security-Policy
    lets only its own script run, and nothing be loaded."""
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


def head(kicker: str, title: str, facts: Iterable[str]) -> Markup:
    """The head of a page: what kind of page it is, its title, and a line of facts."""
    return el(
        "header",
        el("p", kicker, class_="kicker"),
        el("h1", title),
        el("p", " \u00b7 ".join(filter(None, facts)), class_="soft"),
    )


def badge(text: str, kind: str) -> Markup:
    """A short text on colour. kind: `good`, `bad` or `unsure`."""
    return el("span", text, class_=f"badge {kind}")


def chips(styles: DesignStyles) -> Markup | None:
    """The buttons that highlight a design in all charts and tables. None where there is only one design."""
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
        "div",
        el("span", "Highlight"),
        clear,
        buttons,
        id="highlight",
        role="toolbar",
        aria_label="Highlight designs in all charts",
    )


def figure(chart: Chart) -> Markup:
    """A chart with its title and its texts. It is drawn twice, for wide and for narrow screens, so that the text has
    the same size on both."""
    drawn = []
    for width, kind in ((WIDE, "wide"), (NARROW, "narrow")):
        panels = ", ".join(panel.title for panel in chart.panels[:6])
        label = f"{chart.title}: {panels}. Arrow keys walk through its values, Enter highlights one."
        drawn.append(
            el(
                "div",
                chart.draw(width),
                class_=f"plot {kind}",
                tabindex="0",
                role="group",
                aria_label=label,
                aria_roledescription="chart",
            )
        )
    note = el("p", chart.note, class_="soft") if chart.note else None
    return el("figure", el("h3", chart.title), el("figcaption", chart.text), drawn, note, id=f"figure-{chart.name}")


def scrolled(drawn: Markup, name: str) -> Markup:
    """A table that scrolls sideways where it is wider than the page, also by the keyboard. name: for screen readers."""
    return el("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=name)


def table(name: str, title: str, caption: str) -> Markup:
    """The place of a table, which page.js fills. name: as in the `tables` of the page."""
    buttons = [
        el("button", label, type="button", data_copy=form)
        for label, form in (("Copy CSV", "csv"), ("Copy Markdown", "markdown"))
    ]
    return el(
        "div",
        el(
            "div",
            el("input", type="search", placeholder="Filter by words", aria_label=f"Filter {title}"),
            buttons,
            el("button", "Reset", type="button", class_="reset", hidden=True),
            el("span", class_="count soft", role="status"),
            class_="tools",
        ),
        scrolled(el("table", el("caption", el("span", caption))), title),
        el("button", "Show all rows", type="button", class_="more", hidden=True),
        el("noscript", "Tables need JavaScript. The same numbers are in trials.csv."),
        data_table=name,
        id=f"table-{name}",
    )


def facts(given: Iterable[tuple[str, Any]]) -> Markup:
    """A list of names and values; those without a value are left out."""
    return el(
        "dl", [[el("dt", name), el("dd", value)] for name, value in given if value not in ("", None)], class_="facts"
    )


def flat(given: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """The values of nested mappings, each with the names that lead to it."""
    if isinstance(given, dict):
        for name, value in given.items():
            yield from flat(value, f"{path} {name}".strip())
    elif given is not None:
        yield path, ", ".join(map(str, given)) if isinstance(given, list) else str(given)


def settings(fixed: Mapping[str, Any], said: Words) -> str:
    """Factors and their values in a line; empty and zero values are left out."""
    return ", ".join(
        f"{said.factor(name)} {naming.value(name, value)}"
        for name, value in fixed.items()
        if value not in ("", 0, 0.0) and not (said is vocabulary.MESSAGES and name in ("scope", "source"))
    )


def save(path: str, text: str) -> str:
    """Write a page and return its path. The file is replaced in one step, so that a browser never reads half a page."""
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.part", path)
    return path
