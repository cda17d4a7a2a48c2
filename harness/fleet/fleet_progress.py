"""What `harness fleet run` shows on a terminal while it runs: a line a host, and one for all of them.

Elsewhere it shows nothing but what happens to hosts.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.fleet.coordinator import LOST, MEASURING, READY, Coordinator, Host

__all__ = ["lines", "shown"]

_MOST = 30  # hosts with a line of their own: those of which one wants to know the most
_EACH = 0.5  # seconds between two drawings
_FIRST = {LOST: 0, MEASURING: 1, READY: 2}


def lines(fleet: Coordinator) -> list[str]:
    """A line for each host, and the last one for all."""
    hosts = sorted(fleet.hosts.values(), key=lambda host: (_FIRST.get(host.state, 3), host.name))
    width = max(len(host.name) for host in hosts)
    text = [_line(fleet, host, width) for host in hosts[:_MOST]]
    if len(hosts) > _MOST:
        text.append(f"and {len(hosts) - _MOST} more")
    return [*text, summary(fleet)]


def summary(fleet: Coordinator) -> str:
    """How far all of them are."""
    blocks = sum(fleet.blocks_of(host) for host in fleet.hosts)
    parts = [f"{len(fleet.hosts)} hosts", f"{blocks} block{'s' if blocks != 1 else ''}"]
    if (widest := fleet.widest()) is not None:
        parts.append(f"{'shared' if fleet.directory.mode == 'share' else 'coarsest'} +-{widest:.2%}")
    if (left := fleet.seconds_left()) is not None and left > 0:
        parts.append(f"at most {left:.0f} s left")
    return ", ".join(parts)


def _line(fleet: Coordinator, host: Host, width: int) -> str:
    plan, blocks = fleet.plan, fleet.blocks_of(host.name)
    if plan.budget:
        done = f"{blocks} blocks, {host.spent:.0f}/{plan.budget:.0f} s"
    else:
        done = f"{blocks} blocks" if fleet.directory.mode == "share" else f"{blocks}/{plan.repeats} blocks"
    precise = f", +-{host.widest:.2%}" if host.widest is not None else ""
    return f"{host.name:{width}}  {host.state:9}  {done}{precise}{f'  {host.reason}' if host.reason else ''}"


class _Shown:
    def __init__(self, live: object) -> None:
        self._live, self._next = live, 0.0

    def __call__(self, fleet: Coordinator) -> None:
        if time.monotonic() > self._next:
            self._live.update("\n".join(lines(fleet)), refresh=True)  # type: ignore[attr-defined]
            self._next = time.monotonic() + _EACH


@contextmanager
def shown() -> "Iterator[_Shown | None]":
    """What a coordinator calls to have its state drawn; None where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  as in harness/experiment/progress.py
    from rich.live import Live  # noqa: PLC0415

    with Live("", console=Console(stderr=True, highlight=False, markup=False), auto_refresh=False) as live:
        yield _Shown(live)
