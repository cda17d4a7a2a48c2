"""Where and how the programs of a trial run: the CPUs of each role, sched_setaffinity(2), and the policy, sched(7)."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from harness.factors import ROLES, Spec

_POLICIES = {"other": os.SCHED_OTHER, "batch": os.SCHED_BATCH, "fifo": os.SCHED_FIFO}
_SCHEDULED = {"proxy", "cache"}  # the roles that the factor `scheduling` is about


class Placement:
    """The CPUs and the scheduling policy of each role of a cell."""

    def __init__(self, spec: Spec) -> None:
        self._cpus = cpus_of(spec.placement)
        self._policy = _POLICIES[spec.scheduling]

    def cpus(self, role: str) -> set[int]:
        """The CPUs that a role may use."""
        return self._cpus.get(role) or os.sched_getaffinity(0)

    @property
    def on_one_cpu(self) -> bool:
        """Whether all roles have one CPU together."""
        return len(set().union(*map(self.cpus, ROLES))) == 1

    def policy(self, role: str) -> int:
        """The scheduling policy of a role, as sched_setscheduler(2) takes it."""
        return self._policy if role in _SCHEDULED else os.SCHED_OTHER

    @contextmanager
    def inherited(self, role: str) -> Iterator[None]:
        """What is started in the body, and what that starts in turn, runs where and how this role does."""
        mine = os.sched_getaffinity(0)
        with _scheduled(self.policy(role)):
            os.sched_setaffinity(0, self.cpus(role))
            try:
                yield
            finally:
                os.sched_setaffinity(0, mine)


def cpus_of(placement: str) -> dict[str, set[int]]:
    """The CPUs of each role that is not free to run anywhere."""
    cpus = sorted(os.sched_getaffinity(0))
    if placement == "free":
        return {}
    if placement == "same-core":
        return {role: {cpus[0]} for role in ROLES}
    if placement == "spread":  # the channel goes from one CPU to another; the client has the others where there are any
        return {"proxy": {cpus[0]}, "cache": {cpus[-1]}, "client": set(cpus[1:-1] or cpus)}
    given = dict(part.split("=") for part in placement.split())
    return {role: _parsed(text) for role, text in given.items()}


def unplaceable(placement: str) -> str:
    """Why this process cannot place programs like that, in one line; empty where it can."""
    mine = os.sched_getaffinity(0)
    if placement == "spread" and len(mine) < 2:
        return "placement spread: this run may use only one CPU"
    missing = {cpu for cpus in cpus_of(placement).values() for cpu in cpus} - mine
    if missing:
        return f"placement {placement}: this run may not use CPU {min(missing)}; it has {listed(mine)}"
    return ""


def unschedulable(scheduling: str) -> str:
    """Why this process cannot start programs of this policy, and what to change; empty where it can. It is tried."""
    try:
        with _scheduled(_POLICIES[scheduling]):
            return ""
    except PermissionError:
        return (
            f"scheduling {scheduling}: the kernel refuses it here, sched(7): for `fifo` an ordinary user needs an "
            "RLIMIT_RTPRIO of 1, and root a control group with real-time share; or leave `scheduling` out"
        )


@contextmanager
def _scheduled(policy: int) -> Iterator[None]:
    """This thread, and the processes that it forks, have this policy in the body. Raises PermissionError."""
    mine, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    if policy == mine:
        yield
        return
    os.sched_setscheduler(0, policy, os.sched_param(os.sched_get_priority_min(policy)))
    try:
        yield
    finally:
        os.sched_setscheduler(0, mine, parameters)


def _parsed(text: str) -> set[int]:
    """`0,2-3` as a set."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def listed(cpus: Iterable[int]) -> str:
    """CPUs as one writes them: `0,2,3`."""
    return ",".join(map(str, sorted(cpus)))


def effective(pids: Mapping[str, Iterable[int]]) -> str:
    """The CPUs that each role may use now: `client=0 proxy=1 cache=0,1`."""
    return " ".join(
        f"{role}={listed(set().union(*map(os.sched_getaffinity, pids[role])))}"
        for role in (*ROLES, "origin")
        if pids.get(role)
    )
