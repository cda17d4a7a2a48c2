"""`harness show`, `harness claims` and `harness compare` of a fleet's run, as text."""

from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from harness.analysis import naming
from harness.analysis.show import console, print_lines

if TYPE_CHECKING:  # importing these loads numpy and scipy, which only an analysis needs
    from harness.analysis.fleet.compare import FleetComparison
    from harness.analysis.fleet.random_effects import Summary
    from harness.analysis.fleet.study import FleetCell, FleetContext, FleetStudy
    from harness.analysis.intervals import Estimate

_MOST_HOSTS = 12  # that have a row
_MOST_LINES = 12  # about cells whose verdict turns round
_FACTS = ("processor", "CPUs", "kernel", "congestion control")  # columns of the table of hosts


def render(study: "FleetStudy") -> None:
    """Print an analysed study: what turns round first, then a table for each context."""
    screen = console()
    print_lines(screen, [headline(study), ""])
    if len(study.hosts) <= _MOST_HOSTS:
        screen.print(_hosts(study))
    print_lines(screen, [f"Refused: {name} ({reason})" for name, reason in study.refused.items()])
    print_lines(screen, [*interactions(study), ""])
    for context in study.contexts:
        screen.print(_table(context))
    print_lines(screen, [f"Claim {answer.outcome}: {answer.claim.text}" for answer in study.answers])
    print_lines(screen, study.notes)


def headline(study: "FleetStudy") -> str:
    """What kind of study it was, and on how many hosts."""
    good = sum(bool(host.contexts) for host in study.hosts)
    how = "each ran the whole study" if study.mode == "each" else "which shared the blocks of one study"
    common = ", ".join(f"{name} {value}" for name, value in study.common.items() if name in _FACTS)
    return f"Fleet: {good} hosts, {how}." + (f" The same on all: {common}." if common and good > 1 else "")


def interactions(study: "FleetStudy") -> list[str]:
    """Which verdicts turn round, with what they go, and which hold everywhere. A sentence is of all contexts of which
    the same is to be said."""
    from harness.analysis.fleet.over_hosts import (  # noqa: PLC0415
        DIFFER,
        EVERYWHERE,
        PARTLY,
        TOGETHER,
        TURNS,
        UNSURE,
    )

    turning: dict[tuple[str, str], list[str]] = {}  # what is said of a design -> where
    others: dict[tuple[str, str], list[str]] = {}  # outcome and context -> designs
    for context, cell in study.rivals:
        where = context.label or "all trials"
        if cell.outcome in (TURNS, UNSURE):
            sides = "; ".join(f"{verdict} on {naming.hosts(hosts)}" for verdict, hosts in cell.verdicts.items())
            more = goes_with(cell) if cell.outcome == TURNS else ""
            turning.setdefault((f"{cell.outcome.capitalize()}: {cell.label}", f"{sides}.{more}"), []).append(where)
        elif cell.outcome == DIFFER and cell.ends:
            sides = ", ".join(f"{value:.2f} on {host}" for host, value in cell.ends)
            turning.setdefault(
                (f"Hosts differ: {cell.label}", f"{sides}. They are not those of one study."), []
            ).append(where)
        elif cell.outcome != TOGETHER:
            verdicts = {verdict: len(hosts) for verdict, hosts in cell.verdicts.items()}
            counted = ", ".join(f"{verdict} on {count}" for verdict, count in verdicts.items())
            silent = f"; {cell.silence}" if cell.outcome == PARTLY and cell.silent else ""
            text = cell.label if len(verdicts) == 1 and not silent else f"{cell.label} ({counted}{silent})"
            same = f", {next(iter(verdicts))}" if cell.outcome == EVERYWHERE else ""
            others.setdefault((f"{cell.outcome.capitalize()}{same}", where), []).append(text)
    lines = [f"{head}, {'; '.join(contexts)}: {said}" for (head, said), contexts in turning.items()]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"So do {len(lines) - _MOST_LINES} more cells; the tables have them."]
    alike: dict[tuple[str, str], list[str]] = {}
    for (outcome, where), designs in others.items():
        alike.setdefault((outcome, ", ".join(designs)), []).append(where)
    return lines + [f"{outcome}: {'; '.join(contexts)}: {said}." for (outcome, said), contexts in alike.items()]


def goes_with(cell: "FleetCell") -> str:
    """The facts that split hosts as the verdict does, in a sentence that says it is no test."""
    decided = sum(len(hosts) for verdict, hosts in cell.verdicts.items() if verdict != "cannot tell")
    if not cell.splits:
        return " No fact of the hosts splits them so."
    facts = "; ".join(one.text for one in cell.splits[:6])
    several = "any of these, or something else, may be why" if len(cell.splits) > 1 else "it may be something else"
    return f" Goes with {facts}. That describes {decided} hosts and is no test: {several}."


def _grid(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def _hosts(study: "FleetStudy") -> Table:
    shown = [name for name in _FACTS if len(study.hosts) == 1 or name not in study.common]
    grid = _grid("Hosts")
    for head in ("host", *shown):
        grid.add_column(head, overflow="fold")
    grid.add_column("good trials", justify="right")
    grid.add_column("A/A control", overflow="fold")
    for host in study.hosts:
        control = host.problem.partition(":")[0] or host.control
        grid.add_row(host.name, *(host.facts.get(name, "-") for name in shown), f"{host.ok} of {host.trials}", control)
    return grid


def _table(context: "FleetContext") -> Table:
    grid = _grid(context.label or "all trials")
    grid.add_column("cell", overflow="fold")
    latency = context.metric.startswith("latency_")
    for head in ("hosts", "smallest, largest", "p50 mean" if latency else "mean", "interval", "next", "tau", "I2"):
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column("outcome", overflow="fold")
    for cell in context.cells:
        ends = cell.ends
        grid.add_row(
            cell.label,
            str(len(cell.there)),
            " to ".join(f"{value:.2f}" for _, value in ends) if ends else "-",
            *summarised(cell.mean, cell.summary),
            "baseline" if cell.baseline else "floor" if cell.floor else said(cell),
        )
    return grid


def said(cell: "FleetCell") -> str:
    """The outcome of a cell in a few words: `holds everywhere: faster`."""
    verdicts = list(cell.verdicts)
    if cell.outcome == "measured together":
        return cell.verdict
    if cell.outcome == "holds on some" and cell.silent:
        return f"{cell.outcome}: {cell.silence}"
    return f"{cell.outcome}: {verdicts[0]}" if cell.outcome == "holds everywhere" else cell.outcome


def summarised(mean: "Estimate | None", summary: "Summary | None") -> list[str]:
    """The texts of mean, interval, next, tau and I2; `-` for those that there are not."""
    shown = [f"{mean.value:.2f}", ends(mean)] if mean else ["-"] * 2
    if not summary:
        return [*shown, *["-"] * 3]
    return [*shown, ends(summary.prediction), f"{100 * summary.tau:.2g} %", f"{100 * summary.i2:.0f} %"]


def ends(one: "Estimate") -> str:
    """The ends of an interval of a ratio; `-` where there is none, or it says nothing."""
    if not one.bounded or one.high > 1000 * one.low:
        return "-"
    return f"{one.low:.2f} to {one.high:.2f}"


def render_comparison(found: "FleetComparison") -> None:
    """Print two fleets compared."""
    screen = console()
    grid = _grid(f"{found.metric}, B to A")
    grid.add_column("cell", overflow="fold")
    for head in ("hosts", "mean", "interval", "next", "tau", "I2"):
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column("outcome", overflow="fold")
    for cell in found.cells:
        verdicts = Counter(pair.verdict for pair in cell.there.values())
        counted = [f"{count} {verdict}" for verdict, count in verdicts.most_common()]
        counted += filter(None, [naming.silence(cell.silent, cell.silent + len(cell.there))])
        grid.add_row(
            cell.label,
            str(len(cell.there)),
            *summarised(cell.summary.ratio if cell.summary else None, cell.summary),
            cell.verdict if found.share else f"{cell.outcome} ({', '.join(counted)})",
        )
    screen.print(grid)
    print_lines(screen, found.notes)
    if found.unlike:
        print_lines(screen, [f"Machines differ, so that is part of the ratios: {'; '.join(found.unlike[:8])}."])
