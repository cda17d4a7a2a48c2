"""The facts of hosts, from their environment.json, and which of them go with a verdict that turns round.

With a handful of hosts, facts go together: the host with another kernel often has another processor as well. So nothing
here is a test. It lists the facts that split the hosts as the verdict does, and a study that varies one of them (the
factor `congestion`, a kernel on the same machine) can say which it was.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
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
RIGHT = 0.9  # share of the hosts that must have the verdict most frequent with their value of a fact
_MOST_VALUES = 4  # of a fact in a sentence
_QUIET = "Not affected"  # of a mitigation that the processor does not need


def of_environment(environment: Mapping[str, Any]) -> dict[str, str]:
    """Name of a fact -> its text, for the facts that the file has."""
    found = {}
    for name, (part, key) in FACTS.items():
        given = _at(environment, part, key)
        if given not in (None, "", [], {}):
            found[name] = _text(given)
    return found


def machine(environment: Mapping[str, Any]) -> str:
    """What identifies a machine: the id of the kernel's boot, which containers on one machine share, or, where the file
    has none, the name of the machine. Empty where it has neither."""
    return str(_at(environment, "kernel", "boot_id") or environment.get("host") or "")


def apart(machines: Mapping[str, str]) -> bool:
    """Whether each host is a machine of its own. machines: host -> its machine; hosts without one count as such."""
    return len({own or host for host, own in machines.items()}) == len(machines)


def _at(environment: Mapping[str, Any], part: str, key: str) -> Any:
    inside = environment.get(part)
    return inside.get(key) if isinstance(inside, dict) else None


def _text(given: Any) -> str:
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, dict):
        return "; ".join(f"{name}: {value}" for name, value in sorted(given.items()) if value != _QUIET) or "none"
    return ", ".join(map(str, given)) if isinstance(given, list) else str(given)


@dataclass(frozen=True)
class Split:
    """A fact that splits hosts as their verdicts do. sides: value of the fact -> verdict -> how many hosts. right: the
    share of the hosts whose verdict is the most frequent one of their value."""

    fact: str
    sides: Mapping[str, Mapping[str, int]]
    right: float

    @property
    def text(self) -> str:
        """Such as `congestion control (bbr: slower; reno: faster on 38 of 40)`."""
        parts = []
        for value, verdicts in list(self.sides.items())[:_MOST_VALUES]:
            first = next(iter(verdicts))
            total = sum(verdicts.values())
            of_all = "" if len(verdicts) == 1 else f" on {verdicts[first]} of {total}"
            parts.append(f"{value if len(value) <= 60 else f'{value[:57]}...'}: {first}{of_all}")
        more = len(self.sides) - _MOST_VALUES
        return f"{self.fact} ({'; '.join([*parts, *([f'and {more} more values'] if more > 0 else [])])})"


def splits(verdicts: Mapping[str, str], facts: Mapping[str, Mapping[str, str]]) -> list[Split]:
    """The facts that split hosts as their verdicts do, the closest ones first: at least `RIGHT` of the hosts, which is
    all of them where they are few, have the most frequent verdict of their value.

    verdicts: host -> one of two verdicts or more; hosts that cannot tell are left out before. facts: host -> its facts.
    A fact with a value of its own for more than every other host is left out: it would split any hosts.
    """
    found = []
    for fact in FACTS:
        sides: dict[str, Counter[str]] = {}
        for host, said in verdicts.items():
            sides.setdefault(facts[host].get(fact, ""), Counter())[said] += 1
        if "" in sides or len(sides) > max(2, len(verdicts) // 2):
            continue
        ordered = {value: dict(sides[value].most_common()) for value in sorted(sides)}
        right = sum(max(said.values()) for said in sides.values()) / len(verdicts)
        if right >= RIGHT and len({next(iter(said)) for said in ordered.values()}) > 1:
            found.append(Split(fact, ordered, right))
    return sorted(found, key=lambda one: -one.right)


def same_everywhere(hosts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The facts that all hosts have, with the same value."""
    all_of_them = list(hosts)
    if not all_of_them:
        return {}
    first = all_of_them[0]
    return {name: value for name, value in first.items() if all(one.get(name) == value for one in all_of_them)}
