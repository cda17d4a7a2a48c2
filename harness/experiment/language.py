"""The language of experiment files: YAML 1.2, checked whole, with the line and column of every mistake.

    question: Does shared memory beat a FIFO, and from which size on?
    factors:                                # crossed: each combination is a cell
      data: [fifo, posix_shm, {posix_shm: {depth: 2, wait: spin}}]
      files: [1KiB, 3MiB, [1KiB, 64KiB], classic, "directory:./site"]
    settings: {clients: 8, seconds: 500ms}  # the same for every cell
    zip:                                    # factors that move together
      - {proxy_threads: [1, 4], cache_threads: [1, 4]}
    exclude:                                # combinations to leave out
      - {data: fifo, files: classic}
    include:                                # more cells: these levels, crossed with the factors that are not named
      - {command: [fifo, unix], data: posix_shm}
    repeats: 5                              # blocks; or  until: {within: 5%, at_least: 8, at_most: 30}
    baseline: {data: posix_shm}             # what ratios are taken to
    control: true                           # each baseline cell twice: does the machine tell equals apart?
    probes: [syscalls]
    claims:
      - {text: A FIFO is slower, metric: requests_per_s, test: {data: fifo}, baseline: {data: posix_shm}, expect: lower}
    seed: 1                                 # of the order within the blocks

In place of factors, `cells` may list each cell with all its values: that is how a run keeps its plan.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from harness import registry, units
from harness.api import HEAD_BYTES
from harness.factors import CLASSIC, DIRECTORY, Spec

Path = tuple[str | int, ...]
_ROLES = ("client", "proxy", "cache")
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(us|ms|s|min|h)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


class Mistakes(ValueError):
    """All that is wrong with a file, a line each: `file:line:column: path: what, and what to do instead`."""


# What a factor's value may be. Each takes a value as YAML has it and the file's directory, returns it as Spec has it,
# and raises ValueError with what to write instead.


def _transport(kind: Callable[[str], Any]) -> Callable[[Any, str], str]:
    def convert(value: Any, _: str) -> str:
        if isinstance(value, Mapping):
            if len(value) != 1 or not isinstance(options := next(iter(value.values())), Mapping):
                raise ValueError("write `name`, `name:option=value`, or {name: {option: value}}")
            pairs = ",".join(
                f"{option}={str(given).lower() if isinstance(given, bool) else given}"
                for option, given in options.items()
            )
            text = f"{next(iter(value))}:{pairs}" if pairs else str(next(iter(value)))
        else:
            # YAML reads an unquoted null as nothing; here it can only be the transport of that name.
            text = "null" if value is None else str(value)
        kind(text)
        return text

    return convert


def _whole(least: int) -> Callable[[Any, str], int]:
    def convert(value: Any, _: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{value!r} is not a whole number from {least} on")
        return int(value)

    return convert


def _choice(*known: str) -> Callable[[Any, str], str]:
    def convert(value: Any, _: str) -> str:
        if value not in known:
            raise ValueError(unknown("choice", value, known))
        return str(value)

    return convert


def _text(value: Any, _: str) -> str:
    return str(value)


def _truth(value: Any, _: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def seconds(value: Any, _: str = "") -> float:
    """`5s`, `500ms`, `2min`, or a number of seconds. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    elif match := _TIME.fullmatch(str(value)):
        number = float(match[1]) * _UNITS[match[2]]
    else:
        raise ValueError(f"{value!r} is not a time, such as 5s or 500ms")
    if not 0 < number <= 86_400:
        raise ValueError(f"{value!r} is not over 0 and within a day")
    return number


def percent(value: Any, _: str = "") -> float:
    """`5%` as 0.05. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", str(value))
    if not match or not 0 < float(match[1]) < 100:
        raise ValueError(f"{value!r} is not a percentage, such as 5%")
    return float(match[1]) / 100


def _rate(value: Any, _: str) -> float:
    if value == "closed":
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)/s", str(value))
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{value!r} is not a rate, such as 500/s, or `closed`")
    return float(match[1])


def _delay(value: Any, _: str) -> float:
    return 0.0 if value in {0, "none"} and not isinstance(value, bool) else seconds(value)


def _bandwidth(value: Any, _: str) -> int:
    if value in {0, "none"} and not isinstance(value, bool):
        return 0
    try:
        return units.size(str(value).removesuffix("/s"))
    except ValueError:
        raise ValueError(f"{value!r} is not a bandwidth, such as 10MiB/s, or `none`") from None


def _chunk(value: Any, _: str) -> int:
    size = units.size(str(value))
    if 0 < size <= HEAD_BYTES:
        raise ValueError(f"must be over {HEAD_BYTES} bytes")
    return size


def _files(value: Any, directory: str) -> str:
    if isinstance(value, list):
        if not value:
            raise ValueError("an empty set; give at least one size")
        return " ".join(str(units.size(str(size))) for size in value)
    text = str(value)
    if text == CLASSIC:
        return text
    if text.startswith(DIRECTORY):
        path = os.path.join(directory, text.removeprefix(DIRECTORY))
        if not os.path.isdir(path):
            raise ValueError(f"{path}: no such directory")
        return DIRECTORY + os.path.abspath(path)
    try:
        return " ".join(str(units.size(size)) for size in re.split(r"[ ,]+", text))
    except ValueError:
        raise ValueError(
            f"{value!r} is not a file set: a size such as 64KiB, a list of sizes, {CLASSIC}, or {DIRECTORY}PATH"
        ) from None


def _placement(value: Any, _: str) -> str:
    if isinstance(value, Mapping):
        value = " ".join(f"{role}={cpus}" for role, cpus in value.items())
    if value in {"free", "same-core", "spread"}:
        return str(value)
    given = dict(part.partition("=")[::2] for part in str(value).split())
    if set(given) != set(_ROLES) or not all(_CPUS.fullmatch(cpus) for cpus in given.values()):
        raise ValueError(f"{value!r} is not free, same-core, spread, or {{client: 0, proxy: 1, cache: 0-1}}")
    return " ".join(f"{role}={given[role]}" for role in _ROLES)


_KINDS: dict[str, Callable[[Any, str], Any]] = {
    "scope": _choice("pipeline", "lane"),
    "source": _choice("cache", "direct", "curl"),
    "command": _transport(registry.command_transport),
    "data": _transport(registry.data_transport),
    "files": _files,
    "sink": _choice("discard", "copy", "checksum"),
    "rate": _rate,
    "arrivals": _choice("poisson", "fixed"),
    "congestion": _text,
    "chunk": _chunk,
    "depth": _whole(0),
    "wait": _text,
    "placement": _placement,
    "page_cache": _choice("warm", "cold"),
    "strategy": _choice("head-then-get", "single-get", "buffered"),
    "reuse": _truth,
    "origin_latency": _delay,
    "origin_bandwidth": _bandwidth,
    "origin_server": _choice("own", "nginx", "auto"),
    "timeout": seconds,
    "warmup": seconds,
    "seconds": seconds,
    "requests": _whole(0),
    "control": _truth,
}
CONVERT: dict[str, Callable[[Any, str], Any]] = {
    field.name: _KINDS.get(field.name, _whole(1)) for field in fields(Spec)
}


_STRICT = ConfigDict(extra="forbid", strict=True)


def _checked(convert: Callable[[Any, str], Any]) -> Any:
    """A pydantic type that is whatever `convert` makes of a value, with its message told as it is."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        try:
            return convert(value, info.context or "")
        except ValueError as error:
            raise PydanticCustomError("mistake", "{text}", {"text": str(error)}) from None

    return Annotated[Any, PlainValidator(validate)]


def _distinct(levels: list[Any]) -> list[Any]:
    if not levels or len(set(levels)) < len(levels):
        raise PydanticCustomError("mistake", "give each level once, and at least one")
    return levels


def _model(name: str, kinds: Mapping[str, Any]) -> Any:
    fields: dict[str, Any] = {factor: (kind, None) for factor, kind in kinds.items()}
    return create_model(name, __config__=_STRICT, **fields)


_VALUE = {name: _checked(convert) for name, convert in CONVERT.items()}
_OFFERED = {name: kind for name, kind in _VALUE.items() if name != "control"}  # that is a key of its own
_AS_LIST = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
if TYPE_CHECKING:  # where models that are made at run time are no types
    Cell: TypeAlias = BaseModel
    Values: TypeAlias = BaseModel
    Levels: TypeAlias = BaseModel
    Columns: TypeAlias = BaseModel
else:
    Cell = _model("Cell", _VALUE)
    Values = _model("Values", _OFFERED)
    Levels = _model(
        "Levels", {name: Annotated[list[kind], _AS_LIST, AfterValidator(_distinct)] for name, kind in _OFFERED.items()}
    )
    Columns = _model("Columns", {name: list[kind] for name, kind in _OFFERED.items()})


def given(factors: BaseModel | None) -> dict[str, Any]:
    """What a mapping of factors says, in the order of the fields of Spec."""
    said = factors.model_fields_set if factors is not None else ()
    return {name: getattr(factors, name) for name in CONVERT if name in said}


class Until(BaseModel):
    """Stop when the interval of every ratio is narrower than `within`, a share of 1 to each side."""

    model_config = _STRICT
    within: _checked(percent)  # type: ignore[valid-type]
    at_least: int = Field(default=8, ge=3)  # docs/decisions/0009-intervals.md
    at_most: int = Field(default=30, ge=3)


class ClaimForm(BaseModel):
    """A claim as the file has it."""

    model_config = _STRICT
    text: str
    metric: str = "requests_per_s"
    test: Values
    baseline: Values
    where: Levels = Field(default_factory=Levels)
    expect: str


class Document(BaseModel):
    """An experiment file whose every part is right by itself."""

    model_config = _STRICT
    question: str = ""
    factors: Levels = Field(default_factory=Levels)
    settings: Values = Field(default_factory=Values)
    zip: list[Columns] = []
    exclude: list[Levels] = []
    include: list[Levels] = []
    cells: list[Cell] = []
    repeats: int | None = Field(default=None, ge=1)
    until: Until | None = None
    baseline: Values | None = None
    control: bool = False
    probes: list[str] = []
    claims: list[ClaimForm] = []
    seed: int = Field(default=1, ge=0)
    live: bool = False


class Source:
    """A parsed file, and where in it everything stands."""

    def __init__(self, path: str, text: str) -> None:
        """Raises Mistakes where the text is no YAML mapping."""
        self._path = path
        self._places: dict[Path, tuple[int, int]] = {}
        try:
            document = YAML(typ="rt", pure=True).load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise Mistakes(f"{path}:{line}:{column}: not YAML: {error.problem}") from None
        except YAMLError as error:
            raise Mistakes(f"{path}:1:1: not YAML: {' '.join(str(error).split())}") from None
        self.data = self._plain(document, ())
        if not isinstance(self.data, dict):
            raise Mistakes(f"{path}:1:1: write `factors:` and the factors below it")

    def _plain(self, node: Any, at: Path) -> Any:
        if isinstance(node, CommentedMap):
            for key in node:
                self._places[(*at, str(key))] = node.lc.key(key)
            return {str(key): self._plain(value, (*at, str(key))) for key, value in node.items()}
        if isinstance(node, CommentedSeq):
            for index in range(len(node)):
                self._places[(*at, index)] = node.lc.item(index)
            return [self._plain(value, (*at, index)) for index, value in enumerate(node)]
        for kind in (int, float, str):
            if isinstance(node, kind) and not isinstance(node, bool):
                return kind(node)  # not the library's own kinds of numbers
        return node

    def document(self) -> Document:
        """Raises Mistakes."""
        try:
            return Document.model_validate(self.data, context=os.path.dirname(os.path.abspath(self._path)))
        except ValidationError as error:
            raise self.mistakes([(one["loc"], self._say(one)) for one in error.errors()]) from None

    def _say(self, error: Any) -> str:
        *above, last = error["loc"]
        if error["type"] == "extra_forbidden":
            return unknown(_kind_of(tuple(above)), last, _known(tuple(above)))
        if error["type"] == "missing":
            return "is missing"
        if error["type"] == "mistake":
            return str(error["msg"])
        if error["type"].startswith("model"):
            return "write `name: value` lines below it"
        return f"{error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"

    def mistakes(self, found: Iterable[tuple[Path, str]]) -> Mistakes:
        """All of them in the order of the file, each with the place of the nearest part that stands there."""
        lines = []
        for path, text in found:
            at = path
            while at and at not in self._places:
                at = at[:-1]
            line, column = self._places.get(at, (0, 0))
            name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
            lines.append((line, column, f"{self._path}:{line + 1}:{column + 1}: {name}: {text}"))
        return Mistakes("\n".join(line for _, _, line in sorted(lines)))


def read(path: str) -> Source:
    """Raises Mistakes, OSError."""
    with open(path, "rb") as file:
        text = file.read()
    try:
        return Source(path, text.decode())
    except UnicodeDecodeError as error:
        raise Mistakes(f"{path}:{text[: error.start].count(10) + 1}:1: not UTF-8") from None


def _kind_of(at: Path) -> str:
    if at == ("settings",):
        return "setting"
    return "key" if not at or at[-1] == "until" or at[-2:-1] == ("claims",) else "factor"


def _known(at: Path) -> Iterable[str]:
    model: Any = Document
    for part in at:
        if isinstance(part, str):
            model = {"claims": ClaimForm, "until": Until, "cells": Cell, "where": Levels}.get(part, Values)
    return list(model.model_fields)


def unknown(what: str, name: Any, known: Iterable[str]) -> str:
    """That there is no such thing, and which one may be meant."""
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"{name}: no such {what}; " + (f"did you mean {close[0]}?" if close else f"there is {', '.join(known)}")
