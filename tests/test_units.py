"""Units and names as people write them."""

import pytest

from harness import suggest, units


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        (4096, 4096),
        ("64KiB", 65_536),
        ("64 KiB", 65_536),
        ("1MiB", 1 << 20),
        ("2GiB", 1 << 31),
    ],
)
def test_a_size_is_read(text, count):
    assert units.size(text) == count


@pytest.mark.parametrize("text", ["", "KiB", "1.5KiB", "-1", "1 2", "1_000", "٣", True, None])
def test_what_is_no_size_is_refused_with_one(text):
    with pytest.raises(ValueError, match=f"'{text}': not a size; such as 4096 or 64KiB"):
        units.size(text)


@pytest.mark.parametrize(
    ("text", "meant"), [("1K", "1KiB"), ("1kb", "1KiB"), ("1 MB", "1MiB"), ("10MB", "10MiB"), ("2g", "2GiB")]
)
def test_a_size_in_another_spelling_is_refused_with_ours(text, meant):
    with pytest.raises(ValueError, match=f"'{text}': not a size; did you mean {meant}?"):
        units.size(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1536 B"), (65_536, "64 KiB"), (3 << 20, "3 MiB")])
def test_a_size_is_shown_in_its_largest_whole_unit(count, text):
    assert units.show_size(count) == text
    assert units.size(text.removesuffix(" B")) == count


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(5, 5.0), (0.25, 0.25), ("5", 5.0), ("0.25", 0.25), ("5s", 5.0), ("500ms", 0.5), ("2 min", 120.0), ("1h", 3600.0)],
)
def test_a_time_is_read_in_seconds(value, seconds):
    assert units.seconds(value) == seconds
    assert units.seconds("500us") == pytest.approx(0.0005)


@pytest.mark.parametrize("value", ["5x", "soon", "", "inf", "nan", "1_0", True, None, [5]])
def test_what_is_no_time_is_refused_with_one(value):
    with pytest.raises(ValueError, match="is not a time, such as 5s or 500ms"):
        units.seconds(value)


@pytest.mark.parametrize("value", [0, -1, "0", "0s", "300h", 1e6, float("inf")])
def test_a_time_is_over_0_and_bounded(value):
    with pytest.raises(ValueError, match="is not over 0 and under 1000000 seconds"):
        units.seconds(value)


@pytest.mark.parametrize(("value", "rate"), [(500, 500.0), ("500", 500.0), ("500/s", 500.0), ("0.5/s", 0.5)])
def test_a_rate_is_read_in_requests_a_second(value, rate):
    assert units.rate(value) == rate


@pytest.mark.parametrize("value", ["fast", "500/min", 0, "0/s", "-1", "inf", "nan", True])
def test_what_is_no_rate_is_refused_with_one(value):
    with pytest.raises(ValueError, match=f"{value!r} is not a rate, such as 500/s"):
        units.rate(value)


@pytest.mark.parametrize(("value", "count"), [("10MiB/s", 10 << 20), ("10MiB", 10 << 20), (4096, 4096)])
def test_a_bandwidth_is_read_in_bytes_a_second(value, count):
    assert units.bandwidth(value) == count


def test_what_is_no_bandwidth_is_refused_with_one():
    with pytest.raises(ValueError, match="'10MB' is not a bandwidth, such as 10MiB/s"):
        units.bandwidth("10MB")


def test_a_percentage_is_read_as_a_share():
    assert units.percent("5%") == 0.05
    assert units.percent("2.5 %") == 0.025


@pytest.mark.parametrize("text", [5, "5", "0%", "100%", "-5%"])
def test_what_is_no_percentage_is_refused_with_one(text):
    with pytest.raises(ValueError, match=f"{text!r} is not a percentage, such as 5%"):
        units.percent(text)


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("fifa", ["fifo", "unix"], "fifa: no such thing; did you mean fifo?"),
        ("shm", ["fifo", "unix"], "shm: no such thing; there is fifo, unix"),
        (7, [], "7: no such thing; there is none"),
    ],
)
def test_a_name_that_is_not_known_gets_the_one_that_may_be_meant_or_all(name, known, text):
    assert suggest.unknown("thing", name, iter(known)) == text


@pytest.mark.parametrize(
    ("asked", "measured", "median", "saturated"),
    [
        (1.0, 1.001, 0.0003, False),
        (1.0, 1.2, 0.2, False),  # slow replies, no queue
        (1.0, 1.09, 0.0003, False),  # one late reply
        (1.0, 1.6, 0.3, True),
        (10.0, 30.0, 10.0, True),
        (1.0, 2.0, 0.0, False),  # nothing came back
    ],
)
def test_an_open_loop_is_saturated_where_it_ends_ever_later(asked, measured, median, saturated):
    assert units.saturated(asked, measured, median) is saturated
