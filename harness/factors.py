"""The factors of a cell: everything that an experiment can vary, each declared once, as a field of Spec.

A declaration holds the factor's type and default, how a value is written and shown, what the factor describes, where
it applies, and its sentence. The language of experiments, the columns of trials.csv, the datapackage, the labels of
tables and charts, the pooling of trials, and the tables in docs/experiments.md and docs/results.md all follow from
it.

To add a factor, add a field to Spec, and make the programs of a trial do what it says: harness/measure/.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from harness import units
from harness.protocol.wire import HEAD_BYTES
from harness.suggest import unknown

_WORKERS = 1000  # of anything that costs a process, a thread or shared memory
_MANY = 100_000  # of anything that costs a connection, a file or a piece of a lane
_REQUESTS = 10**9
_LARGEST = 1024 * units.GIB  # bytes of a file
CLASSIC = "classic"
THIS = "this"
DIRECTORY = "directory:"
ROLES = ("client", "proxy", "cache")

# What a factor describes. `transport`: the mechanisms that are compared. `system`: the rest of the system under test.
# `condition`: what is asked of it, and what one looks at separately: file size, load. `workload`: the rest of what is
# asked.
About = Literal["transport", "system", "condition", "workload"]


class Kind(NamedTuple):
    """A kind of value.

    parse(value, directory): a value as YAML has it to the one that Spec holds; relative paths start at `directory`.
    Raises ValueError, which says what to write instead. written: what one may write, for the documentation. show: the
    value for people.
    """

    parse: Callable[[Any, str], Any]
    written: str
    show: Callable[[Any], str] = str


class Factor(NamedTuple):
    """One factor. name: in experiment files and in trials.csv. unit: of its column there.

    only: the levels of other factors that it needs to mean anything, `{"source": "cache"}`; empty: it always does.
    label: how a level appears in a line of levels: `named` (`chunk 64 KiB`), `bare` (`posix_shm`), `counted` (`8
    clients`). shared: whether cells of a live block that differ in it share their servers: it is of the load, or is set
    on programs that run.
    """

    name: str
    default: Any
    kind: Kind
    about: About
    text: str
    unit: str
    only: Mapping[str, str]
    label: str
    shared: bool

    @property
    def empty(self) -> Any:
        """What a row has where the factor means nothing: an empty text, 0, or false."""
        return type(self.default)()


def choice(*known: str) -> Kind:
    def parse(value: Any, _: str) -> str:
        if value not in known:
            raise ValueError(unknown("choice", value, known))
        return str(value)

    return Kind(parse, ", ".join(f"`{one}`" for one in known))


def whole(least: int, most: int) -> Kind:
    """most: far more than a machine takes, so that a slip of the pen is refused before anything is made of it."""

    def parse(value: Any, _: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{value!r} is not a whole number from {least} to {most:,}")
        return int(value)

    return Kind(parse, f"a whole number from {least} to {most:,}")


def _transport(value: Any, _: str) -> str:
    if isinstance(value, Mapping):
        if len(value) != 1 or not isinstance(options := next(iter(value.values())), Mapping):
            raise ValueError("write `name`, `name:option=value`, or {name: {option: value}}")
        pairs = ",".join(
            f"{option}={str(given).lower() if isinstance(given, bool) else given}" for option, given in options.items()
        )
        return f"{next(iter(value))}:{pairs}" if pairs else str(next(iter(value)))
    # YAML reads an unquoted null as nothing; here it can only be the transport of that name.
    return "null" if value is None else str(value)


def _truth(value: Any, _: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _or_zero(zero: float, word: str, parse: Callable[[Any], Any]) -> Callable[[Any, str], Any]:
    """A parser that reads 0, or a word for it, as `zero`, and all else by `parse`."""

    def parse_or_zero(value: Any, _: str) -> Any:
        if value in (0, word) and not isinstance(value, bool):
            return zero
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"{error}, or `{word}`") from None

    return parse_or_zero


def _chunk(value: Any, _: str) -> int:
    size = units.size(str(value))
    if 0 < size <= HEAD_BYTES or size > units.GIB:
        raise ValueError(f"must be over {HEAD_BYTES} bytes, and at most 1 GiB")
    return size


def _file(text: str) -> str:
    """The size of a file."""
    if (size := units.size(text)) > _LARGEST:
        raise ValueError(f"{text}: a file of a trial has at most {units.show_size(_LARGEST)}")
    return str(size)


def _files(value: Any, directory: str) -> str:
    if isinstance(value, list):
        if not value:
            raise ValueError("an empty set; give at least one size")
        return " ".join(_file(str(size)) for size in value)
    text = str(value)
    if text == CLASSIC:
        return text
    if text.startswith(DIRECTORY):
        path = os.path.join(directory, text.removeprefix(DIRECTORY))
        if not os.path.isdir(path):
            raise ValueError(f"{path}: no such directory")
        return DIRECTORY + os.path.abspath(path)
    parts = re.split(r"[ ,]+", text)
    if text[:1].isdigit() or len(parts) > 1:
        return " ".join(_file(one) for one in parts)
    raise ValueError(
        f"{value!r} is not a file set: a size such as 64KiB, a list of sizes, {CLASSIC}, or {DIRECTORY}PATH"
    )


_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


def _placement(value: Any, _: str) -> str:
    if isinstance(value, Mapping):
        value = " ".join(f"{role}={cpus}" for role, cpus in value.items())
    if value in ("free", "same-core", "spread"):
        return str(value)
    given = dict(part.partition("=")[::2] for part in str(value).split())
    if set(given) != set(ROLES) or not all(_CPUS.fullmatch(cpus) for cpus in given.values()):
        raise ValueError(f"{value!r} is not free, same-core, spread, or {{client: 0, proxy: 1, cache: 0-1}}")
    return " ".join(f"{role}={given[role]}" for role in ROLES)


def _interpreter(value: Any, directory: str) -> str:
    if value in ("", THIS):
        return ""
    path = os.path.abspath(os.path.join(directory, str(value)))  # not resolved: the link itself is a venv's Python
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such file; name a Python, such as ../other/.venv/bin/python")
    if not os.access(path, os.X_OK):
        raise ValueError(f"{path}: cannot be executed; name a Python, such as ../other/.venv/bin/python")
    return path


def _show_interpreter(path: str) -> str:
    if not path:
        return THIS
    short = min(path, os.path.relpath(path), key=len)
    return re.sub(r"(?<=.)/\.?venv/bin/python[\d.]*$", "", short)


_FAULTS = {
    "kill": ("cache", "cache-worker", "proxy", "proxy-worker"),
    "stop": ("cache", "proxy"),
    "reset": ("client",),
}
_FAULT_WRITTEN = (
    "`none`; `{kill: cache}`, or `cache-worker`, `proxy`, `proxy-worker`: SIGKILL, and a new start; "
    "`{stop: cache, for: 1s}`, or `proxy`: SIGSTOP, then SIGCONT; `{reset: client}` in the middle of its reply"
)


def _fault(value: Any, _: str) -> str:
    if value in ("", "none", None):
        return ""
    if not isinstance(value, str | Mapping) or not value:
        raise ValueError(f"{value!r} is no fault: write {_FAULT_WRITTEN}")
    if isinstance(value, str):
        action, _, rest = value.partition(" ")
        target, lasts, seconds = rest.partition(" for ")
        value = {action: target, **({"for": seconds} if lasts else {})}
    action = next((one for one in value if one in _FAULTS), "")
    if not action:
        raise ValueError(f"{next(iter(value))} is no fault: write {_FAULT_WRITTEN}")
    target = value[action]
    if target not in _FAULTS[action]:
        raise ValueError(unknown(f"{action} of", target, _FAULTS[action]))
    if set(value) - {action} != ({"for"} if action == "stop" else set()):
        raise ValueError(
            f"{action} {target}: " + ("say how long, `for: 1s`" if action == "stop" else "nothing else goes with it")
        )
    return f"{action} {target}" + (f" for {units.seconds(value['for']):g}s" if action == "stop" else "")


def _show_files(files: str) -> str:
    return " + ".join(units.show_size(int(one)) if one.isdecimal() else one for one in files.split())


TRANSPORT = Kind(_transport, "a transport: `fifo`, `fifo:fifos=4`, or `{fifo: {fifos: 4}}`")
TEXT = Kind(lambda value, _: str(value), "a name")
TRUTH = Kind(_truth, "`true`, `false`", lambda value: str(value).lower())
SECONDS = Kind(lambda value, _: units.seconds(value), "a time", lambda seconds: f"{seconds:g}")
RATE = Kind(
    _or_zero(0.0, "closed", units.rate), "`closed`, or a rate: `500/s`", lambda rate: f"{rate:g}/s" if rate else "0"
)
DELAY = Kind(
    _or_zero(0.0, "none", units.seconds),
    "`none`, or a time",
    lambda seconds: f"{1e3 * seconds:g} ms" if seconds else "none",
)
BANDWIDTH = Kind(
    _or_zero(0, "none", units.bandwidth),
    "`none`, or `10MiB/s`",
    lambda bandwidth: f"{units.show_size(bandwidth)}/s" if bandwidth else "none",
)
CHUNK = Kind(
    _chunk, f"a size over {HEAD_BYTES} bytes, at most 1 GiB", lambda chunk: units.show_size(chunk) if chunk else "0"
)
FILES = Kind(
    _files,
    "a size; a list of sizes, served in turn; `classic`, ten files from 0 B to 16 MiB; or `directory:PATH`, from the "
    "experiment file's directory",
    _show_files,
)
INTERPRETER = Kind(
    _interpreter, "`this`, or the path of a Python, from the experiment file's directory", _show_interpreter
)
FAULT = Kind(_fault, _FAULT_WRITTEN, lambda fault: fault or "none")
PLACEMENT = Kind(_placement, "`free`, `same-core`, `spread`, or CPUs a role: `{client: 0, proxy: 1, cache: 0-1}`")

_OF_CACHE = {"source": "cache"}
_OF_CURL = {"source": "curl"}
_OF_TCP = {"scope": "pipeline"}
_OF_LANE = {"scope": "lane"}


def _factor(
    default: Any,
    kind: Kind,
    about: About,
    text: str,
    unit: str = "",
    *,
    only: Mapping[str, str] = {},
    label: str = "named",
    shared: bool = False,
) -> Any:
    metadata = {"kind": kind, "about": about, "text": text, "unit": unit, "only": only, "label": label}
    return field(default=default, metadata={**metadata, "shared": shared})


@dataclass(unsafe_hash=True)
class Spec:
    """What one trial runs. Values have one canonical spelling, so that equal cells are equal. It is not changed once
    made.

    A transport is `name[:option=value,...]`. `files` is sizes in bytes, `1024` or `1024 3145728`, or CLASSIC, or
    DIRECTORY and a path. `placement` is a word, or `client=0 proxy=1 cache=0-1`.
    """

    scope: str = _factor(
        "pipeline",
        choice("pipeline", "lane"),
        "workload",
        "`lane`: the two channels alone between two processes, without client and TCP: the role `proxy` asks and "
        "times; `client` is empty, or the processes that read what the proxy's end writes to sockets",
        label="bare",
    )
    source: str = _factor(
        "cache",
        choice("cache", "direct", "curl"),
        "transport",
        "where the proxy gets content; `direct`: it serves the files by itself with sendfile, the floor of every other "
        "figure; `curl`: from an HTTP origin that the trial starts",
        label="bare",
    )
    command: str = _factor("posix_mq", TRANSPORT, "transport", "command transport", only=_OF_CACHE, label="bare")
    data: str = _factor("posix_shm", TRANSPORT, "transport", "data transport", only=_OF_CACHE, label="bare")
    files: str = _factor(
        "1024",
        FILES,
        "condition",
        "the file set: what is asked for, in turn",
        label="counted",
        shared=True,
    )
    copies: int = _factor(
        4,
        whole(1, _MANY),
        "workload",
        "files of each size",
        label="counted",
        shared=True,
    )
    clients: int = _factor(
        8,
        whole(1, _MANY),
        "condition",
        "requests under way at a time; in an open loop: at most",
        only=_OF_TCP,
        label="counted",
        shared=True,
    )
    client_processes: int = _factor(
        2,
        whole(1, _WORKERS),
        "workload",
        "processes that ask",
        only=_OF_TCP,
        shared=True,
    )
    sink: str = _factor(
        "discard",
        choice("discard", "copy", "checksum"),
        "workload",
        "what becomes of content at the client: `discard` (the kernel drops it, MSG_TRUNC), `copy` to memory, or "
        "`checksum` (CRC-32 of each reply, compared)",
        shared=True,
    )
    rate: float = _factor(
        0.0,
        RATE,
        "condition",
        "open loop: requests asked for a second, and latency counts from when a request was due; 0, `closed`: each "
        "client waits for its reply",
        "1/s",
        only=_OF_TCP,
        shared=True,
    )
    arrivals: str = _factor(
        "poisson",
        choice("poisson", "fixed"),
        "workload",
        "open loop: distances between requests; in a row empty where the loop is closed",
        only=_OF_TCP,
        shared=True,
    )
    proxy_threads: int = _factor(1, whole(1, _WORKERS), "system", "worker threads of each proxy process")
    proxy_processes: int = _factor(4, whole(1, _WORKERS), "system", "worker processes of the proxy")
    congestion: str = _factor(
        "reno",
        TEXT,
        "system",
        "TCP congestion control of the proxy's sockets; `system` leaves the machine's, and a row says which that was",
        only=_OF_TCP,
    )
    lanes: int = _factor(
        4, whole(1, _WORKERS), "system", "lanes of the proxy, in all its processes", only=_OF_CACHE, label="counted"
    )
    chunk: int = _factor(
        0, CHUNK, "system", "bytes that a lane moves at a time; 0: the transport's own", "B", only=_OF_CACHE
    )
    depth: int = _factor(
        0, whole(0, _MANY), "system", "pieces that a lane holds; 0: the transport's own", only=_OF_CACHE
    )
    wait: str = _factor("", TEXT, "system", "wait strategy of the data transport; empty: its own", only=_OF_CACHE)
    cache_threads: int = _factor(
        1, whole(1, _WORKERS), "system", "worker threads of each cache process", only=_OF_CACHE
    )
    cache_processes: int = _factor(4, whole(1, _WORKERS), "system", "worker processes of the cache", only=_OF_CACHE)
    placement: str = _factor(
        "free",
        PLACEMENT,
        "system",
        "which CPUs each role may use",
        shared=True,
    )
    scheduling: str = _factor(
        "other",
        choice("other", "batch", "fifo"),
        "system",
        "scheduling policy of proxy and cache, sched(7); `fifo` (priority 1) is refused where the user may not",
    )
    interpreter: str = _factor(
        "",
        INTERPRETER,
        "system",
        "the Python whose harness and plugins are the programs of all roles but the client, so that versions of them "
        "are compared; in a row empty where that is the one of the run. The column `version` says what it ran",
        label="bare",
    )
    page_cache: str = _factor(
        "warm",
        choice("warm", "cold"),
        "workload",
        "`cold`: dropped before each request with POSIX_FADV_DONTNEED; takes 4 files (`copies`) or more for each "
        "request at a time",
    )
    strategy: str = _factor(
        "single-get",
        choice("single-get", "head-then-get", "buffered"),
        "system",
        "how the proxy asks the origin; `buffered`: it has the whole body before it sends the header",
        only=_OF_CURL,
    )
    reuse: bool = _factor(True, TRUTH, "system", "whether connections to the origin are kept", only=_OF_CURL)
    origin_latency: float = _factor(
        0.0, DELAY, "system", "how long the origin waits before each response", "s", only=_OF_CURL
    )
    origin_bandwidth: int = _factor(
        0, BANDWIDTH, "system", "what each connection to the origin gets; 0: no limit", "B/s", only=_OF_CURL
    )
    origin_server: str = _factor(
        "auto",
        choice("own", "nginx", "auto"),
        "system",
        "who the origin is: `own`, that of `harness origin`; `nginx`, where it is installed and not asked to be slow; "
        "`auto`: nginx where it can, else `own`. The column `origin` says which it was",
        only=_OF_CURL,
    )
    fault: str = _factor(
        "",
        FAULT,
        "condition",
        "what is done to a program in the middle of the load, in trials apart. The client then compares the content of "
        "every reply, and replies that are not OK are counted and do not fail the trial",
        only=_OF_CACHE,
    )
    fault_at: float = _factor(
        0.3,
        SECONDS,
        "workload",
        "when, after the load has begun; in a row 0 where there is no fault",
        "s",
        only=_OF_CACHE,
    )
    batch: int = _factor(
        1,
        whole(1, _WORKERS),
        "condition",
        "in a lane: commands that each worker sends, a lane for each, before it takes the first reply",
        only=_OF_LANE,
    )
    timeout: float = _factor(5.0, SECONDS, "workload", "bound on every wait for a peer", "s")
    warmup: float = _factor(
        0.2,
        SECONDS,
        "workload",
        "requests before those that count, and in trials apart after them: their content is compared with the files",
        "s",
        shared=True,
    )
    seconds: float = _factor(
        1.0,
        SECONDS,
        "condition",
        "how long the load runs; in a row 0 where `requests` sets its length",
        "s",
        shared=True,
    )
    requests: int = _factor(
        0,
        whole(0, _REQUESTS),
        "condition",
        "how many requests are made; 0: as many as `seconds` allow",
        shared=True,
    )
    control: bool = _factor(
        False, TRUTH, "workload", "whether this is the second of a pair of equal cells, the A/A control", label="bare"
    )

    @property
    def kills(self) -> bool:
        """Whether the fault ends a program: it leaves what it made, and what it has used cannot be read."""
        return self.fault.startswith("kill ")


FACTORS: Mapping[str, Factor] = {
    one.name: Factor(name=one.name, default=one.default, **one.metadata) for one in fields(Spec)
}
# The channels: factors whose levels are transports.
CHANNELS = tuple(name for name, factor in FACTORS.items() if factor.kind is TRANSPORT)
# The factors that an experiment names. `control` has a key of its own there.
OFFERED = tuple(name for name in FACTORS if name != "control")


def applies(name: str, cell: Spec) -> bool:
    """Whether a factor means anything in a cell: the data transport does not where the proxy serves files by itself."""
    return all(getattr(cell, other) == level for other, level in FACTORS[name].only.items())


def table() -> str:
    """The factors as a Markdown table: the heart of docs/experiments.md."""
    rows = []
    for factor in map(FACTORS.__getitem__, OFFERED):
        default = factor.kind.show(factor.default) or "empty"
        only = "".join(f"; only with `{other}: {level}`" for other, level in factor.only.items())
        rows.append(f"| `{factor.name}` | {factor.text}{only} | {factor.kind.written} | {default} |")
    return "\n".join(["| factor | what it says | what to write | default |", "|---|---|---|---|", *rows])
