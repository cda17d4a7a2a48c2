"""What of a plan cannot work here, found before the first trial: each lane and channel is made once, for nothing."""

from collections.abc import Iterable
from typing import Any

from harness import plugins, registry
from harness.factors import Spec
from harness.measure import apart


def refusals(cells: Iterable[Spec]) -> dict[Spec, str]:
    """The cells that cannot run, with the reason in one line.

    Whether transports and machine can hold a cell is tried, with as many lanes as the cell has: limits such as
    RLIMIT_MSGQUEUE are on the sum.
    """
    found = {}
    tried: dict[tuple[Any, ...], str] = {}
    for cell in cells:
        if reason := apart.impossible(cell):
            found[cell] = reason
            continue
        if cell.source != "cache":
            continue
        data = apart.data_transport(cell)
        key = cell.command, data, cell.lanes
        if key not in tried:
            tried[key] = plugins.unusable(registry.command_transport(cell.command), *[data] * cell.lanes)
        if tried[key]:
            found[cell] = tried[key]
    return found
