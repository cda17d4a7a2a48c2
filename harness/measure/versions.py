"""The versions that cells with an `interpreter` run: what each is, and why it cannot serve a cell.

Each interpreter is asked once, by this_version.py, about all cells together: a start of Python takes longer than an
answer.
"""

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness import machine, registry
from harness.factors import Spec, applies
from harness.measure import this_version
from harness.measure.channels import channels, described
from harness.measure.servers import command_lines
from harness.measure.starting import python

_PATIENCE = 30.0  # seconds for an answer
_LANE_LOAD = ("-w", "--verify", "--slices", "--json")  # options of a lane that a live block needs
_OPTION = re.compile(r"--?[a-z][a-z-]*")
_OURS = "transport-harness"


@dataclass
class _Version:
    """wrong: why there is none, in one line. text: which one, for people. pairs: by what described() says of a cell."""

    wrong: str = ""
    text: str = ""
    python: str = ""
    pycurl: bool = False
    options: Mapping[str, list[str]] = field(default_factory=dict)
    pairs: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


_known: dict[str, _Version] = {}


def ask(cells: Iterable[Spec]) -> None:
    """Ask the interpreters of these cells what they have, where that is not known yet."""
    wanted: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for cell in cells:
        if cell.interpreter:
            wanted[cell.interpreter] |= {described(cell)} if applies("data", cell) else set()
    for interpreter, pairs in wanted.items():
        known = _known.get(interpreter)
        if known is None or (not known.wrong and pairs - known.pairs.keys()):
            _known[interpreter] = _asked(interpreter, sorted(pairs.union(known.pairs if known else ())))


def _asked(interpreter: str, pairs: list[tuple[str, str]]) -> _Version:
    command = [*python(interpreter), this_version.__file__, json.dumps(pairs)]
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        answer = json.loads(ran.stdout.splitlines()[-1])
        known = f"{_OURS} {answer['version']} {machine.commit_of(answer['root'])}".rstrip()
        return _Version(
            text=known,
            python=answer["python"],
            pycurl=answer["pycurl"],
            options=answer["options"],
            pairs=dict(zip(pairs, answer["pairs"], strict=True)),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _Version(f"it could not be asked what it has: {' '.join(str(error).split())}")
    except (ValueError, LookupError, TypeError):
        said = ran.stderr.splitlines() or ["it answers nothing"]
        reason = said[-1] if said[0].startswith("Traceback") else said[0]
        return _Version(f"{reason}; it needs Python 3.11 or later with a harness: {interpreter} -m pip install {_OURS}")


def unfit(spec: Spec) -> str:
    """Why the interpreter of a cell cannot run its programs, and what to install, in one line; empty where it can."""
    if not spec.interpreter:
        return ""
    ask([spec])
    known = _known[spec.interpreter]
    return f"interpreter {spec.interpreter}: {wrong}" if (wrong := known.wrong or _lacking(spec, known)) else ""


def _lacking(spec: Spec, known: _Version) -> str:
    for program, *arguments in command_lines(spec, "any", "/", _LANE_LOAD).values():
        needed = [word for word in arguments if _OPTION.fullmatch(word)]
        if lacking := [option for option in needed if option not in known.options[program]]:
            return f"`harness {program}` of {known.text} has no {', '.join(lacking)}; install a later version there"
    if (pair := channels(spec)) and (wrong := known.pairs[described(spec)]["wrong"]):
        brought = sorted({registry.installed().origins[type(one)] for one in pair})
        return f"{wrong}; install there what brings it here: {', '.join(brought)}"
    return "" if spec.source != "curl" or known.pycurl else f"needs pycurl: pip install '{_OURS}[curl]' there"


def columns(spec: Spec) -> Mapping[str, Any]:
    """The columns of trials.csv that say what the transports of a cell are in its interpreter; none where unfit()."""
    ask([spec])
    found: Mapping[str, Any] = _known[spec.interpreter].pairs.get(described(spec), {}).get("columns", {})
    return found


def version(spec: Spec) -> str:
    """What the interpreter of a cell runs: `transport-harness 1.4.0 0f4d64112ab3, Python 3.11.7`; empty where it is
    this one, or has no harness."""
    if not spec.interpreter:
        return ""
    ask([spec])
    known = _known[spec.interpreter]
    if known.wrong:
        return ""
    pair = known.pairs[described(spec)] if applies("data", spec) else {"brought": []}
    others = [one for one in pair["brought"] if not one.startswith(f"{_OURS} ")]
    return ", ".join([known.text, f"Python {known.python}", *others])


def versions(cells: Iterable[Spec]) -> dict[str, list[str]]:
    """interpreter -> what it runs, for those that the cells set."""
    found: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        if cell.interpreter:
            found[cell.interpreter].add(version(cell))
    return {interpreter: sorted(some) for interpreter, some in found.items()}
