"""The page that compares two runs."""

from typing import Any

from harness.analysis import compare, run_files
from harness.report import page, tables
from harness.report.charts import changes
from harness.report.markup import el


def write(first: str, second: str, metric: str, output: str | None = None) -> str:
    """Write the page that compares two runs, and return its path. first, second: their directories. Raises OSError,
    ValueError."""
    loaded = [run_files.load_run(one) for one in (first, second)]
    found = compare.compare(loaded[0].trials, loaded[1].trials, metric)
    worse = [pair for pair in found.pairs if pair.verdict in ("slower", "more")]
    better = [pair for pair in found.pairs if pair.verdict in ("faster", "less")]
    undecided = len(found.pairs) - len(worse) - len(better)
    badges = [
        page.badge(f"{len(worse)} worse", "bad" if worse else "good"),
        " ",
        page.badge(f"{len(better)} better", "good"),
        " ",
        page.badge(f"{undecided} {'withheld' if found.withheld else 'undecided'}", "unsure"),
    ]
    parts: list[Any] = [
        page.head("Two runs", f"{metric}: {second} against {first}", [f"{len(found.pairs)} cells that both runs have"]),
        el("h2", "The answer", id="answer"),
        el("p", badges, class_="lead"),
        el("ul", [el("li", note) for note in found.notes]),
    ]
    if found.unlike:
        parts.append(
            el("p", page.badge("other machines", "bad"), f" That is part of the ratios: {'; '.join(found.unlike)}.")
        )
    parts += [
        el("h2", "Chart", id="charts"),
        page.figure(changes.chart(found)),
        el("h2", "Table", id="tables"),
        page.table("pairs", "Cells of both runs", "A and B: geometric means. The interval is Welch's."),
    ]
    for label, place, (trials, experiment, _) in zip("AB", (first, second), loaded, strict=True):
        parts += [
            el("h2", f"Run {label}: {place}"),
            page.facts(
                [
                    ("question", experiment.get("question")),
                    ("trials", len(trials)),
                    ("began", trials[0].started_utc),
                    *(
                        (name, ", ".join(sorted({str(getattr(trial, name)) for trial in trials})))
                        for name in ("host", "cpu", "kernel", "python", "harness", "commit", "code")
                    ),
                ]
            ),
        ]
    text = page.page(f"{second} against {first}", [el("main", parts)], {"pairs": tables.of_pairs(found)})
    return page.save(output or f"{second}/comparison.html", text)
