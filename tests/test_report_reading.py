"""What a reader sees first and most: words, levels, the lines of the answer, names at the ends of lines, verdicts."""

import itertools
import re

import pytest
from support import studies
from test_report import written

from harness.analysis import naming, run_files, study
from harness.report import plot


def lanes(place):
    """A study of messages of five sizes between two processes, as `harness ipc` makes it."""
    cells = [
        (
            {"scope": "lane", "clients": 0, "placement": placement, "data": data, "files": str(64 << 4 * shift)},
            speed / (shift + 1),
        )
        for placement in ("same-core", "spread")
        for shift in range(5)
        for data, speed in (("unix", 9000), ("posix_shm", 12000), ("sendfile", 8000))
    ]
    return studies.write(place, studies.trials(cells, 6), {"question": "Which?", "baseline": {"data": "unix"}})


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ({"lanes": 8, "proxy_threads": 8, "cache_threads": 8}, "8 in flight"),
        ({"lanes": 8, "batch": 8, "proxy_threads": 1, "cache_threads": 1}, "8 in flight in batches of 8"),
        ({"lanes": 8, "batch": 1, "proxy_threads": 8, "cache_threads": 8}, "8 in flight"),
        ({"lanes": 16}, "16 lanes"),
        ({"lanes": 16, "proxy_threads": 2}, "16 lanes, proxy_threads 2"),
    ],
)
def test_in_flight_is_what_the_threads_that_ask_have_under_way(levels, text):
    assert naming.of_messages(levels) == text


def test_a_run_of_lanes_speaks_of_messages(tmp_path):
    page = written(lanes(tmp_path))
    for there in ("messages/s", "64 B messages, one core", "By size of a message", "Round trip, all of it", "sender"):
        assert there in page.text
    for tip in page.data["tips"]:
        assert not re.search(r"request|proxy|cache|client|files|repl", tip)
    said = page.text.partition("to run it again")[0]
    assert not re.search(r"request|proxy|cache|client|files|repl", said)
    columns = [one for table in page.data["tables"].values() for one in table["columns"]]
    assert not any(re.search("request|proxy|cache|client|files", one["title"]) for one in columns)
    assert {"message", "messages/s", "placement"} < {one["title"] for one in columns}
    labels = {one.label for one in study.analyse(*run_files.load_run(str(tmp_path))).contexts}
    assert {"64 B messages, one core", "4 MiB messages, across cores"} < labels


def test_each_size_has_throughput_and_latency_in_one_line(tmp_path):
    answer = written(lanes(tmp_path)).text.partition("How far to trust this")[0]
    assert len(re.findall(r"(?:B|KiB|MiB) posix_shm [\d,]+ [\d.]+ (?:\u00b5s|ms) 1\.\d+", answer)) == 10


def test_levels_are_written_as_people_write_them_and_sort_by_size(tmp_path):
    tables = written(lanes(tmp_path)).data["tables"]
    for table in tables.values():
        (column,) = [one for one in table["columns"] if one["name"] == "files"]
        assert sorted(column["numbers"], key=column["numbers"].get) == ["64 B", "1 KiB", "16 KiB", "256 KiB", "4 MiB"]
        place = table["columns"].index(column)
        assert {row[place] for row in table["rows"]} == set(column["numbers"])
    (rate,) = [one for one in tables["trials"]["columns"] if one["name"] == "mb_per_s"]
    assert rate["title"] == "MB/s"


def test_names_at_the_ends_of_lines_do_not_overlap_and_keep_their_order():
    heights = [50, 51, 52, 90, 91, 200, 249, 249.5, 250]
    lines = [(10.0, float(y), f"n{place}", place, "c0") for place, y in enumerate(heights)]
    drawn = [str(one) for one in plot.ends(lines, 20, 120, 18, 250)]
    found = {int(key): float(y) for y, key in (re.search(r' y="([\d.]+)".* data-k="(\d+)"', one).groups()
             for one in drawn if one.startswith("<text"))}  # fmt: skip
    places = [found[key] for key in sorted(found)]
    assert all(after - before >= plot.END_ROW - 0.11 for before, after in itertools.pairwise(places))
    assert places[0] >= 18
    assert places[-1] <= 254
    assert places[5] == 204, "one that has room stays where its line ends"


def test_a_map_of_pairs_shows_verdicts_and_leaves_out_what_is_mostly_empty(tmp_path):
    page = written(studies.pairs(tmp_path / "pairs"))
    part = page.source.partition('id="figure-pairs"')[2].partition("</figure>")[0]
    kinds = set(re.findall(r'class="m heat (\w+)"', part))
    assert {"better", "worse"} < kinds <= {"better", "same", "worse", "unknown"}
    found = study.analyse(*run_files.load_run(str(tmp_path / "pairs")))
    better = [cell for one in found.contexts for cell in one.cells if cell.measurements[one.metric].ratio
              and cell.measurements[one.metric].ratio.low > 1]  # fmt: skip
    assert part.count('class="m heat better"') == 2 * len(better), "on wide and on narrow screens"
    corner = [({"command": f"c{one}", "data": f"d{one + more}"}, 1000) for one in range(5) for more in (0, 1)]
    page = written(studies.write(tmp_path / "corner", studies.trials(corner, 4)))
    assert "figure-pairs" not in page.figures()


def test_what_was_mostly_disturbed_is_said_on_amber(tmp_path):
    rows = studies.trials(studies.by_size(), 6)
    for row in rows:
        row.disturbed = "steal" if row.block > 2 else ""
    text = written(studies.write(tmp_path, rows)).text
    assert "Most trials were disturbed" in text.partition("A/A control")[0]
