"""The units in which people write sizes, times, rates and shares: pure functions, each the only parser of its unit.

They take text or, where YAML has read one already, a number. Each raises ValueError with one line that quotes the value
and shows how to write it.
"""

import re
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

_SIZE = re.compile(r"(\d+) *(KiB|MiB|GiB|)", re.ASCII)
_LIKE_SIZE = re.compile(r"(\d+) *([KMG])(i?B)?", re.ASCII | re.IGNORECASE)
_UNITS = (("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
_BYTES = {"": 1, **dict(_UNITS)}
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(us|ms|s|min|h)", re.ASCII)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_LONGEST = 1e6  # seconds, over 11 days: anything longer is a slip of the pen
_RATE = re.compile(r"(\d+(?:\.\d+)?)/s", re.ASCII)
_FASTEST = 1e9  # a second: times are whole nanoseconds
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE]-?\d+)?", re.ASCII)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%", re.ASCII)


def size(text: object) -> int:
    """`4096`, `64KiB`, `1MiB` or `2GiB` as a number of bytes. Raises ValueError."""
    written = str(text).strip()
    if match := _SIZE.fullmatch(written):
        return int(match[1]) * _BYTES[match[2]]
    like = _LIKE_SIZE.fullmatch(written)
    hint = f"did you mean {like[1]}{like[2].upper()}iB?" if like else "such as 4096 or 64KiB"
    raise ValueError(f"{str(text)!r}: not a size; {hint}")


def show_size(count: int) -> str:
    """A number of bytes for people: `1536 B`, `64 KiB`, `3 MiB`."""
    for unit, factor in _UNITS:
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} B"


def about_size(count: float) -> str:
    """A number of bytes, roughly: `780 B`, `31 KiB`, `1.4 MiB`."""
    for unit, factor in _UNITS:
        if count >= factor * 0.995:
            scaled = count / factor
            return f"{scaled:.0f} {unit}" if scaled >= 9.95 else f"{scaled:.1f} {unit}"
    return f"{count:.0f} B"


def seconds(value: object) -> float:
    """`5s`, `500ms`, `2min`, `1h`, or a number of seconds. Raises ValueError unless it is over 0 and under 1e6 s."""
    if match := _TIME.fullmatch(str(value)):
        # Nine digits, as files of results have them: 9 ms is 0.009, and not 0.009000000000000001.
        number: float | None = float(f"{float(match[1]) * _SECONDS[match[2]]:.9g}")
    else:
        number = _number(value)
    if number is None:
        raise ValueError(f"{value!r} is not a time, such as 5s or 500ms")
    if not 0 < number < _LONGEST:
        raise ValueError(f"{value!r} is not over 0 and under {_LONGEST:.0f} seconds")
    return number


def rate(value: object) -> float:
    """`500/s`, or a number of requests a second. Raises ValueError unless it is over 0 and under 1e9."""
    match = _RATE.fullmatch(str(value))
    number = float(match[1]) if match else _number(value)
    if number is None or not 0 < number < _FASTEST:
        raise ValueError(f"{value!r} is not a rate, such as 500/s")
    return number


def saturated(asked: float, measured: float, median: float) -> bool:
    """Whether an open loop has not kept up, so that its queue grew. All are seconds.

    asked: for how long requests were due. measured: until the last one ended. median: of their latencies. A load that
    keeps up ends about a latency after its last request was due. One that does not ends later and later the longer it
    is, by about twice the median, for the latencies grow from nothing to that.
    """
    late = measured - asked
    return 0 < 1.3 * median < late and late > 0.1 * asked


def bandwidth(value: object) -> int:
    """`10MiB/s`, `10MiB`, or a number of bytes a second. Raises ValueError."""
    try:
        return size(str(value).removesuffix("/s"))
    except ValueError:
        raise ValueError(f"{value!r} is not a bandwidth, such as 10MiB/s") from None


def percent(text: object) -> float:
    """`5%` as 0.05. Raises ValueError unless it is over 0 % and under 100 %."""
    match = _PERCENT.fullmatch(str(text))
    if not match or not 0 < float(match[1]) < 100:
        raise ValueError(f"{text!r} is not a percentage, such as 5%")
    return float(match[1]) / 100


def _number(value: object) -> float | None:
    """The number that `value` is or spells; None where it is no number. A truth value is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None
