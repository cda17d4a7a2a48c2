"""Which hosts of a fleet may measure together: pure functions on what they say of themselves, harness/fleet/host.py.

The harness and its plugins must be the same on all, by the content of their files. Where blocks of one study are dealt
to several hosts, all that separates contexts in the analysis must be the same, but for the host's name.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]

_HARNESS = "transport-harness"
_MACHINE = {
    "processor": ("cpu", "model"),
    "CPUs": ("cpu", "usable"),
    "kernel": ("kernel", "release"),
    "Python": ("software", "python"),
    "commit": ("software", "commit"),
}


def traits(facts: Facts, mode: str) -> dict[str, str]:
    """What must be the same on two hosts: name -> what it is. mode: `each` or `share`."""
    found = {}
    for distribution, digest in facts["code"].items():
        name, _, version = distribution.partition(" ")
        found[name] = f"{version}, code {digest}"
    if mode == "share":
        for name, (part, key) in _MACHINE.items():
            found[name] = str(facts["machine"][part][key])
    return found


def refused(hosts: Mapping[str, Facts], mode: str, own: Facts) -> dict[str, str]:
    """The hosts that may not take part -> why: what differs, and on which hosts it is otherwise.

    hosts: name -> its facts. own: facts of the coordinator, whose harness all must have. Of the others the largest
    group that is alike takes part. Raises ValueError where no group is the largest.
    """
    code = traits(own, "each")[_HARNESS]
    found = {}
    for host, facts in hosts.items():
        there = traits(facts, "each").get(_HARNESS, "not installed")
        if there != code:
            found[host] = f"{_HARNESS} is {there}; here it is {code}"
    groups = Counter(_key(facts, mode) for host, facts in hosts.items() if host not in found)
    if not groups:
        return found
    (largest, size), *others = groups.most_common()
    members = [host for host, facts in hosts.items() if host not in found and _key(facts, mode) == largest]
    for host, facts in hosts.items():
        if host not in found and host not in members:
            found[host] = _differences(traits(facts, mode), dict(largest), members)
    if others and others[0][1] == size:
        unlike = "; ".join(f"{host}: {why}" for host, why in found.items())
        raise ValueError(f"hosts are unlike, and no kind is the most frequent: {unlike}: name hosts that are alike")
    return found


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """How the traits of a host differ from those that it had; empty where they do not."""
    return "; ".join(
        f"{name} was {before.get(name, 'not installed')} and is {now.get(name, 'not installed')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    )


def same_machine(hosts: Mapping[str, Facts]) -> list[list[str]]:
    """The hosts that are one machine, as of one boot of a kernel, random(4); those that are alone are left out."""
    boots = defaultdict(list)
    for host, facts in hosts.items():
        if boot := facts["machine"]["kernel"].get("boot_id"):
            boots[boot].append(host)
    return [names for names in boots.values() if len(names) > 1]


def table(hosts: Sequence[str], known: Mapping[str, Facts], why: Mapping[str, str]) -> str:
    """Who takes part, and who does not and why, as text."""
    rows = [("host", "takes part", "CPUs", "kernel", "Python", "processor")]
    notes = []
    for host in hosts:
        takes = "no" if host in why else "yes"
        if host in known:
            machine = known[host]["machine"]
            cpus, kernel = str(machine["cpu"]["usable"]), machine["kernel"]["release"]
            rows.append((host, takes, cpus, kernel, machine["software"]["python"], machine["cpu"]["model"]))
            if host not in why and (findings := known[host]["findings"]):
                names = ", ".join(dict.fromkeys(one.partition(":")[0] for one in findings))
                notes.append(f"{host}: `harness doctor` there has to say something on: {names}")
        else:
            rows.append((host, takes, "", "", "", ""))
        if host in why:
            notes.append(f"{host} is refused: {why[host]}")
    taking = {host: known[host] for host in hosts if host in known and host not in why}
    for together in same_machine(taking):
        notes.append(f"{', '.join(together)} are one machine: what they find is found on one")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *notes])


def _key(facts: Facts, mode: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(traits(facts, mode).items()))


def _differences(here: Mapping[str, str], there: Mapping[str, str], members: Sequence[str]) -> str:
    others = ", ".join(members[:3]) + (f" and {len(members) - 3} others" if len(members) > 3 else "")
    return "; ".join(
        f"{name} is {here.get(name, 'not installed')}, on {others} {there.get(name, 'not installed')}"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    )
