"""What `harness run` shows while it runs: which trial or block, how much is done, how long the rest will take.

It is on standard error: standard output has the results alone.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness import console

_BAR = 16  # columns of the bar


class Progress:
    """One line for every tenth trial, or each block; it draws only between these, so that it costs them nothing."""

    def __init__(self, total: int, each: int = 10, unit: str = "") -> None:
        """each: of how many trials or blocks one has a line. unit: what `total` counts, empty for trials or blocks."""
        self._unit = unit
        self._total, self._each = total, each
        self._begun = time.monotonic()
        self._first = 0

    def begin(self, number: int, what: str) -> None:
        """The trial of this number begins. what: its cell."""
        self._first = self._first or number  # a run that is resumed does not begin at 1
        done = number - self._first
        left = (time.monotonic() - self._begun) / done * (self._total - number + 1) if done else 0
        self._show(number, what, f"{left:.0f} s left" if left else "")

    def within(self, number: int, count: int) -> None:
        """Round `number` of `count` of a block begins."""

    def say(self, text: str) -> None:
        """Print a line after the program's name."""
        console.say(text)

    def _counted(self, done: int) -> str:
        return f"{done}/{self._total}{f' {self._unit}' if self._unit else ''}"

    def _show(self, number: int, what: str, left: str) -> None:
        if number == 1 or number % self._each == 0 or number == self._total:
            print(f"{self._counted(number)} {what}" + (f", {left}" if left else ""), file=sys.stderr)


class _Bar(Progress):
    """A bar, for a terminal."""

    def __init__(self, total: int, unit: str) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        super().__init__(total, unit=unit)
        self.bar = RichProgress(
            BarColumn(_BAR), TextColumn("{task.description}"), auto_refresh=False, console=Console(stderr=True)
        )
        self._task = self.bar.add_task("", total=total)
        self._block, self._what, self._left = 0, "", ""

    def within(self, number: int, count: int) -> None:
        """Move the bar on by the share of the block that is done."""
        self._draw(self._block + (number - 1) / count, f"round {number} of {count}")

    def _show(self, number: int, what: str, left: str) -> None:
        self._block, self._what, self._left = number - 1, what, left
        self._draw(number - 1)

    def say(self, text: str) -> None:
        """Print it above the bar."""
        self.bar.console.print(console.named(text), markup=False, highlight=False, soft_wrap=True)

    def _draw(self, done: float, within: str = "") -> None:
        what = self._what.replace("; ", ", ").split(", ")
        text = fitted([self._counted(self._block), self._left, *what, within], self.bar.console.width - _BAR - 2)
        self.bar.update(self._task, completed=done, description=text, refresh=True)

    def end(self) -> None:
        text = f"{self._counted(self._total)}, done"
        self.bar.update(self._task, completed=self._total, description=text, refresh=True)


def fitted(parts: Sequence[str], width: int) -> str:
    """Those parts, the most useful ones first, that fit into a line of `width` columns; the first one in any case."""
    line, *rest = filter(None, parts)
    for part in rest:
        if len(line) + len(part) + 2 <= width:
            line += f", {part}"
    return line


@contextmanager
def progress(total: int, each: int = 10, unit: str = "") -> Iterator[Progress]:
    """Progress of `total` trials or blocks, or of another `unit`: a bar on a terminal, else lines, one for `each`."""
    if not sys.stderr.isatty():
        yield Progress(total, each, unit)
        return
    bar = _Bar(total, unit)
    with bar.bar:
        yield bar
        bar.end()
