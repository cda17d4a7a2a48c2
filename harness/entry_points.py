"""The entry points of installed distributions, found without `importlib.metadata`.

That takes a quarter of the time in which a program of a trial starts, for what it imports (email, zipfile, csv). Here
`NAME.dist-info/entry_points.txt` (and `.egg-info`) is read in each directory of `sys.path`. Source: the entry points
specification of the Python Packaging Authority.
"""

import functools
import importlib
import itertools
import os
import re
import sys
from typing import Any, NamedTuple


class EntryPoint(NamedTuple):
    """name: what it is called. value: `module` or `module:attribute`. metadata: the directory of its distribution."""

    name: str
    value: str
    metadata: str

    def load(self) -> Any:
        """The module, or the attribute of it. Raises what importing raises, and AttributeError."""
        module, _, attribute = self.value.partition(":")
        return functools.reduce(getattr, filter(None, attribute.split(".")), importlib.import_module(module))

    @property
    def distribution(self) -> str:
        """Name and version of the distribution, or `unknown` where they cannot be read."""
        return _name_and_version(self.metadata)


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group. A distribution that is there twice counts where `sys.path` has it first."""
    found: dict[str, str] = {}
    for path in sys.path:
        for metadata in _metadata_in(path or "."):
            found.setdefault(_normal(metadata), metadata)
    return [point for metadata in found.values() for point in _points(metadata, group)]


def _normal(metadata: str) -> str:
    """The name of a distribution as PEP 503 has it, of a directory NAME-VERSION.dist-info or NAME.egg-info."""
    name = os.path.splitext(os.path.basename(metadata))[0].partition("-")[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata_in(path: str) -> list[str]:
    try:
        return [os.path.join(path, name) for name in os.listdir(path) if name.endswith((".dist-info", ".egg-info"))]
    except OSError:  # also what is no directory, such as an archive
        return []


def _points(metadata: str, group: str) -> list[EntryPoint]:
    points, current = [], ""
    for line in _lines(os.path.join(metadata, "entry_points.txt")):
        name, equals, value = line.partition("=")
        if line.startswith("["):
            current = line.strip("[]")
        elif equals and current == group and not line.startswith("#"):
            points.append(EntryPoint(name.strip(), value.partition("[")[0].replace(" ", ""), metadata))
    return points


@functools.cache
def _name_and_version(metadata: str) -> str:
    lines = _lines(os.path.join(metadata, "METADATA")) or _lines(os.path.join(metadata, "PKG-INFO"))
    header = itertools.takewhile(bool, lines)  # a description may follow
    fields = dict(line.partition(": ")[::2] for line in header)
    return f"{fields['Name']} {fields['Version']}" if {"Name", "Version"} <= fields.keys() else "unknown"


def _lines(path: str) -> list[str]:
    """The lines of a file without the white space around them; none where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file]
    except OSError:
        return []
