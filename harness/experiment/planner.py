"""Makes the plan of an experiment file: its cells, its baseline and its design, with all mistakes at once."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from harness import registry
from harness.analysis.claims import Claim
from harness.experiment.language import BLOCKS, Document, Mistakes, Path, Source, given, read
from harness.experiment.plan import MOST_BLOCKS, Plan, better_apart, matches, needs_apart, no_cell, varying
from harness.factors import CHANNELS, FACTORS, Spec, applies
from harness.measure.channels import channels
from harness.measure.feasible import contradiction
from harness.measure.slicing import Slicing
from harness.results import APART, LIVE
from harness.suggest import unknown

__all__ = ["Mistakes", "load_plan"]

_NEEDS = {"arrivals": "rate", "fault_at": "fault"}  # a factor -> another one, without a level of which it says nothing
_INSTEAD = {"clients": "say how many requests are under way by `lanes` and `proxy_threads`"}


def load_plan(path: str, name: str = "") -> Plan:
    """The plan in a file, named after it unless a name is given. Raises Mistakes, OSError."""
    return plan_of(read(path), name or os.path.splitext(os.path.basename(path))[0])


def plan_of(source: Source, name: str) -> Plan:
    """The plan in a parsed file. Raises Mistakes."""
    return _Planner(source, source.document()).plan(name)


class _Planner:
    """Makes a plan of a document. All mistakes are raised at once."""

    def __init__(self, source: Source, document: Document) -> None:
        self._source, self._document = source, document
        self._mistakes: list[tuple[Path, str]] = []

    def plan(self, name: str) -> Plan:
        document = self._document
        self._check_probes()
        cells = self._cells()
        if self._mistakes:
            raise self._source.mistakes(self._mistakes)
        baseline = given(document.baseline) or _first_baseline(cells)
        if not any(matches(cell, baseline) for cell in cells):
            self._mistake(("baseline",), no_cell(cells, baseline))
        if document.control and not any(cell.control for cell in cells):
            cells += [replace(cell, control=True) for cell in cells if matches(cell, baseline)]
        expected = [self._claim(index, cells) for index in range(len(document.claims))]
        if document.until and document.repeats:
            self._mistake(("until",), "`repeats` is there, too; keep one")
        if document.until and document.until.at_most < document.until.at_least:
            self._mistake(("until", "at_most"), "is under `at_least`")
        if document.budget and document.repeats:
            self._mistake(("budget",), "`repeats` is there, too; keep one")
        reason = needs_apart(cells, document.live)
        design = document.design or (APART if reason or better_apart(cells) else LIVE)
        if reason and design == LIVE:
            self._mistake(("design",), f"{reason}: write `apart`, or leave it out")
        if document.budget and design == APART:
            self._mistake(
                ("budget",), f"is divided among live blocks, and there are none, {reason or 'the design is apart'}"
            )
        if document.slices and design == APART:
            self._mistake(("slices",), f"there are none, {reason or 'the design is apart'}; leave it out")
        if self._mistakes:
            raise self._source.mistakes(self._mistakes)
        until = document.until
        return Plan(
            name,
            document.question,
            tuple(cells),
            document.repeats or (until.at_most if until else MOST_BLOCKS if document.budget else BLOCKS),
            document.seed,
            until.at_least if until else 0,
            until.within if until else 0.0,
            baseline,
            tuple(filter(None, expected)),
            tuple(document.probes),
            document.live,
            design,
            Slicing(**(document.slices.model_dump() if document.slices else {})),
            document.budget,
            document.left_out,
        )

    def _mistake(self, path: Path, text: str) -> None:
        self._mistakes.append((path, text))

    def _check_probes(self) -> None:
        known = registry.installed().probes
        for index, probe in enumerate(self._document.probes):
            if probe not in known:
                self._mistake(("probes", index), unknown("probe", probe, known))

    def _cells(self) -> list[Spec]:
        """Crossed, without the excluded, with the included; each once, in the order of the file."""
        document = self._document
        settings = given(document.settings)
        forms: list[tuple[Path, Iterable[str], list[Spec]]] = []  # what names factors, and the cells that it makes
        if document.cells:
            for other in ("factors", "zip", "include", "exclude", "settings"):
                if other in document.model_fields_set:
                    self._mistake((other,), "`cells` has all values already; keep one of the two")
            cells = [Spec(**given(cell)) for cell in document.cells]
        else:
            dimensions = self._dimensions(settings)
            self._check_number(dimensions)
            cells = [Spec(**settings, **levels) for levels in _cross(dimensions)]
            for index, form in enumerate(document.exclude):
                left = [cell for cell in cells if not matches(cell, given(form))]
                if len(left) == len(cells):
                    self._mistake(("exclude", index), no_cell(cells, given(form)))
                cells = left
            for index, form in enumerate(document.include):
                included = self._included(index, given(form), dimensions, settings)
                forms.append((("include", index), given(form), included))
                cells = cells + included
            forms.append((("factors",), given(document.factors), cells))
            forms += [(("zip", index), given(form), cells) for index, form in enumerate(document.zip)]
            forms.append((("settings",), settings, cells))
        if not cells and not self._mistakes:
            self._mistake(("exclude",), "nothing is left to run")
        for index, cell in enumerate([] if self._mistakes else cells):
            if wrong := contradiction(cell):
                factors, text = wrong
                self._mistake(("cells", index, factors[0]) if document.cells else self._place(factors, cell), text)
                break
        for path, names, some in [] if self._mistakes else forms:
            self._check_meaning(path, names, some)
        return list(dict.fromkeys(_plain(cell) for cell in cells))

    def _check_meaning(self, path: Path, names: Iterable[str], cells: list[Spec]) -> None:
        """Note a mistake for each of these factors that means nothing in any of the cells."""
        for name in names if cells else ():
            if not any(applies(name, cell) for cell in cells):
                other, level = next(one for one in FACTORS[name].only.items() if getattr(cells[0], one[0]) != one[1])
                instead = f", and {_INSTEAD[name]}" if name in _INSTEAD else ""
                self._mistake((*path, name), f"means nothing without `{other}: {level}`; leave it out{instead}")
            elif (other := _NEEDS.get(name, "")) and not any(getattr(cell, other) for cell in cells):
                self._mistake((*path, name), f"means nothing without `{other}`; leave it out")

    def _check_number(self, dimensions: list[list[dict[str, Any]]]) -> None:
        """Raises Mistakes before any cell is made where there are too many."""
        document = self._document
        included = [
            math.prod(len(levels) for levels in given(form).values())
            * math.prod(len(one) for one in dimensions if not set(one[0]) & set(given(form)))
            for form in document.include
        ]
        crossed = math.prod(len(dimension) for dimension in dimensions)
        if (number := crossed + sum(included)) > document.most_cells:
            text = f"{number:,} cells; leave levels out, or write `most_cells: {number}` if all of them are meant"
            raise self._source.mistakes([*self._mistakes, (("factors",), text)])

    def _place(self, factors: tuple[str, ...], cell: Spec) -> Path:
        """The path in the file of the first of these factors that it names, at the level that this cell has."""
        document = self._document
        forms: list[tuple[Path, BaseModel]] = [(("factors",), document.factors)]
        forms += [(("zip", index), form) for index, form in enumerate(document.zip)]
        forms += [(("include", index), form) for index, form in enumerate(document.include)]
        for factor in factors:
            for at, form in forms:
                if (level := getattr(cell, factor)) in (levels := given(form).get(factor, [])):
                    return *at, factor, levels.index(level)
            if factor in given(document.settings):
                return "settings", factor
        return ("factors",)

    def _dimensions(self, settings: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        """What is crossed: for each factor, or group of factors that move together, its levels."""
        free = given(self._document.factors)
        dimensions: list[list[dict[str, Any]]] = []
        for index, form in enumerate(self._document.zip):
            group = given(form)
            for name in group:
                if name in free or any(name in dimension[0] for dimension in dimensions if dimension):
                    self._mistake(("zip", index, name), "is a factor, or in a group, already; keep one")
            if len({len(levels) for levels in group.values()}) != 1:
                self._mistake(("zip", index), "factors that move together need equally many levels")
            dimensions.append([dict(zip(group, row, strict=False)) for row in zip(*group.values(), strict=False)])
        dimensions += [[{name: level} for level in levels] for name, levels in free.items()]
        names = [name for dimension in dimensions for name in (dimension[0] if dimension else {})]
        for name in settings:
            if name in names:
                self._mistake(("settings", name), "is a factor, too; keep one")
        return [] if self._mistakes else dimensions

    def _included(
        self, index: int, levels: dict[str, Any], dimensions: list[list[dict[str, Any]]], settings: Mapping[str, Any]
    ) -> list[Spec]:
        others = []
        for dimension in dimensions:
            named = [name for name in dimension[0] if name in levels]
            if named and len(named) < len(dimension[0]):
                self._mistake(("include", index), f"give all of {', '.join(dimension[0])}: they move together")
            if not named:
                others.append(dimension)
        own = [[{name: level} for level in some] for name, some in levels.items()]
        return [Spec(**{**settings, **combination}) for combination in _cross(own + others)]

    def _claim(self, index: int, cells: list[Spec]) -> Claim | None:
        form = self._document.claims[index]
        where = given(form.where)
        sides = {"test": given(form.test), "baseline": given(form.baseline)}
        for side, levels in sides.items():
            if not levels:
                self._mistake(("claims", index, side), "name the factors in which the two cells differ")
            elif not any(matches(cell, {**where, **levels}) for cell in cells):
                self._mistake(("claims", index, side), no_cell(cells, {**where, **levels}))
        try:
            return Claim(form.text, form.metric, **sides, where=where, expect=form.expect)
        except ValueError as error:
            self._mistake(("claims", index), str(error))
            return None


def _cross(dimensions: list[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*dimensions):
        yield {name: level for levels in combination for name, level in levels.items()}


def _plain(cell: Spec) -> Spec:
    """The cell with the defaults of the factors that mean nothing in it, so that equal cells are equal."""
    return replace(cell, **{name: factor.default for name, factor in FACTORS.items() if not applies(name, cell)})


def _first_baseline(cells: list[Spec]) -> dict[str, Any]:
    """The levels of the first cell with the fewest floors, of the factors that one compares."""
    names = [name for name in varying(cells) if FACTORS[name].about != "condition"]
    transports = [name for name in names if name in CHANNELS]
    first = min(cells, key=_floors)
    return {name: getattr(first, name) for name in transports or names}


def _floors(cell: Spec) -> int:
    return sum(one.floor for one in channels(cell) or ()) + (cell.source == "direct")
