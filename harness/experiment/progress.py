"""What `harness run` shows while it runs: which trial or block, how much is done, how long the rest will take.

It is on standard error: standard output has the results alone.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """One line for every tenth trial, or each block; it draws only between these, so that it costs them nothing."""

    def __init__(self, total: int, each: int = 10) -> None:
        """each: of how many trials or blocks one has a line."""
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

    def _show(self, number: int, what: str, left: str) -> None:
        if number == 1 or number % self._each == 0 or number == self._total:
            print(f"{number}/{self._total} {what}" + (f", {left}" if left else ""), file=sys.stderr)


class _Bar(Progress):
    """A bar, for a terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        super().__init__(total)
        self.bar = RichProgress(
            TextColumn("{task.description:60}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            auto_refresh=False,
            console=Console(stderr=True),
        )
        self._task = self.bar.add_task("", total=total, left="")

    def within(self, number: int, count: int) -> None:
        """Move the bar on by the share of the block that is done."""
        done = self._block + (number - 1) / count
        self.bar.update(
            self._task, completed=done, description=f"{self._what}, round {number} of {count}", refresh=True
        )

    def _show(self, number: int, what: str, left: str) -> None:
        self._block, self._what = number - 1, what
        self.bar.update(self._task, completed=number - 1, description=what, left=left, refresh=True)

    def end(self) -> None:
        self.bar.update(self._task, completed=self._total, description="done", left="", refresh=True)


@contextmanager
def progress(total: int, each: int = 10) -> Iterator[Progress]:
    """Progress of `total` trials or blocks: a bar on a terminal, else lines, one for `each` of them."""
    if not sys.stderr.isatty():
        yield Progress(total, each)
        return
    bar = _Bar(total)
    with bar.bar:
        yield bar
        bar.end()
