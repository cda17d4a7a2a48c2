"""The wheel: the same from build to build, whole away from the checkout, readable where only the README is shown."""

import hashlib
import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from support.pages import links
from support.users import becoming

ROOT = Path(__file__).parent.parent
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "dist", "site"
)
OWN = re.compile(r"(__editable__|_editable_impl|_?transport_harness|_?harness_[a-z0-9]+|harness|transports)")
STUDY = """\
question: Does the wheel have all that a study needs?
factors:
  data: [posix_shm, fifo]
settings: {seconds: 50ms, warmup: 50ms}
repeats: 1
"""


def build(source, target):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(command, cwd=source, env=os.environ | epoch, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def environment(wheel, tmp_path):
    """A fresh environment with the wheel; what the wheel depends on is borrowed from the one that runs the tests."""
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    for borrowed in Path(site.getsitepackages()[0]).iterdir():
        if not OWN.match(borrowed.name):
            (packages / borrowed.name).symlink_to(borrowed)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(place / "bin/python")]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-index", "--no-deps", "--root-user-action=ignore", wheel], check=True
    )
    return place


@pytest.fixture
def run(environment, base, tmp_path):
    """run(*arguments): the installed `harness`, started in an empty directory that knows nothing of the checkout."""
    there = tmp_path / "there"
    there.mkdir()
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def harness(*arguments, become=()):
        return subprocess.run(
            [*become, str(environment / "bin/harness"), *arguments],
            cwd=there,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    harness.there = there
    return harness


@pytest.mark.processes
def test_two_builds_of_one_source_in_different_directories_are_the_same_file(wheel, tmp_path):
    copy = tmp_path / "elsewhere" / "source"
    shutil.copytree(ROOT, copy, ignore=NOT_SOURCE)
    again = build(copy, tmp_path / "dist")
    assert again.name == wheel.name
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_wheel_runs_a_study_away_from_the_checkout_also_for_an_ordinary_user(run, environment):
    from harness import __version__

    assert run("--version").stdout == f"harness {__version__}\n"
    plugins = run("plugins")
    assert plugins.returncode == 0, plugins.stdout + plugins.stderr
    assert "posix_shm" in plugins.stdout
    assert "handoff" in plugins.stdout
    for shown in (["experiment", "check", "quick"], ["docs", "ipc"], ["experiment", "list"]):
        assert run(*shown).returncode == 0, shown
    assert run("docs", "--path", "ipc").stdout.startswith(str(environment))
    made = run("new-transport", "my-own", "package")
    assert made.returncode == 0, made.stderr
    assert (run.there / "package/harness_my_own.py").exists()
    (run.there / "study.yaml").write_text(STUDY)
    check_study(run, "out")
    if os.getuid() == 0:  # otherwise the study above was an ordinary user's
        for place in (run.there, os.environ["TRANSPORT_HARNESS_DIR"]):
            os.chown(place, 65534, 65534)
        check_study(run, "theirs", become=becoming(65534))


def check_study(run, name, **options):
    result = run("run", "--quiet", "0", "study.yaml", "-o", name, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (run.there / name / "trials.csv").read_text().count("\n") == 3
    assert (run.there / name / "report.html").exists()


def test_the_pages_in_the_wheel_have_all_that_they_link_to(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    pages = next(tmp_path.glob("*.data/data/share/doc/transport-harness"))
    for page in pages.rglob("*.md"):
        for target in links(page):
            assert target.exists(), f"{page.relative_to(pages)} links to {target}"
    assert (pages / "README.md").read_text() == (ROOT / "README.md").read_text()
    assert (pages / "LICENSE").exists()


def test_the_description_of_the_package_links_to_nothing_that_is_not_there(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        head, _, description = archive.read(name).decode().partition("\n\n")
    assert "License-Expression: MIT" in head
    assert "Description-Content-Type: text/markdown" in head
    assert re.findall(r"\]\((?!https?:)", description) == []
    assert "<!--" not in description
    for file in re.findall(r"`((?:docs|results|plugins)/[\w./-]+)`", description):
        assert (ROOT / file).exists(), file
    assert "programs (`docs/programs.md`)" in description
    assert "share/doc/transport-harness" in description


def test_the_classifiers_say_which_versions_of_python_were_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tried = [one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r":: 3\.\d+$", one)]
    assert tried
    assert project["requires-python"] == f">={tried[0]}"
