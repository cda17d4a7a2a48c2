"""`harness report`: the page of a run, of two runs, or of all, and its pictures for papers."""

import argparse
import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import results
from harness.analysis import chart_data, compare, naming, run_files, study
from harness.analysis.chart_data import ChartData
from harness.analysis.study import Study
from harness.report import charts, export, page
from harness.report import tables as contents
from harness.report.design_styles import DesignStyles
from harness.report.markup import Markup, el
from harness.report.plot import Chart
from harness.results import Trial

NAME, INDEX = "report.html", "index.html"
ENVIRONMENT = "environment.json"


def main(argv: Sequence[str]) -> int:
    """Write the report of a run. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="harness report",
        description="Write the report of a run from its files: DIR/report.html, one page that needs no network.",
        epilog="Exit codes: 0 written, 2 there are no such files. With DIR_B: the two runs compared, DIR_B to DIR.",
    )
    parser.add_argument("directory", metavar="DIR", help="a directory that `harness run` wrote")
    parser.add_argument("other", metavar="DIR_B", nargs="?", help="another one, to be compared with the first")
    parser.add_argument("--all", action="store_true", help="an index of the runs in DIR, and the report of each")
    parser.add_argument(
        "--figures", metavar="FORMATS", default="", help="also write the pictures: svg, pdf, png, or several: svg,pdf"
    )
    parser.add_argument("--only", metavar="NAMES", default="", help="of the pictures only these, such as ratios,cpu")
    parser.add_argument("--metric", default="requests_per_s", help="what two runs are compared in (%(default)s)")
    parser.add_argument("-o", dest="output", metavar="FILE", help="where the page goes")
    args = parser.parse_args(argv)

    def body() -> int:
        if args.all:
            written = [index(args.directory, args.output)]
        elif args.other:
            written = [against(args.directory, args.other, args.metric, args.output)]
        else:
            written = [write(args.directory, args.output)]
            formats = [one for one in args.figures.split(",") if one]
            written += export.write(pictures(args.directory), args.directory, formats, args.only) if formats else []
        print("\n".join(written))
        return 0

    return run_files.exit_code("report", body)


def write(place: str, output: str | None = None) -> str:
    """Write the page of a run, and return its path. Raises OSError, ValueError."""
    trials, experiment = load(place)
    found = study.analyse(trials, experiment)
    more = chart_data.read(place, trials)
    path = output or f"{place}/{NAME}"
    return _write(path, _report(place, trials, experiment, found, more))


def load(place: str) -> tuple[list[Trial], dict[str, Any]]:
    """As run_files.load; a run that was ended before its first trial has none."""
    if os.path.exists(f"{place}/{results.TRIALS}") or not os.path.exists(f"{place}/{run_files.EXPERIMENT}"):
        return run_files.load(place)
    return [], run_files.experiment(place)


def pictures(place: str) -> list[Chart]:
    """The pictures of a run."""
    trials, experiment = load(place)
    return charts.charts(study.analyse(trials, experiment), chart_data.read(place, trials), trials)


def _report(place: str, trials: list[Trial], experiment: Mapping[str, Any], found: Study, more: ChartData) -> str:
    styles = DesignStyles(found)
    name = found.name or os.path.basename(os.path.abspath(place))
    question = str(experiment.get("question") or name)
    varying, fixed = charts.levels(trials) if trials else ([], {})
    pictured = [page.picture(figure) for figure in charts.charts(found, more, trials)]
    tables = {}
    parts: list[Any] = [page.head(f"Study {name}", question, _subline(found, trials)), page.answer(found)]
    if pictured:
        parts += [el("h2", "Pictures", id="pictures"), page.chips(styles), pictured]
    if trials:
        parts.append(el("h2", "Tables", id="tables"))
    if found.contexts:
        tables["cells"] = contents.of_cells(found, styles)
        caption = "One row a cell. A click on the number of its trials shows their rows below."
        parts += [el("h3", "Cells"), page.table("cells", "Cells", caption)]
    if trials:
        tables["trials"] = contents.of_trials(trials, varying, found, styles)
        caption = f"One row a trial, of {results.TRIALS}, which has more columns."
        parts += [el("h3", "Trials"), page.table("trials", "Trials", caption)]
    parts += [_measured(place, trials, experiment, found, fixed, more.unreadable)]
    return page.page(f"{name}: {question}", [el("main", parts)], tables)


def _subline(found: Study, trials: list[Trial]) -> Iterable[str]:
    good = [trial for trial in trials if trial.status == "ok"]
    counts = found.counts
    trials_of = "trial" if counts.trials == 1 else "trials"
    yield f"{counts.trials} {trials_of}, {counts.ok} good" if counts.trials else "no trials"
    if good:
        one = good[0]
        yield from (f"{one.cpus} CPUs of {one.cpu}", f"Linux {one.kernel}", one.started_utc[:10])


def environment(place: str) -> dict[str, Any]:
    """What environment.json says; {} where there is none, or it is cut off."""
    try:
        with open(f"{place}/{ENVIRONMENT}", encoding="utf-8") as file:
            given = json.load(file)
    except (OSError, ValueError):
        return {}
    return given if isinstance(given, dict) else {}


def _measured(
    place: str,
    trials: list[Trial],
    experiment: Mapping[str, Any],
    found: Study,
    fixed: Mapping[str, Any],
    unreadable: Sequence[str],
) -> Markup:
    given = environment(place)
    origin = given.get("experiment") if isinstance(given.get("experiment"), dict) else {}
    assert isinstance(origin, dict)
    command = origin.get("command") or [f"{place}/{run_files.EXPERIMENT}"] * bool(experiment)
    if isinstance(command, list):  # the arguments of `harness run`
        command = shlex.join(("harness", "run", *map(str, command))) if command else ""
    counts = found.counts
    seeds = sorted({trial.seed for trial in trials})
    machines = {
        name: sorted({str(getattr(trial, name)) for trial in trials if trial.status == "ok"} - {""})
        for name in ("host", "cpu", "cpus", "kernel", "python", "harness", "commit")
    }
    plan = [
        ("to run it again", el("code", command) if command else ""),
        ("experiment file", origin.get("file")),
        ("cells", len({trial.cell for trial in trials}) or ""),
        ("blocks", len({trial.block for trial in trials if not trial.probe}) or ""),
        ("seed of the order", ", ".join(map(str, seeds))),
        (
            "began, ended",
            " \u2013 ".join(dict.fromkeys((trials[0].started_utc, trials[-1].started_utc))) if trials else "",
        ),
        ("the same in all trials", page.settings(fixed)),
        (
            "trials",
            f"{counts.trials}: {counts.ok} good ({counts.disturbed} of them disturbed), {counts.failed} failed, "
            f"{counts.refused} refused, {counts.probes} for probes",
        ),
        *((name, ", ".join(some)) for name, some in machines.items()),
    ]
    parts: list[Any] = [el("h2", "How it was measured", id="measured"), page.facts(plan)]
    bad = [trial for trial in trials if trial.status != "ok"]
    if bad:
        lines = [
            el(
                "li",
                f"trial {trial.trial}, block {trial.block}, {trial.command} + {trial.data}, "
                f"{naming.value('files', trial.files)}: {trial.status}: {trial.reason}",
            )
            for trial in bad[:200]
        ]
        parts.append(
            el(
                "details",
                el("summary", f"Trials that failed or were refused: {len(bad)}"),
                el("ul", lines),
                open=len(bad) <= 10,
            )
        )
    parts += [el("p", page.badge("cannot be read", "bad"), f" {trouble}") for trouble in unreadable]
    if found.missing:
        parts += [
            el("h3", "Cells without a good trial"),
            el("ul", [el("li", f"{label}: {reason}") for label, reason in found.missing[:200]]),
        ]
    rest = {name: value for name, value in given.items() if name != "experiment"}
    if rest:
        parts.append(
            el("details", el("summary", "The machine: limits, settings, versions"), page.facts(page.flat(rest)))
        )
    path = f"{place}/{run_files.EXPERIMENT}"
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            parts.append(
                el("details", el("summary", "The plan, as it was run"), el("pre", file.read(200_000), tabindex="0"))
            )
    files = [
        name
        for name in (
            "trials.csv",
            "latency.csv",
            "probes.csv",
            "symbols.csv",
            ENVIRONMENT,
            run_files.EXPERIMENT,
            "datapackage.json",
            "logs",
        )
        if os.path.exists(f"{place}/{name}")
    ]
    parts.append(
        el(
            "p",
            "Beside this page: ",
            ", ".join(files),
            ". What columns mean: docs/results.md; what intervals and verdicts mean: docs/statistics.md.",
            class_="soft",
        )
    )
    return el("section", parts)


def against(first: str, second: str, metric: str, output: str | None = None) -> str:
    """Write the page that compares two runs, and return its path. Raises OSError, ValueError."""
    loaded = [run_files.load(one) for one in (first, second)]
    found = compare.compare(loaded[0][0], loaded[1][0], metric)
    picture = charts.changes(found)
    worse = [pair for pair in found.pairs if pair.verdict in ("slower", "more")]
    better = [pair for pair in found.pairs if pair.verdict in ("faster", "less")]
    open_ = len(found.pairs) - len(worse) - len(better)
    said = [
        page.badge(f"{len(worse)} worse", "bad" if worse else "good"),
        " ",
        page.badge(f"{len(better)} better", "good"),
        " ",
        page.badge(f"{open_} {'withheld' if found.withheld else 'cannot be told apart'}", "unsure"),
    ]
    parts: list[Any] = [
        page.head("Two runs", f"{metric}: {second} against {first}", [f"{len(found.pairs)} cells that both have"]),
        el("h2", "The answer", id="answer"),
        el("p", said, class_="lead"),
        el("ul", [el("li", note) for note in found.notes]),
    ]
    if found.unlike:
        parts.append(
            el("p", page.badge("other machines", "bad"), f" The ratios are of them, too: {'; '.join(found.unlike)}.")
        )
    parts += [
        el("h2", "Picture", id="pictures"),
        page.picture(picture),
        el("h2", "Table", id="tables"),
        page.table("pairs", "Cells of both runs", "A and B: geometric means. The interval is Welch's."),
    ]
    for label, place, (trials, experiment) in zip("AB", (first, second), loaded, strict=True):
        parts += [
            el("h2", f"Run {label}: {place}"),
            page.facts(
                [
                    ("question", experiment.get("question")),
                    ("trials", len(trials)),
                    ("began", trials[0].started_utc),
                    *(
                        (name, ", ".join(sorted({str(getattr(trial, name)) for trial in trials})))
                        for name in ("host", "cpu", "kernel", "python", "harness", "commit")
                    ),
                ]
            ),
        ]
    return _write(
        output or f"{second}/comparison.html",
        page.page(f"{second} against {first}", [el("main", parts)], {"pairs": contents.of_pairs(found)}),
    )


def index(root: str, output: str | None = None) -> str:
    """Write the reports of all runs in a directory and an index of them; returns its path. Raises OSError."""
    path = output or f"{root}/{INDEX}"
    cards = []
    for name in sorted(os.listdir(root)):
        place = f"{root}/{name}"
        if not any(os.path.exists(f"{place}/{file}") for file in (results.TRIALS, run_files.EXPERIMENT)):
            continue
        try:
            cards.append(_card(place, name, path))
        except (OSError, ValueError) as error:
            cards.append(
                el("article", el("h3", name), el("p", page.badge("cannot be read", "bad"), f" {error}"), class_="claim")
            )
    parts = [
        page.head("Transport harness", "Studies", [f"{len(cards)} runs in {root}"]),
        el("div", cards or el("p", "There are no runs here: `harness run FILE` makes one."), class_="answers"),
    ]
    return _write(path, page.page("Studies", [el("main", parts)]))


def _card(place: str, name: str, path: str) -> Markup:
    trials, experiment = load(place)
    found = study.analyse(trials, experiment)
    written = _write(f"{place}/{NAME}", _report(place, trials, experiment, found, chart_data.read(place, trials)))
    link = os.path.relpath(written, os.path.dirname(os.path.abspath(path)))
    outcomes = [answer.outcome for answer in found.answers]
    badges = [
        [page.badge(f"{outcomes.count(one)} {one}", kind), " "]
        for one, kind in (("supported", "good"), ("refuted", "bad"), ("undecided", "unsure"))
        if one in outcomes
    ]
    lines = [
        line if len(line) < 240 else f"{line[:240]}\u2026"
        for line in (one.line if not one.label else f"{one.label}: {one.line}" for one in found.crossovers[:3])
    ]
    return el(
        "article",
        el("p", f"{name} \u00b7 ", " \u00b7 ".join(_subline(found, trials)), class_="kicker"),
        el("h3", el("a", str(experiment.get("question") or found.name or name), href=f"./{link}")),
        el("p", badges) if badges else None,
        [el("p", f"Unbeaten: {line}.", class_="soft") for line in lines],
        class_="claim",
    )


def _write(path: str, text: str) -> str:
    """Put a page in its place in one step: whoever looks at it never sees half of one."""
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.part", path)
    return path
