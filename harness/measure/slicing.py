"""How long the slices of a cell are: its lead-in, its counted window, and how many rounds there are."""

import math
from typing import NamedTuple

from harness.factors import Spec
from harness.measure.placement import Placement

# Where the experiment does not set them. docs/decisions/0017-live-blocks.md has the study behind these numbers.
_LEAD_IN_S, _LEAD_IN_OF_LANE_S = 0.002, 0.001
# On one CPU a longer window is steadier. On several what scatters is which process runs where, and that lasts. Many
# mechanisms are compared over lanes, and more rounds fit: steadier on several CPUs, a third less so on one.
_WINDOW_S, _WINDOW_ON_ONE_CPU_S, _WINDOW_OF_LANE_S = 0.006, 0.010, 0.003
_LEAD_IN_TURNS, _WINDOW_TURNS, _WINDOW_TURNS_OF_LANE = 2, 8, 4  # requests of each client
_IN_OPEN_LOOP = 4  # requests under way at a time where they come at a rate: a guess
_LEAST_ROUNDS, MOST_ROUNDS = 5, 2000


class Slicing(NamedTuple):
    """What an experiment sets: lead_in and window in seconds, rounds a block; 0: what suits the cell."""

    lead_in: float = 0.0
    window: float = 0.0
    rounds: int = 0


FITTING = Slicing()


class Lengths(NamedTuple):
    """lead_in: seconds of load before the window opens. window: seconds for which requests are counted."""

    lead_in: float
    window: float


def at_once(spec: Spec) -> int:
    """Requests of a cell that are under way at a time; a guess where they come at a rate."""
    if spec.rate:
        return min(spec.clients, _IN_OPEN_LOOP)
    return spec.clients if spec.scope == "pipeline" else spec.proxy_threads * spec.proxy_processes * spec.batch


def lengths(slicing: Slicing, spec: Spec, files: int, pace: float) -> Lengths:
    """The lengths that suit a cell. files: of its workload. pace: requests/s that it was seen to serve.

    The lead-in has each client make some requests, and each file asked for once, since the slices of other cells have
    filled the processor's caches. The window is as long, at least, as it takes for its ends to weigh little.
    """
    clients = at_once(spec)
    if spec.scope == "lane":
        least_lead_in, least, turns = _LEAD_IN_OF_LANE_S, _WINDOW_OF_LANE_S, _WINDOW_TURNS_OF_LANE
    else:
        turns = _WINDOW_TURNS
        least_lead_in, least = _LEAD_IN_S, _WINDOW_ON_ONE_CPU_S if Placement(spec).on_one_cpu else _WINDOW_S
    lead_in = max(least_lead_in, max(_LEAD_IN_TURNS * clients, files) / pace)
    window = max(least, turns * clients / pace)
    return Lengths(slicing.lead_in or lead_in, slicing.window or window)


def rounds(slicing: Slicing, spec: Spec, window: float, pace: float) -> int:
    """How many rounds make the load that the cell asks for, by `seconds` or `requests`. window: seconds."""
    if slicing.rounds:
        return slicing.rounds
    wanted = spec.requests / (pace * window) if spec.requests else spec.seconds / window
    return min(MOST_ROUNDS, max(_LEAST_ROUNDS, math.ceil(wanted)))
