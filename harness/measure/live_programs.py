"""The programs of a live block: servers that cells share, and clients that make slices of load for all of them."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from harness.factors import Spec
from harness.measure.channels import channels
from harness.measure.file_sets import SharedFiles
from harness.measure.placement import Placement
from harness.measure.program import Program
from harness.measure.servers import START, Servers, place
from harness.measure.starting import Start

REQUEST = 30.0  # seconds for a request of the load

Pids = Mapping[str, Sequence[int]]


class Placed:
    """Processes, by role, that run where the cell says which has a slice. placement: where they have been started."""

    def __init__(self, pids: Pids, placement: str) -> None:
        self.pids, self._placement = pids, placement

    def begin(self, spec: Spec) -> None:
        """A slice of this cell begins."""
        if self.pids and spec.placement != self._placement:
            place(self.pids, spec)
            self._placement = spec.placement


class LiveServers(Placed):
    """The servers of cells that differ in their load only. idle_ns: CPU time that they used between slices."""

    def __init__(self, servers: Servers, placement: str) -> None:
        super().__init__(servers.pids(), placement)
        self.servers = servers
        self.idle_ns = 0
        self._rest: int | None = None  # CPU time when the latest slice had ended

    def count_idle(self, before: int, after: int) -> None:
        """CPU time of all servers before and after a slice, ns."""
        if self._rest is not None:
            self.idle_ns += before - self._rest
        self._rest = after


class Load(Placed):
    """A program that makes slices of load. pids: its processes; none where they are among the servers'."""

    def __init__(self, program: Program, placement: str, separate: bool) -> None:
        super().__init__({"client": program.pids()} if separate else {}, placement)
        self.program = program


class Clients:
    """The clients of a block: one for all cells that differ in nothing that it cannot change from slice to slice.

    directory: of the block; each client's standard error goes to a directory below it, which is added to `directories`.
    programs: those that were started.
    """

    def __init__(self, files: SharedFiles, directory: str, directories: list[str], start: Start) -> None:
        self._files, self._directory, self._directories, self._start = files, directory, directories, start
        self._loads: dict[tuple[object, ...], Load] = {}
        self.programs: list[Program] = []

    def of(self, spec: Spec, undo: ExitStack) -> Load:
        """The client that makes the load of this cell; started where there is none, and `undo` ends it."""
        root = root_of(spec, self._files)
        key = spec.client_processes, spec.sink, root
        if key not in self._loads:
            directory = f"{self._directory}/client-{len(self.programs)}"
            os.mkdir(directory)
            self._directories.append(directory)
            command = ["gfclient", "--processes", str(spec.client_processes), "--timeout", str(REQUEST)]
            command += [f"--{spec.sink}", *load_arguments(root, self._files)]
            program = Program(directory, undo, Placement(spec), self._start, "client", *command)
            self.programs.append(program)
            program.expect("ready", seconds=START)
            self._loads[key] = Load(program, spec.placement, separate=True)
        return self._loads[key]


def content(spec: Spec) -> tuple[str, int, bool]:
    """(files, copies, whether the content is zeros) of a cell."""
    pair = channels(spec)
    return spec.files, spec.copies, pair is not None and not pair.data.moves_content


def root_of(spec: Spec, files: SharedFiles) -> str:
    """The directory that the servers of a cell serve."""
    named, _, zeros = content(spec)
    return files.root(named, zeros)


def load_arguments(root: str, files: SharedFiles) -> list[str]:
    """What a program that makes slices of load needs to know of the files below `root`."""
    workloads = [argument for path in files.workloads(root) for argument in ("-w", path)]
    return [*workloads, "--verify", root, "--slices", "--json"]
