"""An experiment file: read, checked whole, and made a plan.

    question: Which data transport is the fastest, at which file size?
    factors:                    # crossed: each combination is a cell
      command: [posix_mq, fifo]
      data: [posix_shm, "sendfile"]
      files: [1KiB, 3MiB]
    settings:                   # the same for every cell
      clients: 8
      seconds: 0.5
    repeats: 3                  # blocks: each runs every cell once, in an order of its own
    seed: 1                     # of these orders

Factors and settings have the names of the fields of `spec.Spec`.
"""

import difflib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from harness import registry
from harness.api import HEAD_BYTES
from harness.spec import Spec

_TRANSPORTS: dict[str, Callable[[str], Any]] = {
    "command": registry.command_transport,
    "data": registry.data_transport,
}
_SIZES = {"files", "chunk"}
_CHOICES = {"sink": ("discard", "copy"), "source": ("cache", "direct")}
_KINDS = {field.name: field.type for field in fields(Spec)}
_KEYS = ("question", "factors", "settings", "repeats", "seed")


class Mistakes(ValueError):
    """All that is wrong with a file, a line each: `file:line: what, and what to do instead`."""


@dataclass(frozen=True)
class Plan:
    """cells: in the order of the file. repeats: how often each runs. seed: of the order within the blocks."""

    name: str
    question: str
    cells: list[Spec]
    repeats: int
    seed: int

    def trials(self) -> Iterator[tuple[int, Spec]]:
        """(block from 1, cell), in the order of the run: whole blocks, each shuffled."""
        order = random.Random(self.seed)
        for block in range(1, self.repeats + 1):
            cells = list(self.cells)
            order.shuffle(cells)
            for cell in cells:
                yield block, cell


def load(path: str) -> Plan:
    """The plan in a file. Raises Mistakes, OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            document = YAML(typ="rt", pure=True).load(file)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Mistakes(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}") from None
    except UnicodeDecodeError as error:
        raise Mistakes(f"{path}: not UTF-8 at byte {error.start}") from None
    return _Reader(path).plan(document)


class _Reader:
    """Checks a document, keeping on after a mistake so that all are told at once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._mistakes: list[str] = []

    def plan(self, document: Any) -> Plan:
        if not isinstance(document, CommentedMap):
            raise Mistakes(f"{self._path}:1: write `factors:` and the factors below it")
        for key in document:
            if key not in _KEYS:
                self._mistake(document, key, _unknown("key", key, _KEYS))
        factors = self._section(document, "factors")
        settings = self._section(document, "settings")
        for key in settings:
            if key in factors:
                self._mistake(settings, key, f"{key}: is a factor, too; keep one")
        levels = {key: self._levels(factors, key) for key in factors}
        fixed = {key: self._value(settings, key, settings[key]) for key in settings}
        repeats = self._count(document, "repeats", 3, 1)
        seed = self._count(document, "seed", 1, 0)
        cells = []
        if not self._mistakes:
            for combination in itertools.product(*levels.values()):
                cells.append(Spec(**fixed, **dict(zip(levels, combination, strict=True))))
            for cell in cells:
                if cell.lanes < cell.proxy_processes:
                    key = "lanes" if "lanes" in factors else "proxy_processes"
                    self._mistake(factors, key, f"{cell.lanes} lanes: each proxy process needs one of its own")
                    break
        if self._mistakes:
            raise Mistakes("\n".join(self._mistakes))
        name = os.path.splitext(os.path.basename(self._path))[0]
        return Plan(name, str(document.get("question", "")), cells, repeats, seed)

    def _section(self, document: CommentedMap, key: str) -> CommentedMap:
        section = document.get(key)
        if section is None:
            return CommentedMap()
        if not isinstance(section, CommentedMap):
            self._mistake(document, key, f"{key}: write `name: value` lines below it")
            return CommentedMap()
        for name in list(section):
            if name not in _KINDS:
                self._mistake(section, name, _unknown(key.rstrip("s"), name, _KINDS))
                del section[name]
        return section

    def _levels(self, factors: CommentedMap, key: str) -> list[Any]:
        given = factors[key] if isinstance(factors[key], list) else [factors[key]]
        levels = [self._value(factors, key, value) for value in given]
        if not levels or len(set(levels)) < len(levels):
            self._mistake(factors, key, f"{key}: give each level once, and at least one")
        return levels

    def _value(self, where: CommentedMap, key: str, value: Any) -> Any:
        try:
            return _convert(key, value)
        except ValueError as error:
            self._mistake(where, key, f"{key}: {error}")
            return None

    def _count(self, document: CommentedMap, key: str, default: int, least: int) -> int:
        value = document.get(key, default)
        if type(value) is not int or value < least:
            self._mistake(document, key, f"{key}: {value!r} is not a whole number from {least} on")
            return default
        return value

    def _mistake(self, where: CommentedMap, key: Any, text: str) -> None:
        try:
            line = where.lc.key(key)[0] + 1
        except (KeyError, TypeError):
            line = 1
        self._mistakes.append(f"{self._path}:{line}: {text}")


def _convert(key: str, value: Any) -> Any:
    if key in _TRANSPORTS:
        # YAML reads an unquoted null as nothing; here it can only be the transport of that name.
        text = "null" if value is None else str(value)
        _TRANSPORTS[key](text)
        return text
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise ValueError(_unknown(key, value, _CHOICES[key]))
        return value
    if key in _SIZES:
        size = registry.parse_size(str(value))
        if key == "chunk" and size <= HEAD_BYTES:
            raise ValueError(f"must be over {HEAD_BYTES} bytes")
        return str(size) if key == "files" else size
    if _KINDS[key] is str:
        return str(value)
    if _KINDS[key] is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise ValueError(f"{value!r} is not a number of seconds over 0")
        return float(value)
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is not a whole number from 1 on")
    return value


def _unknown(what: str, name: Any, known: Any) -> str:
    close = difflib.get_close_matches(str(name), known, 1)
    return f"{name}: no such {what}; " + (f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}")
