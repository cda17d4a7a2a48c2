"""Which designs lead at which file sizes: `up to 64 KiB: fifo or unix; from 1 MiB on: sendfile`."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.analysis import naming
from harness.analysis.cells import Levels

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
    alike: dict[tuple[tuple[str, Any], ...], list[tuple[str, list[str]]]] = defaultdict(list)
    for levels, designs in leading:
        others = tuple((name, level) for name, level in levels.items() if name != "files")
        alike[others].append((str(levels.get("files", "")), designs))
    return [Crossover(dict(key), naming.label(dict(key)), _ranges(by_size)) for key, by_size in alike.items()]


def _ranges(by_size: list[tuple[str, list[str]]]) -> list[SizeRange]:
    ranges: list[tuple[list[str], list[str]]] = []
    for files, designs in by_size:
        if ranges and files.isdecimal() and ranges[-1][0][-1].isdecimal():
            before, leading_before = ranges[-1]
            if common := [label for label in leading_before if label in designs]:
                ranges[-1] = ([*before, files], common)
                continue
        ranges.append(([files], designs))
    return [
        SizeRange(files, designs, _where(files, place == 0, place == len(ranges) - 1))
        for place, (files, designs) in enumerate(ranges)
    ]


def _where(files: list[str], first: bool, last: bool) -> str:
    """A range in words. first, last: whether it is the first or last one of all."""
    smallest, largest = (naming.value("files", files[end]) for end in (0, -1))
    if files[0].isdecimal() and first != last:
        return f"up to {largest}" if first else f"from {smallest} on"
    return smallest if smallest == largest else f"{smallest} to {largest}"
