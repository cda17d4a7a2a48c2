"""The report in a real browser: Debian's Chromium, driven by Playwright. `make test` installs it as root."""

import json
import os
import shutil
import time

import pytest
from support import fleets, studies
from test_report import EVIL, Page

from harness import report
from harness.report import comparison_page, fleet_page, index_page

pytestmark = pytest.mark.xdist_group("browser")  # one browser and one set of pages for all
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 768, 1280)


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root; the pages are our own files.
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser):
    """The one tab in which pages are opened, as a tab costs more than a page, and what it has reported or requested."""
    troubles = []
    context = browser.new_context(reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or troubles.append(request.url))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    return page, troubles


@pytest.fixture
def opened(tab):
    """Opens a page from a file: opened(path, width, scheme). The page must request nothing else and report no error."""
    page, troubles = tab
    troubles.clear()

    def open_page(path, width=1280, scheme="light"):
        page.mouse.move(0, 0)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.goto(f"file://{path}")
        return page

    yield open_page
    assert troubles == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return report.write(str(studies.whole(tmp_path_factory.mktemp("whole"))))


@pytest.fixture(scope="module")
def pages(tmp_path_factory, whole):
    """A page of each kind."""
    root = tmp_path_factory.mktemp("pages")
    made = {"whole": whole, "pairs": report.write(str(studies.pairs(root / "pairs", blocks=3)))}
    made["live"] = report.write(str(studies.live(root / "live", blocks=3, rounds=20)))
    rows = studies.trials(studies.by_size(), 4)
    made["empty"] = report.write(str(studies.write(root / "empty", [], {"question": "Nothing?"})))
    made["single"] = report.write(str(studies.write(root / "single", rows[:1])))
    for row in rows:
        row.status, row.reason = "failed", "broken"
    made["failed"] = report.write(str(studies.write(root / "failed", rows, {"question": "All failed?"})))
    studies.whole(root / "other")
    made["two"] = comparison_page.write(str(root / "other"), str(root / "pairs"), "requests_per_s", None)
    made["fleet"] = fleet_page.write(str(fleets.fleet(root / "fleet", fleets.TURNING)))
    made["index"] = index_page.write(str(root))
    return made


# Height and number of marks of each drawing that is shown.
DRAWINGS = """() => [...document.querySelectorAll(".plot svg.chart")].filter((svg) => svg.checkVisibility()).map(
    (svg) => [svg.getBoundingClientRect().height, svg.querySelectorAll("path, rect").length])"""
KINDS = ("whole", "pairs", "live", "empty", "single", "failed", "two", "fleet", "index")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_open_and_fit(opened, pages, kind, width):
    page = opened(pages[kind], width)
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out to the right"
    for height, marks in page.evaluate(DRAWINGS):
        assert height > 20
        assert marks > 3


# The texts of charts that stick out of them.
CUT = """() => [...document.querySelectorAll(".plot svg")].flatMap((svg) => {
    const box = svg.getBoundingClientRect();
    return !box.width ? [] : [...svg.querySelectorAll("text")].filter((text) => {
        const own = text.getBoundingClientRect();
        return own.left < box.left - 3 || own.right > box.right + 3 || own.bottom > box.bottom + 2;
    }).map((text) => text.textContent);
})"""
SCALES = """() => [...document.querySelectorAll(".plot svg")].filter((svg) => svg.clientWidth)
    .map((svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["whole", "live", "fleet"])
def test_text_in_charts_is_seen_whole(opened, pages, kind, width):
    page = opened(pages[kind], width)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CUT) == []
        assert min(page.evaluate(SCALES)) > 0.75, "text keeps its size"


@pytest.fixture(scope="module")
def few_blocks(tmp_path_factory):
    """The page `whole` with half of its trials: every kind of element, and fewer of each for axe to look at."""
    return report.write(str(studies.whole(tmp_path_factory.mktemp("few"), blocks=3)))


FEW_ROWS = """() => document.querySelectorAll("tbody").forEach(
    (body) => [...body.rows].slice(4).forEach((row) => row.remove()))"""


@pytest.mark.parametrize(
    ("kind", "width"), [*(("whole", width) for width in WIDTHS), *((kind, 390) for kind in KINDS[1:])]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, pages, few_blocks, kind, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    path = few_blocks if kind == "whole" else pages[kind]
    page = opened(path, width, scheme)
    if (kind, scheme, width) != ("whole", "light", 390):  # axe looks at all rows of a page once: they are alike
        page.evaluate(FEW_ROWS)
    # Without this option axe also describes every element that is well, which takes longer than the checks.
    options = {"resultTypes": ["violations"]}
    if scheme == "dark":  # all that depends on the scheme
        options["runOnly"] = ["color-contrast"]
    response = Axe().run(page, options=options).response
    if scheme == "light":
        assert len(response["passes"]) > 15, "axe has run its rules"
    assert any(response[result] for result in ("passes", "violations", "incomplete")), "axe has run no rule"
    found = [one for one in response["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in found] == []


def test_dark_is_dark(opened, whole):
    colours = [
        opened(whole, 1280, scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


def test_a_click_highlights_a_design_in_all_charts_and_tables(opened, whole):
    page = opened(whole)
    key = page.locator(".chip", has_text="sendfile").get_attribute("data-keys")
    assert page.locator(".on").count() == 0
    page.locator(f"#figure-ratios .wide .dot[data-k='{key}']").first.click()
    for name in ("ratios", "sizes", "latency", "cpu", "stages", "symbols", "order"):
        highlighted = page.locator(f"#figure-{name} .wide .m.on")
        assert highlighted.count() > 0, name
        assert {one.get_attribute("data-k") for one in highlighted.all()} == {key}
        faded = page.locator(f"#figure-{name} .wide .m[data-k]:not(.on)").first
        assert float(faded.evaluate("one => getComputedStyle(one).opacity")) < 0.3
    assert page.locator("#table-cells tr.on").count() == 3
    assert page.locator(".chip[aria-pressed=true]").inner_text() == "sendfile"
    page.keyboard.press("Escape")
    assert page.locator(".on").count() == 0
    page.locator(".chip", has_text="unix").click()
    page.locator(".chip", has_text="fifo").click()
    assert page.locator("#table-cells tr.on").count() == 6
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".on").count() == 0


def test_levels_of_pairs_are_highlighted_together(opened, pages):
    page = opened(pages["pairs"])
    page.locator(".chip", has_text="shm_ring").click()
    assert page.locator("#table-cells tr.on").count() == 12


def next_frame(page):
    """Wait until the browser has sent the events of a scroll, which hide a tooltip."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_a_mark_shows_its_values_to_pointer_and_keyboard(opened, whole):
    page = opened(whole)
    mark = page.locator("#figure-ratios .wide .dot.c1").last
    mark.scroll_into_view_if_needed()
    next_frame(page)
    mark.hover()
    tooltip = page.locator("#tip").inner_text()
    assert "sendfile" in tooltip
    assert "n = 6 blocks" in tooltip
    assert "rows of trials.csv: " in tooltip
    plot = page.locator("#figure-ratios .plot.wide")
    plot.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#announcer").inner_text()
    page.keyboard.press("ArrowRight")
    assert first != page.locator("#announcer").inner_text() != ""
    next_frame(page)
    announced = page.locator("#announcer").text_content()
    assert page.locator("#tip").text_content() == announced
    page.keyboard.press("Enter")
    highlighted = page.locator("#figure-cpu .wide .m.on")
    assert highlighted.count() > 0
    assert announced.splitlines()[0] in highlighted.all_text_contents()


def column(page, table, name):
    place = page.locator(f"#table-{table} thead th").all_inner_texts().index(name) + 1
    return page.locator(f"#table-{table} tbody td:nth-child({place})").all_inner_texts()


def test_tables_are_sorted_by_pointer_and_keyboard(opened, whole):
    page = opened(whole)
    head = page.locator("#table-cells").get_by_role("button", name="requests/s", exact=True)
    head.click()
    numbers = [float(text.replace(",", "")) for text in column(page, "cells", "requests/s")]
    assert len(numbers) == 18
    assert numbers == sorted(numbers, reverse=True)
    assert page.locator("#table-cells th[aria-sort=descending]").inner_text() == "requests/s"
    head.focus()
    page.keyboard.press("Enter")
    assert column(page, "cells", "requests/s") == [f"{number:,.0f}" for number in sorted(numbers)]


def test_tables_are_filtered_and_lead_to_their_rows(opened, whole):
    page = opened(whole)
    page.get_by_label("Filter Cells").fill("3 MiB sendfile")
    assert column(page, "cells", "data") == ["sendfile"]
    page.get_by_role("button", name="Show these 6 trials").click()
    assert column(page, "trials", "data") == ["sendfile"] * 6
    assert column(page, "trials", "files") == ["3 MiB"] * 6
    page.locator("#table-trials").get_by_role("button", name="Reset").click()
    assert page.locator("#table-trials tbody tr").count() == 168


def test_tables_are_copied_as_they_are_shown(opened, whole):
    page = opened(whole)
    page.get_by_label("Filter Cells").fill("100 KiB unix")
    place = page.locator("#table-cells")
    place.get_by_role("button", name="Copy CSV").click()
    page.wait_for_function("document.querySelector('#table-cells .count').textContent.startsWith('Copied')")
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert lines[0].startswith("files,data,requests_per_s,")
    assert len(lines) == 2
    assert lines[1].startswith("100 KiB,unix,")
    place.get_by_role("button", name="Copy Markdown").click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.startsWith('| files | data |'))")


def test_a_value_is_never_run(opened, tmp_path):
    rows = studies.trials(studies.by_size(), 4)
    for row in rows:
        row.data, row.command, row.cpu = EVIL if row.data == "fifo" else row.data, EVIL, EVIL
    rows[3].status, rows[3].reason = "failed", EVIL
    place = studies.write(tmp_path / "evil", rows, {"question": EVIL}, symbols=True)
    (place / "environment.json").write_text(json.dumps({EVIL: EVIL}))
    page = opened(report.write(str(place)))
    assert page.locator("img").count() == 0
    page.locator("#figure-ratios .wide .dot").nth(2).hover()
    page.locator("#table-trials").get_by_role("button", name="data", exact=True).click()
    assert "<script>alert(1)" in page.locator("#table-trials tbody").inner_text()
    assert page.locator("h1").inner_text().startswith("</script><script>alert(1)")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The report of ten thousand trials, and the CPU time in seconds that it took."""
    place = studies.large(tmp_path_factory.mktemp("large"))
    begun = time.process_time()
    return report.write(str(place)), time.process_time() - begun


def test_ten_thousand_trials_take_seconds(large):
    path, seconds = large
    assert seconds < 20
    page = Page(path)
    assert len(page.data["tables"]["trials"]["rows"]) == 10_000
    assert len(page.source) < 4e6


def test_ten_thousand_trials_are_usable(opened, large):
    page = opened(large[0])
    assert page.locator("#table-trials tbody tr").count() == 200
    page.get_by_label("Filter Trials").fill("transport7 64")
    assert 0 < page.locator("#table-trials tbody tr").count() <= 200
    page.locator(".chip").first.click()
    assert page.locator("#figure-order .wide .on").count() == 1
