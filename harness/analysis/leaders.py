"""The leaders of each context: its best cell, and the cells that are not measurably worse.

Gupta's subset selection (Gupta 1965): each cell is compared with the best one of its context, one-sided, at 0.05 over
the number of all such comparisons in the study. With 95 % probability the truly best cells of all contexts are among
the leaders.
"""

from harness.analysis.cells import CellTrials, ContextTrials
from harness.analysis.intervals import CONFIDENCE, means
from harness.analysis.verdicts import MORE_IS_BETTER


def leaders(contexts: list[ContextTrials]) -> list[list[CellTrials]]:
    """The leaders of each context, best first. Floors do not compete."""
    best_first = []
    for context in contexts:
        rivals = [cell for cell in context.good if not cell.floor and cell.logs(context.metric)]
        best_first.append(sorted(rivals, key=lambda cell: _goodness(cell, context.metric), reverse=True))
    rest = [
        (context, rivals[0], cell) for context, rivals in zip(contexts, best_first, strict=True) for cell in rivals[1:]
    ]
    logs = [list(cell.log_ratios(best, context.metric).values()) for context, best, cell in rest]
    known = [index for index, one in enumerate(logs) if one]
    # One-sided: only whether a cell is worse than the best. A two-sided interval at 1 - 2a leaves a on each side.
    ratios = means([logs[index] for index in known], 1 - 2 * (1 - CONFIDENCE) / max(1, len(rest)))
    worse = set()
    for index, ratio in zip(known, ratios, strict=True):
        context, _, cell = rest[index]
        if ratio.high < 1 if context.metric in MORE_IS_BETTER else ratio.low > 1:
            worse.add((id(context), cell))
    return [
        [cell for cell in rivals if (id(context), cell) not in worse]
        for context, rivals in zip(contexts, best_first, strict=True)
    ]


def _goodness(cell: CellTrials, metric: str) -> float:
    logs = cell.logs(metric).values()
    return sum(logs) / len(logs) * (1 if metric in MORE_IS_BETTER else -1)
