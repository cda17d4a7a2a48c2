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
                                            # or  budget: 60s  of time, divided as its figures demand
    design: live                            # all cells alive at once, in slices; or  apart: each with a time of its own
    slices: {lead_in: 3ms, window: 6ms, rounds: 20}   # live; what is left out follows from the cells
    baseline: {data: posix_shm}             # what ratios are taken to
    control: true                           # each baseline cell twice: does the machine tell equals apart?
    probes: [syscalls]
    claims:
      - {text: A FIFO is slower, metric: requests_per_s, test: {data: fifo}, baseline: {data: posix_shm}, expect: lower}
    if_installed: [nng]                     # a transport whose levels and claims are left out where it is not installed
    seed: 1                                 # of the order within the blocks
    most_cells: 1000                        # more than these are a mistake

In place of factors, `cells` may list each cell with all its values: that is how a run keeps its plan.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

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
from harness.factors import FACTORS, FILES, OFFERED
from harness.suggest import unknown

Path = tuple[str | int, ...]

_MOST_REPEATED = 100_000  # values that aliases repeat: aliases of aliases multiply
_MOST_CELLS = 1000  # unless a file says more
BLOCKS = 8  # from how many on intervals are narrow enough to decide much: docs/decisions/0009-intervals.md
# What the library says of mistakes that people make, and what to say.
_SAYINGS = {
    r"found character '\\t'": "a tab; indent with spaces",
    r"expected <block end>": "this line is indented otherwise than those that it belongs to",
    r"mapping values are not allowed": "a `:` too many; put a text that has one in quotes",
    r"could not find expected ':'": "a `:` is missing, and the space after it",
    r"expected ',' or '[\]}]'": "a `,` or a closing bracket is missing",
}


class Mistakes(ValueError):
    """All that is wrong with a file, a line each: `file:line:column: path: what, and what to do instead`."""


# What builds a transport of the text that a factor gives, and so raises ValueError where there is no such one.
_BUILDS: dict[str, Callable[[str], object]] = {"command": registry.command_transport, "data": registry.data_transport}


def convert(name: str, value: Any, directory: str) -> Any:
    """A factor's value, from YAML to Spec. directory: of the file. Raises ValueError, which says what to write."""
    if isinstance(value, list) and FACTORS[name].kind is not FILES:
        raise ValueError(f"{value!r} is a list: several levels are written below `factors`, and here is room for one")
    converted = FACTORS[name].kind.parse(value, directory)
    if name in _BUILDS:
        _BUILDS[name](converted)
    return converted


_STRICT = ConfigDict(extra="forbid", strict=True)


class _Context(NamedTuple):
    """directory: of the file. missing: transports that need not be installed, and are not."""

    directory: str = ""
    missing: frozenset[str] = frozenset()

    def convert(self, name: str, value: Any) -> Any:
        """As convert() does, but a transport may be missing."""
        try:
            return convert(name, value, self.directory)
        except registry.UnknownTransport:
            text = FACTORS[name].kind.parse(value, self.directory)
            if registry.parse(text)[0] in self.missing:
                return text
            raise


def _checked(convert: Callable[[Any, _Context], Any]) -> Any:
    """A pydantic type that is whatever `convert` makes of a value; its message is shown as it is."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        try:
            return convert(value, info.context or _Context())
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


def _value(name: str) -> Any:
    return _checked(lambda value, context: context.convert(name, value))


_VALUE = {name: _value(name) for name in FACTORS}
_OFFERED = {name: _VALUE[name] for name in OFFERED}
_AS_LIST = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
if TYPE_CHECKING:  # where models that are made at run time are no types
    CellForm: TypeAlias = BaseModel
    ValuesForm: TypeAlias = BaseModel
    LevelsForm: TypeAlias = BaseModel
    ColumnsForm: TypeAlias = BaseModel
else:
    CellForm = _model("Cell", _VALUE)
    ValuesForm = _model("Values", _OFFERED)
    LevelsForm = _model(
        "Levels", {name: Annotated[list[kind], _AS_LIST, AfterValidator(_distinct)] for name, kind in _OFFERED.items()}
    )
    ColumnsForm = _model("Columns", {name: list[kind] for name, kind in _OFFERED.items()})


def given(factors: BaseModel | None) -> dict[str, Any]:
    """What a mapping of factors says, in the order of the fields of Spec."""
    said = factors.model_fields_set if factors is not None else ()
    return {name: getattr(factors, name) for name in FACTORS if name in said}


class Until(BaseModel):
    """Stop when the interval of every ratio is narrower than `within`, a share of 1 to each side."""

    model_config = _STRICT
    within: _checked(lambda value, _: units.percent(value))  # type: ignore[valid-type]
    at_least: int = Field(default=BLOCKS, ge=BLOCKS)
    at_most: int = Field(default=30, ge=8)


class SlicesForm(BaseModel):
    """How long slices are in live blocks, and how many rounds a block has; what is left out follows from the cells."""

    model_config = _STRICT
    lead_in: _checked(lambda value, _: units.seconds(value)) = 0.0  # type: ignore[valid-type]
    window: _checked(lambda value, _: units.seconds(value)) = 0.0  # type: ignore[valid-type]
    rounds: int = Field(default=0, ge=1)


class ClaimForm(BaseModel):
    """A claim as the file has it."""

    model_config = _STRICT
    text: str
    metric: str = "requests_per_s"
    test: ValuesForm
    baseline: ValuesForm
    where: LevelsForm = Field(default_factory=LevelsForm)
    expect: str


class Document(BaseModel):
    """An experiment file whose every part is right by itself."""

    model_config = _STRICT
    question: str = ""
    factors: LevelsForm = Field(default_factory=LevelsForm)
    settings: ValuesForm = Field(default_factory=ValuesForm)
    zip: list[ColumnsForm] = []
    exclude: list[LevelsForm] = []
    include: list[LevelsForm] = []
    cells: list[CellForm] = []
    repeats: int | None = Field(default=None, ge=1)
    until: Until | None = None
    budget: _checked(lambda value, _: units.seconds(value)) = 0.0  # type: ignore[valid-type]
    design: Literal["live", "apart"] | None = None
    slices: SlicesForm | None = None
    baseline: ValuesForm | None = None
    control: bool = False
    probes: list[str] = []
    claims: list[ClaimForm] = []
    seed: int = Field(default=1, ge=0)
    live: bool = False
    most_cells: int = Field(default=_MOST_CELLS, ge=1)
    if_installed: list[str] = []
    _left_out: tuple[str, ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The transports of `if_installed` that are not installed here: whatever named them is gone."""
        return self._left_out

    def leave_out(self, missing: Collection[str]) -> None:
        """Leave out all that names one of these transports."""
        self._left_out = tuple(sorted(missing))
        _drop(self.factors, missing)
        self.exclude[:] = [form for form in self.exclude if _drop(form, missing)]
        self.include[:] = [form for form in self.include if _drop(form, missing)]
        self.claims[:] = [
            claim
            for claim in self.claims
            if _drop(claim.test, missing) and _drop(claim.baseline, missing) and _drop(claim.where, missing)
        ]


def _drop(factors: BaseModel, missing: Collection[str]) -> bool:
    """Drop the levels that name one of these transports. Returns whether each factor still has a level."""
    for name in _BUILDS.keys() & factors.model_fields_set:
        levels = getattr(factors, name)
        if isinstance(levels, list):
            levels[:] = [level for level in levels if registry.parse(level)[0] not in missing]
        elif registry.parse(levels)[0] in missing:
            return False
        if not levels:
            return False
    return True


class Source:
    """A parsed file, and where in it everything stands."""

    def __init__(self, path: str, text: str) -> None:
        """Raises Mistakes where the text is no YAML mapping."""
        self._path = path
        self._places: dict[Path, tuple[int, int]] = {}
        self._left, self._seen = _MOST_REPEATED, set[int]()
        try:
            document = YAML(typ="rt", pure=True).load(text)
            self.data = self._plain(document, (), False)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise Mistakes(f"{path}:{line}:{column}: not YAML: {_plainly(str(error.problem))}") from None
        except YAMLError as error:
            raise Mistakes(f"{path}:1:1: not YAML: {' '.join(str(error).split())}") from None
        except RecursionError:
            raise Mistakes(f"{path}:1:1: lists or mappings are nested too deep") from None
        if not isinstance(self.data, dict):
            raise Mistakes(f"{path}:1:1: write `factors:` and the factors below it")

    def _plain(self, node: Any, at: Path, repeated: bool) -> Any:
        """The node as Python's own kinds. repeated: whether it is below an alias."""
        if isinstance(node, CommentedMap | CommentedSeq):
            repeated |= id(node) in self._seen
            self._seen.add(id(node))
        self._left -= repeated
        if self._left < 0:
            raise Mistakes(f"{self._path}:1:1: over {_MOST_REPEATED:,} values that aliases repeat")
        if isinstance(node, CommentedMap):
            for key in node:
                self._places[(*at, str(key))] = node.lc.key(key)
                self._check_text(str(key), (*at, str(key)))
            return {str(key): self._plain(value, (*at, str(key)), repeated) for key, value in node.items()}
        if isinstance(node, CommentedSeq):
            for index in range(len(node)):
                self._places[(*at, index)] = node.lc.item(index)
            return [self._plain(value, (*at, index), repeated) for index, value in enumerate(node)]
        if isinstance(node, str):
            self._check_text(node, at)
        for kind in (int, float, str):
            if isinstance(node, kind) and not isinstance(node, bool):
                return kind(node)  # not the library's own kinds of numbers
        return node

    def _check_text(self, text: str, at: Path) -> None:
        """Raises Mistakes where a text can be written to no file: YAML's escapes make such of half a character."""
        try:
            text.encode()
        except UnicodeEncodeError:
            line, column = self._places.get(at, (0, 0))
            raise Mistakes(
                f"{self._path}:{line + 1}:{column + 1}: {text!r}: half of a character; write it as it is, or as "
                "\\U and eight digits"
            ) from None

    def document(self) -> Document:
        """Raises Mistakes."""
        optional = self.data.get("if_installed", [])
        names = [name for name in optional if isinstance(name, str)] if isinstance(optional, list) else []
        missing = frozenset(names) - registry.installed().command.keys() - registry.installed().data.keys()
        context = _Context(os.path.dirname(os.path.abspath(self._path)), missing)
        try:
            document: Document = Document.model_validate(self.data, context=context)
            document.leave_out(missing)
            return document
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


def _plainly(problem: str) -> str:
    """What the library says is wrong, in words for those who do not know how it reads."""
    return next((words for beginning, words in _SAYINGS.items() if re.match(beginning, problem)), problem)


def _kind_of(at: Path) -> str:
    if at == ("settings",):
        return "setting"
    return "key" if not at or at[-1] in {"until", "slices"} or at[-2:-1] == ("claims",) else "factor"


_FORMS = {"claims": ClaimForm, "until": Until, "slices": SlicesForm, "cells": CellForm, "where": LevelsForm}


def _known(at: Path) -> Iterable[str]:
    model: Any = Document
    for part in at:
        if isinstance(part, str):
            model = _FORMS.get(part, ValuesForm)
    return list(model.model_fields)
