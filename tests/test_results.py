"""The tables of results: each version of their columns is read for good."""

import csv
import dataclasses
from pathlib import Path

import pytest

from harness import factors, results
from harness.factors import FACTORS, Spec

ROOT = Path(__file__).parent.parent
SCHEMA_2, SCHEMA_3 = (
    (Path(__file__).parent / f"data/columns-of-schema-{number}.csv").read_text().strip().split(",") for number in (2, 3)
)


def test_the_columns_of_schema_3_stay_as_they_are():
    """A column that is added comes last of its part. Another change to this list is another schema."""
    assert results.SCHEMA == 3
    assert [name for name in results.COLUMNS if name in SCHEMA_3] == SCHEMA_3
    assert set(results.COLUMNS) - {*SCHEMA_3} <= {*FACTORS}, (
        "a new factor needs no new schema; other columns are added here"
    )


def test_rows_of_schema_2_are_read_with_the_names_of_today(tmp_path):
    wanted = {
        "schema": "2",
        "experiment": "old",
        "trial": "7",
        "source": "cache",
        "command": "null",
        "data": "null:a=1",
        "rate_per_s": "300",
        "chunk_bytes": "4096",
        "reuse": "1",
        "origin_latency_s": "0.5",
        "origin_bandwidth_bytes_per_s": "9",
        "timeout_s": "5",
        "warmup_s": "0.1",
        "load_s": "0.2",
        "requests_asked": "77",
        "control": "1",
        "requests": "76",
        "requests_per_s": "380.5",
    }
    kinds = {int: "0", float: "0", str: ""}
    old = [wanted.get(name, kinds.get(type(getattr(results.Trial(), name, "")), "0")) for name in SCHEMA_2]
    (tmp_path / "trials.csv").write_text(",".join(SCHEMA_2) + "\n" + ",".join(old) + "\n")
    (row,) = results.read(str(tmp_path / "trials.csv"))
    assert (row.schema, row.experiment, row.trial, row.floor) == (2, "old", 7, "command data")
    assert (row.rate, row.chunk, row.reuse, row.control) == (300.0, 4096, True, True)
    assert (row.origin_latency, row.origin_bandwidth, row.timeout, row.warmup, row.seconds) == (0.5, 9, 5.0, 0.1, 0.2)
    assert (row.requests, row.requests_ended, row.requests_per_s) == (77, 76, 380.5)


def test_a_file_of_schema_2_is_known_by_its_rows_and_lacks_what_means_nothing(tmp_path):
    """An early file: neither `load_s` nor the factors of an HTTP origin."""
    (tmp_path / "trials.csv").write_text("schema,experiment,trial,source,requests\n2,old,7,cache,500\n")
    (row,) = results.read(str(tmp_path / "trials.csv"))
    assert (row.requests, row.requests_ended, row.clients, row.strategy, row.reuse) == (0, 500, 8, "", False)


def test_every_kept_result_of_schema_2_is_read_to_the_last_digit():
    for path in sorted((ROOT / "results").glob("*/trials.csv")):
        with open(path, newline="") as file:
            old = list(csv.DictReader(file))
        for was, row in zip(old, results.read(str(path)), strict=True):
            for name, text in was.items():
                now = getattr(row, results.RENAMED_SINCE_2.get(name, name) if was["schema"] == "2" else name)
                assert (float(text) == now) if isinstance(now, float | int) else (text == now), (path, name)


def test_a_row_comes_back_as_it_was_written(tmp_path):
    path = str(tmp_path / "trials.csv")
    row = results.Trial(
        trial=3, data="fifo:fifos=4", rate=0.125, reuse=False, control=True, reason='a, "b"\nc', floor="data"
    )
    results.append(path, row)
    assert list(results.read(path)) == [row]
    with open(path) as file:
        assert next(file).rstrip().split(",") == results.COLUMNS


def test_rows_are_not_added_to_a_file_of_other_columns(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text(",".join(SCHEMA_2) + "\n")
    with pytest.raises(ValueError, match=r"trials\.csv: has other columns than this version writes"):
        results.append(str(path), results.Trial(trial=1))
    assert path.read_text() == ",".join(SCHEMA_2) + "\n"


# Factors


def test_a_factor_is_one_declaration_and_all_that_follows_has_it():
    from harness.experiment import language

    for name, factor in FACTORS.items():
        assert (name in language.CellForm.model_fields, name in results.COLUMNS) == (True, True)
        assert factor.kind.parse(factor.default, "/") == factor.default, name
        assert isinstance(factor.kind.show(factor.default), str)
        assert factor.only.keys() <= FACTORS.keys()
        if name != "control":
            assert f"| `{name}` |" in factors.table()


def test_equal_cells_are_equal_and_have_one_hash():
    assert {Spec(), Spec(), dataclasses.replace(Spec(), clients=8)} == {Spec()}
    assert len({Spec(), Spec(clients=9)}) == 2


def test_a_factor_applies_only_with_the_scope_and_source_that_it_needs():
    assert factors.applies("data", Spec())
    assert not factors.applies("data", Spec(source="direct"))
    assert not factors.applies("clients", Spec(scope="lane"))
    assert factors.applies("strategy", Spec(source="curl"))
    assert factors.applies("scheduling", Spec(source="direct", scope="pipeline"))


def test_a_count_that_is_no_whole_number_is_not_written(tmp_path):
    path = str(tmp_path / "trials.csv")
    results.append(path, results.Trial(content_bytes=3_000_000_000))
    with pytest.raises(TypeError, match=r"content_bytes is 3000000000\.0"):
        results.append(path, results.Trial(content_bytes=3e9))
    assert [row.content_bytes for row in results.read(path)] == [3_000_000_000]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"requests_per_s": "inf"}, ":2: inf is no finite number"),
        ({"latency_p50_us": "nan"}, ":2: nan is no finite number"),
        ({"requests_per_s": "0"}, ":2: requests_per_s of a trial with status ok is 0.0: it must be over 0"),
        ({"latency_p50_us": "-5"}, ":2: latency_p50_us is -5.0: it cannot be negative"),
        ({"experiment": "caf\udce9"}, ": not UTF-8"),
    ],
)
def test_a_figure_that_no_load_gives_is_refused_with_its_line(tmp_path, changed, message):
    row = {"schema": "3", "status": "ok", "requests_per_s": "100", "latency_p50_us": "5", "experiment": "e", **changed}
    text = f"schema,experiment,{','.join(list(row)[1:4])}\n3,{row['experiment']},{','.join(list(row.values())[1:4])}\n"
    (tmp_path / "trials.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match="trials") as refused:
        list(results.read(str(tmp_path / "trials.csv")))
    assert str(refused.value) == f"{tmp_path}/trials.csv{message}"


def test_a_torn_line_is_said_to_be_one(tmp_path):
    (tmp_path / "trials.csv").write_text("schema,experiment,trial\n3,e,1\n3,e")
    with pytest.raises(ValueError, match=r"trials.csv:3: 2 values for 3 columns: a torn line"):
        list(results.read(str(tmp_path / "trials.csv")))


# Read at once, and by hosts


@pytest.mark.parametrize("line", ["3,e,1,ok,5,0.5,x", "3,e,1,failed,0,-1,x", "3,e,1,ok,5,-1e-12,x"])
def test_a_table_that_is_read_at_once_gives_the_rows_that_it_gives_one_by_one(tmp_path, line):
    path = tmp_path / "trials.csv"
    path.write_text(
        f"schema,experiment,trial,status,requests_per_s,steal_s,host\n{line}\n{line.replace(',1,', ',2,')}\n"
    )
    with open(path) as file:
        columns = next(csv.reader(file))
    assert list(results.read(str(path))) == list(results._one_by_one(str(path), results.Trial, columns))


def test_the_rows_before_a_bad_one_are_given_before_it_is_refused(tmp_path):
    (tmp_path / "trials.csv").write_text("schema,experiment,trial\n3,e,1\n3,e,x\n")
    rows = results.read(str(tmp_path / "trials.csv"))
    assert next(rows).trial == 1
    with pytest.raises(ValueError, match=r"trials\.csv:3: "):
        next(rows)


def test_an_empty_line_is_no_row(tmp_path):
    (tmp_path / "trials.csv").write_text("schema,experiment,trial\n\n")
    with pytest.raises(ValueError, match=r"trials\.csv:2: 0 values for 3 columns"):
        list(results.read(str(tmp_path / "trials.csv")))


@pytest.mark.parametrize("host", ["", "ash"])
def test_rows_of_a_fleet_have_their_host_and_slices_are_read_without_it(tmp_path, host):
    path = str(tmp_path / "slices.csv")
    results.append(path, *(results.Slice(trial=1, round=number, host=host) for number in (1, 2)))
    columns, text = results.read_slices(path)
    assert columns == [field.name for field in dataclasses.fields(results.Slice)][:-1]
    assert text.startswith(b"1,1,0,0,")
    assert text.count(b"\n") == 2
    assert b"ash" not in text


def test_slices_of_two_hosts_in_one_file_are_refused(tmp_path):
    path = str(tmp_path / "slices.csv")
    results.append(path, results.Slice(trial=1, host="ash"), results.Slice(trial=2, host="birch"))
    with pytest.raises(ValueError, match=r"slices\.csv: its lines are not all of one host"):
        results.read_slices(path)


def test_tables_without_the_column_host_are_read_as_before(tmp_path):
    (tmp_path / "slices.csv").write_text("trial,round,seconds\n1,1,0.5\n")
    assert results.read_slices(str(tmp_path / "slices.csv")) == (["trial", "round", "seconds"], b"1,1,0.5\n")
    (tmp_path / "latency.csv").write_text("trial,latency_us,count\n1,2.5,3\n")
    assert list(results.read_latencies(str(tmp_path / "latency.csv"))) == [results.Bucket(1, 2.5, 3)]
