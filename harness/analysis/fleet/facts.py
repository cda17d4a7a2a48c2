"""The facts of hosts, from their environment.json, and which of them go with a verdict that turns round.

With a handful of hosts, facts go together: the host with another kernel often has another processor as well. So nothing
here is a test. It lists the facts that split the hosts as the verdict does, and a study that varies one of them (the
factor `congestion`, a kernel on the same machine) can say which it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Name of a fact -> where it stands in environment.json.
FACTS = {
    "processor": ("cpu", "model"),
    "CPUs": ("cpu", "usable"),
    "virtual machine": ("cpu", "virtual"),
    "hyper-threads": ("cpu", "smt"),
    "governor": ("cpu", "governors"),
    "turbo": ("cpu", "turbo"),
    "mitigations": ("cpu", "mitigations"),
    "kernel": ("kernel", "release"),
    "clock source": ("kernel", "clock_source"),
    "huge pages": ("kernel", "huge_pages"),
    "congestion control": ("tcp", "congestion"),
    "Python": ("software", "python"),
    "harness": ("software", "harness"),
}
_QUIET = "Not affected"  # a mitigation that tells nothing


def of_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """Name of a fact -> its text, for the facts that the file has."""
    found = {}
    for name, (part, key) in FACTS.items():
        inside = environment.get(part)
        given = inside.get(key) if isinstance(inside, dict) else None
        if given not in (None, "", [], {}):
            found[name] = _text(given)
    return found


def _text(given: Any) -> str:
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, dict):
        return "; ".join(f"{name}: {value}" for name, value in sorted(given.items()) if value != _QUIET) or "none"
    return ", ".join(map(str, given)) if isinstance(given, list) else str(given)


@dataclass(frozen=True)
class Split:
    """A fact that splits hosts as their verdicts do. sides: verdict -> the values of the fact on the hosts that have
    it."""

    fact: str
    sides: Mapping[str, list[str]]

    @property
    def text(self) -> str:
        """Such as `congestion control (slower: bbr; faster: reno)`."""
        parts = [f"{verdict}: {_some(values)}" for verdict, values in self.sides.items()]
        return f"{self.fact} ({'; '.join(parts)})"


def splits(verdicts: Mapping[str, str], facts: Mapping[str, Mapping[str, str]]) -> list[Split]:
    """The facts that split hosts as their verdicts do: no value of the fact is on both sides.

    verdicts: host -> one of two verdicts or more; hosts that cannot tell are left out before. facts: host -> its facts.
    Where there are more than two hosts, a fact that is another one on each host is left out: it splits any hosts.
    """
    found = []
    sides = list(dict.fromkeys(verdicts.values()))
    if len(sides) < 2:
        return []
    for fact in FACTS:
        values = {host: facts[host].get(fact, "") for host in verdicts}
        distinct = set(values.values())
        if "" in distinct or (len(verdicts) > 2 and len(distinct) == len(verdicts)):
            continue
        on = {side: sorted({values[host] for host, said in verdicts.items() if said == side}) for side in sides}
        if sum(map(len, on.values())) == len(distinct):
            found.append(Split(fact, on))
    return found


def same_everywhere(hosts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The facts that all hosts have, with the same value."""
    all_of_them = list(hosts)
    if not all_of_them:
        return {}
    first = all_of_them[0]
    return {name: value for name, value in first.items() if all(one.get(name) == value for one in all_of_them)}


def _some(values: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(value if len(value) <= 60 else f"{value[:57]}..." for value in values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown
