"""What `harness run` shows while it runs: which trial, how much is done, and how long the rest will take."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """One line for every tenth trial; it draws only between trials, so that it costs them nothing."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = time.monotonic()
        self._first = 0

    def begin(self, number: int, what: str) -> None:
        """The trial of this number begins. what: its cell."""
        self._first = self._first or number  # a run that is resumed does not begin at 1
        done = number - self._first
        left = (time.monotonic() - self._begun) / done * (self._total - number + 1) if done else 0
        self._show(number, what, f"{left:.0f} s left" if left else "")

    def _show(self, number: int, what: str, left: str) -> None:
        if number == 1 or number % 10 == 0 or number == self._total:
            print(f"{number}/{self._total} {what}" + (f", {left}" if left else ""), flush=True)


class _Bar(Progress):
    """A bar, for a terminal."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        super().__init__(total)
        self.bar = RichProgress(
            TextColumn("{task.description:60}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            auto_refresh=False,
        )
        self._task = self.bar.add_task("", total=total, left="")

    def _show(self, number: int, what: str, left: str) -> None:
        self.bar.update(self._task, completed=number - 1, description=what, left=left, refresh=True)

    def end(self) -> None:
        self.bar.update(self._task, completed=self._total, description="done", left="", refresh=True)


@contextmanager
def progress(total: int) -> Iterator[Progress]:
    """Progress of `total` trials: a bar on a terminal, else lines."""
    if not sys.stdout.isatty():
        yield Progress(total)
        return
    bar = _Bar(total)
    with bar.bar:
        yield bar
        bar.end()
