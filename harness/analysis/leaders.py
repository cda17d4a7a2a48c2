"""The leaders of each context: its best cell, and the cells that are not measurably worse.

Gupta's subset selection (Gupta 1965): each cell is compared with the best one of its context, one-sided, at 0.05 over
the number of all such comparisons in the study. With 95 % probability the truly best cells of all contexts are among
the leaders.
"""

from collections.abc import Mapping

from harness.analysis.cells import CellTrials, ContextTrials
from harness.analysis.ratios import Pair, ratios
from harness.analysis.verdicts import MORE_IS_BETTER


def leaders(contexts: list[ContextTrials]) -> list[list[CellTrials]]:
    """The leaders of each context, best first. Floors do not compete."""
    best_first = []
    for context in contexts:
        rivals = [cell for cell in context.good if not cell.floor and cell.logs(context.metric)]
        best_first.append(_best_first(rivals, context.metric))
    rest = [
        Pair(context, cell, rivals[0], context.metric)
        for context, rivals in zip(contexts, best_first, strict=True)
        for cell in rivals[1:]
    ]
    worse = set()
    for pair, ratio in zip(rest, ratios(rest, len(rest), ends=1), strict=True):
        if ratio and (ratio.high < 1 if pair.metric in MORE_IS_BETTER else ratio.low > 1):
            worse.add(pair.cell)
    return [[cell for cell in rivals if cell not in worse] for rivals in best_first]


def _best_first(rivals: list[CellTrials], metric: str) -> list[CellTrials]:
    """By their mean log ratio to one of them, so that the best one is the best by the ratios that are then compared.
    One that shares no block with that cell is placed by its own mean."""

    def goodness(cell: CellTrials) -> float:
        apart = _mean(cell.logs(metric)) - _mean(rivals[0].logs(metric))
        log = _mean(cell.log_ratios(rivals[0], metric)) if cell.log_ratios(rivals[0], metric) else apart
        return log if metric in MORE_IS_BETTER else -log

    return sorted(rivals, key=goodness, reverse=True)


def _mean(logs: Mapping[int, float]) -> float:
    return sum(logs.values()) / len(logs)
