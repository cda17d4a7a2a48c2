"""`harness plugins`: lists the installed transports and probes, and says whether they work here."""

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

_TIMEOUT = 1.0  # seconds of the scopes in which transports are tried


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harness plugins", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str]) -> int:
    """List the plugins. Returns the exit code: 0 even where some do not work here."""
    args = arguments().parse_args(argv)
    return console.main("plugins", lambda: _show(args.json))


def _show(as_json: bool) -> None:
    found = registry.installed()
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
    """A transport's name, kind, options and so on. `unusable`: why it does not work here, empty where it works."""
    data = isinstance(transport, DataTransport)
    cache_end, proxy_end = registry.shape(transport) if isinstance(transport, DataTransport) else ("", "")
    return {
        "name": transport.name,
        "kind": "data" if data else "command",
        "summary": _first_line(transport),
        "cache_end": cache_end,
        "proxy_end": proxy_end,
        "options": dataclasses.asdict(transport),  # type: ignore[call-overload]
        "distribution": registry.installed().origins[type(transport)],
        "unusable": unusable(transport),
    }


def describe_probe(kind: type[Probe]) -> dict[str, Any]:
    """A probe's name, table and so on. `unusable`: why it does not work here, empty where it works."""
    try:
        why = kind().unusable()
    except Exception as error:  # noqa: BLE001  a plugin may raise anything
        why = _in_a_line(error)
    return {
        "name": kind.name,
        "kind": "probe",
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "costly": kind.costly,
        "table": kind.table,
        "distribution": registry.installed().origins[kind],
        "unusable": why,
    }


def _first_line(transport: object) -> str:
    return (sys.modules[type(transport).__module__].__doc__ or "").strip().partition("\n")[0]


def unusable(*transports: AnyTransport) -> str:
    """Why these transports cannot all be open at once on this machine, in one line; empty where they can.

    It tries: it provisions each of them and opens its receiver, and opens one sender for each different transport.
    """
    try:
        with ExitStack() as undo:
            home = rendezvous.Home(f"try-{os.getpid()}", "try")
            undo.callback(home.close)
            with_sender: set[AnyTransport] = set()
            for number, transport in enumerate(transports):
                scope = home.scope(f"scope{number}", _TIMEOUT)
                undo.enter_context(transport.provision(scope))
                undo.enter_context(closing(transport.receiver(scope)))
                if transport not in with_sender:
                    transport.sender(scope).close()
                    with_sender.add(transport)
    except Exception as error:  # noqa: BLE001  a plugin may raise anything
        return _in_a_line(error)
    return ""


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
