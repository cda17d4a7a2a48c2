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
    command, data = described(spec)
    return Channels(registry.command_transport(command), registry.data_transport(data))


def described(spec: Spec) -> tuple[str, str]:
    """The command and the data transport of a cell, with the options that it sets: the others are the defaults of the
    version that runs. Raises ValueError."""
    return spec.command, registry.completed(spec.data, chunk=spec.chunk, depth=spec.depth, wait=spec.wait)
