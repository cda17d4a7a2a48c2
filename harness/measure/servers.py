"""The servers of a cell, as programs: the proxy, and the cache or origin where the cell has one.

In a lane there is no proxy: the program that makes the requests has the lanes, in the role `proxy`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from harness.factors import Spec
from harness.measure.channels import described
from harness.measure.placement import Placement
from harness.measure.program import Program, caused, children
from harness.measure.starting import Command, Start

START = 30.0  # seconds for programs to be ready


def command_lines(
    spec: Spec, rendezvous: str, root: str, lane_load: Sequence[str] = (), url: str = ""
) -> dict[str, list[str]]:
    """role -> the program that has it in a cell, and its arguments, in the order of their start. url: of the origin."""
    meeting = ["--name", rendezvous, "--timeout", str(spec.timeout)]
    started = ["--until-eof", "--json"]
    cold = ["--cold"] if spec.page_cache == "cold" else []
    lines = {}
    if spec.source == "direct":
        backend = ["--direct", root, *cold]
    elif spec.source == "curl":
        slow = ["--latency", str(round(spec.origin_latency * 1e6))]
        slow += ["--bandwidth", str(spec.origin_bandwidth)] if spec.origin_bandwidth else []
        serving = ["-c", root, "-p", "0", "--server", spec.origin_server, "--name", rendezvous]
        lines["origin"] = ["origin", *serving, *slow, *started]
        backend = ["-s", url, "--strategy", spec.strategy, "--reuse" if spec.reuse else "--no-reuse"]
    else:
        command, data = described(spec)
        workers = ["-t", str(spec.cache_threads), "--processes", str(spec.cache_processes)]
        serving = ["-c", root, *workers, "--command", command, *cold]
        lines["cache"] = ["simplecached", *serving, *meeting, *started]
        backend = ["-n", str(spec.lanes), "--data", data]
    workers = ["-t", str(spec.proxy_threads), "--processes", str(spec.proxy_processes)]
    if spec.scope == "lane":
        batch = ["--batch", str(spec.batch)] if spec.batch > 1 else []
        lines["proxy"] = ["lane", *workers, *batch, "--sink", spec.sink, *backend, *meeting, *lane_load]
    else:
        congestion = ["--congestion", spec.congestion]
        lines["proxy"] = ["webproxy", "-p", "0", *workers, *congestion, *backend, *meeting, *started]
    return lines


class Servers:
    """Programs that serve the files below `root`, at a rendezvous of their own.

    directory: gets what the programs write to standard error. lane_load: the arguments of the load, where the cell is
    a lane. start: starts each program; None: as commands of the cell's interpreter. `undo` ends the programs. They
    start side by side: await_ready() returns when all serve.
    """

    def __init__(
        self,
        spec: Spec,
        rendezvous: str,
        directory: str,
        root: str,
        undo: ExitStack,
        lane_load: Sequence[str] = (),
        start: Start | None = None,
    ) -> None:
        self._spec = spec
        self.programs: dict[str, Program] = {}
        self.port = 0
        self.origin = url = ""  # which server the origin is, and where
        begin = self._begin = partial(
            Program, directory, undo, Placement(spec), start or partial(Command, interpreter=spec.interpreter)
        )
        self._lines = partial(command_lines, spec, rendezvous, root)
        for role in self._lines():
            line = self._lines(lane_load, url)[role]
            program = self.programs[role] = begin(role, *line)
            if role == "origin":
                greeting = program.expect("ready", seconds=START)
                self.origin, url = greeting["server"], greeting["url"]

    def await_ready(self, warmup: float = 0.0) -> None:
        """Return when all serve; where the cell is a lane, when its load is ready, after `warmup` seconds of requests.

        Raises TrialError, CellRefused. A proxy can wait for a cache that was ready and has ended: that is then named.
        """
        with caused(lambda: next(filter(None, (program.failure() for program in self.programs.values())), "")):
            if "cache" in self.programs:
                self.programs["cache"].expect("ready", seconds=START)
            ready = self.programs["proxy"].expect("ready", seconds=START + warmup)
        if self._spec.scope != "lane":
            self.port = ready["port"]

    def start_again(self, role: str) -> None:
        """Start a server that has ended once more: the proxy at its port, as clients know that."""
        line = self._lines()[role]
        if role == "proxy":
            line[line.index("-p") + 1] = str(self.port)
        self.programs[role] = self._begin(role, *line)

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
