"""The names of sizes, factors and cells in tables and reports."""

from collections.abc import Mapping
from typing import Any

from harness.results import COLUMN_OF

_FACTOR_OF = {column: factor for factor, column in COLUMN_OF.items()}
_BARE = {"source", "command", "data", "scope", "origin", "host", "cpu"}  # their values say what they are
_COUNTED = {"files", "copies", "clients", "lanes"}


def size(count: int) -> str:
    """A number of bytes as text: 1536 B, 64 KiB, 3 MiB."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} B"


def value(column: str, given: Any) -> str:
    """A value of a factor: `1 KiB` for a file set of 1024."""
    if column == "files":
        return " + ".join(size(int(one)) if one.isdecimal() else one for one in str(given).split())
    if column == "chunk_bytes" and given:
        return size(given)
    if column == "origin_bandwidth_bytes_per_s":
        return f"{size(given)}/s" if given else "none"
    if column == "origin_latency_s":
        return f"{1e3 * given:g} ms" if given else "none"
    if column == "rate_per_s" and given:
        return f"{given:g}/s"
    return f"{given:g}" if isinstance(given, float) else str(given)


def label(levels: Mapping[str, Any], separator: str = ", ") -> str:
    """Factors with their values in a line: `1 KiB files, 8 clients, chunk 64 KiB`."""
    parts = []
    for column, given in levels.items():
        if given in ("", None) or (column, given) == ("source", "cache"):
            continue
        text = value(column, given)
        if column in _COUNTED:
            text = f"{text} {column.removesuffix('s') if text == '1' else column}"
        elif column not in _BARE:
            text = f"{_FACTOR_OF.get(column, column)} {text}"
        parts.append(text)
    return separator.join(parts)


def design(levels: Mapping[str, Any]) -> str:
    """The compared factors of a cell with their values: `posix_mq + sendfile`."""
    return label(levels, " + ")
