"""How many microseconds a request takes above the floor of its shape: what is left of it for the mechanism.

The floor of a cell is a cell of its context that differs from it in nothing but this: its data transport, its command
transport or both are floors (harness/api/contract.py). A data transport has a floor of its own shape: one whose proxy
copies, or one whose proxy does not. Where several cells are that, it is the one with more floors, then the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.cells import CellTrials, ContextTrials
from harness.analysis.intervals import Estimate
from harness.analysis.naming import design
from harness.analysis.ratios import Pair, more_micros
from harness.factors import CHANNELS


@dataclass(frozen=True)
class AboveFloor:
    """floor: the label of the floor's cell. micros: microseconds that a request takes more than there, in the sense of
    the context's metric; the intervals of all such of the study hold at once."""

    floor: str
    micros: Estimate


def above_floors(contexts: Sequence[ContextTrials]) -> dict[CellTrials, AboveFloor]:
    """That of each cell that has a floor, and a block in common with it."""
    pairs = [
        Pair(context, cell, floor, context.metric)
        for context in contexts
        for cell in context.good
        if (floor := _floor_of(cell, context.good)) is not None
    ]
    estimates = zip(pairs, more_micros(pairs, len(pairs)), strict=True)
    return {pair.cell: AboveFloor(design(pair.base.design), one) for pair, one in estimates if one}


def _floor_of(cell: CellTrials, cells: Sequence[CellTrials]) -> CellTrials | None:
    if cell.floor:
        return None
    floors = [one for one in cells if one.floor and _is_floor_of(one, cell)]
    return max(floors, key=lambda one: len(_floors(one)), default=None)


def _is_floor_of(floor: CellTrials, cell: CellTrials) -> bool:
    parts = _floors(floor)
    if not parts or ("data" in parts and _copies(floor) != _copies(cell)):
        return False
    return all(name in parts or cell.design[name] == level for name, level in floor.design.items())


def _floors(cell: CellTrials) -> set[str]:
    """Which of its compared channels are floors."""
    return {name for name in cell.trials[0].floor.split() if name in CHANNELS and name in cell.design}


def _copies(cell: CellTrials) -> bool:
    return cell.trials[0].proxy_end == "copy"
