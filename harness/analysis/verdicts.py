"""Verdicts: what the interval of a ratio says, and whether this machine may give any."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from harness.analysis import naming
from harness.analysis.cells import MEDIAN_LATENCY, THROUGHPUT, Table
from harness.analysis.intervals import LEAST, Estimate, corrected, interval, means

METRICS = (THROUGHPUT, "content_bytes_per_s", "cpu_us_per_request", MEDIAN_LATENCY, "latency_p99_us")
# Where more is better; of all other columns, less.
MORE_IS_BETTER = {THROUGHPUT, "content_bytes_per_s", "requests", "ok", "content_bytes"}
FASTER, SLOWER, LESS, MORE = "faster", "slower", "less", "more"
CANNOT_TELL, WITHHELD = "cannot tell", "withheld"


@dataclass(frozen=True)
class Control:
    """The A/A control: cells that ran twice in each block. checks: (label, ratio of the second to the first).
    off: why verdicts are withheld; empty where no pair can be told apart, and where there is none."""

    checks: list[tuple[str, Estimate]]
    off: str

    @property
    def line(self) -> str:
        """Its state in a sentence."""
        if self.off:
            return f"A/A control: OFF, and verdicts are withheld: {self.off}."
        if not self.checks:
            return "A/A control: none, so nothing shows whether this machine tells equal cells apart."
        if not any(ratio.bounded for _, ratio in self.checks):
            return f"A/A control: cannot tell yet, it has fewer than {LEAST} blocks."
        ends = [end for _, ratio in self.checks for end in (ratio.low, ratio.high)]
        return (
            f"A/A control: on; {len(self.checks)} {'pairs' if len(self.checks) > 1 else 'pair'} of equal cells, not "
            f"told apart (intervals within {min(ends):.2f} to {max(ends):.2f})."
        )


def verdict(ratio: Estimate, metric: str) -> str:
    """What the interval of a ratio to the baseline says."""
    if ratio.low <= 1 <= ratio.high:
        return CANNOT_TELL
    more = ratio.low > 1
    if metric in MORE_IS_BETTER or metric.startswith("latency_"):
        return FASTER if more == (metric in MORE_IS_BETTER) else SLOWER
    return MORE if more else LESS


def controls(table: Table) -> tuple[Control, Callable[[str], str]]:
    """The control in what each context is about, and a function: metric -> why its verdicts are withheld, or "".
    Verdicts in a metric are withheld where the control is off in it, too."""
    pairs = [(group, run, twin) for group in table.groups(table.compared({})) for run, twin in group.controls]

    def check(metrics: list[str]) -> Control:
        logs = [run.log_ratios(twin, metric) for (_, run, twin), metric in zip(pairs, metrics, strict=True)]
        there = [index for index, one in enumerate(logs) if one]
        ratios = means([logs[index] for index in there], corrected(len(there)))
        checks, off = [], []
        for index, ratio in zip(there, ratios, strict=True):
            group, run, _ = pairs[index]
            label = f"{naming.design(run.design)}, {naming.label(group.levels)}"
            checks.append((label, ratio))
            if verdict(ratio, metrics[index]) != CANNOT_TELL:
                told = f"ratio {ratio.value:.3f}, interval {interval(ratio)}"
                off.append(f"two equal cells ({label}) differ in {metrics[index]}, {told}")
        return Control(checks, "; ".join(off))

    control = check([group.metric for group, _, _ in pairs])

    @cache
    def off(metric: str) -> str:
        return control.off or check([metric] * len(pairs)).off

    return control, off
