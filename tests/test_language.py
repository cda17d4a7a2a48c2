"""The language of experiment files: every kind of mistake has its place and says what to write instead."""

import dataclasses
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.experiment import language, plan, planner
from harness.factors import Spec

CLAIM = "  - {text: t, test: {data: fifo}, baseline: {data: unix}, expect: higher}\n"
TWO = "factors: {data: [fifo, unix]}\n"


def load(tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return planner.load_plan(str(file))


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "write `factors:`"),
        ("- a list\n", "1:1", "write `factors:`"),
        ("factors: {data: fifo\n", "2:1", "not YAML"),
        ("factors:\n\tdata: fifo\n", "2:1", "not YAML: a tab; indent with spaces"),
        ("factors:\n  data: fifo\n   files: 1\n", "3:9", "a `:` too many"),
        ("factors:\n  data: fifo\n files: 1\n", "3:2", "this line is indented otherwise"),
        ("factors: {data: [fifo unix}\n", "1:27", "a `,` or a closing bracket is missing"),
        ("factors:\n  data fifo\n  files: 1\n", "3:8", "not YAML"),
        ("[\n" * 5000, "1:1", "nested too deep"),
        (r'factors: {data: "\ud83d\ude00"}', "1:11", "half of a character; write it as it is"),
        (r'factors: {"\udc00": 1}', "1:11", "half of a character"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
            "1:1",
            "over 100,000 values that aliases repeat",
        ),
        ("factors:\n  data: fifo\n  data: fifo\n", "3:3", "not YAML: found duplicate key"),
        (b"question: caf\xe9\n", "1:1", "not UTF-8"),
        ("facters:\n  data: fifo\n", "1:1", "facters: no such key; did you mean factors?"),
        ("factors: fifo\n", "1:1", "factors: write `name: value` lines"),
        ("factors:\n  dta: fifo\n", "2:3", "factors.dta: dta: no such factor; did you mean data?"),
        ("settings:\n  cleints: 2\n", "2:3", "no such setting; did you mean clients?"),
        ("factors:\n  data: [fifo, posix_smh]\n", "2:16", "did you mean posix_shm?"),
        ("factors:\n  data:\n    - posix_shm:dept=2\n", "3:7", "did you mean depth?"),
        ("factors:\n  data:\n    - {posix_shm: {depth: many}}\n", "3:7", "depth=many: not a whole number"),
        ("factors:\n  data:\n    - {posix_shm: 3}\n", "3:7", "{name: {option: value}}"),
        ("factors:\n  data: []\n", "2:3", "at least one"),
        (
            "factors: {data: [fifo, unix]}\nsettings:\n  scope: lane\n  clients: 1\n",
            "4:3",
            "settings.clients: means nothing without `scope: pipeline`; leave it out, and say how many requests",
        ),
        ("factors:\n  data: [fifo, unix]\n  reuse: [true, false]\n", "3:3", "means nothing without `source: curl`"),
        ("settings:\n  arrivals: fixed\nfactors: {data: fifo}\n", "2:3", "means nothing without `rate`; leave it out"),
        (
            "factors: {data: fifo}\ninclude:\n  - source: direct\n    lanes: [1, 2]\n",
            "4:5",
            "include[0].lanes: means nothing without `source: cache`",
        ),
        ("factors:\n  data: [fifo, fifo]\n", "2:3", "each level once"),
        ("factors:\n  files: [1KB]\n", "2:11", "'1KB': not a size; did you mean 1KiB?"),
        ("factors:\n  files: -1\n", "2:3", "is not a file set"),
        ("factors:\n  files: [[]]\n", "2:11", "an empty set"),
        ("factors:\n  files: [[1KiB, x]]\n", "2:11", "'x': not a size"),
        ("factors:\n  files: directory:/no/such\n", "2:3", "/no/such: no such directory"),
        ("settings:\n  chunk: 64\n", "2:3", "chunk: must be over 64 bytes"),
        ("settings:\n  clients: 0\n", "2:3", "clients: 0 is not a whole number from 1 to 100,000"),
        ("settings: {lanes: 10000000}\n", "1:12", "lanes: 10000000 is not a whole number from 1 to 1,000"),
        ("settings: {files: 99999999999GiB}\n", "1:12", "has at most 1024 GiB"),
        ("settings: {chunk: 2GiB}\n", "1:12", "at most 1 GiB"),
        ("settings: {data: [fifo, unix]}\n", "1:12", "several levels are written below `factors`"),
        (
            "factors: {clients: ["
            + ", ".join(map(str, range(1, 101)))
            + "], copies: ["
            + ", ".join(map(str, range(1, 101)))
            + "]}\n",
            "1:1",
            "10,000 cells; leave levels out, or write `most_cells: 10000`",
        ),
        ("settings:\n  clients: yes\n", "2:3", "clients: 'yes' is not a whole number"),
        ("settings:\n  clients: true\n", "2:3", "clients: True is not a whole number"),
        ("settings:\n  seconds: 5x\n", "2:3", "'5x' is not a time"),
        ("settings:\n  timeout: 0\n", "2:3", "not over 0"),
        ("settings:\n  rate: 500\n  arrivals: random\n", "3:3", "random: no such choice; there is poisson, fixed"),
        ("settings:\n  rate: fast\n", "2:3", "'fast' is not a rate, such as 500/s"),
        ("settings:\n  sink: drop\n", "2:3", "drop: no such choice; there is discard"),
        ("settings:\n  placement: {client: 0}\n", "2:3", "is not free, same-core, spread"),
        ("settings:\n  placement: {client: 0, proxy: x, cache: 1}\n", "2:3", "is not free, same-core, spread"),
        ("settings:\n  page_cache: hot\n", "2:3", "hot: no such choice"),
        ("settings:\n  control: true\n", "2:3", "control: no such setting"),
        ("factors:\n  clients: [1]\nsettings:\n  clients: 2\n", "4:3", "is a factor, too"),
        ("repeats: 0\n", "1:1", "repeats: 0: input should be greater than or equal to 1"),
        ("seed: x\n", "1:1", "seed: 'x': input should be a valid integer"),
        ("until: {within: 5, at_most: 9}\n", "1:9", "5 is not a percentage"),
        ("until: {at_most: 9}\n", "1:1", "until.within: is missing"),
        ("until: {within: 5%, at_least: 3}\n", "1:21", "until.at_least: 3: input should be greater than or equal to 8"),
        ("until: {within: 5%, at_least: 9, at_most: 8}\n", "1:34", "until.at_most: is under `at_least`"),
        ("repeats: 3\nuntil: {within: 5%}\n", "2:1", "`repeats` is there, too"),
        ("zip:\n  - {clients: [1, 2], lanes: [4]}\n", "2:5", "equally many levels"),
        ("factors: {lanes: [4, 8]}\nzip:\n  - {clients: [1, 2], lanes: [4, 8]}\n", "3:23", "is a factor, or in a"),
        ("zip: [{lanes: [4, 8]}, {lanes: [4, 8]}]\n", "1:25", "in a group, already"),
        (TWO + "exclude: [{data: mmap}]\n", "2:11", "exclude[0]: no cell has data mmap, only fifo, unix"),
        (TWO + "exclude: [{data: [fifo, unix]}]\n", "2:1", "nothing is left to run"),
        ("zip: [{clients: [1, 2], lanes: [4, 8]}]\ninclude: [{lanes: 4}]\n", "2:11", "give all of clients, lanes"),
        (TWO + "cells: [{data: fifo}]\n", "1:1", "`cells` has all values already"),
        (TWO + "baseline: {data: mmap}\n", "2:1", "baseline: no cell has data mmap, only fifo, unix"),
        (TWO + "probes: [cpus]\n", "2:10", "cpus: no such probe"),
        (TWO + "claims:\n" + CLAIM.replace("expect: higher", ""), "3:5", "claims[0].expect: is missing"),
        (TWO + "claims:\n" + CLAIM.replace("unix", "mmap"), "3:35", "no cell has data mmap, only fifo, unix"),
        (TWO + "claims:\n" + CLAIM.replace("{data: fifo}", "{}"), "3:15", "name the factors"),
        (TWO + "claims:\n" + CLAIM.replace("higher", "better"), "3:5", "better"),
        (TWO + "claims:\n" + CLAIM.replace("text: t", "text: t, metric: speed"), "3:5", "speed"),
        (TWO + "claims:\n" + CLAIM.replace("text", "txt"), "3:6", "txt: no such key; did you mean text?"),
        ("settings: {lanes: 1, proxy_processes: 2}\n", "1:12", "1 lanes for 2 proxy processes"),
        ("settings:\n  data: fifo\n  proxy_processes: 5\n", "3:3", "4 lanes for 5 proxy processes"),
        ("factors:\n  data: [fifo, posix_shm]\n  wait: [block, spni]\n", "3:17", "posix_shm: wait=spni: must be block"),
        ("zip: [{data: [fifo, posix_shm], wait: [x, y]}]\n", "1:43", "posix_shm: wait=y: must be block"),
        ("include: [{data: posix_shm, wait: x}]\n", "1:29", "posix_shm: wait=x: must be block"),
        ("cells: [{data: posix_shm, wait: x}]\n", "1:27", "posix_shm: wait=x: must be block"),
        ("settings: {scope: lane, source: direct}\n", "1:25", "a lane leads to a cache"),
        ("settings: {source: curl, strategy: get}\n", "1:26", "get: no such choice"),
        ("settings: {origin_bandwidth: 10MB}\n", "1:12", "'10MB' is not a bandwidth"),
        ("settings: {rate: [500]}\n", "1:12", "settings.rate: [500] is a list: several levels"),
        ("settings: {origin_latency: [none]}\n", "1:12", "['none'] is a list: several levels"),
        ("settings: {origin_bandwidth: {a: 1}}\n", "1:12", "{'a': 1} is not a bandwidth"),
        ("settings: {placement: [[1, 2]]}\n", "1:12", "is a list: several levels"),
        ("settings: {timeout: '1_0'}\n", "1:12", "'1_0' is not a time"),
        ("settings: {scope: lane, rate: 100}\n", "1:25", "in a lane each request waits for its reply"),
        ("settings: {scope: lane, proxy_threads: 2}\n", "1:25", "4 lanes for 8 workers: each needs one of its own"),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_column_and_what_to_write_instead(tmp_path, text, place, message):
    with pytest.raises(language.Mistakes) as found:
        load(tmp_path, text)
    start = f"{tmp_path}/study.yaml:{place}: "
    assert any(line.startswith(start) and message in line for line in str(found.value).splitlines()), found.value


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path):
    with pytest.raises(language.Mistakes) as found:
        load(tmp_path, "repeats: z\nfactors:\n  files: y\n  data: [x, fifo, v]\nclaims: [{text: 3}]\n")
    lines = str(found.value).splitlines()
    assert len(lines) == 8
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)


def test_yaml_1_2_leaves_words_and_numbers_alone(tmp_path):
    study = load(tmp_path, "question: no\nfactors: {clients: [010], data: [null]}\nsettings: {congestion: off}\n")
    assert study.question == "no"
    assert (study.cells[0].clients, study.cells[0].data, study.cells[0].congestion) == (10, "null", "off")


def test_values_have_units_and_one_spelling(tmp_path):
    (tmp_path / "site").mkdir()
    study = load(
        tmp_path,
        "factors:\n  files: [64KiB, [1KiB, 3MiB], '1KiB, 3', classic, directory:site]\n"
        "settings:\n  {seconds: 500ms, timeout: 2min, rate: 500/s, chunk: 1MiB, lanes: 4,\n"
        "   data: {posix_shm: {depth: 2, wait: spin}}, placement: {cache: 0-1, client: 0, proxy: 1}}\n",
    )
    assert [cell.files for cell in study.cells] == [
        "65536",
        "1024 3145728",
        "1024 3",
        "classic",
        f"directory:{os.path.realpath(tmp_path)}/site",
    ]
    cell = study.cells[0]
    assert (cell.seconds, cell.timeout, cell.rate, cell.chunk) == (0.5, 120, 500, 1 << 20)
    assert cell.data == "posix_shm:depth=2,wait=spin"
    assert cell.placement == "client=0 proxy=1 cache=0-1"


def test_factors_are_crossed_zipped_excluded_and_included(tmp_path):
    study = load(
        tmp_path,
        "factors: {data: [fifo, unix, mmap], files: [1, 2]}\n"
        "zip: [{proxy_threads: [1, 2], cache_threads: [3, 4]}]\n"
        "exclude: [{data: mmap, files: 2}, {data: [fifo, unix], proxy_threads: 2}]\n"
        "include: [{command: [fifo, unix], data: fifo, files: 1}]\n",
    )
    cells = {(cell.command, cell.data, cell.files, cell.proxy_threads, cell.cache_threads) for cell in study.cells}
    assert len(cells) == len(study.cells)
    assert cells == {
        *{("posix_mq", data, files, 1, 3) for data in ("fifo", "unix") for files in "12"},
        ("posix_mq", "mmap", "1", 1, 3),
        ("posix_mq", "mmap", "1", 2, 4),
        *{(command, "fifo", "1", threads, threads + 2) for command in ("fifo", "unix") for threads in (1, 2)},
    }


def test_the_control_is_a_second_copy_of_each_baseline_cell(tmp_path):
    study = load(tmp_path, "factors: {data: ['null', fifo, unix], files: [1, 2]}\ncontrol: true\n")
    assert study.baseline == {"data": "fifo"}
    assert [(cell.data, cell.files) for cell in study.cells if cell.control] == [("fifo", "1"), ("fifo", "2")]
    assert len(study.cells) == 8


def test_each_block_runs_every_cell_once_in_an_order_of_the_seed(tmp_path):
    text = "factors: {data: [fifo, unix, mmap], files: [1, 2, 3]}\nrepeats: 3\nseed: 7\n"
    blocks = list(load(tmp_path, text).blocks())
    assert [slot.number for block in blocks for slot in block] == list(range(1, 28))
    assert all(sorted(slot.cell for slot in block) == list(range(1, 10)) for block in blocks)
    assert len({tuple(slot.cell for slot in block) for block in blocks}) == 3
    assert blocks == list(load(tmp_path, text).blocks())
    assert blocks != list(load(tmp_path, text.replace("7", "8")).blocks())


def test_a_plan_that_is_written_and_read_again_is_the_same(tmp_path):
    study = load(
        tmp_path,
        "question: 'Which: one?'\n" + TWO + "zip: [{lanes: [4, 8], clients: [3, 5]}]\n"
        "settings: {rate: 12.5/s, files: [1KiB, 2KiB], warmup: 70ms, placement: {client: 0, proxy: 1, cache: 0-1}}\n"
        "until: {within: 2.5%, at_least: 8, at_most: 9}\ncontrol: true\nseed: 5\nlive: true\nclaims:\n" + CLAIM,
    )
    (tmp_path / "again.yaml").write_text(study.text())
    assert planner.load_plan(str(tmp_path / "again.yaml"), "study") == study


def test_one_cell_is_found_by_its_number_or_by_the_factors_that_tell_it_apart(tmp_path):
    study = load(tmp_path, "factors: {data: [fifo, unix], files: [1KiB, 3MiB]}\n")
    assert plan.find_cell(study, "3") == 3
    assert study.cells[plan.find_cell(study, "data=unix files=3MiB") - 1] == Spec(data="unix", files="3145728")
    for text, message in (
        ("9", "from 1 to 4"),
        ("data=unix", "2 cells are like that"),
        ("data=mmap files=1KiB", "no cell has data mmap, only fifo, unix"),
        ("dta=unix", "did you mean data?"),
        ("data", "write factor=value"),
        ("clients=x", "'x' is not a whole number"),
    ):
        with pytest.raises(ValueError, match=message.replace("?", r"\?")):
            plan.find_cell(study, text)


def test_a_scaled_plan_has_less_load_in_the_same_trials(tmp_path):
    study = load(tmp_path, "factors: {requests: [0, 1000]}\nsettings: {seconds: 2}\n").scaled(0.1)
    assert [(cell.seconds, cell.requests) for cell in study.cells] == [(0.2, 0), (2.0, 100)]


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 99) | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["factors", "data", "files", "zip", "claims", "test", "until", "cells", "x"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_any_file_makes_a_plan_or_has_its_mistakes_reported(tmp_path_factory, document):
    import json

    file = tmp_path_factory.mktemp("any") / "study.yaml"
    file.write_text(json.dumps(document))
    found = ""
    try:
        assert planner.load_plan(str(file)).cells
    except language.Mistakes as mistakes:
        found = str(mistakes)
    assert all(line.startswith(f"{file}:") for line in found.splitlines())


def test_every_field_of_a_cell_can_be_written():
    assert {field.name for field in dataclasses.fields(Spec)} == {*language.CellForm.model_fields}


def test_what_is_included_counts_with_all_that_it_is_crossed_with(tmp_path):
    levels = ", ".join(f"{number}s" for number in range(101, 191))
    text = f"factors: {{clients: [{', '.join(map(str, range(1, 31)))}]}}\ninclude: [{{timeout: [{levels}]}}]\n"
    with pytest.raises(language.Mistakes, match=r"2,730 cells; leave levels out"):
        load(tmp_path, text)
    assert len(load(tmp_path, f"{text}most_cells: 3000\n").cells) == 2730


def test_a_plan_of_more_values_than_aliases_may_repeat_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(language, "_MOST_REPEATED", 50)
    study = load(tmp_path, "factors: {clients: [1, 2, 3], copies: [1, 2, 3]}\n")
    (tmp_path / "again.yaml").write_text(study.text())
    assert planner.load_plan(str(tmp_path / "again.yaml"), "study") == study


def test_a_transport_that_need_not_be_installed_takes_its_levels_and_claims_with_it(tmp_path):
    about_mine = CLAIM.replace("unix", "mine").replace("fifo", "unix")
    text = (
        "factors: {data: [fifo, unix, 'mine:chunk=9']}\n"
        "include: [{data: mine, files: 2KiB}, {data: fifo, files: 3KiB}]\n"
        "if_installed: [mine, unix]\nclaims:\n" + about_mine + CLAIM
    )
    study = load(tmp_path, text)
    assert [(cell.data, cell.files) for cell in study.cells] == [("fifo", "1024"), ("unix", "1024"), ("fifo", "3072")]
    assert [claim.test for claim in study.claims] == [{"data": "fifo"}]
    assert study.left_out == ("mine",)
    (tmp_path / "again.yaml").write_text(study.text())
    assert planner.load_plan(str(tmp_path / "again.yaml"), "study") == study
    with pytest.raises(language.Mistakes, match=r"1:30: factors.data\[2\]: .*mine"):
        load(tmp_path, text.replace("[mine, unix]", "[unix]"))


def test_an_option_of_an_installed_transport_must_be_right_also_where_it_need_not_be_installed(tmp_path):
    with pytest.raises(language.Mistakes, match="depht"):
        load(tmp_path, "factors: {data: [unix, 'posix_shm:depht=2']}\nif_installed: [posix_shm]\n")
