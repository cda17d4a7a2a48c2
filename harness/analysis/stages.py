"""Where requests spend their time: the stages of the requests in stages.csv, which the probe `stages` has noted.

A stage is named after the moment that ends it, and begins at the moment before. So the stages of a request add up to
all of its time, and so do their means over requests; medians need not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from harness.results import Request

WHOLE = "whole"  # in place of a stage: all of a request's time


class Stage(NamedTuple):
    """A stage. ends: what ends it. place: where a request is in it: in the `proxy`, in the `cache`, or in a `channel`
    between them, until the process that waits there has woken up. docs/probes.md says what happens in each."""

    ends: str
    place: str


# In their order, by the moment that ends each; `accepted` only begins one.
STAGES = {
    "accepted": Stage("connection accepted", "proxy"),
    "read": Stage("request read", "proxy"),
    "sent": Stage("command sent", "proxy"),
    "received": Stage("command received", "channel"),
    "found": Stage("file found", "cache"),
    "published": Stage("first piece published", "cache"),
    "taken": Stage("head taken", "channel"),
    "delivered": Stage("last byte delivered", "proxy"),
    "closed": Stage("connection closed", "proxy"),
}


def until(name: str) -> str:
    """What ends a stage, in words; of `WHOLE`, that it is all of a request's time."""
    return "all of it" if name == WHOLE else STAGES[name].ends


class Spread(NamedTuple):
    """How long a stage takes, in microseconds: quartiles, and the mean over all requests."""

    low: float
    median: float
    high: float
    mean: float


Spreads = Mapping[str, Spread]  # by the name of a stage, in their order, and WHOLE last


def moments(request: Request) -> dict[str, int]:
    """The moments that a request had, in their order: name to ns since the go-ahead."""
    return {name: time for name in STAGES if (time := getattr(request, f"{name}_ns"))}


def durations(request: Request) -> dict[str, int]:
    """How long each stage of a request took, in ns."""
    times = moments(request)
    return {name: times[name] - times[before] for before, name in pairwise(times)}


def spreads(requests: Iterable[Request]) -> Spreads:
    """How long the stages of these requests took. Requests that went another way than most are left out, such as one
    that was answered with an error before it had a lane: what they did has other stages."""
    taken = [stages for one in requests if (stages := durations(one))]
    if not taken:
        return {}
    ((way, _),) = Counter(map(tuple, taken)).most_common(1)
    alike = [one for one in taken if tuple(one) == way]
    found = {name: _spread([one[name] for one in alike]) for name in way}
    return found | {WHOLE: _spread([sum(one.values()) for one in alike])}


def _spread(ns: Sequence[int]) -> Spread:
    low, median, high = (float(one) / 1e3 for one in np.quantile(ns, (0.25, 0.5, 0.75)))
    return Spread(low, median, high, float(np.mean(ns)) / 1e3)
