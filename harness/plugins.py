"""`harness plugins`: the installed transports and probes, and whether they work here."""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from harness import registry, rendezvous
from harness.api import CommandTransport, DataTransport, Probe
from harness.roles import program

_TIMEOUT = 1.0


def main(argv: Sequence[str]) -> int:
    """List the plugins. Returns the exit code: 0 also where some do not work here."""
    parser = argparse.ArgumentParser(prog="harness plugins", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    args = parser.parse_args(argv)
    return program.main("plugins", lambda: _show(args.json))


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
        "unusable": _try(transport),
    }


def describe_probe(kind: type[Probe]) -> dict[str, Any]:
    """What there is to know of a probe. `unusable`: why it does not work here, empty where it does."""
    try:
        unusable = kind().unusable()
    except Exception as error:  # noqa: BLE001  whatever a stranger's probe raises
        unusable = " ".join(f"{type(error).__name__}: {error}".split())
    return {
        "name": kind.name,
        "kind": "probe",
        "summary": (kind.__doc__ or "").strip().partition("\n")[0],
        "costly": kind.costly,
        "table": kind.table,
        "distribution": registry.load().origins[kind],
        "unusable": unusable,
    }


def _first_line(transport: object) -> str:
    return (sys.modules[type(transport).__module__].__doc__ or "").strip().partition("\n")[0]


def _try(transport: CommandTransport | DataTransport) -> str:
    with tempfile.TemporaryDirectory(prefix="th-try-", dir="/tmp") as base:
        os.environ[rendezvous.BASE_VARIABLE] = base
        home = rendezvous.Home("plugins", f"try-{os.getpid()}")
        try:
            scope = home.scope("scope", _TIMEOUT)
            with transport.provision(scope):
                receiver = transport.receiver(scope)
                try:
                    transport.sender(scope).close()
                finally:
                    receiver.close()
        except Exception as error:  # noqa: BLE001  whatever a stranger's transport raises
            return " ".join(f"{type(error).__name__}: {error}".split())
        finally:
            home.close()
    return ""
