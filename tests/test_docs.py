"""The pages: what they name exists, what they link to is there, and the README stays short."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import test_house
from ruamel.yaml import YAML
from support.pages import links

from harness import __version__, cli
from harness.experiment import planner

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        ROOT / "results/README.md",
        *ROOT.glob("plugins/*/README.md"),
    ]
)
RECORDS = DOCS / "decisions"
ROOMS = "harness|transports|tests|docs|experiments|results|benchmarks|plugins"


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_to_a_file_that_is_there(page):
    assert [target for target in links(page) if not target.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_and_name_that_a_page_mentions_exists(page):
    text = page.read_text()
    for path in re.findall(rf"(?<![\w./<-])((?:{ROOMS})/[\w./*-]*[\w*])", text):
        there = [*ROOT.glob(path), *page.parent.glob(path), *ROOT.glob(f"{path}*.md")]  # a record by its number
        assert there or path.rpartition("/")[2] in WRITTEN, path
    for file in re.findall(r"`([\w-]+\.(?:py|css|js|html|yaml))`", text):
        assert file in WRITTEN or any(True for room in ROOMS.split("|") for _ in (ROOT / room).rglob(file)), file
    for name in re.findall(r"`((?:harness|transports)(?:\.\w+)+)", text):
        assert resolved(name), name


WRITTEN = {"compare.yaml", "report.html", "experiment.yaml", "comparison.html", "index.html"}  # by the reader or a run


def resolved(name):
    """Whether a dotted name is a module, or something that one has."""
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return bool(module) and hasattr(importlib.import_module(module), attribute)
    return True


def test_every_page_can_be_reached_from_the_readme():
    reached, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            ahead += [target for target in links(page) if target.suffix == ".md" and target.exists()]
    assert {name_of(page) for page in PAGES} - {name_of(page) for page in reached} == set()


def test_the_readme_has_some_800_words():
    words = re.sub(r"!\[[^\]]*\]", "", README.read_text()).split()
    assert len(words) <= 850


def test_the_study_of_the_readme_has_eight_lines_and_can_be_run(tmp_path):
    block = next(block for block in indented(README) if block.startswith("question:"))
    assert len(block.splitlines()) == 8
    file = tmp_path / "study.yaml"
    file.write_text(block)
    study = planner.load_plan(str(file))
    assert len(study.cells) == 6  # two transports, two sizes, and the control at each
    assert len(study.claims) == 1


def test_the_transport_of_the_readme_takes_four_commands_that_there_are():
    block = next(block for block in indented(README) if block.startswith("harness new-transport"))
    commands = [line.split() for line in block.splitlines()]
    assert len(commands) == 4
    assert {words[1] for words in commands if words[0] == "harness"} <= set(cli._COMMANDS)


def indented(page):
    """The indented code blocks of a page."""
    blocks = re.findall(r"^\n((?: {4}.*\n)+)", page.read_text(), re.MULTILINE)
    return [re.sub("^ {4}", "", block, flags=re.MULTILINE) for block in blocks]


def test_the_page_of_programs_has_every_command():
    page = (DOCS / "programs.md").read_text()
    assert [name for name in cli._COMMANDS if not re.search(rf"`harness {name}\b", page)] == []


def test_the_page_of_decisions_has_every_record():
    assert set(links(RECORDS / "README.md")) >= set(RECORDS.glob("0*.md"))


def test_the_architecture_page_says_what_each_room_holds_and_which_rooms_it_imports(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    rooms = importlib.import_module("describe_rooms")
    assert rooms.PAGE.read_text() == rooms.page(), "run benchmarks/describe_rooms.py"
    table = rooms.table()
    for room in set(test_house.FLOOR) - {"harness", "harness.__main__"}:
        assert f"`{room.replace('.', '/')}" in table
        assert len(rooms.holds(room)) > 20, f"{room}: its docstring says what it holds"


def test_each_step_of_the_two_walks_is_in_the_file_that_the_architecture_page_names():
    page = (DOCS / "architecture.md").read_text()
    steps = re.findall(r"^\| (\d+) \| .* \| `([\w/.]+\.py)` \| `([\w.]+)` \|$", page, re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == [*range(1, 15), *range(1, 21)]
    for _, file, name in steps:
        for part in name.split("."):
            found = re.search(rf"^\s*(?:def|class) {part}\b|^\s*(?:self\.)?{part} = ", (ROOT / file).read_text(), re.M)
            assert found, f"{file}: {name}"


def test_the_glossary_has_each_word_once_and_in_order():
    text = (DOCS / "glossary.md").read_text()
    words = re.findall(r"^\*\*(.+?)\*\*: ", text, re.MULTILINE)
    assert len(words) == text.count("**") / 2
    assert words == sorted(set(words), key=str.casefold)
    needed = "A/A control|baseline|block|cell|chunk|closed loop|command transport|context|coordinated omission|"
    needed += "data transport|depth|disturbed|floor|head|lane|open loop|rendezvous|round|scope|sink|slice|trial"
    assert set(needed.split("|")) <= set(words)


OPAQUE = re.compile(r"\b(told(?! apart)|nobody|whoever)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_says_who_does_what(page):
    """These three words each hide a subject: who says, who is missing, who acts."""
    assert OPAQUE.findall(page.read_text()) == []


def test_the_citation_is_of_this_version():
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == __version__
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.processes
def test_the_docs_site_is_built_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material", reason="pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=100, check=False)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)  # and the page for what is not there
    for page in pages:
        text = page.read_text()
        assert re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//", text) == [], page.name
    index = (tmp_path / "site/index.html").read_text()
    assert 'src="pictures/quick-ratios.png"' in index
    assert 'href="decisions/0003-congestion-control.html"' in index
    assert (tmp_path / "site/pictures/quick-ratios.png").exists()
