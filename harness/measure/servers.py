"""The servers of a cell, as programs: the proxy, and the cache or origin where the cell has one.

In a lane there is no proxy: the program that makes the requests has the lanes, in the role `proxy`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from harness import registry
from harness.factors import Spec
from harness.measure.channels import Channels
from harness.measure.placement import Placement
from harness.measure.program import Program, children
from harness.measure.starting import Command, Start

START = 30.0  # seconds for programs to be ready


class Servers:
    """Programs that serve the files below `root`, at a rendezvous of their own.

    directory: gets what the programs write to standard error. lane_load: the arguments of the load, where the cell is
    a lane. start: starts each program. `undo` ends the programs. They start side by side: await_ready() returns when
    all serve.
    """

    def __init__(
        self,
        spec: Spec,
        pair: Channels | None,
        rendezvous: str,
        directory: str,
        root: str,
        undo: ExitStack,
        lane_load: Sequence[str] = (),
        start: Start = Command,
    ) -> None:
        self._spec, self._pair, self._name, self._root = spec, pair, rendezvous, root
        self._start = partial(Program, directory, undo, Placement(spec), start)
        self._rendezvous = ["--name", rendezvous, "--timeout", str(spec.timeout)]
        self._serving = [*self._rendezvous, "--until-eof", "--json"]
        self._cold = ["--cold"] if spec.page_cache == "cold" else []
        self.programs: dict[str, Program] = {}
        self.port = 0
        self.origin = ""  # which server the origin is
        backend = self._start_backend()
        workers = ["-t", str(spec.proxy_threads), "--processes", str(spec.proxy_processes)]
        if spec.scope == "lane":
            load = ["--sink", spec.sink, *backend, *self._rendezvous, *lane_load]
            self.programs["proxy"] = self._start("proxy", "lane", *workers, *load)
        else:
            congestion = ["--congestion", spec.congestion]
            proxy = ["-p", "0", *workers, *congestion, *backend, *self._serving]
            self.programs["proxy"] = self._start("proxy", "webproxy", *proxy)

    def _start_backend(self) -> list[str]:
        """Start what the proxy gets content from. Returns the proxy's arguments for it."""
        spec = self._spec
        if spec.source == "direct":
            return ["--direct", self._root, *self._cold]
        if spec.source == "curl":
            slow = ["--latency", str(round(spec.origin_latency * 1e6))]
            slow += ["--bandwidth", str(spec.origin_bandwidth)] if spec.origin_bandwidth else []
            serving = ["-c", self._root, "-p", "0", "--server", spec.origin_server, "--name", self._name]
            origin = self._start("origin", "origin", *serving, *slow, "--until-eof", "--json")
            self.programs["origin"] = origin
            greeting = origin.expect("ready", seconds=START)
            self.origin = greeting["server"]
            return ["-s", greeting["url"], "--strategy", spec.strategy, "--reuse" if spec.reuse else "--no-reuse"]
        assert self._pair is not None
        workers = ["-t", str(spec.cache_threads), "--processes", str(spec.cache_processes)]
        serving = ["-c", self._root, *workers, "--command", spec.command, *self._cold, *self._serving]
        self.programs["cache"] = self._start("cache", "simplecached", *serving)
        return ["-n", str(spec.lanes), "--data", registry.describe(self._pair.data)]

    def await_ready(self, warmup: float = 0.0) -> None:
        """Return when all serve; where the cell is a lane, when its load is ready, after `warmup` seconds of requests.

        Raises TrialError, CellRefused.
        """
        if "cache" in self.programs:
            self.programs["cache"].expect("ready", seconds=START)
        ready = self.programs["proxy"].expect("ready", seconds=START + warmup)
        if self._spec.scope != "lane":
            self.port = ready["port"]

    def pids(self) -> dict[str, list[int]]:
        """The processes of each role that has any."""
        found = {role: one.pids() for role, one in self.programs.items()}
        if "origin" in found:  # it may be an nginx, which has workers of its own
            found["origin"] += [pid for child in found["origin"][1:] for pid in children(child)]
        if self._spec.scope == "lane":  # the client's processes are the socket readers, where lanes need sockets
            found["client"] = [pid for worker in found["proxy"][1:] for pid in children(worker)]
        return {role: pids for role, pids in found.items() if pids}


def place(pids: Mapping[str, Sequence[int]], spec: Spec) -> None:
    """Have the processes of each role run where the cell says, sched_setaffinity(2), with all their threads."""
    placement = Placement(spec)
    for role, some in pids.items():
        cpus = placement.cpus(role)
        for pid in some:
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), cpus)
