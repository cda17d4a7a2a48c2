"""The result records: the one place for CSV columns, their units, and the schema version.

A file of trials has one row a trial, a table of observations one row for each thing that a probe saw there and that
has no column. Names of figures carry units: `_s` seconds, `_us` microseconds, `_bytes` bytes. A factor has its own
name, and its unit stands in the table of columns and in datapackage.json.
"""

import csv
import io
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, TypeVar, get_type_hints

from harness.factors import CHANNELS, FACTORS, Spec, applies

SCHEMA = 3
TRIALS = "trials.csv"
LATENCY = "latency.csv"
SLICES = "slices.csv"
STAGES = "stages.csv"
DATAPACKAGE = "datapackage.json"
LIVE, APART = "live", "apart"  # the designs of a trial


def _column(text: str, default: Any = "", unit: str = "") -> Any:
    return field(default=default, metadata={"text": text, "unit": unit})


@dataclass
class Identity:
    """The columns that say which trial it was, and whether it is good."""

    schema: int = _column("version of these columns", SCHEMA)
    experiment: str = _column("name of the experiment")
    trial: int = _column("number of the trial in the order of the run, from 1", 0)
    block: int = _column(
        "number of the block, from 1: each block runs every cell once, or those that fit; compare within blocks", 0
    )
    cell: int = _column("number of the cell, from 1, as `harness experiment check` lists them", 0)
    seed: int = _column("seed of the order of the cells", 0)
    attempt: int = _column("1, and more where earlier attempts failed: each has a row", 1)
    probe: str = _column("costly probe that this trial was run for: its figures are not to be compared; empty: timed")
    started_utc: str = _column("when the trial began, ISO 8601")
    status: str = _column(
        "`ok`; `failed`: `reason` says why, and no figure may be used; `refused`: machine or transport cannot do it"
    )
    reason: str = _column("why the trial failed or was refused; with `ok`: which probe did not work")
    disturbed: str = _column(
        "foreign load or steal that took over 5 % of the CPUs, how much; live: also programs of the block that used "
        "over 2 % of a CPU while they had nothing to do; empty: none, or a costly probe's trial"
    )


@dataclass
class Trial(Spec, Identity):
    """One row of trials.csv: its identity, the factors of its cell, and what was measured.

    A failed trial has its factors, a reason, and what was known until then. A factor that means nothing in the cell is
    empty or 0.
    """

    floor: str = _column(
        "which of `source`, `command` and `data` is a floor, there to show what the harness itself costs; empty: none"
    )
    command_effective: str = _column("command transport with all its options")
    data_effective: str = _column("data transport with all its options")
    cache_end: str = _column("shape of the cache's end of a lane: `copy` or `zero-copy`")
    proxy_end: str = _column("shape of the proxy's end of a lane: `copy`, `zero-copy` or `hand-off`")
    file_size_bytes: int = _column("mean size of the files", 0, "B")
    chunk_effective_bytes: int = _column("the chunk that was used; 0: the transport has none", 0, "B")
    depth_effective: int = _column("the depth that was used; 0: the transport has none", 0)
    wait_effective: str = _column("the strategy that was used; empty: the transport offers none and blocks")
    placement_effective: str = _column("the CPUs that each role had")
    origin: str = _column("`curl`: which server the origin was: `harness origin`, or nginx with its version")
    design: str = _column(
        "how it was measured: `live`, in slices, while all cells of the block were alive; `apart`, with programs and a "
        "time of its own; empty: a run from before there was a choice, all apart",
    )
    rounds: int = _column("live: slices that the figures are of, one a round; counts and times are their sums", 0)

    requests_ended: int = _column("requests that ended in the measured time, well or not", 0)
    ok: int = _column("replies `OK` with all their content", 0)
    file_not_found: int = _column("replies `FILE_NOT_FOUND`", 0)
    error: int = _column("replies `ERROR`", 0)
    invalid: int = _column("replies `INVALID`", 0)
    short: int = _column("replies `OK` whose content ended early", 0)
    wrong: int = _column("other content than announced, or no GETFILE reply", 0)
    failed: int = _column("connection refused, reset or silent: no reply", 0)
    measured_s: float = _column(
        "measured time: from the go-ahead to the last byte of the last reply; live: of all windows", 0.0, "s"
    )
    requests_per_s: float = _column("ok / measured_s", 0.0, "1/s")
    content_bytes: int = _column("bytes of content that arrived", 0, "B")
    content_bytes_per_s: float = _column("content_bytes / measured_s", 0.0, "B/s")
    latency_p50_us: float = _column(
        "median latency: from before the connection is made (open loop: from when that was due) to the last byte",
        0.0,
        "us",
    )
    latency_p90_us: float = _column("90th percentile of latency, nearest rank", 0.0, "us")
    latency_p99_us: float = _column("99th percentile", 0.0, "us")
    latency_p99_9_us: float = _column("99.9th percentile", 0.0, "us")
    latency_p99_99_us: float = _column("99.99th percentile", 0.0, "us")
    latency_max_us: float = _column("largest latency of a reply OK", 0.0, "us")
    first_byte_p50_us: float = _column(
        "median time to the first bytes of the reply; live: mean of the medians of the slices", 0.0, "us"
    )

    client_user_s: float = _column("CPU time of the client in user mode, in the measured time", 0.0, "s")
    client_kernel_s: float = _column("CPU time of the client in the kernel", 0.0, "s")
    proxy_user_s: float = _column("CPU time of the proxy in user mode", 0.0, "s")
    proxy_kernel_s: float = _column("CPU time of the proxy in the kernel", 0.0, "s")
    cache_user_s: float = _column("CPU time of the cache in user mode", 0.0, "s")
    cache_kernel_s: float = _column("CPU time of the cache in the kernel", 0.0, "s")
    cpu_us_per_request: float = _column("CPU time of proxy and cache, user and kernel, for each request", 0.0, "us")
    cpu_s_per_gib: float = _column("the same for each GiB of content", 0.0, "s/GiB")
    client_busy: float = _column("share of the time that the busiest client process ran; near 1 it is the limit", 0.0)
    client_switches: int = _column("context switches of the client, voluntary and not", 0)
    proxy_switches: int = _column("context switches of the proxy", 0)
    cache_switches: int = _column("context switches of the cache", 0)
    client_faults: int = _column("page faults of the client, minor and major", 0)
    proxy_faults: int = _column("page faults of the proxy", 0)
    cache_faults: int = _column("page faults of the cache", 0)
    client_peak_rss_bytes: int = _column(
        "peak resident memory of the client, summed over processes (shared pages count in each)", 0, "B"
    )
    proxy_peak_rss_bytes: int = _column("the same of the proxy", 0, "B")
    cache_peak_rss_bytes: int = _column("the same of the cache", 0, "B")
    proxy_rss_growth_bytes: int = _column("growth of the proxy's resident memory in the measured time", 0, "B")
    cache_rss_growth_bytes: int = _column("growth of the cache's", 0, "B")
    proxy_fds_growth: int = _column("descriptors that the proxy had more at the end than at the go-ahead", 0)
    cache_fds_growth: int = _column("descriptors that the cache had more", 0)
    run_queue_wait_s: float = _column("time that client, proxy and cache could have run, had a CPU been free", 0.0, "s")
    foreign_cpu_s: float = _column("CPU time of all others, on the CPUs that the run may use", 0.0, "s")
    steal_s: float = _column("CPU time that the hypervisor took away, on these CPUs", 0.0, "s")
    quiet_wait_s: float = _column("how long the trial waited for the machine to be quiet", 0.0, "s")
    swept: int = _column(
        "IPC objects that had to be swept after the trial; 0 is the only good number where nothing was killed", 0
    )
    idle_cpu_s: float = _column(
        "live: CPU time that proxy and cache used between slices, when they had nothing to do", 0.0, "s"
    )
    outage_s: float = _column(
        "with a fault: from then to the end of the first reply, whole and right, to a request that was made after it: "
        "when all of a killed program had ended and it was started again, or when a stopped one went on",
        0.0,
        "s",
    )

    host: str = _column("name of the machine; in a fleet, the name that the host has there")
    cpu: str = _column("model of the processor")
    cpus: int = _column("processors that the run may use", 0)
    kernel: str = _column("release of the kernel")
    python: str = _column("version of Python")
    harness: str = _column("version of the harness")
    commit: str = _column("git commit of the harness, `+dirty` where files differ; empty outside a checkout")
    code: str = _column("hash of the code of the harness and all installed plugins; environment.json has the parts")
    version: str = _column(
        "version, commit and Python of the programs of cache and proxy, where `interpreter` sets another one, and what "
        "brought their transports, where the harness did not"
    )


COLUMNS = [column.name for column in fields(Trial)]
# Columns of schema 2 that have another name now. Its `requests` was a result.
RENAMED_SINCE_2 = {
    "rate_per_s": "rate",
    "chunk_bytes": "chunk",
    "origin_latency_s": "origin_latency",
    "origin_bandwidth_bytes_per_s": "origin_bandwidth",
    "timeout_s": "timeout",
    "warmup_s": "warmup",
    "load_s": "seconds",
    "requests_asked": "requests",
    "requests": "requests_ended",
}
# The columns that probes fill in: by their endings, and by their names.
_PROBED = ("_user_s", "_kernel_s", "_switches", "_faults", "_rss_bytes", "_growth_bytes", "_growth")
_PROBED_WHOLE = {"run_queue_wait_s", "foreign_cpu_s", "steal_s"}
PROBED = {name: kind for name, kind in get_type_hints(Trial).items() if name.endswith(_PROBED) or name in _PROBED_WHOLE}


# The meanings of columns that several tables have.
_TRIAL = "number of the trial, as in trials.csv"
_HOST = "in a fleet, the name of the host, as in trials.csv; else empty"


@dataclass(frozen=True)
class Bucket:
    """One row of latency.csv: a bucket of a trial's latency histogram, of the layout in harness/load/histogram.py.

    Buckets are the same in all trials: histograms are merged by adding the counts of equal bounds.
    """

    trial: int = _column(_TRIAL, 0)
    latency_us: float = _column("upper bound of the bucket, less than 1/128 above its smallest latency", 0.0, "us")
    count: int = _column("requests whose latency is in it", 0)
    host: str = _column(_HOST)


@dataclass(frozen=True)
class Observation:
    """One row of probes.csv, or of the table that its probe names."""

    trial: int = _column(_TRIAL, 0)
    probe: str = _column("name of the probe")
    role: str = _column("whose figure it is: `client`, `proxy`, `cache`; empty: the machine's")
    metric: str = _column("what was seen; totals are those of the measured time")
    value: float = _column("how much", 0.0)
    unit: str = _column("unit of the value; `1`: a count, `share`: of all that the probe saw of the role")
    host: str = _column(_HOST)


@dataclass(frozen=True)
class Slice:
    """One row of slices.csv: a few milliseconds of load on one cell of a live block. All columns but the last are
    numbers.

    The slices of a round follow each other, so a disturbance that lasts longer than a round falls out of ratios that
    are taken within it.
    """

    trial: int = _column("number of the trial, as in trials.csv: the cell and the block", 0)
    round: int = _column("number of the round in its block, from 1: each cell has one slice a round", 0)
    place: int = _column("place of the slice in its round, from 1: the order is drawn anew each round", 0)
    start_s: float = _column("when its counted window began, since the block's first round began", 0.0, "s")
    seconds: float = _column("length of the window: it begins and ends where a request ends, in full flow", 0.0, "s")
    requests: int = _column("requests that ended in the window", 0)
    content_bytes: int = _column("bytes of their content", 0, "B")
    latency_p50_us: float = _column("their median latency", 0.0, "us")
    all_requests: int = _column("requests of the whole slice, with those before and after the window", 0)
    client_cpu_s: float = _column("CPU time of the client in the whole slice", 0.0, "s")
    proxy_cpu_s: float = _column("CPU time of the proxy in the whole slice", 0.0, "s")
    cache_cpu_s: float = _column("CPU time of the cache in the whole slice", 0.0, "s")
    others_cpu_s: float = _column(
        "CPU time that others took in the slice's round, or the hypervisor, on the CPUs of the run: steps of 10 ms",
        0.0,
        "s",
    )
    host: str = _column(_HOST)


@dataclass(frozen=True)
class Request:
    """One row of stages.csv: when one request of a sample reached each of its stages. All columns are whole numbers.

    Times are those of CLOCK_MONOTONIC, which all processes share, since the go-ahead. A stage ends when it is reached
    and begins when the one before was, so that the stages of a request add up to all of its time. 0: it has no such
    stage.
    """

    trial: int = _column(_TRIAL, 0)
    request: int = _column("number of the request in its proxy process; in a lane: of its load", 0)
    proxy_pid: int = _column("process of the proxy that had it", 0)
    proxy_thread: int = _column("thread there, gettid(2)", 0)
    cache_pid: int = _column("process of the cache that had it", 0)
    cache_thread: int = _column("thread there", 0)
    accepted_ns: int = _column("the proxy's worker had the connection, accept(2)", 0, "ns")
    read_ns: int = _column("it had read the request and found the path in it", 0, "ns")
    sent_ns: int = _column("it had a lane and the command, and began to send it", 0, "ns")
    received_ns: int = _column("the cache's worker had the command", 0, "ns")
    found_ns: int = _column("it had the lane's end and the file open, and began to answer", 0, "ns")
    published_ns: int = _column(
        "it had filled the first piece with head and content, and began to pass it on; zero-copy: to pass on the head, "
        "and what leads to the content",
        0,
        "ns",
    )
    taken_ns: int = _column(
        "the proxy's worker had the first piece; hand-off: the head, sent once the cache has answered the client",
        0,
        "ns",
    )
    delivered_ns: int = _column("it had passed on the last byte to the client's socket; lane: to the sink", 0, "ns")
    closed_ns: int = _column("it had given the lane back and closed the connection", 0, "ns")
    answered_ns: int = _column(
        "the cache's worker asked for the next command: beside the others, not one of them", 0, "ns"
    )


def _truth(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return text == "1"


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no finite number")
    return number


_READ: dict[type, Any] = {int: int, float: _finite, str: str, bool: _truth}  # how a cell of a table is read
_READ_ALL = {**_READ, float: float}  # where all of a column is looked at afterwards


Row = Trial | Slice | Bucket | Observation | Request
_TYPES: dict[type, dict[str, Any]] = {
    kind: get_type_hints(kind) for kind in (Trial, Slice, Bucket, Observation, Request)
}
_FIGURES = [name for name, kind in _TYPES[Trial].items() if kind is float]
_LEAST = -1e-9  # of a figure: sums of differences may end a hair below 0
_Row = TypeVar("_Row", Trial, Slice, Bucket, Observation, Request)


def append(path: str, *rows: Row) -> None:
    """Add rows of one kind to a file, and the header where it is new; durable on return, fsync(2).

    Raises ValueError where the file has other columns, TypeError where a count is no whole number: it could not be read
    again once it is large.
    """
    new = not os.path.exists(path) or not os.path.getsize(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [column.name for column in fields(rows[0])]
    if new:
        writer.writerow(columns)
    else:
        with open(path, newline="", encoding="utf-8") as file:
            if next(csv.reader(file)) != columns:
                raise ValueError(f"{path}: has other columns than this version writes; write to another directory")
    counts = [name for name, kind in _TYPES[type(rows[0])].items() if kind is int]
    for row in rows:
        if wrong := [name for name in counts if not isinstance(getattr(row, name), int)]:
            raise TypeError(f"{path}: {wrong[0]} is {getattr(row, wrong[0])!r}, and its column has whole numbers")
        writer.writerow(map(_written, astuple(row)))
    with open(path, "a", newline="", encoding="utf-8") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())
    if new:
        make_name_durable(path)


def append_all(path: str, *rows: Row) -> None:
    """As append(), and where this process is killed, all of the rows are in the file or none: rename(2)."""
    temporary = f"{path}.new"
    if os.path.exists(path):
        shutil.copyfile(path, temporary)
    elif os.path.exists(temporary):
        os.unlink(temporary)
    append(temporary, *rows)
    os.rename(temporary, path)
    make_name_durable(path)


def _written(value: Any) -> Any:
    return f"{value:.9g}" if isinstance(value, float) else int(value) if isinstance(value, bool) else value


def make_name_durable(path: str) -> None:
    """Have a file's name on disk on return: fsync(2) of its directory."""
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: str) -> Iterator[Trial]:
    """The rows of a file of trials, of this schema or of schema 2. Raises ValueError with the line that is no such row.

    Columns that a later version of a schema has added have their defaults in older files, and factors that mean nothing
    in a row are empty or 0 there.
    """
    for row in _read(path, Trial):
        if row.schema == 2:
            row.floor = _floor_in_schema_2(row)
        elif row.schema != SCHEMA:
            raise ValueError(f"{path}: schema {row.schema}, not {SCHEMA}; read it with the version that wrote it")
        yield row


def _floor_in_schema_2(row: Trial) -> str:
    """Schema 2 has no column for it: the floors were `direct`, and the transports called null."""
    transports = [name for name in CHANNELS if getattr(row, name).partition(":")[0] == "null"]
    return " ".join(["source"] * (row.source == "direct") + transports)


def read_latencies(path: str) -> Iterator[Bucket]:
    """The rows of latency.csv. Raises as read()."""
    return _read(path, Bucket)


def read_observations(path: str) -> Iterator[Observation]:
    """The rows of a table of observations. Raises as read()."""
    return _read(path, Observation)


def read_requests(path: str) -> Iterator[Request]:
    """The rows of stages.csv. Raises as read()."""
    return _read(path, Request)


def read_slices(path: str) -> tuple[list[str], bytes]:
    """The columns of numbers of a file of slices, and the text of its whole lines, without the host: there may be
    millions, so a caller reads them as an array. A last line that a killed run left torn is left out. Raises
    ValueError where the columns are others, or where slices are of several hosts."""
    with open(path, "rb") as file:
        head, text = file.readline(), file.read()
    columns = head.decode(errors="replace").strip().split(",")
    _check(path, columns, Slice)
    text = text[: text.rfind(b"\n") + 1]
    if columns[-1] != "host":  # of a version before fleets
        return columns, text
    end = b"," + text[: text.find(b"\n")].rpartition(b",")[2] + b"\n"
    if text.count(end) != text.count(b"\n"):
        raise ValueError(f"{path}: its lines are not all of one host")
    return columns[:-1], text.replace(end, b"\n")


def _check(path: str, columns: list[str], kind: type[Row]) -> None:
    """Raises ValueError where these are not columns of a table: its first two, and others that it has."""
    known = [column.name for column in fields(kind)]
    if columns[:2] != known[:2] or not set(columns) <= set(known):
        raise ValueError(f"{path}:1: not the columns of schema {SCHEMA}; read it with the version that wrote it")


def _read(path: str, kind: type[_Row]) -> Iterator[_Row]:
    try:
        yield from _rows(path, kind)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from None


def _rows(path: str, kind: type[_Row]) -> Iterator[_Row]:
    with open(path, newline="", encoding="utf-8") as file:
        rows: Iterator[list[str]] = csv.reader(file)
        columns, first = next(rows, []), next(rows, None)
        if kind is Trial and first and first[0] == "2":
            columns = [RENAMED_SINCE_2.get(name, name) for name in columns]
        _check(path, columns, kind)
        table = [] if first is None else [first, *rows]
    made = _at_once(kind, columns, table)
    yield from made if made is not None else _one_by_one(path, kind, columns)


def _at_once(kind: type[_Row], columns: list[str], table: list[list[str]]) -> list[_Row] | None:
    """All rows of a table, column by column, which is much faster than row by row. None where a row is no such
    row, or may not be: _one_by_one() says which, and why."""
    if any(len(row) != len(columns) for row in table):
        return None
    types = _TYPES[kind]
    values: list[Sequence[Any]] = []
    try:
        for name, texts in zip(columns, zip(*table, strict=True), strict=False):
            values.append(texts if types[name] is str else list(map(_READ_ALL[types[name]], texts)))
    except ValueError:
        return None
    figures = {name: given for name, given in zip(columns, values, strict=False) if types[name] is float}
    if not all(math.isfinite(sum(given)) for given in figures.values()):
        return None
    names = [column.name for column in fields(kind)]
    in_order = columns == names[: len(columns)]
    made = [
        kind(*row) if in_order else kind(**dict(zip(columns, row, strict=True))) for row in zip(*values, strict=True)
    ]
    lacking = [name for name in FACTORS if name not in columns]
    return made if kind is not Trial or _possible(made, figures, lacking) else None


def _possible(made: list[Any], figures: dict[str, Sequence[float]], lacking: list[str]) -> bool:
    """Whether these rows of trials are of a good table, in which no figure needs a second look. Empties the factors
    that mean nothing in a row: `lacking` are those that have no column."""
    for row in made:
        _blank(row, lacking)
    return all(min(given, default=0.0) >= _LEAST for given in figures.values()) and all(
        row.status != "ok" or row.requests_per_s > 0 for row in made
    )


def _one_by_one(path: str, kind: type[_Row], columns: list[str]) -> Iterator[_Row]:
    types = {name: _READ[one] for name, one in _TYPES[kind].items()}
    lacking = [name for name in FACTORS if name not in columns] if kind is Trial else []
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"{path}:{rows.line_num}: {len(row)} values for {len(columns)} columns: a torn line")
            try:
                made = kind(**{name: types[name](text) for name, text in zip(columns, row, strict=True)})
                if isinstance(made, Trial):
                    _blank(made, lacking)
                    if wrong := impossible(made):
                        raise ValueError(wrong)
            except ValueError as error:
                raise ValueError(f"{path}:{rows.line_num}: {error}") from None
            yield made


def impossible(row: Trial) -> str:
    """Which figure of a good trial no load gives, and why; empty where all may be."""
    if row.status != "ok":
        return ""
    for name in _FIGURES:
        value = getattr(row, name)
        if not math.isfinite(value):
            return f"{name} is {value}, no finite number"
        if value < _LEAST:
            return f"{name} is {value}: it cannot be negative"
    if row.requests_per_s <= 0:
        return f"requests_per_s of a trial with status ok is {row.requests_per_s}: it must be over 0"
    return ""


def _blank(row: Trial, names: Iterable[str]) -> None:
    """Empty the factors that mean nothing in the row's cell, as a new row has them."""
    for name in names:
        if not applies(name, row):
            setattr(row, name, FACTORS[name].empty)


def dictionary(kind: type[Row] = Trial) -> str:
    """The columns as a Markdown table: the heart of docs/results.md."""
    types = _TYPES[kind]
    rows = [
        f"| `{one.name}` | {types[one.name].__name__} | {one.metadata['unit']} | {one.metadata['text']} |"
        for one in fields(kind)
    ]
    return "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows])


def datapackage(names: Iterable[str], experiment: str) -> dict[str, Any]:
    """datapackage.json for tables of these names: columns with types, units and meanings.

    The licence is one that lets rows of several runs be put together: figures of a machine are facts.
    Source: https://specs.frictionlessdata.io/tabular-data-package.
    """
    kinds: dict[str, type[Row]] = {TRIALS: Trial, SLICES: Slice, LATENCY: Bucket, STAGES: Request}
    return {
        "profile": "tabular-data-package",
        "name": re.sub(r"[^a-z0-9._-]+", "-", experiment.lower()),
        "title": f"Trials of the experiment {experiment}, measured with transport-harness",
        "licenses": [{"name": "CC0-1.0", "title": "CC0 1.0 Universal"}],
        "resources": [
            {
                "name": name.removesuffix(".csv"),
                "path": name,
                "profile": "tabular-data-resource",
                "encoding": "utf-8",
                "schema": {"fields": _describe(kinds.get(name, Observation))},
            }
            for name in names
        ],
    }


def _describe(kind: type[Row]) -> list[dict[str, str]]:
    types = _TYPES[kind]
    return [
        {"name": one.name, "type": _FRICTIONLESS[types[one.name]], "description": one.metadata["text"]}
        | ({"unit": one.metadata["unit"]} if one.metadata["unit"] else {})
        for one in fields(kind)
    ]


_FRICTIONLESS = {bool: "boolean", int: "integer", float: "number", str: "string"}
