"""Slices of a load: what asks for one, the window that counts, and what came of it.

A load that starts and ends is slower at both edges than in full flow, and in a few milliseconds the edges weigh much.
So a slice counts in a window, which opens in a load that already runs and closes in a load that still runs:

    start        opens              closes                  end
      |  lead-in   |     window       |         tail          |
      '------------ o . . . . . . . . . c -------------------'     o, c: where a request ends, at or after the instant

Each tally (of a process or a thread) has a window of its own between the same two instants. It opens when the first
request ends at or after `opens`. That request does not count. It closes when the first other one ends at or after
`closes`. That one counts. So a window has no broken requests at its edges: so many requests took so long. The load
goes on until the windows of all tallies have closed; then no request is begun any more. A request without a reply
(outcome `failed` or ERROR) is no end of a window and does not count in one; but it closes one that is due to close.

A line on standard input asks for a slice: an object with the fields of Ask or ClientAsk, except `start_ns`.
"""

import dataclasses
import json
import math
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from harness.load.tally import (
    BYTES,
    CLOSED,
    END,
    ERROR,
    EXACT,
    FAILED,
    FIRSTS,
    MOST_FIRSTS,
    OPENED,
    OUTCOMES,
    OVER,
    SYSTEM,
    USER,
    Tally,
    Usage,
    shared_memory,
)
from harness.load.totals import histogram_of, percentile

POISSON, FIXED = "poisson", "fixed"  # how requests arrive in an open loop


@dataclasses.dataclass(frozen=True)
class Ask:
    """What is asked of a slice.

    workload: index of the workload, as the command line names them. lead_in, window: seconds. verify: whether content
    is compared with files. start_ns: when the slice began, on the clock of time.monotonic_ns().
    """

    workload: int
    lead_in: float
    window: float
    verify: bool
    start_ns: int = dataclasses.field(default=0, kw_only=True)

    @property
    def opens(self) -> int:
        """From when on the window can open, on the clock of `start_ns`."""
        return self.start_ns + int(self.lead_in * 1e9)

    @property
    def closes(self) -> int:
        """From when on the window can close, on the clock of `start_ns`."""
        return self.opens + int(self.window * 1e9)


@dataclasses.dataclass(frozen=True)
class ClientAsk(Ask):
    """What is asked of a slice of gfclient. rate: requests/s of an open loop; 0: a closed loop. seed: of the times."""

    port: int
    clients: int
    rate: float
    arrivals: str
    seed: int


_Ask = TypeVar("_Ask", bound=Ask)
_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number from 0 on"),
    float: ((int, float), "a number from 0 on"),
    bool: ((bool,), "true or false"),
    str: ((str,), "a text"),
}
_LIMITS = {
    "lead_in": (0, 1e6),
    "window": (0, 1e6),
    "port": (1, 65535),
    "clients": (1, 1_000_000),
    "rate": (1e-6, 1e9),  # or 0
    "seed": (0, 1e15),
}


def read_ask(kind: type[_Ask], line: bytes, workloads: int, can_verify: bool) -> _Ask:
    """The slice that a line asks for; it begins now.

    workloads: how many there are. Raises ValueError with what is wrong.
    """
    try:
        ask = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a slice: the line is not JSON: {error}") from None
    wanted = {field.name: field.type for field in dataclasses.fields(kind) if not field.kw_only}
    if not isinstance(ask, dict) or ask.keys() != wanted.keys():
        raise ValueError(f"a slice: the line must be an object with {', '.join(wanted)}, and nothing else")
    for name, value in ask.items():
        types, text = _KINDS[wanted[name]]
        right = isinstance(value, types) and isinstance(value, bool) == (wanted[name] is bool)
        if not right or (not isinstance(value, str) and not 0 <= value < math.inf):
            raise ValueError(f"a slice: {name} must be {text}, not {json.dumps(value)}")
    for name, (least, most) in {**_LIMITS, "workload": (0, workloads - 1)}.items():
        if not least <= (value := ask.get(name, least)) <= most and (name, value) != ("rate", 0):
            raise ValueError(f"a slice: {name} must be from {least:g} to {most:g}")
    if ask.get("arrivals", FIXED) not in (POISSON, FIXED):
        raise ValueError(f"a slice: arrivals must be {POISSON} or {FIXED}, not {ask['arrivals']}")
    if ask["verify"] and not can_verify:
        raise ValueError("a slice: verify needs files to compare with: --verify DIR")
    return kind(**ask, start_ns=time.monotonic_ns())


def window(ended: Sequence[int], closes: int) -> tuple[int, int]:
    """When a window opened and closed.

    ended: when requests ended, those from the instant `opens` on, ascending. A window that did not close before the
    last of them closes where it opened, so that none of them is in it.
    """
    if not ended:
        return 0, 0
    return ended[0], next((end for end in ended[1:] if end >= closes), ended[0])


class SliceTally(Tally):
    """Counts what comes of one slice after another. Outcomes are those of the whole slice, all else is of its window.

    tallies: those of the whole load, itself included. Its words OPENED and CLOSED are the times of the window; OVER is
    1 when it has closed. await_window() comes before begin().
    """

    def __init__(self, memory: memoryview, tallies: "list[SliceTally]") -> None:
        super().__init__(memory)
        self._tallies = tallies

    def await_window(self, ask: Ask) -> None:
        """The next load is that of this slice."""
        self._opens, self._closes = ask.opens, ask.closes

    def begin(self) -> None:
        """Set all counts to 0."""
        super().begin()
        self._ended: list[tuple[int, int, int, int]] = []  # from `opens` on: when it ended, content, begun, first
        self._closing = self._failed = False

    def add(self, outcome: int, content: int, begun: int, ended: int, first: int = 0) -> None:
        """Count a request that has ended, as Tally.add() does."""
        self.counts[outcome] += 1
        if ended < self._opens:
            return
        late = ended >= self._closes
        if outcome in (ERROR, FAILED):
            self._failed = self._failed or late
        else:
            self._ended.append((ended, content, begun, first))
            self._closing = self._closing or late
        if self._failed or (self._closing and len(self._ended) > 1):
            self.words[OVER] = 1

    def requests(self, first: int) -> Iterator[int]:
        """first, first + 1, ... until the windows of all tallies have closed.

        After a failure from `closes` on they end as well: a server that is silent would take the whole time again.
        """
        words = self.words
        while not (words[OVER] and (self._failed or all(tally.words[OVER] for tally in self._tallies))):
            yield first
            first += 1

    def end(self, end: int, usage: Usage) -> None:
        """Write everything to the shared memory. Raises OSError where it has no room for all requests of the window."""
        self._ended.sort()
        opened, closed = window([ended for ended, *_ in self._ended], self._closes)
        counted = [request for request in self._ended if opened < request[0] <= closed]
        if len(counted) > len(self.latencies):
            raise OSError(f"{len(counted)} requests in a window, {len(self.latencies)} can be: take a shorter window")
        self._content = sum(content for _, content, _, _ in counted)
        latencies = array("Q", (ended - begun for ended, _, begun, _ in counted))
        firsts = array("Q", (first - begun for _, _, begun, first in counted if first))[-MOST_FIRSTS:]
        self.latencies[: len(latencies)] = memoryview(latencies)
        self.firsts[: len(firsts)] = memoryview(firsts)
        self._write(end, len(latencies), len(firsts), *usage, opened, closed, 1)

    def take_no_part(self) -> None:
        """Have a tally without requests of its own hold up no other."""
        self.begin()
        self.end(time.monotonic_ns(), Usage())


def slice_tallies(count: int) -> list[SliceTally]:
    """`count` tallies of one load. Make them before forking."""
    tallies: list[SliceTally] = []
    tallies += [SliceTally(memory, tallies) for memory in shared_memory(count, None)]
    return tallies


def open_windows(tallies: Sequence[SliceTally]) -> None:
    """Forget that the windows of the last slice have closed: before the next one starts."""
    for tally in tallies:
        tally.words[OVER] = 0


def summarise_slice(tallies: Sequence[SliceTally], ask: Ask) -> dict[str, Any]:
    """What came of a slice.

    The rate in the window is the sum of the rates of all tallies, each between the ends of requests. seconds: how long
    the requests of all took at that rate; 0 where there are none. opened_ns: when the first window opened. busy: the
    share of the slice for which the busiest process used a CPU. all_requests and the outcomes are of the whole slice.
    """
    words = [tally.words for tally in tallies]
    counted = [word for word in words if word[EXACT]]
    requests = sum(word[EXACT] for word in counted)
    rate = sum(word[EXACT] / (word[CLOSED] - word[OPENED]) for word in counted)  # requests/ns
    latencies = sorted(ns for tally in tallies for ns in tally.latencies[: tally.words[EXACT]])
    firsts = sorted(ns for tally in tallies for ns in tally.firsts[: tally.words[FIRSTS]])
    elapsed = max(max(word[END] for word in words) - ask.start_ns, 1)
    outcomes = {outcome: sum(word[index] for word in words) for index, outcome in enumerate(OUTCOMES)}
    return {
        "opened_ns": min((word[OPENED] for word in counted), default=ask.opens),
        "seconds": requests / rate / 1e9 if requests else 0.0,
        "requests": requests,
        "content_bytes": sum(word[BYTES] for word in words),
        "latency_p50_us": percentile(latencies, range(1, requests + 1), 50) / 1e3,
        "first_byte_p50_us": percentile(firsts, range(1, len(firsts) + 1), 50) / 1e3,
        "histogram": histogram_of(latencies),
        "busy": min(1.0, max(word[USER] + word[SYSTEM] for word in words) / elapsed),
        "all_requests": sum(outcomes.values()),
        **outcomes,
    }
