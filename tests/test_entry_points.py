"""Entry points: the same as `importlib.metadata` finds, without its imports."""

import importlib.metadata
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness import entry_points
from harness.api.contract import GROUP

WORD = some.from_regex(r"[a-z_][a-z0-9_.-]{0,6}", fullmatch=True)
MODULE = some.from_regex(r"[a-z_]{1,5}(\.[a-z_]{1,5})?( ?: ?[a-z_]{1,5})?( ?\[[a-z]{1,4}\])?", fullmatch=True)
LINE = some.one_of(
    some.tuples(WORD, some.sampled_from(["=", " = ", "= "]), MODULE).map("".join),
    some.sampled_from(["", "# a comment = of = some", "[ours]", "[other]", "[ours.more]"]),
)


def of_the_library(path, group):
    (distribution,) = importlib.metadata.distributions(path=[path])
    return [(one.name, one.module, one.attr or "") for one in distribution.entry_points.select(group=group)]


def as_in_the_library(found):
    return [(one.name, *(one.value.split(":") if ":" in one.value else (one.value, ""))) for one in found]


@given(lines=some.lists(LINE, max_size=12))
def test_a_file_is_read_as_the_library_reads_it(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("site")
    metadata = path / "some_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n\nVersion: 2\n")
    (metadata / "entry_points.txt").write_text("\n".join(["[ours]", *lines]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(path / "not there"), str(path)])
        found = entry_points.entry_points("ours")
    assert sorted(as_in_the_library(found)) == sorted(of_the_library(str(path), "ours"))
    assert {one.distribution for one in found} <= {"some-package 1.0"}


def test_what_is_installed_here_is_found_with_its_distribution():
    found = entry_points.entry_points(GROUP)
    library = importlib.metadata.entry_points(group=GROUP)
    assert sorted((one.name, one.distribution) for one in found) == sorted(
        (one.name, f"{one.dist.name} {one.dist.version}") for one in library
    )
    assert [one.load() for one in found if one.name == "fifo"] == [sys.modules["transports.fifo"]]


def test_of_two_versions_the_first_on_the_path_counts(tmp_path, monkeypatch):
    for place, version, name in (
        ("first", "2.0", "Some_Package.egg-info"),
        ("second", "1.0", "some-package-1.0.dist-info".replace("-p", "_p")),
    ):
        metadata = tmp_path / place / name
        metadata.mkdir(parents=True)
        (metadata / "entry_points.txt").write_text(f"[ours]\nname = math:pi{version[0]}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / place) for place in ("first", "second")])
    (found,) = entry_points.entry_points("ours")
    assert found.value == "math:pi2"
    assert found.distribution == "unknown"
    with pytest.raises(AttributeError, match="pi2"):
        found.load()
