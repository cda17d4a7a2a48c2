"""Before a fleet measures: what each host is, and, where that is asked for, the installation of a wheel on it."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from harness import console
from harness.fleet.alike import Facts
from harness.fleet.engine import Answer, Engine

_FACTS = 60.0  # seconds in which a host has to say what it is
_INSTALL = 900.0  # seconds in which an installation has to end
_JOIN = 30.0  # seconds in which a worker that has started has to be known to the scheduler
_LOOK = 1.0  # seconds between looks at who is there

# Both are run by sh -c. $1: what is installed, by its hash. $2: the name of a wheel, or the Python that makes the
# environment. The directory's name is the last line of what they print.
# Hosts may have one home: they take turns.
_PLACE = (
    'd="$HOME/.cache/transport-harness/fleet/wheels/$1"; mkdir -p "$d"; exec 9> "$d/lock"; '
    f'flock -w {_INSTALL:.0f} 9 || {{ echo "flock(1) does not lock $d within {_INSTALL:.0f} s" >&2; exit 1; }}; '
)
_UPLOAD = f'set -e; {_PLACE}cat > "$d/$2"; sha256sum < "$d/$2"'
_SET_UP = (
    f'set -e; {_PLACE}[ -e "$d/whole" ] || {{ "$2" -m venv "$d/venv"; '
    '"$d/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$d"/*.whl; touch "$d/whole"; } >&2; '
    'echo "$d/venv/bin/python"'
)


class Prepared(NamedTuple):
    """pythons: host -> the Python that measures there. facts: host -> what it said. refused: host -> why it did not."""

    pythons: dict[str, str]
    facts: dict[str, Facts]
    refused: dict[str, str]


def prepare(
    engine: Engine, pythons: Mapping[str, str], unreachable: Mapping[str, str], wheels: Sequence[str]
) -> Prepared:
    """Install the wheels on each host, if there are any, and ask it what it is. Raises OSError.

    pythons: host -> the Python that would measure there. unreachable: host -> why it cannot be asked.
    """
    _await(engine, pythons.keys() - unreachable.keys())
    refused: dict[str, str] = {}
    chosen = _install(engine, pythons, wheels, refused) if wheels else dict(pythons)
    commands = {host: ([python, "-m", "harness.fleet.host"], b'{"act": "facts"}') for host, python in chosen.items()}
    facts = {}
    for host, answer in ask_all(engine, commands, _FACTS).items():
        if answer.code:
            refused[host] = _why(answer)
        else:
            facts[host] = json.loads(answer.output)
    refused |= {host: "does not answer" for host in chosen if host not in facts and host not in refused}
    refused |= {host: why for host, why in unreachable.items() if host not in facts}
    return Prepared(chosen, facts, refused)


def _await(engine: Engine, hosts: Set[str]) -> None:
    """Wait until these hosts are there, for a while."""
    deadline = time.monotonic() + _JOIN
    while time.monotonic() < deadline and not hosts <= engine.look().keys():
        time.sleep(0.1)


def _install(
    engine: Engine, pythons: Mapping[str, str], wheels: Sequence[str], refused: dict[str, str]
) -> dict[str, str]:
    """Upload wheels to each host, check their hashes there, and install them into an environment of their own."""
    contents = {}
    for path in wheels:
        with open(path, "rb") as file:
            contents[os.path.basename(path)] = file.read()
    key = hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in contents.values())).hexdigest()[:16]
    left = dict(pythons)
    for name, wheel in contents.items():
        console.say(f"uploading {name} to {len(left)} hosts")
        digest = hashlib.sha256(wheel).hexdigest()
        commands = {host: (["sh", "-c", _UPLOAD, "sh", key, name], wheel) for host in left}
        for host, answer in ask_all(engine, commands, _INSTALL).items():
            if answer.code:
                refused[host] = _why(answer)
            elif answer.output.split()[0].decode() != digest:
                refused[host] = f"{name} has arrived with another hash"
        left = {host: python for host, python in left.items() if host not in refused}
    commands = {host: (["sh", "-c", _SET_UP, "sh", key, python], b"") for host, python in left.items()}
    chosen = {}
    for host, answer in ask_all(engine, commands, _INSTALL).items():
        if answer.code:
            refused[host] = _why(answer)
        else:
            chosen[host] = answer.output.decode().splitlines()[-1]
    refused |= {host: "the installation does not end" for host in left if host not in chosen and host not in refused}
    return chosen


def ask_all(engine: Engine, commands: Mapping[str, tuple[list[str], bytes]], bound: float) -> dict[str, Answer]:
    """Run a command on each host that is there, all at once. commands: host -> command line and standard input.

    Returns the answers that came within `bound` seconds, and before their hosts were gone.
    """
    there = engine.look()
    waiting = {host: there[host].address for host in commands if host in there}
    for host in waiting:
        engine.send(host, *commands[host])
    found: dict[str, Answer] = {}
    deadline, looked = time.monotonic() + bound, time.monotonic()
    while waiting and time.monotonic() < deadline:
        for answer in engine.answers(_LOOK):
            found[answer.host] = answer
            waiting.pop(answer.host, None)
        if time.monotonic() > looked + _LOOK:
            there, looked = engine.look(), time.monotonic()
            for host in [one for one, at in waiting.items() if one not in there or there[one].address != at]:
                del waiting[host]
                engine.drop(host)
    for host in waiting:
        engine.drop(host)
    return found


def _why(answer: Answer) -> str:
    lines = answer.errors.strip().splitlines()
    why = lines[-1] if lines else f"exit code {answer.code}"
    if "No module named" in why and "harness" in why:
        return f"{why}: install the harness there, or take --install WHEEL"
    return why
