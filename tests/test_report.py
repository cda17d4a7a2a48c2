"""The report: its pages, its charts, odd results, and values from files, which are never markup.

test_report_in_browser.py opens the pages in a browser.
"""

import dataclasses
import json
import re
import struct
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support import studies

from harness import report
from harness.analysis import chart_data, drift, run_files, show, study
from harness.analysis.slices import of_rows
from harness.report import charts, export, markup, plot, report_command, run_page
from harness.report.design_styles import DesignStyles

EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&\x00|`"


class Page(HTMLParser):
    """The text and the elements of a page. Fails where elements are not closed in the order they were opened."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.source = Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, text):
        if self._open[-1:] != ["script"] and self._open[-1:] != ["style"]:
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self):
        found = re.search(r'<script id="data" type="application/json">(.*?)</script>', self.source, re.S)
        return json.loads(found[1])

    def figures(self):
        return [attributes["id"] for tag, attributes in self.elements if tag == "figure"]


def written(place):
    return Page(report.write(str(place)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return studies.whole(tmp_path_factory.mktemp("whole"))


def test_the_page_answers_first(whole):
    page = written(whole)
    text = page.text
    assert text.index("3 MiB files sendfile") < text.index("Charts") < text.index("How it was measured")
    assert "supported sendfile beats shared memory for large files" in text
    assert "refuted A FIFO is as fast as shared memory" in text
    assert "A/A control: on" in text
    assert "3 MiB files: 68 %" in text, "the floor's share"
    assert "Above the floor Microseconds that a request takes more than at the floor of its shape (null)" in text
    assert "harness run quick.yaml --scale 0.1" in text
    assert "the proxy went away" in text


def test_a_page_has_every_chart_that_it_has_data_for(whole, tmp_path):
    names = ["ratios", "differences", "sizes", "latency", "cpu", "stages", "symbols", "order"]
    assert written(whole).figures() == [f"figure-{name}" for name in names]
    assert "figure-pairs" in written(studies.pairs(tmp_path / "pairs")).figures()
    assert not {"figure-symbols", "figure-stages"} & set(written(tmp_path / "pairs").figures())
    assert "Depth \u00d7 chunk" in written(studies.surface(tmp_path / "surface")).text
    assert "By rate of requests" in written(studies.open_loop(tmp_path / "rates")).text
    page = written(studies.concurrency(tmp_path / "clients"))
    assert "By concurrency" in page.text
    axis = re.findall(r'class="tick"[^>]*>(\w+)</text>', page.source.partition('id="figure-sizes"')[2])
    assert {"1", "2", "4", "8", "16", "64"} <= set(axis), "the levels, as the tables write them"


def test_figures_are_those_of_the_analysis_and_lead_to_their_rows(whole):
    page = written(whole)
    found = study.analyse(*run_files.load_run(str(whole)))
    table = page.data["tables"]["cells"]
    names = [column["name"] for column in table["columns"]]
    rows = {(row[names.index("files")], row[names.index("data")]): row for row in table["rows"]}
    trials = {row[0]: row for row in page.data["tables"]["trials"]["rows"]}
    count = 0
    for context in found.contexts:
        for cell in context.cells:
            row = rows[context.label.removesuffix(" files"), cell.label]
            figure = cell.measurements["requests_per_s"]
            assert row[names.index("requests_per_s")] == pytest.approx(figure.value.value, rel=1e-4)
            if figure.ratio:
                assert row[names.index("low")] == pytest.approx(figure.ratio.low, rel=1e-4)
                assert row[names.index("difference_high_us")] == pytest.approx(figure.difference.high, rel=1e-4)
                cpu = cell.measurements["cpu_us_per_request"].difference
                assert row[names.index("cpu_difference_us")] == pytest.approx(cpu.value, rel=1e-4)
            assert row[names.index("trials")] == list(cell.rows)
            assert len(cell.rows) == cell.trials
            assert all(trials[number][3] == "ok" for number in cell.rows)
            count += 1
    assert count == 18


def test_stages_are_those_of_the_file_and_their_means_add_up_to_the_whole(whole, capsys):
    page = written(whole)
    table = page.data["tables"]["stages"]
    names = [column["name"] for column in table["columns"]]
    rows = [dict(zip(names, row, strict=False)) for row in table["rows"]]
    assert len(rows) == 18 * 9
    for begin in range(0, len(rows), 9):
        *parts, last = rows[begin : begin + 9]
        assert last["stage"] == "all of it"
        assert len({(row["context"], row["design"]) for row in (*parts, last)}) == 1
        assert sum(row["mean_us"] for row in parts) == pytest.approx(last["mean_us"], rel=1e-3)
        assert sum(row["share"] for row in parts) == pytest.approx(100, rel=1e-3)
        assert all(row["low_us"] <= row["median_us"] <= row["high_us"] for row in parts)
    show.main([str(whole)])
    printed = capsys.readouterr().out
    assert printed.count("Where a request spends its time, us: median (quartiles) of each stage") == 6
    assert printed.count("all of it") == 6, "two tables side by side are too wide, at each of three sizes"
    first = next(row for row in rows if row["stage"] == "file found")
    assert re.search(rf"file found .*\b{first['median_us']:.1f} \({first['low_us']:.1f} to ", printed)


def by_placement(loads, data=("posix_shm", "fifo", "sendfile"), speed=1000):
    """Cells of data transports at two sizes, under loads given as (placement, clients)."""
    return [
        ({"data": name, "files": size, "placement": placement, "clients": clients}, speed * (1 + place / 5))
        for placement, clients in loads
        for size in ("1024", "1048576")
        for place, name in enumerate(data)
    ]


def test_each_size_has_an_answer_of_its_own_under_each_load(tmp_path):
    rows = studies.trials(by_placement([("same-core", 1), ("free", 4)]), 6)
    page = written(studies.write(tmp_path, rows, {"baseline": {"data": "posix_shm"}}))
    answer = page.text.partition("How far to trust this")[0]
    one_core = answer.index("1 client, placement same-core \u2014 what a request costs in all")
    free = answer.index("4 clients, placement free \u2014 what the machine serves")
    for begin, end in ((one_core, free), (free, len(answer))):
        assert re.search(r"1 KiB sendfile [\d,]+ [\d.]+ \w+ 1\.\d+ 1\.\d+ to 1\.\d+ -\d+ \u00b1", answer[begin:end])
        assert re.search(r"1 MiB sendfile .* next: fifo", answer[begin:end])
    assert "up to" not in answer, "no advice is merged over sizes"
    assert "trials apart: 6 blocks" in answer.lower()


def test_what_cannot_be_seen_is_said_first(tmp_path):
    equal = [({"data": f"t{number}", "files": "1024"}, 1000) for number in range(6)]
    page = written(studies.write(tmp_path / "coarse", studies.trials(equal, 3), {"baseline": {"data": "t0"}}))
    assert "The answer coarse This run resolves differences of" in page.text
    assert "cannot tell first here: t" in page.text
    assert "6 of 6 are unbeaten" in page.text
    fine = written(studies.live(tmp_path / "fine", blocks=6, rounds=200))
    assert "coarse" not in fine.text
    assert re.search(r"fine This run resolves differences of [1-4]\.\d (to [1-4]\.\d )?%", fine.text)


def test_live_blocks_have_their_slices_and_their_scatter(tmp_path):
    page = written(studies.live(tmp_path, blocks=4, rounds=60))
    assert "Live blocks: 4 blocks of 60 rounds, 3,360 slices." in page.text
    assert re.search(r"1 KiB files 4 \u00d7 60 \d+ % \d\.\d %", page.text)
    assert "Scatter, " not in page.text, "the table has it"
    assert page.figures() == ["figure-ratios", "figure-differences", "figure-latency", "figure-cpu",
                              "figure-rounds"]  # fmt: skip


def test_many_slices_make_no_larger_page(tmp_path):
    few, many = (
        len(written(studies.live(tmp_path / str(rounds), blocks=3, rounds=rounds)).source) for rounds in (130, 400)
    )
    assert many < 1.1 * few


def test_a_run_without_slices_has_its_charts_and_differences(whole):
    page = written(whole)
    assert {"figure-ratios", "figure-order"} < set(page.figures())
    assert "figure-rounds" not in page.figures()
    assert "Trials apart: " in page.text
    titles = [column["title"] for column in page.data["tables"]["cells"]["columns"]]
    assert {"\u00b5s more", "CPU \u00b5s more"} < set(titles)


def test_a_burst_that_hits_all_cells_is_in_the_pace_and_not_in_the_ratio():
    cells = [({"data": data, "files": "1024"}, speed) for data, speed in (("a", 1000), ("b", 1500), ("c", 800))]
    rows = studies.trials(cells, 2)
    slices = studies.slices_of(rows, 50, np.random.default_rng(1), spread=0.01, spikes=0)
    slow = [dataclasses.replace(one, seconds=2 * one.seconds) if 11 <= one.round <= 20 else one for one in slices]
    given = of_rows(slow)
    found = study.analyse(rows, {"baseline": {"data": "a"}}, given)
    one = drift.of_context(found.contexts[0], {row.trial: row for row in rows}, given, bins=10, wide_bins=5)
    assert (one.rounds, [block.first for block in one.blocks]) == (100, [0, 50])
    assert [at for at, _ in one.pace] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert [round(spread.middle, 1) for _, spread in one.pace] == [1, 0.5, 1, 1, 1, 1, 0.5, 1, 1, 1]
    assert all(0.95 < spread.low < spread.high < 1.05 for _, spread in one.ratio)
    assert {cell.label: len(points) for cell, points in one.cells} == {"b": 5, "c": 5}
    assert drift.of_context(found.contexts[0], {row.trial: row for row in rows}, of_rows([]), 10, 5) is None


def test_a_chart_is_in_the_file_of_its_name(whole, tmp_path):
    drawn = [*run_page.charts_of(str(whole)), *run_page.charts_of(str(studies.pairs(tmp_path / "pairs")))]
    drawn += run_page.charts_of(str(studies.live(tmp_path / "live")))
    files = {path.stem for path in Path(charts.__file__).parent.glob("*.py")} - {"__init__", "forest", "changes"}
    assert {chart.name for chart in drawn} == files


def test_the_same_files_give_the_same_page(whole):
    assert written(whole).source == written(whole).source


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda rows: [], "has no trials"),
        (lambda rows: rows[:1], "nothing to compare it with"),
        (
            lambda rows: [
                dataclasses.replace(row, status="failed", reason="broken", requests_per_s=0.0) for row in rows
            ],
            "has no good trial",
        ),
        (
            lambda rows: [dataclasses.replace(row, status="refused", reason="cannot", host="", cpu="") for row in rows],
            "has no good trial",
        ),
        (lambda rows: rows[:40], "fewer than 3 blocks"),
    ],
    ids=["empty", "single", "all failed", "all refused", "two blocks"],
)
@pytest.mark.parametrize(
    "experiment", [None, {"question": "Why?", "baseline": {"data": "posix_shm"}, "claims": studies.CLAIMS}]
)
def test_odd_results_have_a_sensible_page(tmp_path, make, sentence, experiment):
    rows = make(studies.trials(studies.by_size(), 4))
    place = studies.write(tmp_path / "odd", rows, experiment or ({} if not rows else None))
    page = written(place)
    assert sentence in page.text
    assert "How it was measured" in page.text


def test_a_run_that_was_killed_has_a_page(tmp_path, whole):
    for name in ("trials.csv", "experiment.yaml"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "environment.json").write_text('{"host": "cut o')
    (tmp_path / "latency.csv").write_text("trial,latency_us,count\n1,100,1000\n1,200,10\n2,1")
    page = written(tmp_path)
    assert "3 MiB files sendfile" in page.text
    assert "figure-latency" in page.figures()
    assert "latency.csv is read up to this only" in page.text


def test_values_are_never_markup(tmp_path):
    rows = [
        dataclasses.replace(
            row,
            data=EVIL if row.data == "fifo" else row.data,
            command=EVIL,
            host=EVIL,
            cpu=EVIL,
            reason=EVIL if row.status != "ok" else "",
            experiment=EVIL,
            disturbed=EVIL,
        )
        for row in studies.trials(studies.by_size(), 4)
    ]
    rows[3] = dataclasses.replace(rows[3], status="failed", reason=EVIL)
    place = studies.write(
        tmp_path / "evil",
        rows,
        {
            "question": EVIL,
            "claims": [{**studies.CLAIMS[0], "text": EVIL, "where": {}}],
        },
        symbols=True,
        environment=True,
    )
    (place / "environment.json").write_text(json.dumps({EVIL: EVIL, "experiment": {"command": EVIL, "file": EVIL}}))
    page = written(place)
    scripts = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    assert scripts == ["application/json", None]
    assert "img" not in {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "<script>alert(1)" in page.text
    assert any(EVIL in row for row in page.data["tables"]["trials"]["rows"])
    for chart in run_page.charts_of(str(place)):
        ET.fromstring(export.standalone(chart).partition("\n")[2])


def test_markup_escapes_all_that_is_not_markup():
    given = markup.el("p", "<b>", markup.el("i", "&"), title='"', hidden=False, data_k=0)
    assert given == '<p title="&quot;" data-k="0">&lt;b&gt;<i>&amp;</i></p>'
    assert markup.data({"a": "</script><!--", "b": float("inf")}) == '{"a":"\\u003c/script>\\u003c!--","b":null}'


def test_charts_are_written_in_the_formats_that_are_asked_for(whole, capsys):
    assert report_command.main([str(whole), "--figures", "svg,png,pdf", "--only", "ratios,cpu"]) == 0
    paths = [line for line in capsys.readouterr().out.splitlines() if "figures/" in line]
    assert [path.rpartition("/")[2] for path in paths] == [
        f"{name}.{kind}" for name in ("ratios", "cpu") for kind in ("svg", "png", "pdf")
    ]
    for path in paths:
        content = Path(path).read_bytes()
        if path.endswith("svg"):
            assert ET.fromstring(content).tag.endswith("svg")
            assert b"var(" not in content
        elif path.endswith("png"):
            assert content[:8] == b"\x89PNG\r\n\x1a\n"
            assert struct.unpack(">II", content[16:24])[0] == 1776
        else:
            assert content[:5] == b"%PDF-"
    assert report_command.main([str(whole), "--figures", "gif"]) == 2
    assert "gif: no such format of charts; there are svg, pdf, png" in capsys.readouterr().err
    assert report_command.main([str(whole), "--figures", "svg", "--only", "ratio"]) == 2
    assert "there are ratios, " in capsys.readouterr().err


def test_two_runs_have_a_page(whole, tmp_path, capsys):
    faster = [(factors, speed * (1.3 if factors["data"] == "unix" else 1)) for factors, speed in studies.by_size()]
    other = studies.write(tmp_path / "other", studies.trials(faster, 6, seed=7))
    assert report_command.main([str(whole), str(other)]) == 0
    page = Page(capsys.readouterr().out.strip())
    assert "0 worse" in page.text
    assert "3 better" in page.text
    verdicts = [row[-3] for row in page.data["tables"]["pairs"]["rows"]]
    assert verdicts.count("faster") == 3
    assert page.figures() == ["figure-changes"]


def test_an_index_links_the_reports_and_names_what_cannot_be_read(whole, tmp_path, capsys):
    (tmp_path / "a").symlink_to(whole)
    studies.pairs(tmp_path / "b")
    (tmp_path / "quick").symlink_to(whole)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/trials.csv").write_text("schema,experiment\n1,old\n")
    (tmp_path / "nothing").mkdir()
    assert report_command.main(["--all", str(tmp_path)]) == 0
    page = Page(capsys.readouterr().out.strip())
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == ["./quick/report.html", "./a/report.html", "./b/report.html"], "the one to begin with is first"
    assert all((tmp_path / link).exists() for link in links)
    assert "old cannot be read" in page.text
    assert "1 supported 2 refuted" in page.text
    assert "3 MiB files: sendfile" in page.text
    assert "Supported: sendfile beats shared memory for large files." in page.text
    assert re.search(r"Best: .*from 3 MiB on: sendfile\.", page.text)
    assert page.text.count("begin here") == 1
    (tmp_path / "index.html").unlink()
    assert report_command.main([str(tmp_path)]) == 0, "a directory of runs needs no option"
    assert (tmp_path / "index.html").exists()


def test_a_directory_without_results_is_refused_in_a_line(tmp_path, capsys):
    assert report_command.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("report: ")
    assert "trials.csv" in message
    assert message.count("\n") == 1


def test_percentiles_of_merged_histograms_are_those_of_all_replies(tmp_path):
    rows = studies.trials([({"data": "a"}, 1000)], 2)
    for row in rows:
        row.requests_ended = 1000
    place = studies.write(tmp_path / "run", rows)
    with (place / "latency.csv").open("w") as file:
        file.write("trial,latency_us,count\n1,100,999\n1,900,1\n2,100,500\n2,200,500\n")
    trials, experiment, _ = run_files.load_run(str(place))
    cell = study.analyse(trials, experiment).contexts[0].cells[0]
    spectrum = {round(one.above, 6): one for one in chart_data.read(str(place), trials).percentiles(cell)}
    assert spectrum[0.1].us == 200
    assert spectrum[1.0].us == 100
    assert spectrum[0.001].us == 200, "1,998 of 2,000 are at most that"
    assert spectrum[0.001].replies_above == 2
    assert min(spectrum) == pytest.approx(10**-3.25, rel=0.01), "no percentile above the replies that there are"


def test_cpu_parts_are_those_of_all_requests(whole):
    trials, experiment, _ = run_files.load_run(str(whole))
    more = chart_data.read(str(whole), trials)
    cell = study.analyse(trials, experiment).contexts[0].cells[0]
    own = [trial for trial in trials if trial.trial in cell.rows]
    parts = more.cpu(cell)
    assert parts["proxy", "kernel"] == pytest.approx(
        1e6 * sum(trial.proxy_kernel_s for trial in own) / sum(trial.requests_ended for trial in own)
    )
    assert set(parts) == {(role, mode) for role in chart_data.ROLES for mode in chart_data.MODES}


@pytest.mark.parametrize(("low", "high", "log"), [(0.36, 1.3, True), (0.9, 1.1, True), (1, 5000, True), (0, 17, False)])
def test_ticks_are_round_within_and_apart(low, high, log):
    scale = plot.Scale(low, high, 0, 300, log)
    ticks = scale.ticks(40, 1.0)
    assert 2 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)
    assert all(other - one >= 39 for one, other in zip(map(scale, ticks), map(scale, ticks[1:]), strict=False))
    assert all(len(f"{tick:.6g}") <= 5 for tick in ticks)


def test_no_two_designs_share_a_colour_and_a_shape(tmp_path):
    cells = [({"data": f"t{number:02}"}, 1000 + number) for number in range(24)]
    found = study.analyse(studies.trials(cells, 3), {})
    styles = DesignStyles(found)
    assert len({(styles.colour(cell), styles.shape(cell)) for cell in found.contexts[0].cells}) == 24


@pytest.mark.parametrize(
    ("width", "there", "missing"),
    [
        (60, {"ratio", "us more", "verdict"}, {"interval", "min to max"}),
        (80, {"interval", "verdict"}, {"p50 us", "min to max"}),
        (122, {"interval", "us above floor", "CPU us", "p50 us", "p99 us", "MB/s"}, {"min to max"}),
        (190, {"interval", "min to max", "\u25cf"}, set()),
    ],
)
def test_tables_fit_the_terminal_by_leaving_out_whole_columns(whole, monkeypatch, capsys, width, there, missing):
    from rich.console import Console

    monkeypatch.setattr(show, "console", lambda: Console(width=width))
    show.show_run(str(whole))
    printed = capsys.readouterr().out
    head, *_ = [line for line in printed.splitlines() if "requests/s" in line and "verdict" in line]
    assert all(one in head + printed * (one == "\u25cf") for one in there)
    assert not any(one in head for one in missing)
    assert "\u2026" not in printed, "no text is cut"
    assert max(map(len, printed.splitlines())) <= width
    for name in ("posix_shm", "sendfile", "cannot tell"):
        assert name in printed


def test_a_wide_terminal_shows_plots(whole):
    found = study.analyse(*run_files.load_run(str(whole)))
    lines = dict(zip([cell.label for cell in found.contexts[2].cells], show._plots(found.contexts[2]), strict=True))
    assert {len(line) for line in lines.values()} == {25}
    middle = {label: line.index("\u25cf") - 12 for label, line in lines.items()}
    assert middle["posix_shm"] == 0
    assert middle["fifo"] < middle["unix"] < 0 < middle["memfd"] < middle["sendfile"]
