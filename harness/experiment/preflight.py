"""What of a plan cannot work here, found before the first trial: each lane and channel is made once, for nothing."""

import os
from collections.abc import Iterable
from contextlib import ExitStack, closing
from typing import Any

from harness import registry, rendezvous, trial
from harness.api import CommandTransport, DataTransport, Scope
from harness.spec import Spec

_TIMEOUT = 1.0


def refusals(cells: Iterable[Spec]) -> dict[Spec, str]:
    """The cells that cannot run, with the reason in one line.

    Whether transports and machine can hold a cell is tried, with as many lanes as the cell has: limits such as
    RLIMIT_MSGQUEUE are on the sum.
    """
    found = {}
    tried: dict[tuple[Any, ...], str] = {}
    for cell in cells:
        if reason := trial.impossible(cell):
            found[cell] = reason
            continue
        if cell.source != "cache":
            continue
        data = trial.data_transport(cell)
        key = cell.command, data, cell.lanes
        if key not in tried:
            tried[key] = _try(registry.command_transport(cell.command), data, cell.lanes)
        if tried[key]:
            found[cell] = tried[key]
    return found


def _try(command: CommandTransport, data: DataTransport, lanes: int) -> str:
    home = rendezvous.Home(f"preflight-{os.getpid()}", "try")
    try:
        with ExitStack() as undo:
            ends: list[tuple[CommandTransport | DataTransport, Scope]] = [(command, home.scope("commands", _TIMEOUT))]
            ends += [(data, home.scope(f"lane{number}", _TIMEOUT)) for number in range(lanes)]
            for transport, scope in ends:
                undo.enter_context(transport.provision(scope))
                undo.enter_context(closing(transport.receiver(scope)))
            for transport, scope in ends[:2]:
                transport.sender(scope).close()
    except Exception as error:  # noqa: BLE001  whatever a stranger's transport raises
        return " ".join(f"{type(error).__name__}: {error}".split())
    finally:
        home.close()
    return ""
