"""The names of sizes, factors, cells and hosts in tables and reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.factors import FACTORS

# Factors that grow with the number of lanes where several messages are in flight.
_THREADS = {"proxy_threads", "cache_threads"}
_BARE = {"origin", "host", "cpu"}  # columns that are no factors, and whose values say what they are


def value(column: str, given: Any) -> str:
    """A value of a factor, or of another column that sets cells apart: `1 KiB` for a file set of 1024."""
    if column in FACTORS:
        return FACTORS[column].kind.show(given)
    return f"{given:g}" if isinstance(given, float) else str(given)


def label(levels: Mapping[str, Any], separator: str = ", ") -> str:
    """Factors with their values in a line: `1 KiB files, 8 clients, chunk 64 KiB`."""
    parts = []
    for column, given in levels.items():
        if given is None or (column, given) == ("source", "cache") or not (text := value(column, given)):
            continue
        kind = FACTORS[column].label if column in FACTORS else "bare" if column in _BARE else "named"
        if kind == "counted":
            text = f"{text} {column.removesuffix('s') if text == '1' else column}"
        elif kind == "named":
            text = f"{column} {text}"
        parts.append(text)
    return separator.join(parts)


_MOST_HOSTS = 4  # that a sentence names
_PLACES = {"same-core": "one core", "spread": "across cores"}  # as `harness ipc --placement` has them


def of_messages(levels: Mapping[str, Any]) -> str:
    """As label(), for lanes alone, in the words of messages: `64 KiB messages, 8 in flight, one core`.

    How many are in flight is what the threads that ask have under way. Where that is no level, lanes are lanes.
    """
    given = dict(levels)
    parts = []
    if files := given.pop("files", None):
        parts.append(f"{value('files', files)} messages")
    threads, batch = given.get("proxy_threads"), given.get("batch", 1)
    if threads and given.get("lanes") == threads * batch:
        parts.append(f"{given.pop('lanes')} in flight" + (f" in batches of {batch}" if batch > 1 else ""))
        given.pop("batch", None)
        given = {name: level for name, level in given.items() if name not in _THREADS or level != threads}
    if given.get("placement") in _PLACES:
        parts.append(_PLACES[given.pop("placement")])
    return ", ".join(filter(None, (*parts, label(given))))


def design(levels: Mapping[str, Any]) -> str:
    """The compared factors of a cell with their values: `posix_mq + sendfile`."""
    return label(levels, " + ")


def hosts(names: Sequence[str]) -> str:
    """Hosts of a fleet in a sentence: their names, or how many they are."""
    return ", ".join(names) if len(names) <= _MOST_HOSTS else f"{len(names)} hosts"


def silence(silent: int, all_hosts: int) -> str:
    """How many hosts of a fleet say nothing, in words; empty where all say something."""
    return f"{silent} of {all_hosts} hosts say nothing" if silent else ""
