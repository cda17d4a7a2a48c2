"""A live block: fresh programs for all of its cells, alive at once, and rounds in which each cell gets a slice of load.

A slice is a window in a load that already runs and still runs when the window closes (harness/load/). Between its
slices a cell's programs wait. Noise that lasts longer than a round hits all cells of the round alike, so it falls out
of their ratios. Cells that differ only in the load share their servers, and all cells share their clients.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median_high
from typing import Any

from harness import machine, rendezvous
from harness.api import Probe
from harness.factors import FACTORS, Spec, applies
from harness.measure import record
from harness.measure.channels import channels, described
from harness.measure.feasible import impossible
from harness.measure.file_sets import SharedFiles
from harness.measure.leftovers import keep_logs, sweep
from harness.measure.live_cell import COMPARED_FIRST, COMPARED_LAST, LiveCell, failed_program
from harness.measure.live_programs import Clients, LiveServers, Load, content, load_arguments, root_of
from harness.measure.placement import effective
from harness.measure.probes.proc import Memory, cpu_clock
from harness.measure.probing import ProbeFailed, Probing, Seen
from harness.measure.program import CellRefused, TrialError, with_cause
from harness.measure.servers import Servers
from harness.measure.slicing import FITTING, MOST_ROUNDS, Slicing, lengths, rounds
from harness.measure.starting import Starter
from harness.results import LIVE, Observation, Slice, Trial

_PACING = 0.02  # seconds of load that show a cell's pace
_IDLE = 0.02  # of a CPU: more than this in programs that have nothing to do disturbs a block
_COMPARED = 0.01  # seconds of load after the rounds whose content is compared, where the warm-up is not shorter

Member = tuple[Spec, Trial]


@dataclass
class Outcome:
    """What came of a block. The trials' rows are filled in: `ok`, or `failed` or `refused` with a reason.

    slices: of the trials that are good. seen: what else has no column, by table. crowded: place among the members ->
    why this machine does not hold it beside the others; its row has no status yet. guilty: places of those that failed,
    or for whose programs the whole block did. rounds: how many there were. round_s: seconds of a round.
    seconds: of the whole block.
    """

    slices: list[Slice] = field(default_factory=list)
    seen: Seen = field(default_factory=dict)
    crowded: dict[int, str] = field(default_factory=dict)
    guilty: set[int] = field(default_factory=set)
    rounds: int = 0
    round_s: float = 0.0
    seconds: float = 0.0


def run(
    members: Sequence[Member],
    slicing: Slicing,
    pace: dict[Spec, float],
    probes: Callable[[], Sequence[Probe]] = tuple,
    logs: str = "",
    progress: Callable[[int, int], None] = lambda number, count: None,
    in_turn: bool = False,
) -> Outcome:
    """Run one block and fill in its trials, whose identity the caller has set: block, attempt and seed are the same.

    pace: requests/s of the cells that earlier blocks have seen; those of this block are added, so that all slices of a
    cell are alike. probes: makes those asked for afresh, none costly. logs: the directory that gets the standard errors
    of the programs where the block failed. progress: called before each round, with its number and how many there are.

    in_turn: whether cells start one after another, so that what is first is not crowded out by what comes later. Else
    they start side by side, and nothing is measured where a cell is crowded out: each may hold a part of what is there.
    """
    begun, outcome = time.monotonic(), Outcome()
    block = _Block(members, slicing, pace, outcome)
    try:
        with ExitStack() as undo:
            block.start(undo, logs, in_turn)
            if block.cells:
                try:
                    block.measure(probes, progress)
                except (TrialError, ProbeFailed, OSError, ValueError) as error:
                    raise TrialError(block.cause(error)) from error
                block.end()
        for cell in block.cells.values():
            cell.trial.status = "ok"
    except (TrialError, OSError, ValueError) as error:
        outcome.slices.clear()
        outcome.seen.clear()
        block.fail(_line(error))
    finally:
        block.sweep()
    outcome.seconds = time.monotonic() - begun
    return outcome


class _Block:
    """cells: those that live, by their place among the members. directories: of the programs' logs."""

    def __init__(self, members: Sequence[Member], slicing: Slicing, pace: dict[Spec, float], outcome: Outcome) -> None:
        self._members, self._slicing, self._pace, self._outcome = members, slicing, pace, outcome
        first = members[0][1]
        self.name = f"block-{os.getpid()}-{first.block}-{first.attempt}"
        self._draw = random.Random(f"{first.seed}/{first.block}")
        self._seed = self._draw.getrandbits(32)
        self.cells: dict[int, LiveCell] = {}
        self.directories: list[str] = []
        self._rendezvous: dict[str, list[int]] = {}  # name -> places of the members that meet there
        self._homes: dict[str, str] = {}  # name -> directory
        self._logs = ""  # the directory that gets the programs' logs
        self._starter: Starter | None = None
        self._clients: Clients | None = None
        self._under_way: LiveCell | None = None

    # --- the start ---

    def start(self, undo: ExitStack, logs: str, in_turn: bool) -> None:
        """Start all programs, warm each cell and compare its content. Cells that cannot live are left out."""
        self._logs = logs
        self._files = SharedFiles(self._home(undo, self.name, []))
        sharing: dict[tuple[Spec, str], list[int]] = {}
        for position, (spec, trial) in enumerate(self._members):
            trial.design = LIVE
            with self._or_leave([position]):
                record.fill_known(spec, trial)
                record.fill_channels(trial, channels(spec))
                if reason := impossible(spec):
                    raise CellRefused(reason)
                trial.file_size_bytes = self._files.add(*content(spec))[1].mean_size
                sharing.setdefault((_servers_of(spec), root_of(spec, self._files)), []).append(position)
        groups = list(sharing.values())
        if not in_turn:  # else those of the baseline have to be there before there is no more room
            # Where programs are free to run, those that start first can get the better CPUs, and keep them.
            self._draw.shuffle(groups)
        for number, group in enumerate(groups):
            self._home(undo, f"{self.name}-{number}", group)
        undo.push(partial(keep_logs, self.directories, logs, self.name))  # once the programs, started below, have ended
        self._starter = Starter(undo, {described(spec) for spec, _ in sharing if applies("data", spec)})
        self._clients = Clients(self._files, self.directories[0], self.directories, self._starter.start)
        # Forks of one process are alike in more than their code, so where versions are compared none is a fork.
        start = None if any(spec.interpreter for spec, _ in self._members) else self._starter.start
        starting = []
        for name, group in list(self._rendezvous.items())[1:]:  # the first has the files
            own = undo.enter_context(ExitStack())
            with self._or_leave(group, own, crowded=len(sharing) > 1):
                spec = self._members[group[0]][0]
                root = root_of(spec, self._files)
                where = name, self._homes[name], root, own, load_arguments(root, self._files)
                servers = Servers(spec, *where, start=start)
                if in_turn:
                    servers.await_ready()
                starting.append((group, own, servers))
        ready = []
        for group, own, servers in starting:
            with self._or_leave(group, own, crowded=len(sharing) > 1):
                if not in_turn:
                    servers.await_ready()
                ready.append((group, own, servers))
        if self._outcome.crowded and not in_turn:
            return
        for group, own, servers in ready:
            with self._or_leave(group, own):
                live = LiveServers(servers, self._members[group[0]][0].placement)
                for cell in [self._add(position, live, undo) for position in group]:
                    self._warm(cell)

    def _home(self, undo: ExitStack, name: str, group: list[int]) -> str:
        """The directory of a new rendezvous."""
        self._rendezvous[name] = group
        home = rendezvous.Home(name, "trial", sweeps=True)
        self._homes[name] = home.directory
        undo.callback(home.close)
        self.directories.append(home.directory)
        return home.directory

    @contextmanager
    def _or_leave(self, group: Sequence[int], own: ExitStack | None = None, crowded: bool = False) -> Iterator[None]:
        """Leave these members out where the body fails: end their programs, and note why.

        crowded: a refusal can be due to the other members, since each cell was tried by itself before. Raises
        TrialError where the failure is that of a program which all cells need.
        """
        try:
            yield
        except (TrialError, OSError, ValueError) as error:
            if trouble := self._common_trouble():
                raise TrialError(self._blame(self._under_way, trouble)) from error
            refused = isinstance(error, CellRefused)
            cells = [self.cells.pop(position) for position in group if position in self.cells]
            reason = _line(error) if refused else with_cause(_line(error), failed_program(cells)[1])
            if own:
                with suppress(TrialError, OSError):
                    own.close()
                named = [name for name, positions in self._rendezvous.items() if positions == list(group)]
                keep_logs([self._homes[name] for name in named], self._logs, self.name, None, error, None)
            for position in group:
                if refused and crowded:
                    self._outcome.crowded[position] = reason
                else:
                    self._outcome.guilty.add(position)
                    trial = self._members[position][1]
                    trial.status, trial.reason = "refused" if refused else "failed", reason
            self._under_way = None

    def _common_trouble(self) -> str:
        """What has become of a program that all cells need, the starter or a client; empty where all run."""
        found = [self._starter.trouble] if self._starter else []
        clients = self._clients.programs if self._clients else []
        return next(filter(None, [*found, *(client.failure() for client in clients)]), "")

    def _add(self, position: int, servers: LiveServers, undo: ExitStack) -> LiveCell:
        spec, trial = self._members[position]
        trial.origin = servers.servers.origin
        number, files = self._files.add(*content(spec))
        if spec.scope == "lane":
            load = Load(servers.servers.programs["proxy"], spec.placement, separate=False)
        else:
            assert self._clients
            load = self._clients.of(spec, undo)
        cell = self.cells[position] = LiveCell(spec, trial, servers, load, number, len(files.paths))
        return cell

    def _warm(self, cell: LiveCell) -> None:
        """Have a cell serve a while, compared, and choose the lengths of its slices by its pace."""
        spec, self._under_way = cell.spec, cell
        seen = cell.ask(0.0, spec.warmup, self._seed, COMPARED_FIRST)
        equal = replace(spec, control=False)  # slices of the A/A control are like those of its twin
        if equal not in self._pace:
            # A slice of many turns, by the pace of the warm-up: one of a few would count the requests of a single turn,
            # which end together.
            fitting = lengths(FITTING, spec, cell.files, _pace(seen))
            seen = cell.ask(fitting.lead_in, max(_PACING, fitting.window), self._seed)
            self._pace[equal] = _pace(seen)
        self._under_way = None
        cell.lengths = lengths(self._slicing, spec, cell.files, self._pace[equal])

    # --- the rounds ---

    def measure(self, probes: Callable[[], Sequence[Probe]], progress: Callable[[int, int], None]) -> None:
        """Run the rounds, then look at each cell once more: whether content is right, and what probes see."""
        cells = list(self.cells.values())
        count = median_high(self._rounds(cell) for cell in cells)
        memory = [Memory() for _ in cells]
        for probe, cell in zip(memory, cells, strict=True):
            probe.begin(cell.pids, "")
        begun_ns = time.monotonic_ns()
        others = steal = 0.0
        for number in range(1, count + 1):
            progress(number, count)
            foreign, stolen = self._round(number, _drawn(cells, self._draw), begun_ns)
            others, steal = others + foreign, steal + stolen
        seconds = (time.monotonic_ns() - begun_ns) / 1e9
        passed = seconds * len(os.sched_getaffinity(0))
        self._outcome.rounds, self._outcome.round_s = count, seconds / count
        idle = sum(servers.idle_ns for servers in {cell.servers for cell in cells}) / 1e9
        busy = f"idle programs {idle:.2f} s" if idle > _IDLE * seconds else ""
        growth = [probe.end() for probe in memory]
        for number, cell in enumerate(cells):
            self._under_way = cell
            if asked := probes():
                self._look(number, cell, asked)
            cell.ask(0.0, min(_COMPARED, cell.spec.warmup), self._seed, COMPARED_LAST)
            cell.trial.placement_effective = effective(cell.pids)
            # Counted in steps of 10 ms, so that a round can seem to have less than nothing; all rounds together do not.
            latencies = cell.fill(growth[number], max(0.0, others) / passed, steal / passed, busy)
            self._outcome.seen.setdefault("latency", []).extend(latencies)
            self._outcome.slices += cell.slices
        self._under_way = None

    def _rounds(self, cell: LiveCell) -> int:
        pace = self._pace[replace(cell.spec, control=False)]
        return rounds(self._slicing, cell.spec, cell.lengths.window, pace)

    def _round(self, number: int, order: Sequence[LiveCell], begun_ns: int) -> tuple[float, float]:
        """One slice for each cell. Returns CPU seconds that others took meanwhile, and the hypervisor."""
        cpus = os.sched_getaffinity(0)
        own, before = self._own_cpu(), machine.cpu_times(cpus)
        for position, cell in enumerate(order, 1):
            self._under_way = cell
            cell.slice(number, position, begun_ns, self._seed * MOST_ROUNDS + number)
        seen = machine.cpu_times(cpus).since(before)
        foreign = seen.foreign(self._own_cpu() - own)
        for cell in order:
            cell.slices[-1] = replace(cell.slices[-1], others_cpu_s=max(0.0, foreign) + seen.steal)
        return foreign, seen.steal

    def _own_cpu(self) -> float:
        """CPU time of this process and of all the block's, in s."""
        pids = {pid for cell in self.cells.values() for some in cell.pids.values() for pid in some}
        return (time.process_time_ns() + sum(map(cpu_clock, pids))) / 1e9

    def _look(self, number: int, cell: LiveCell, probes: Sequence[Probe]) -> None:
        """One more slice, for the probes that the experiment asks for: they may take longer than a slice."""
        directory = f"{self.directories[0]}/probing-{number}"
        os.mkdir(directory)
        probing = Probing(cell.trial, probes, self._outcome.seen)
        with probing.looking(cell.pids, directory):
            answer = cell.ask(*cell.lengths, self._seed)
        requests = Observation(cell.trial.trial, "slice", "client", "requests", answer["all_requests"], "1")
        self._outcome.seen.setdefault("probes", []).append(requests)

    # --- the end ---

    def cause(self, error: Exception) -> str:
        """Why the block failed: which program of which cell has ended, if one has, and what was seen of it."""
        if self._starter and self._starter.trouble:
            return self._starter.trouble
        first = [self._under_way] if self._under_way else []  # a client is that of many cells
        guilty, how = failed_program([*first, *self.cells.values()])
        return self._blame(guilty or self._under_way, with_cause(_line(error), how))

    def _blame(self, guilty: LiveCell | None, text: str) -> str:
        if not guilty:
            return text
        # What one load is due to is not due to the other loads of the same servers.
        alone = guilty is self._under_way
        self._outcome.guilty |= {
            position
            for position, cell in self.cells.items()
            if cell is guilty or (not alone and cell.servers is guilty.servers)
        }
        return f"cell {guilty.trial.cell}: {text}"

    def end(self) -> None:
        """End all programs side by side, the clients first. Raises TrialError where one does not end well."""
        servers = {program: cell for cell in self.cells.values() for program in cell.servers.servers.programs.values()}
        programs = [*(self._clients.programs if self._clients else ()), *reversed(servers)]
        for program in programs:
            program.ask_to_end()
        for program in programs:
            try:
                program.check_end()
            except TrialError as error:
                raise TrialError(self._blame(servers.get(program), str(error))) from error

    def fail(self, reason: str) -> None:
        """Note in the rows of all members that live that the block has failed."""
        for position, (_, trial) in enumerate(self._members):
            if not trial.status and position not in self._outcome.crowded:
                trial.status, trial.reason = "failed", reason

    def sweep(self) -> None:
        """Sweep what the programs left, and note how much in the rows."""
        for name, group in self._rendezvous.items():
            found = sweep(name)
            for position in group:
                self._members[position][1].swept = found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _pace(seen: Mapping[str, Any]) -> float:
    """Requests/s of a slice; at least one request a slice."""
    return seen["requests"] / seen["seconds"] if seen["seconds"] else 1.0


def _drawn(cells: Sequence[LiveCell], draw: random.Random) -> list[LiveCell]:
    """An order for a round. Cells under the same load follow each other, since they are compared with each other: the
    closer their slices are, the more noise they share."""
    loads: dict[tuple[Any, ...], list[LiveCell]] = {}
    for cell in draw.sample(cells, len(cells)):
        key = tuple(getattr(cell.spec, name) for name, factor in FACTORS.items() if factor.shared)
        loads.setdefault(key, []).append(cell)
    return [cell for group in loads.values() for cell in group]


def _servers_of(spec: Spec) -> Spec:
    """What is equal in cells that share their servers."""
    own = {name: factor.default for name, factor in FACTORS.items() if factor.shared}
    if spec.scope == "lane":  # whose load is the program that has the lanes
        del own["sink"]
    return replace(spec, **own)
