"""The workload: the request paths in a file, one a line, and which of them each process asks for."""

import os
import sys

from harness.protocol import getfile
from harness.protocol.dialects import Dialect


def read_workload(file: str, dialect: Dialect = getfile) -> list[str]:
    """The request paths of a workload file.

    Raises ValueError with the number of the first line that is no path, or where the file names no path.
    """
    paths = []
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            path = line.strip()
            try:
                dialect.encode_request(path)
            except getfile.Malformed as error:
                raise ValueError(f"{file}:{number}: {path!r}: {error}; write `/path`") from None
            paths.append(path)
    if not paths:
        raise ValueError(f"{file}: no paths in it; write one a line, such as /file")
    return paths


def check_apart(file: str, paths: list[str], requests: int) -> None:
    """Raises ValueError where --apart has too few files for `requests` under way at a time, or names one twice."""
    if not requests <= len(set(paths)) == len(paths):
        raise ValueError(f"--apart: {file} must name {requests} different files or more, each once")


def check_below(directory: str, paths: list[str], wanted: str) -> None:
    """Check that each path can be a file below `directory`. wanted: `keep` it there, or `compare` it with the file.

    Raises ValueError where a path leads elsewhere, or there is no file to compare with.
    """
    for path in paths:
        if ".." in path.split("/") or path.endswith("/"):
            raise ValueError(f"{path}: cannot {wanted} this below {directory}")
        if wanted == "compare" and not os.path.isfile(directory + path):
            raise ValueError(f"{directory}{path}: no such file to compare with")


def share(requests: int | None, paths: int, index: int, processes: int) -> range:
    """The requests of process `index`, as indices into the workload (modulo its length, `paths`).

    requests: of all processes together; None: without end. Then each process goes through the whole workload, from a
    place of its own, so that files of all sizes are asked for equally often however fast each process is.
    """
    if requests is None:
        return range(paths * index // processes, sys.maxsize)
    return part(requests, index, processes)


def part(count: int, index: int, parts: int) -> range:
    """Part `index` of `parts` equal parts of `count` things."""
    return range(count * index // parts, count * (index + 1) // parts)
