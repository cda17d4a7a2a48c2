"""The house: a room imports only from lower floors; what is offered is documented."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.transports import COMMAND, DATA

from harness import factors, results

ROOT = Path(__file__).parent.parent
# The rooms, ground floor first: a room imports from rooms on floors below it, and never from one on its own floor.
FLOORS = [
    ["harness", "harness.entry_points", "harness.protocol", "harness.units", "harness.suggest"],
    ["harness.factors", "harness.api", "harness.cli"],
    ["harness.results"],
    [
        "harness.rendezvous",
        "harness.registry",
        "harness.contents",
        "harness.analysis",
        "harness.shipped",
        "harness.__main__",
    ],
    ["harness.machine", "harness.report", "transports"],
    ["harness.console"],
    ["harness.supervisor", "harness.plugins", "harness.new_transport", "harness.clean", "harness.starter"],
    ["harness.documentation", "harness.completion"],
    ["harness.pipeline"],
    ["harness.load", "harness.origin", "harness.testkit"],
    ["harness.course", "harness.measure"],
    ["harness.doctor", "harness.experiment"],
    ["harness.fleet"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Rooms that must not know all that is below them.
GROUND = {"harness", "harness.entry_points", "harness.protocol", "harness.units", "harness.suggest", "harness.api"}
BASE = {*GROUND, "harness.registry", "harness.rendezvous"}
PROGRAM = {*BASE, "harness.machine", "harness.console", "harness.supervisor"}
ONLY = {
    "harness.rendezvous": GROUND,
    "harness.registry": GROUND,
    "harness.contents": GROUND,
    "harness.machine": BASE,
    "harness.console": {*BASE, "harness.machine"},
    "harness.supervisor": PROGRAM,
    "harness.pipeline": PROGRAM,
    "harness.origin": {*PROGRAM, "harness.pipeline"},
    "harness.load": {*PROGRAM, "harness.pipeline"},
    "harness.testkit": {*PROGRAM, "harness.pipeline"},
    "transports": {"harness.api"},
    "harness.analysis": {"harness.results", "harness.factors", "harness.suggest", "harness.units"},
    "harness.report": {"harness.analysis", "harness.results", "harness.factors", "harness.units"},
}
PURE = {"harness.protocol": {"os", "socket", "threading", "select", "time"}}


def room_of(module):
    return max((room for room in FLOOR if f"{module}.".startswith(f"{room}.")), key=len)


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            is_module = [
                (ROOT / name.replace(".", "/")).exists() or (ROOT / f"{name.replace('.', '/')}.py").exists()
                for name in names
            ]
            yield from (name if module else node.module for name, module in zip(names, is_module, strict=True))


MODULES = sorted(path for package in ("harness", "transports") for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_rooms_on_lower_floors(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    for imported in imports_of(path):
        if imported.split(".")[0] in {"harness", "transports"}:
            other = room_of(imported)
            assert other == room or FLOOR[other] < FLOOR[room], f"{module} imports {imported}, which is not below it"
            assert other in {room, *ONLY.get(room, [other])}, f"{module} imports {imported}, which it must not know"
            assert room == "transports" or other != "transports", f"{module} knows a transport by name: {imported}"
        assert imported not in PURE.get(room, ()), f"{module} imports {imported}"


def test_every_factor_and_column_is_documented_as_the_code_has_it():
    """`python benchmarks/describe_factors.py` writes both tables."""
    page = (ROOT / "docs/results.md").read_text()
    assert results.dictionary() in page
    assert results.dictionary(results.Slice) in page
    assert results.dictionary(results.Request) in page
    assert factors.table() in (ROOT / "docs/experiments.md").read_text()


def test_every_option_of_the_built_in_transports_is_in_its_docstring():
    import dataclasses

    for transport in (*COMMAND.values(), *DATA.values()):
        for field in dataclasses.fields(transport):
            assert re.search(rf"\b{field.name}: ", transport.__doc__), f"{transport.__name__}.{field.name}"


def test_the_readme_names_the_two_commands_and_make_knows_them():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("make study", "make test"):
        assert re.search(rf"^    {command}\b", readme, re.M)
        assert re.search(rf"^{command.split()[1]}:", makefile, re.M)
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)


TOP = set(
    ".ci .gitignore CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE Makefile README.md SECURITY.md benchmarks docs "
    "experiments harness mkdocs.yml plugins pyproject.toml results tests transports".split()
)


@pytest.mark.processes
def test_what_is_committed_is_in_a_room_and_not_what_a_program_left_behind():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout, or git is not installed")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {path.partition("/")[0] for path in listed.split("\0") if path} <= TOP


# The studies that come along, with their results. Experiments and results of your own may lie beside them.
STUDIES = (
    "base command-channel concurrency congestion depth floor open-loop parameter placement posix-vs-sysv quick "
    "recovery segments soak stress sync tradeoff web-proxy zero-copy"
).split()


@pytest.mark.parametrize("study", STUDIES)
def test_kept_results_are_of_this_schema_and_good(study):
    rows = list(results.read(str(ROOT / f"results/{study}/trials.csv")))
    assert rows
    assert {row.status for row in rows} <= {"ok", "refused"}
    assert {row.swept for row in rows} == {0}
    assert not any(row.commit.endswith("+dirty") for row in rows)


def test_the_pages_that_quote_kept_results_are_as_the_program_writes_them(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pages = importlib.import_module("describe_results").pages()
    assert {str(page.relative_to(ROOT)) for page in pages} == {"README.md", "results/README.md"}
    for page, text in pages.items():
        written = sections(text)
        if page.parent == ROOT:  # no result of your own is in the README
            assert written.keys() == sections(page.read_text()).keys()
        for title, section in sections(page.read_text()).items():
            assert written[title] == section, f"{page}: run benchmarks/describe_results.py"


def test_the_page_of_mechanisms_is_as_the_program_writes_it_or_says_that_its_runs_are_not_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    which = importlib.import_module("which")
    _, text, _ = re.split("<!-- .* -->", which.PAGE.read_text())
    if all(directory.exists() for directory in which.KEPT):
        assert text.strip() == which.written(*which.KEPT), "run benchmarks/which.py"
    else:
        assert text.count("a short trial run on a busy machine that is not kept") == len(which.KEPT)


def sections(page):
    """The parts of a page by their titles: where you keep results of your own, the program writes more of them."""
    parts = re.split("^## ", page.replace("<!-- end -->", ""), flags=re.MULTILINE)
    return {part.partition("\n")[0]: part.strip() for part in parts}


def test_every_study_that_came_with_claims_has_kept_results():
    from harness.experiment import planner

    for study in STUDIES:
        assert planner.load_plan(str(ROOT / f"experiments/{study}.yaml")).question
        assert (ROOT / f"results/{study}/trials.csv").exists(), study
    described = sections((ROOT / "results/README.md").read_text())
    assert set(STUDIES) <= described.keys()


def test_every_key_of_experiments_is_in_their_page():
    from harness.experiment import language

    page = (ROOT / "docs/experiments.md").read_text()
    for name in language.Document.model_fields:
        assert f"`{name}`" in page, name


def test_the_readme_names_every_built_in_transport():
    rows = re.findall(r"^\| (command|data[^|]*) \| (`.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = {kind: set(re.findall(r"`(\w+)`", text)) for kind, text in rows}
    assert named["command"] == set(COMMAND)
    assert named["data, copying"] | named["data, zero-copy"] == set(DATA)


def test_the_page_of_transports_links_their_files_which_say_what_matters_and_has_a_measured_row_for_each(monkeypatch):
    page = (ROOT / "docs/transports.md").read_text()
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    overview = importlib.import_module("describe_transports").overview()
    assert overview in page, "run benchmarks/describe_transports.py"
    for kind in (*COMMAND.values(), *DATA.values()):
        assert re.search(rf"^\| \[`{kind.name}`\]\(\.\./{kind.__module__.replace('.', '/')}\.py\) \|", overview, re.M)
        docstring = sys.modules[kind.__module__].__doc__ or ""
        assert re.search(r"\bKilled peers: ", docstring), kind.__module__
        assert re.search(r"\bLimits: ", docstring), kind.__module__
    measured = re.findall(r"^\| `(\w+)` \|(?: \d+\.\d+ \|){4}$", page, re.MULTILINE)
    assert measured == list(DATA)
    measured = re.findall(r"^\| `(\w+)` \|(?: \d+\.\d \| \d+ \|){2}$", page, re.MULTILINE)
    assert measured == list(COMMAND)
