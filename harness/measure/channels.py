"""The two channels of a cell: its transports, with the options that the cell sets."""

from functools import cache
from typing import NamedTuple

from harness import registry
from harness.api import CommandTransport, DataTransport
from harness.factors import Spec, applies


class Channels(NamedTuple):
    """The transports of a cell that has a cache."""

    command: CommandTransport
    data: DataTransport


@cache
def channels(spec: Spec) -> Channels | None:
    """The transports of a cell, None where it has no cache. Raises ValueError where there is no such one, or option.

    Made once for each cell: plan, checks and trial all ask for them.
    """
    if not applies("data", spec):
        return None
    data = registry.data_transport(spec.data, chunk=spec.chunk, depth=spec.depth, wait=spec.wait)
    return Channels(registry.command_transport(spec.command), data)
