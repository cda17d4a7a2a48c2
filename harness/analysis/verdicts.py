"""Verdicts: what the interval of a ratio says, and whether this machine allows any verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY, THROUGHPUT, StudyTrials
from harness.analysis.intervals import LEAST, Estimate, interval
from harness.analysis.ratios import Pair, ratios

METRICS = (THROUGHPUT, "content_bytes_per_s", "cpu_us_per_request", MEDIAN_LATENCY, "latency_p99_us")
# The columns in which more is better. In all others less is.
MORE_IS_BETTER = {THROUGHPUT, "content_bytes_per_s", "requests_ended", "ok", "content_bytes"}
FASTER, SLOWER, LESS, MORE = "faster", "slower", "less", "more"
CANNOT_TELL, WITHHELD = "cannot tell", "withheld"


@dataclass(frozen=True)
class Control:
    """The A/A control: cells that ran twice in each block.

    checks: (label, ratio of the second copy to the first). off: why verdicts are withheld; empty where the interval of
    every pair holds 1, and where there is no pair.
    """

    checks: list[tuple[str, Estimate]]
    off: str

    @property
    def line(self) -> str:
        """The state of the control in a sentence."""
        if self.off:
            return f"A/A control: OFF, so verdicts are withheld: {self.off}."
        if not self.checks:
            return "A/A control: none, so nothing shows whether this machine makes equal cells look different."
        if not any(ratio.bounded for _, ratio in self.checks):
            return f"A/A control: cannot tell yet, it has fewer than {LEAST} blocks."
        ends = [end for _, ratio in self.checks for end in (ratio.low, ratio.high)]
        return (
            f"A/A control: on; {len(self.checks)} {'pairs' if len(self.checks) > 1 else 'pair'} of equal cells, and no "
            f"difference found (intervals within {min(ends):.3f} to {max(ends):.3f})."
        )


def verdict(ratio: Estimate, metric: str) -> str:
    """The verdict on a ratio to the baseline, from its interval."""
    if ratio.low <= 1 <= ratio.high:
        return CANNOT_TELL
    more = ratio.low > 1
    if metric in MORE_IS_BETTER or metric.startswith("latency_"):
        return FASTER if more == (metric in MORE_IS_BETTER) else SLOWER
    return MORE if more else LESS


def controls(trials: StudyTrials) -> tuple[Control, Callable[[str], str]]:
    """The control of a study, in the metric that each context is ranked by; and a function: metric -> why verdicts in
    that metric are withheld, or an empty string. Verdicts in a metric are withheld where the control is off in the
    metric of a context or in that one."""
    pairs = [
        (context, cell, copy_of)
        for context in trials.contexts(trials.compared({}))
        for cell, copy_of in context.controls
    ]

    def check(metrics: list[str]) -> Control:
        asked = [Pair(*pair, metric) for pair, metric in zip(pairs, metrics, strict=True)]
        checks, off = [], []
        for (context, cell, _, metric), ratio in zip(asked, ratios(asked), strict=True):
            if not ratio:
                continue
            label = f"{naming.design(cell.design)}, {naming.label(context.levels)}"
            checks.append((label, ratio))
            if verdict(ratio, metric) != CANNOT_TELL:
                shown = f"ratio {ratio.value:.3f}, interval {interval(ratio)}"
                off.append(f"two equal cells ({label}) differ in {metric}, {shown}")
        return Control(checks, "; ".join(off))

    control = check([context.metric for context, _, _ in pairs])

    @cache
    def off(metric: str) -> str:
        return control.off or check([metric] * len(pairs)).off

    return control, off
