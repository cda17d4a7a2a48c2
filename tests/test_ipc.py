"""`harness ipc`, and the sizes where one design overtakes another."""

import json
import math
import re

import numpy as np
import pytest
from support import studies
from support.programs import start

from harness import units
from harness.analysis import crossings, messages, study
from harness.experiment import ipc
from harness.experiment.language import Source
from harness.experiment.planner import plan_of


def plan(*arguments, capsys):
    assert ipc.main([*arguments, "--yaml"]) == 0
    return plan_of(Source("ipc", capsys.readouterr().out), "ipc")


def refused(*arguments, capfd):
    assert ipc.main([*arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_the_experiment_has_each_mechanism_at_each_size_in_each_place(capsys):
    given = "--only unix,fifo --sizes 64KiB,64,1000 --in-flight 3 --budget 5s --placement one-core".split()
    made = plan(*given, capsys=capsys)
    assert made.budget == 5
    assert made.baseline == {"data": "unix"}
    assert {(cell.data, cell.files) for cell in made.cells if not cell.control} == {
        (data, files) for data in ("unix", "fifo") for files in ("64", "1000", "65536")
    }
    assert {(cell.scope, cell.lanes, cell.proxy_threads, cell.cache_threads) for cell in made.cells} == {
        ("lane", 3, 3, 3)
    }
    assert {cell.data for cell in made.cells if cell.control} == {"unix"}
    assert {cell.placement for cell in made.cells} == {"same-core"}
    both = plan(*given[:-1], "both", capsys=capsys)
    assert {cell.placement for cell in both.cells} == {"same-core", "spread"}
    assert len(both.cells) == 2 * len(made.cells)


def test_the_more_time_the_more_sizes(capsys):
    counts = [
        len({cell.files for cell in plan("--placement", "both", "--budget", time, capsys=capsys).cells})
        for time in ("30s", "90s", "10min")
    ]
    assert counts == [3, 5, 9]


def test_several_numbers_of_messages_in_flight_move_lanes_and_threads_together(capsys):
    given = "--only unix,fifo --sizes 64 --in-flight 8,1 --placement one-core".split()
    made = plan(*given, capsys=capsys)
    assert {(cell.lanes, cell.proxy_threads, cell.cache_threads) for cell in made.cells} == {(1, 1, 1), (8, 8, 8)}
    assert len(made.cells) == 6, "two mechanisms, and the baseline again, at each depth"


def test_batches_have_a_lane_for_each_command_and_leave_out_what_cannot_have_them(capsys):
    made = plan("--sizes", "64", "--in-flight", "2", "--batch", "1,4", "--placement", "one-core", capsys=capsys)
    shapes = {(cell.lanes, cell.batch, cell.proxy_threads, cell.cache_threads) for cell in made.cells}
    assert shapes == {(2, 1, 2, 2), (8, 4, 2, 2)}
    made = plan("--sizes", "64", "--batch", "32", "--placement", "one-core", capsys=capsys)
    assert {(cell.lanes, cell.batch, cell.proxy_threads, cell.cache_threads) for cell in made.cells} == {
        (32, 32, 1, 24)
    }
    assert "handoff" not in {cell.data for cell in made.cells} > {"unix", "sendfile"}


def test_a_mechanism_may_have_several_options(capsys):
    made = plan("--only", "posix_shm:depth=2,wait=spin,unix,fifo", "--placement", "one-core", capsys=capsys)
    assert {cell.data for cell in made.cells} == {"posix_shm:depth=2,wait=spin", "unix", "fifo"}
    made = plan("--only", "null, fifo, posix_shm", capsys=capsys)
    assert made.baseline == {"data": "fifo"}, "a floor is compared with nothing"


def test_a_wrong_option_is_one_line_that_says_what_there_is(capfd):
    assert "unixx: no such data transport; did you mean unix?" in refused("--only", "unixx", capfd=capfd)
    assert "fifoo: no such command transport; did you mean fifo?" in refused("--command", "fifoo", capfd=capfd)
    assert "'64K': not a size; did you mean 64KiB?" in refused("--sizes", "64,64K", capfd=capfd)
    assert "--baseline fifo: no such mechanism; there is unix" in refused(
        "--only", "unix", "--baseline", "fifo", capfd=capfd
    )
    assert "--only ',': name mechanisms" in refused("--only", ",", capfd=capfd)
    assert "handoff gives its client away for one request at a time" in refused(
        "--only", "unix,handoff", "--batch", "4", capfd=capfd
    )
    few = "5000 is not a whole number from 1 to 1,000"
    assert f"--in-flight 500 --batch 10: {few}" in refused("--in-flight", "500", "--batch", "10", capfd=capfd)


SIZES = tuple(64 << (2 * step) for step in range(9))  # 64 B to 4 MiB


def ladder(seed, micros, blocks=10, noise=0.03):
    """A study of mechanisms over SIZES. micros: mechanism -> function of a size -> microseconds that it takes."""
    random = np.random.default_rng(seed)
    cells = [({"data": name, "files": str(size)}, 1e6 / take(size)) for name, take in micros.items() for size in SIZES]
    rows = studies.trials(cells, blocks, seed)
    for row in rows:
        row.requests_per_s *= math.exp(random.normal(0, noise))
    return study.analyse(rows, {"baseline": {"data": next(iter(micros))}})


# Equal at 35,000 bytes.
COPIES = {"shared": lambda size: 20 + size / 2000, "zero-copy": lambda size: 34 + size / 10_000}


def test_the_size_where_a_mechanism_gives_way_is_found_within_its_interval():
    found = []
    for seed in range(40):
        (crossing,) = ladder(seed, COPIES).crossings
        assert (crossing.below, crossing.above) == ("shared", "zero-copy")
        found.append(crossing)
    assert sum(one.low < 35_000 < one.high for one in found) >= 38
    middle = sorted(one.size for one in found)[20]
    assert 31_000 < middle < 39_000
    assert all(one.high < 6 * one.low for one in found)


def test_the_interval_holds_also_where_the_two_are_chosen_among_many_that_are_nearly_equal():
    """The winners are then the luckiest of their kind; any two of the two kinds are equal at 35,000 bytes."""
    many = {f"{name}{number}": COPIES[name] for number in range(4) for name in COPIES}
    found = [one for seed in range(30) for one in ladder(seed, many, noise=0.06).crossings]
    assert len(found) >= 25
    inside = [(one.low or 0) < 35_000 < (one.high or math.inf) for one in found]
    assert sum(inside) >= 0.95 * len(found)


def test_noise_makes_the_interval_of_a_crossing_wider_and_then_open():
    (fine,) = ladder(1, COPIES, noise=0.01).crossings
    (coarse,) = ladder(1, COPIES, noise=0.1).crossings
    assert coarse.low < fine.low < fine.high < coarse.high
    flat = {"a": lambda size: 20 - (size < 1000) * 1.5, "b": lambda size: 20 - (size >= 1000) * 1.5}
    assert ladder(1, flat, noise=0.5).crossings == []  # none is unbeaten alone


def points(*of):
    return [crossings._Point(*one) for one in of]


def test_a_crossing_whose_ends_no_size_shows_has_none():
    unsure = points((100, -2, -1, 1), (300, -1, 1, 2))
    assert crossings._between(unsure, (100, 300)) == (200, None, None)
    line = crossings.Crossing({}, "", "a", "b", 200, None, None).line
    assert line == "a gives way to b at about 200 B"
    line = crossings.Crossing({}, "", "a", "b", 200, None, 300).line
    assert line == "a gives way to b at about 200 B: worse from 300 B on"


def test_two_that_change_places_more_than_once_have_no_crossing():
    back_and_forth = points((1, 1, 2, 3), (100, -3, -2, -1), (300, 1, 2, 3))
    assert crossings._between(back_and_forth, (100, 300)) is None


def test_a_size_at_which_two_are_equal_hides_no_crossing():
    tied = {"a": lambda size: 20 + 3 * (size > 4096), "b": lambda size: 20 + 3 * (size < 4096)}
    (crossing,) = ladder(1, tied, noise=0.02).crossings
    assert (crossing.below, crossing.above) == ("a", "b")
    assert 1024 <= crossing.low < crossing.size < crossing.high <= 16384


def test_a_mechanism_that_leads_everywhere_is_overtaken_nowhere():
    assert ladder(1, {"a": lambda size: 20 + size / 2000, "b": lambda size: 30 + size / 1000}).crossings == []


def test_a_crossing_is_said_in_a_sentence_and_is_in_the_json():
    from harness.analysis import for_programs

    found = ladder(3, COPIES)
    (crossing,) = found.crossings
    said = r"shared gives way to zero-copy at about \d+ KiB: better up to \d+ KiB, worse from \d+ KiB on\."
    assert re.fullmatch(said, crossing.sentence)
    (given,) = json.loads(for_programs.text(for_programs.of_study(found)))["crossings"]
    assert set(given) == {"levels", "below", "above", "bytes"}  # as docs/statistics.md has them
    assert given["bytes"] == {"value": crossing.size, "low": crossing.low, "high": crossing.high}
    assert (given["levels"], given["below"], given["above"]) == ({}, "shared", "zero-copy")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (64.4, "64 B"),
        (1019, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (31_700, "31 KiB"),
        (3 << 20, "3.0 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_about_sizes_have_two_digits(count, text):
    assert units.about_size(count) == text


def test_the_answer_comes_first_and_fits_into_80_columns(capsys):
    messages.render(ladder(1, COPIES | {"slow": lambda size: 90 + size / 500}), ["what was measured"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == [
        "message",
        "best",
        "mean",
        "us",
        "no",
        "difference",
        "found",
        "next,",
        "us",
        "more",
    ]
    assert lines[3].split()[:3] == ["64", "B", "shared"]
    assert lines[11].split()[:3] == ["4", "MiB", "zero-copy"]
    assert lines[12].startswith("shared gives way to zero-copy at about ")
    assert "what was measured" in lines


def test_markdown_has_whole_tables(capsys):
    messages.render(ladder(1, COPIES), [], markdown=True)
    lines = capsys.readouterr().out.splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert len([line for line in tables if set(line) <= set("|-: ")]) == 4  # one table each, however many sizes


def test_too_little_time_is_said(capsys):
    messages.render(ladder(1, COPIES, blocks=2), [])
    assert "an interval needs 3, so give it more time with --budget" in " ".join(capsys.readouterr().out.split())


def test_figures_that_are_not_there_are_no_zeros_and_disturbed_trials_are_said(capsys):
    rows = studies.trials([({"data": data, "files": size}, 1000) for data in "ab" for size in ("64", "4096")], 4)
    rows = [row for row in rows if (row.data, row.files) != ("a", "64")]  # the baseline, at one size
    rows[0].disturbed = "others 9 %"
    messages.render(study.analyse(rows, {"baseline": {"data": "a"}}), [])
    output = capsys.readouterr().out
    table = output.partition("more than over a\n")[2].splitlines()
    assert table[1].split()[:2] == ["a", "-"]
    assert table[2].split()[:2] == ["b", "-"]
    assert "1 of 12 trials were disturbed" in output


def measured(directory, options):
    process = start("ipc", "--quiet", "0", "--placement", "one-core", *options.split(), cwd=directory)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


@pytest.mark.processes
def test_it_measures_answers_and_keeps_a_study(base, tmp_path):
    output = measured(tmp_path, "--only unix,posix_shm,sendfile --sizes 64,256KiB --budget 3s")
    (directory,) = (tmp_path / "results").iterdir()
    assert re.fullmatch(r"ipc-\d{8}T\d{6}Z", directory.name)
    assert {"trials.csv", "slices.csv", "experiment.yaml", "report.html"} <= {one.name for one in directory.iterdir()}
    assert output.startswith("BOTH PROCESSES ON ONE CORE\n")
    assert "Marked with a plus, what ends in a socket" in output
    for name in ("posix_shm", r"sendfile \+", "unix"):
        assert re.search(rf"^{name} +[~\d.]+ / ", output, re.MULTILINE)


@pytest.mark.processes
def test_its_json_is_that_of_every_study(base, tmp_path):
    output = measured(tmp_path, "--only unix,fifo --sizes 64 --budget 2s --json -o out")
    (context,) = json.loads(output)["contexts"]
    assert context["levels"] == {"files": "64"}
    assert {cell["label"] for cell in context["cells"]} == {"unix", "fifo"}
