"""Which mechanism, and what does a library cost? Writes the table and the sentences of docs/which.md from two runs.

    .venv/bin/harness run experiments/mechanisms.yaml -o results/mechanisms
    .venv/bin/harness run experiments/libraries.yaml -o results/libraries
    .venv/bin/python benchmarks/which.py [MECHANISMS LIBRARIES]

Every interval of the page holds together with the others with 95 % probability, but for one thing: the fastest one is
found in the same trials.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness import registry
from harness.analysis import intervals, leaders, run_files
from harness.analysis.cells import CellTrials, ContextTrials, StudyTrials
from harness.analysis.intervals import Estimate
from harness.analysis.ratios import Pair, more_micros, ratios
from harness.analysis.run_files import Run
from harness.results import Trial
from harness.units import show_size

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/which.md"
KEPT = ROOT / "results/mechanisms", ROOT / "results/libraries"
_BEGIN, _END = "<!-- written by benchmarks/which.py -->\n", "<!-- end -->\n"
_RATE = "requests_per_s"
_WHERE = {"same-core": "one core", "spread": "two cores"}
_NAMED = 3  # mechanisms that a place of the table names


class Place(NamedTuple):
    """Messages of one size, with processes placed in one way. Cells are best first, without floors.

    memory, socket: the kernel's mechanisms that end in memory of the receiver, and in a socket. as_good: those of
    memory that are not measurably worse than its first one. libraries: the others.
    """

    context: ContextTrials
    memory: Sequence[CellTrials]
    as_good: Sequence[CellTrials]
    socket: Sequence[CellTrials]
    libraries: Sequence[CellTrials]

    @property
    def key(self) -> tuple[bool, int, int]:
        trial = self.context.any_trial
        return trial.placement != "same-core", trial.lanes, trial.file_size_bytes

    @property
    def where(self) -> str:
        trial = self.context.any_trial
        flight = "one" if trial.lanes == 1 else str(trial.lanes)
        return f"{_WHERE.get(trial.placement, trial.placement)}, {flight} in flight"

    @property
    def size(self) -> str:
        return show_size(self.context.any_trial.file_size_bytes)

    @property
    def pairs(self) -> list[Pair]:
        """All that is compared: the others with the best one of memory."""
        best, *rest = self.memory
        return [Pair(self.context, cell, best, _RATE) for cell in (*rest, *self.socket, *self.libraries)]


class More(NamedTuple):
    """What a message takes in comparison with the best one's: so many times as long, so many microseconds more."""

    times: Estimate
    micros: Estimate


Found = dict[CellTrials, More]


def main() -> int:
    kernel, libraries = (Path(one) for one in sys.argv[1:3]) if len(sys.argv) > 2 else KEPT
    before, rest = PAGE.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    PAGE.write_text(f"{before}{_BEGIN}\n{written(kernel, libraries)}\n\n{_END}{after}")
    return 0


def written(kernel: Path, libraries: Path) -> str:
    """What the page says of two runs."""
    loaded = [run_files.load_run(str(one)) for one in (kernel, libraries)]
    runs = [places(one) for one in loaded]
    found = _compared([pair for run in runs for place in run for pair in place.pairs])
    lines = [f"- {_source(one, run.trials)}" for one, run in zip((kernel, libraries), loaded, strict=True)]
    lines += ["", *(f"{number}. {text}" for number, text in enumerate(_sentences(*runs, found), 1)), ""]
    lines += ["| message | where | fastest | us | no worse, as far as seen | ends in a socket | us |"]
    lines += ["|--:|---|---|--:|---|---|--:|", *(_row(place) for place in runs[0])]
    for where in dict.fromkeys(place.where for place in runs[1]):
        lines += ["", *_library_table(where, [place for place in runs[1] if place.where == where], found)]
    return "\n".join(lines)


def places(run: Run) -> list[Place]:
    """The places of a run, by placement, messages in flight and size."""
    study = StudyTrials(run.trials, run.slices)
    contexts = study.contexts(study.compared(run.experiment["baseline"]))
    return sorted((_place(one) for one in contexts if one.good), key=lambda place: place.key)


def _place(context: ContextTrials) -> Place:
    rivals = [cell for cell in context.good if not cell.floor]
    installed = registry.installed().data
    kernel, socket, libraries = [], [], []
    for cell in rivals:
        name = registry.parse(_trial(cell).data)[0]
        command = registry.parse(_trial(cell).command)[0]
        if not _built_in(name) or not _built_in(command):
            libraries.append(cell)
        else:
            (kernel if registry.shape(installed[name])[1] == "copy" else socket).append(cell)
    [as_good] = leaders.leaders([replace(context, cells=kernel)])
    best = as_good[0]
    by_rate = {cell: sum(cell.log_ratios(best, _RATE).values()) for cell in rivals}

    def ranked(cells: list[CellTrials]) -> list[CellTrials]:
        return sorted(cells, key=lambda cell: (cell is not best, -by_rate[cell]))

    return Place(context, ranked(kernel), as_good, ranked(socket), ranked(libraries))


def _built_in(name: str) -> bool:
    kinds = registry.installed()
    kind = kinds.data.get(name) or kinds.command.get(name)
    return kind is not None and kind.__module__.startswith("transports.")


def _trial(cell: CellTrials):
    return cell.trials[0]


def _label(cell: CellTrials) -> str:
    """The mechanism; of a library that carries commands, that too."""
    trial = _trial(cell)
    command = "" if _built_in(registry.parse(trial.command)[0]) else f", commands over {trial.command}"
    return f"{trial.data}{command}"


def _compared(pairs: Sequence[Pair]) -> Found:
    rates, micros = ratios(pairs), more_micros(pairs)
    found = {}
    for pair, rate, more in zip(pairs, rates, micros, strict=True):
        if rate and more:
            found[pair.cell] = More(rate.inverse, more)
    return found


def _sentences(kernel: Sequence[Place], libraries: Sequence[Place], found: Found) -> list[str]:
    first, last = ([place for place in kernel if place.size == size] for size in (kernel[0].size, kernel[-1].size))
    small, large = (
        [place for place in libraries if place.size == size] for size in (libraries[0].size, libraries[-1].size)
    )
    return [
        f"**{first[0].size} messages**: " + "; ".join(_fastest(place, "unix", found) for place in first) + ".",
        f"**{last[0].size} messages**: " + "; ".join(_fastest(place, "unix", found) for place in last) + ".",
        f"**A file of {last[0].size} that goes on to a socket**: "
        + "; ".join(_to_socket(place, found) for place in last)
        + ".",
        f"**A library, {small[0].size}**: " + "; ".join(_cheapest(place, found) for place in small) + ".",
        f"**A library, {large[0].size}**: " + "; ".join(_cheapest(place, found) for place in large) + ".",
    ]


def _fastest(place: Place, common: str, found: Found) -> str:
    best = place.memory[0]
    other = next((cell for cell in place.memory if _label(cell) == common and cell is not best), None)
    beside = f", and `{common}` {_times(found.get(other))} as long" if other else ""
    return f"{place.where}, `{_label(best)}` takes {_micros(best)} us{beside}"


def _to_socket(place: Place, found: Found) -> str:
    best = place.socket[0]
    return f"{place.where}, `{_label(best)}` takes {_times(found.get(best))} as long as `{_label(place.memory[0])}`"


def _cheapest(place: Place, found: Found) -> str:
    content = [cell for cell in place.libraries if not _built_in(registry.parse(_trial(cell).data)[0])]
    if not content:
        return f"{place.where}, none is installed"
    best, worst = content[0], content[-1]
    return (
        f"{place.where}, from {_times(found.get(best))} (`{_label(best)}`) to {_times(found.get(worst))} "
        f"(`{_label(worst)}`) as long as `{_label(place.memory[0])}`"
    )


def _times(more: More | None) -> str:
    if more is None:
        return "- times"
    one = more.times
    interval = f" ({one.low:.2f} to {one.high:.2f})" if one.low > 0 and one.high < float("inf") else " (no interval)"
    return f"{one.value:.2f}{interval} times"


def _micros(cell: CellTrials) -> str:
    micros = 1e6 / intervals.means([list(cell.logs(_RATE).values())])[0].value
    return f"{micros:,.1f}" if micros < 100 else f"{micros:,.0f}"


def _row(place: Place) -> str:
    best, *tied = place.as_good
    named = [f"`{_label(cell)}`" for cell in tied[:_NAMED]] + (
        [f"{len(tied) - _NAMED} more"] if len(tied) > _NAMED else []
    )
    ends = [f"`{_label(place.socket[0])}`", _micros(place.socket[0])] if place.socket else ["-", "-"]
    cells = [place.size, place.where, f"`{_label(best)}`", _micros(best), ", ".join(named) or "none", *ends]
    return f"| {' | '.join(cells)} |"


def _library_table(where: str, there: Sequence[Place], found: Found) -> list[str]:
    lines = [f"**{where}: microseconds that a message takes more than over the kernel's fastest**", ""]
    lines += [f"| over | {' | '.join(place.size for place in there)} |", f"|---|{'--:|' * len(there)}"]
    for label in sorted({_label(cell) for place in there for cell in (*place.memory, *place.libraries)}):
        texts = []
        for place in there:
            cell = next((one for one in (*place.memory, *place.libraries) if _label(one) == label), None)
            more = found.get(cell) if cell else None
            texts.append(intervals.more(more.micros) if more else f"*{_micros(cell)} in all*" if cell else "-")
        lines.append(f"| `{label}` | {' | '.join(texts)} |")
    return lines


def _source(directory: Path, trials: Sequence[Trial]) -> str:
    facts = run_files.environment(str(directory))
    cpu = facts["cpu"]
    kept = (
        f"`results/{directory.name}`" if directory in KEPT else "a short trial run on a busy machine that is not kept"
    )
    blocks = len({trial.block for trial in trials})
    machine = f"{cpu['usable']} CPUs of {cpu['model']}{' (virtual)' if cpu['virtual'] else ''}"
    return (
        f"`{trials[0].experiment}`: {kept}, {blocks} block{'s' * (blocks > 1)}, "
        f"commit {trials[0].commit.removesuffix('+dirty')}; "
        f"{machine}, Linux {facts['kernel']['release']}"
    )


if __name__ == "__main__":
    sys.exit(main())
