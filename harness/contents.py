"""What code is installed: the harness and its plugins, by the content of their files.

A version number or a commit does not say it: a plugin is changed without either. Two rows with the same `code` were
measured by the same lines.
"""

import hashlib
import os
from collections import defaultdict
from functools import cache
from importlib.util import find_spec

from harness import __version__
from harness.api.contract import GROUP
from harness.entry_points import entry_points

_DIGITS = 12


@cache
def contents() -> dict[str, str]:
    """Name and version of each distribution -> the first digits of SHA-256 over the files of its packages.

    Distributions are the harness, and those that bring transports or probes. A package is the first part of the module
    that an entry point names.
    """
    packages = defaultdict(set, {f"transport-harness {__version__}": {"harness"}})
    for point in entry_points(GROUP):
        packages[point.distribution].add(point.value.partition(":")[0].partition(".")[0])
    return {name: _digest(sorted(packages[name])) for name in sorted(packages)}


def code() -> str:
    """The first digits of SHA-256 over all of contents()."""
    return hashlib.sha256(repr(contents()).encode()).hexdigest()[:_DIGITS]


def _digest(packages: list[str]) -> str:
    digest = hashlib.sha256()
    for package in packages:
        for name, path in _files(package):
            digest.update(name.encode() + b"\0")
            with open(path, "rb") as file:
                digest.update(file.read() + b"\0")
    return digest.hexdigest()[:_DIGITS]


def _files(package: str) -> list[tuple[str, str]]:
    """(name below the package, path) of each file of a package or module; none where there is no such one."""
    spec = find_spec(package)
    if spec is None:
        return []
    if not spec.submodule_search_locations:
        return [(package, spec.origin)] if spec.origin else []
    return sorted(
        (f"{package}/{os.path.relpath(os.path.join(directory, name), top)}", os.path.join(directory, name))
        for top in spec.submodule_search_locations
        for directory, _, names in os.walk(top)
        if os.path.basename(directory) != "__pycache__"  # made by Python from the others
        for name in names
    )
