"""The sentences that stand beside the values of a study: what was left out, what was pooled, how to read intervals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from harness.analysis import naming, precision
from harness.analysis.cells import PROVENANCE
from harness.analysis.intervals import LEAST, corrected
from harness.factors import CHANNELS
from harness.results import Trial

if TYPE_CHECKING:  # the study imports this module
    from harness.analysis.study import Context, Counts


def scatter(contexts: "list[Context]", comparisons: int) -> list[str]:
    """A sentence for each context with slices: how its ratios scatter, and what more rounds and blocks would buy."""
    return [
        f"Scatter, {context.label or 'all trials'}: {precision.line(context.outlook, comparisons)}"
        for context in contexts
        if context.outlook
    ]


def after_faults(trials: Sequence[Trial]) -> list[str]:
    """A sentence for each fault: after how long files came again with each pair of channels, and what was lost."""
    said = []
    good = [trial for trial in trials if trial.status == "ok"]
    for fault in dict.fromkeys(trial.fault for trial in good if trial.fault):
        some = [trial for trial in good if trial.fault == fault]
        outages = defaultdict(list)
        for trial in some:
            outages[naming.design({name: getattr(trial, name) for name in CHANNELS})].append(trial.outage_s)
        medians = sorted((median(seconds), design) for design, seconds in outages.items())
        lost = {
            "answered with ERROR": sum(trial.error for trial in some),
            "cut": sum(trial.short for trial in some),
            "not answered": sum(trial.failed for trial in some),
        }
        lasted = ", ".join(f"{seconds:.3g} s ({design})" for seconds, design in medians)
        wrong = sum(trial.wrong for trial in trials if trial.fault == fault)
        left = sorted(trial.swept for trial in some)
        said.append(
            f"After `{fault}` files came again within {lasted}, medians of the trials. Of "
            f"{sum(trial.requests_ended for trial in some)} requests "
            f"{', '.join(f'{count} were {what}' for what, count in lost.items())}, and {wrong} wrong. {left[0]} to "
            f"{left[-1]} objects a trial had to be swept."
        )
    return said


def disturbances(contexts: "list[Context]", counts: "Counts") -> list[str]:
    """Sentences about trials that were disturbed, and about cells that differ from their baseline in more than what is
    compared."""
    said = []
    if counts.disturbed:
        said.append(
            f"{counts.disturbed} of {counts.ok} trials were disturbed (column `disturbed`). They are not left out."
        )
    waits = {
        f"{cell.wait} against {context.baseline.wait}"
        for context in contexts
        for cell in context.cells
        if context.baseline and cell.wait != context.baseline.wait
    }
    if waits:
        said.append(
            f"* waits in another way than its baseline ({', '.join(sorted(waits))}), so its ratio is that of the wait "
            "strategies as well."
        )
    return said


def notes(
    contexts: "list[Context]",
    counts: "Counts",
    comparisons: int,
    machines: int,
    origins: list[str],
    versions: Mapping[str, str],
) -> list[str]:
    """The notes of a study. machines: how many machines and versions its trials are from. origins: its HTTP origins.
    versions: interpreter -> what it ran, where there are several."""
    cells = [cell for context in contexts for cell in context.cells]
    said = []
    if comparisons:
        live = any(context.resolution and "live" in context.resolution.designs for context in contexts)
        middle = "within rounds, of each block the mean of the middle half, "
        said.append(
            f"Ratios to the baseline {middle if live else 'within blocks, '}geometric means; each of {comparisons} "
            f"intervals at {100 * corrected(comparisons):.4g} %, so that all hold at once with 95 % probability."
        )
    said += scatter(contexts, comparisons)
    if any(cell.trials < LEAST for cell in cells):
        said.append(f"Cells with fewer than {LEAST} blocks have no interval and no verdict but `cannot tell`.")
    lost = [f"{count} {kind}" for kind, count in (("failed", counts.failed), ("refused", counts.refused)) if count]
    lost += [f"{counts.probes} for probes"] if counts.probes else []
    if lost:
        said.append(f"Of {counts.trials} trials these are left out: {', '.join(lost)}. The column `reason` says why.")
    if origins:
        said.append(f"HTTP origin: {', '.join(origins)} (column `origin`).")
    if versions:
        each = (f"{naming.value('interpreter', name)}: {text}" for name, text in sorted(versions.items()))
        said.append(f"Versions: {'; '.join(each)}.")
    if machines > 1:
        said.append(
            f"The trials are from {machines} machines or versions ({', '.join(PROVENANCE)}). These are not pooled."
        )
    if saturated := [
        f"{cell.label}{f' ({context.label})' if context.label else ''}"
        for context in contexts
        for cell in context.cells
        if cell.saturated
    ]:
        said.append(
            f"Saturated: {', '.join(saturated)}. The rate is more than was served, and the latency is that of a "
            "growing queue."
        )
    if any(cell.client_busy > 0.9 for cell in cells):
        said.append(
            "In some cells the client was busy for over 90 % of the time, so the client may be the limit there."
        )
    return said
