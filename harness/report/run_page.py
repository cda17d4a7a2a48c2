"""The page of a run: the answer, the charts, the tables, and how it was measured."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from harness import results
from harness.analysis import chart_data, run_files, study
from harness.analysis.run_files import Run
from harness.analysis.study import Study
from harness.factors import FACTORS
from harness.report import above_floor, answer, charts, measured, page
from harness.report import tables as contents
from harness.report.design_styles import DesignStyles
from harness.report.markup import el
from harness.report.plot import Chart
from harness.results import Trial

NAME = "report.html"


def write(directory: str, output: str | None = None) -> str:
    """Write the page of a run, and return its path. Raises OSError, ValueError."""
    run = run_files.load_begun(directory)
    return write_analysed(directory, run, study.analyse(*run), output)


def write_analysed(directory: str, run: Run, found: Study, output: str | None = None) -> str:
    """Write the page of a run whose analysis is `found`, and return its path. Raises OSError."""
    return page.save(output or f"{directory}/{NAME}", _page(directory, run, found))


def charts_of(directory: str) -> list[Chart]:
    """The charts of a run. Raises OSError, ValueError."""
    run = run_files.load_begun(directory)
    return charts.of_study(study.analyse(*run), chart_data.read(directory, run.trials), run.trials, run.slices)


def facts(found: Study, trials: Sequence[Trial]) -> Iterable[str]:
    """What a reader wants to know of a run at once: how many trials, on which machine, when."""
    good = [trial for trial in trials if trial.status == "ok"]
    counts = found.counts
    noun = "trial" if counts.trials == 1 else "trials"
    yield f"{counts.trials} {noun}, {counts.ok} good" if counts.trials else "no trials"
    if good:
        one = good[0]
        yield from (f"{one.cpus} CPUs of {one.cpu}", f"Linux {one.kernel}", one.started_utc[:10])


def _page(directory: str, run: Run, found: Study) -> str:
    trials, experiment, slices = run
    styles = DesignStyles(found)
    extra = chart_data.read(directory, trials)
    name = found.name or os.path.basename(os.path.abspath(directory))
    question = str(experiment.get("question") or name)
    varying, fixed = _levels(trials) if trials else ([], {})
    figures = [page.figure(chart) for chart in charts.of_study(found, extra, trials, slices)]
    tables = {}
    parts: list[Any] = [
        page.head(f"Study {name}", question, facts(found, trials)),
        answer.section(found, trials, fixed),
    ]
    if figures:
        parts += [el("h2", "Charts", id="charts"), page.chips(styles), figures]
    if trials:
        parts.append(el("h2", "Tables", id="tables"))
    parts.append(above_floor.section(found, styles))
    if found.contexts:
        tables["cells"] = contents.of_cells(found, styles)
        caption = "One row for each cell. A click on the number of its trials shows their rows below."
        parts += [el("h3", "Cells"), page.table("cells", "Cells", caption)]
    if extra.stages:
        tables["stages"] = contents.of_stages(found, styles, extra.stages)
        caption = f"One row for each stage, of at most 300 requests of a cell: {results.STAGES} has each. "
        caption += "The command harness trace writes them for Perfetto and Chrome."
        parts += [el("h3", "Stages"), page.table("stages", "Stages", caption)]
    if trials:
        tables["trials"] = contents.of_trials(trials, varying, found, styles)
        caption = f"One row for each trial of {results.TRIALS}, which has more columns."
        parts += [el("h3", "Trials"), page.table("trials", "Trials", caption)]
    parts.append(measured.section(directory, trials, experiment, found, fixed, extra.unreadable))
    return page.page(f"{name}: {question}", [el("main", parts)], tables)


def _levels(trials: Sequence[Trial]) -> tuple[list[str], dict[str, Any]]:
    """The factors that vary over the trials, and the level of each factor that does not."""
    levels = {name: {getattr(trial, name) for trial in trials} for name in FACTORS if name != "control"}
    varying = [name for name, given in levels.items() if len(given) > 1]
    return varying, {name: next(iter(given)) for name, given in levels.items() if len(given) == 1}
