"""Which designs lead at which file sizes: `up to 64 KiB: fifo or unix; from 1 MiB on: sendfile`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.analysis import naming
from harness.analysis.cells import Levels

_Item = TypeVar("_Item")
_Design = TypeVar("_Design")

MOST_NAMED = 4  # designs of a range of sizes that a sentence names; a reader takes in no more

# What the word promises, and what not. The figures are from benchmarks/coverage.py.
UNBEATEN = (
    "Unbeaten: in these trials no other cell was measurably better. In 95 % of studies the best cell is among the "
    "unbeaten ones. They may differ by less than the trials can show, and one that is left out may be as good: of "
    "cells that are equally good, at least one is left out in 2 % (of 2 cells) to 20 % (of 10) of studies."
)


@dataclass(frozen=True)
class SizeRange:
    """The designs to use in a range of file sizes.

    files: the file sets of the range, the smallest first. designs: labels of the cells that lead at every one of these
    sizes; several where no difference between them was found. where: the range in words, such as `up to 64 KiB`.
    """

    files: list[str]
    designs: list[str]
    where: str

    @property
    def named(self) -> list[str]:
        """The designs that a sentence names."""
        return self.designs[:MOST_NAMED]

    @property
    def unnamed(self) -> int:
        """How many more designs there are."""
        return len(self.designs) - len(self.named)


@dataclass(frozen=True)
class Crossover:
    """The leading designs by file size, in contexts that differ in the file set only.

    levels: the other factors of these contexts, for example the number of clients. ranges: by growing file size.
    """

    levels: Levels
    label: str
    ranges: list[SizeRange]

    @property
    def line(self) -> str:
        """The ranges in one line: `up to 64 KiB: fifo or unix; from 1 MiB on: sendfile`."""
        parts = []
        for one in self.ranges:
            more = [f"one of {one.unnamed} more"] if one.unnamed else []
            tied = " (no difference found)" if len(one.designs) > 1 else ""
            parts.append(f"{one.where}: {' or '.join(one.named + more)}{tied}")
        return "; ".join(parts)

    @property
    def sentence(self) -> str:
        """The line, and the contexts that it is true of: `Unbeaten (8 clients): up to 64 KiB: fifo.`"""
        return f"Unbeaten{f' ({self.label})' if self.label else ''}: {self.line}."


def crossovers(leading: Iterable[tuple[Levels, list[str]]]) -> list[Crossover]:
    """The crossovers of a study.

    leading: the levels of each context and the labels of its leaders, by growing file size. Neighbouring sizes with a
    leader in common become one range. A file set of several sizes is a range by itself.
    """
    found = []
    for levels, ladder in ladders(leading, lambda one: one[0]):
        ranges = leading_ranges((str(one.get("files", "")), designs) for one, designs in ladder)
        sizes = [
            SizeRange(files, designs, _where(files, place == 0, place == len(ranges) - 1))
            for place, (files, designs) in enumerate(ranges)
        ]
        found.append(Crossover(levels, naming.label(levels), sizes))
    return found


def ladders(given: Iterable[_Item], levels_of: Callable[[_Item], Levels]) -> Iterator[tuple[Levels, list[_Item]]]:
    """(the levels but for the size, the items that have them) for items of one study, in their order."""
    alike: dict[tuple[tuple[str, Any], ...], list[_Item]] = defaultdict(list)
    for one in given:
        alike[tuple((name, level) for name, level in levels_of(one).items() if name != "files")].append(one)
    for levels, ladder in alike.items():
        yield dict(levels), ladder


def leading_ranges(by_size: Iterable[tuple[str, list[_Design]]]) -> list[tuple[list[str], list[_Design]]]:
    """(sizes, the designs that lead at all of them, best first at the first one) for each range of a ladder.

    by_size: file sets by growing size, each with its leaders, best first.
    """
    ranges: list[tuple[list[str], list[_Design]]] = []
    for files, designs in by_size:
        if ranges and files.isdecimal() and ranges[-1][0][-1].isdecimal():
            before, leading_before = ranges[-1]
            if common := [design for design in leading_before if design in designs]:
                ranges[-1] = ([*before, files], common)
                continue
        ranges.append(([files], designs))
    return ranges


def _where(files: list[str], first: bool, last: bool) -> str:
    """A range in words. first, last: whether it is the first or last one of all."""
    smallest, largest = (naming.value("files", files[end]) for end in (0, -1))
    if files[0].isdecimal() and first != last:
        return f"up to {largest}" if first else f"from {smallest} on"
    return smallest if smallest == largest else f"{smallest} to {largest}"
