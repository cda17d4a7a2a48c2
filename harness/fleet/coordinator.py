"""Has the hosts of a fleet measure a study, block by block, and keeps what they answer.

A host is asked for one block at a time. It keeps its rows on its own disk and answers those that are not kept here yet,
so a block that was finished while a host was cut off, or while no coordinator lived, is fetched and not lost. `each`:
every host measures the whole study. `share`: the blocks of one study are dealt to the hosts that are free.
"""

import heapq
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness import console
from harness.experiment.plan import Plan
from harness.fleet.engine import Answer, Engine
from harness.fleet.fleet_directory import FleetDirectory, Kept
from harness.fleet.pooled import Pooled

_LOOK, _LOOK_HOST = 0.5, 0.002  # seconds between looks at who is there, at least, and for each host
_WAIT = 0.2  # seconds that answers are waited for
_ERRORS = 2  # failures of a host, one after another, after which it is given up
_LATEST = 5  # blocks whose mean time tells how long the rest takes

READY, MEASURING, LOST = "ready", "measuring", "lost"
DONE, MISSING, FAILED = "done", "missing", "failed"
_ENDED = {DONE, MISSING, FAILED}


@dataclass(frozen=True)
class Bounds:
    """Seconds. silent: without a word, after which a host is dropped. comeback: for which a host that is not there is
    waited for. patience, quiet, beside: as of `harness run`, on each host."""

    silent: float
    comeback: float
    patience: float
    quiet: float
    beside: bool = False


@dataclass
class Host:
    """A host of a fleet, as the coordinator sees it. widest: how far its widest interval reaches, a share."""

    name: str
    python: str
    state: str = LOST
    address: str = ""
    since: float = 0.0  # when it came into this state
    block: int = 0
    spent: float = 0.0
    widest: float | None = None
    errors: int = 0
    reason: str = ""
    took: tuple[float, ...] = ()


class Coordinator:
    """hosts: those that take part, by name. show: called with this whenever something may have changed."""

    def __init__(
        self,
        engine: Engine,
        directory: FleetDirectory,
        plan: Plan,
        pythons: Mapping[str, str],
        bounds: Bounds,
        show: Callable[["Coordinator"], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self.directory, self.plan, self._bounds = engine, directory, plan, bounds
        self._show, self._clock = show, clock
        now = clock()
        self.hosts = {name: Host(name, python, since=now) for name, python in pythons.items()}
        self._finished: dict[str, int] = directory.fleet.get("finished", {})  # host -> the rows of its whole study
        for name, rows in self._finished.items():
            if len(directory.kept.get(name, Kept()).rows) == rows:
                self.hosts[name].state = DONE
        self._text = plan.text()
        self._looked = float("-inf")
        self._free: list[int] = []  # the blocks that are to be dealt
        self._pooled: Pooled | None = None
        if directory.mode == "share":
            self._free = [block for block in range(1, plan.repeats + 1) if block not in directory.owners]
            self._pooled = Pooled(directory, plan)

    def run(self) -> bool:
        """Measure until all hosts have ended. Returns whether all of the study is kept."""
        while not self._ended():
            self._look()
            for host in self.hosts.values():
                if host.state == READY:
                    self._deal(host)
            self._take(self._engine.answers(_WAIT))
            self._show(self)
        gone = {host.name: host.reason for host in self.hosts.values() if host.state in {MISSING, FAILED}}
        self.directory.note(missing=gone)
        self.directory.finish()
        if self._pooled and not self.plan.budget:
            return self._enough()
        return not gone or self._enough()  # what is left of a budget may have no room for another block

    def blocks_of(self, host: str) -> int:
        """How many blocks of a host are kept."""
        return len(self.directory.kept.get(host, Kept()).blocks)

    def widest(self) -> float | None:
        """How far the widest interval reaches: of the coarsest host, or of what the hosts share."""
        if self._pooled:
            return self._pooled.widest
        known = [host.widest for host in self.hosts.values() if host.widest is not None]
        return max(known, default=None)

    def seconds_left(self) -> float | None:
        """About how long the rest takes, at most; None where no block has shown it."""
        at_work = [host for host in self.hosts.values() if host.state in {READY, MEASURING} and host.took]
        if not at_work:
            return None
        if self._pooled:
            rate = sum(1 / fmean(host.took) for host in at_work)
            if self.plan.budget:
                return (self.plan.budget - self._spent()) / len(at_work)
            return (self.plan.repeats - len(self.directory.owners)) / rate
        if self.plan.budget:
            return max(self.plan.budget - host.spent for host in at_work)
        return max((self.plan.repeats - self.blocks_of(host.name)) * fmean(host.took) for host in at_work)

    def _ended(self) -> bool:
        states = {host.state for host in self.hosts.values()}
        if self._pooled and self._enough() and MEASURING not in states:
            for host in self.hosts.values():
                if host.state not in _ENDED:
                    host.state = DONE
            return True
        return states <= _ENDED

    def _enough(self) -> bool:
        """Whether no block is left that has to be dealt."""
        if self._pooled is None:
            return False
        if self.plan.budget:
            return self._spent() >= self.plan.budget
        under_way = any(host.state == MEASURING for host in self.hosts.values())
        return self._pooled.precise or (not self._free and not under_way)

    def _spent(self) -> float:
        return sum(host.spent for host in self.hosts.values())

    def _look(self) -> None:
        now = self._clock()
        if now < self._looked + max(_LOOK, _LOOK_HOST * len(self.hosts)):
            return
        self._looked = now
        there = self._engine.look()
        for host in self.hosts.values():
            seen = there.get(host.name)
            silent = seen is not None and seen.silent_s > self._bounds.silent
            if host.state in {READY, MEASURING}:
                if seen is None:
                    self._lose(host, "is not there any more")
                elif silent or seen.address != host.address:
                    self._lose(host, f"is silent for {seen.silent_s:.0f} s" if silent else "has a new worker")
            if host.state == LOST and seen and not silent:
                if host.address:
                    console.say(f"{host.name} is there again")
                host.address = seen.address
                self._set(host, READY)
            elif host.state == LOST:
                if seen is None:
                    self._engine.revive(host.name)
                if now > host.since + self._bounds.comeback:
                    host.reason = f"not there for {self._bounds.comeback:g} s"
                    console.say(f"{host.name} is missing: {host.reason}")
                    self._set(host, MISSING)

    def _lose(self, host: Host, why: str) -> None:
        self._engine.drop(host.name)
        what = f": block {host.block} goes to another host" if host.block else ""
        console.say(f"{host.name} {why}{what}")
        self._give_back(host)
        self._set(host, LOST)

    def _give_back(self, host: Host) -> None:
        if host.block and host.block not in self.directory.owners:
            heapq.heappush(self._free, host.block)
        host.block = 0

    def _set(self, host: Host, state: str) -> None:
        host.state, host.since = state, self._clock()

    def _deal(self, host: Host) -> None:
        if self._pooled:
            while self._free and self._free[0] in self.directory.owners:
                heapq.heappop(self._free)
            if not self._free or self._enough():
                return
            host.block = heapq.heappop(self._free)
        asked = {
            "act": "part",
            "name": self.plan.name,
            "plan": self._text,
            "directory": f"~/.cache/transport-harness/fleet/runs/{self.directory.fleet['id']}/{host.name}",
            "rows": len(self.directory.kept.get(host.name, Kept()).rows),
            "block": host.block,
            "traits": self.directory.fleet["traits"].get(host.name, {}),
            "patience": self._bounds.patience,
            "quiet": self._bounds.quiet,
            "beside": self._bounds.beside,
        }
        self._engine.send(host.name, [host.python, "-m", "harness.fleet.host"], json.dumps(asked).encode())
        self._set(host, MEASURING)

    def _take(self, answers: Sequence[Answer]) -> None:
        """Keep what hosts have answered; then it counts."""
        measuring = [answer for answer in answers if self.hosts[answer.host].state == MEASURING]
        said, wrong = {}, {}
        for answer in measuring:
            try:
                if not answer.code:
                    said[answer.host] = json.loads(answer.output)
            except ValueError:
                wrong[answer.host] = "what it answers is no JSON"
        wrong |= self.directory.keep(said)
        before = {**self._finished}
        for answer in measuring:
            if answer.host in wrong:
                self._fail(self.hosts[answer.host], wrong[answer.host])
            else:
                self._count(self.hosts[answer.host], answer, said.get(answer.host))
        if self._finished != before:
            self.directory.note(finished=self._finished)
        if self._pooled and said:
            self._pooled.look()

    def _count(self, host: Host, answer: Answer, said: Mapping[str, Any] | None) -> None:
        if said:
            host.spent, host.widest = said["spent"], said["widest"]
        without = host.block and host.block not in self.directory.owners
        if said is None or (without and not said["done"]):
            lines = answer.errors.strip().splitlines()
            self._fail(host, lines[-1] if lines else f"exit code {answer.code}")
            return
        self._give_back(host)
        host.errors = 0
        host.took = (*host.took, self._clock() - host.since)[-_LATEST:]
        done = without if self._pooled else said["done"]
        self._set(host, DONE if done else READY)
        if done and not self._pooled:
            self._finished[host.name] = len(self.directory.kept.get(host.name, Kept()).rows)

    def _fail(self, host: Host, why: str) -> None:
        console.say(f"{host.name}: {why}")
        self._give_back(host)
        host.errors += 1
        host.reason = why
        self._set(host, FAILED if host.errors == _ERRORS else READY)
