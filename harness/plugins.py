"""`harness plugins`: the installed transports and probes, and whether they work here."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

from harness import console, registry, rendezvous
from harness.api import CommandTransport, DataTransport, Probe
from harness.registry import AnyTransport

_TIMEOUT = 1.0


def main(argv: Sequence[str]) -> int:
    """List the plugins. Returns the exit code: 0 also where some do not work here."""
    parser = argparse.ArgumentParser(prog="harness plugins", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    args = parser.parse_args(argv)
    return console.main("plugins", lambda: _show(args.json))


def _show(as_json: bool) -> None:
    found = registry.load()
    listed = [describe(transport) for transport in registry.defaults()]
    probes = [describe_probe(kind) for kind in found.probes.values()]
    if as_json:
        print(json.dumps({"transports": listed, "probes": probes, "failed": found.failed}, indent=1))
        return
    for one in listed:
        options = ",".join(f"{name}={value}" for name, value in one["options"].items())
        shape = f", cache end {one['cache_end']}, proxy end {one['proxy_end']}" if one["kind"] == "data" else ""
        print(f"{one['kind']:8}{one['name']}{':' if options else ''}{options}")
        print(f"        {one['summary']}")
        print(f"        from {one['distribution']}{shape}; {one['unusable'] or 'works here'}")
    for one in probes:
        costs = "costly: in trials of its own" if one["costly"] else "cheap"
        print(f"{one['kind']:8}{one['name']}\n        {one['summary']}")
        print(f"        from {one['distribution']}, {costs}; {one['unusable'] or 'works here'}")
    for plugin, reason in found.failed.items():
        print(f"failed  {plugin}: {reason}")


def describe(transport: CommandTransport | DataTransport) -> dict[str, Any]:
    """What there is to know of a transport. `unusable`: why it does not work here, empty where it does."""
    data = isinstance(transport, DataTransport)
    cache_end, proxy_end = registry.shape(transport) if isinstance(transport, DataTransport) else ("", "")
    return {
        "name": transport.name,
        "kind": "data" if data else "command",
        "summary": _first_line(transport),
        "cache_end": cache_end,
        "proxy_end": proxy_end,
        "options": dataclasses.asdict(transport),  # type: ignore[call-overload]
        "distribution": registry.load().origins[type(transport)],
        "unusable": unusable(transport),
    }


def describe_probe(kind: type[Probe]) -> dict[str, Any]:
    """What there is to know of a probe. `unusable`: why it does not work here, empty where it does."""
    try:
        why = kind().unusable()
    except Exception as error:  # noqa: BLE001  whatever a stranger's probe raises
        why = _in_a_line(error)
    return {
        "name": kind.name,
        "kind": "probe",
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "costly": kind.costly,
        "table": kind.table,
        "distribution": registry.load().origins[kind],
        "unusable": why,
    }


def _first_line(transport: object) -> str:
    return (sys.modules[type(transport).__module__].__doc__ or "").strip().partition("\n")[0]


def unusable(*transports: AnyTransport) -> str:
    """Why not all of these can be there at once, in one line; empty where they can.

    All are made, and each has its receiver opened; of each kind of them one has its sender opened, too.
    """
    try:
        with ExitStack() as undo:
            home = rendezvous.Home(f"try-{os.getpid()}", "try")
            undo.callback(home.close)
            sent: set[AnyTransport] = set()
            for number, transport in enumerate(transports):
                scope = home.scope(f"scope{number}", _TIMEOUT)
                undo.enter_context(transport.provision(scope))
                undo.enter_context(closing(transport.receiver(scope)))
                if transport not in sent:
                    transport.sender(scope).close()
                    sent.add(transport)
    except Exception as error:  # noqa: BLE001  whatever a stranger's transport raises
        return _in_a_line(error)
    return ""


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
