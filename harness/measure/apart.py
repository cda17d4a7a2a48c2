"""A trial apart: start the programs of one cell afresh, load, measure, stop, sweep, and return a row.

While the load runs this process sleeps. Probes look at what the programs use meanwhile, from the go-ahead to the last
reply.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from itertools import chain
from mmap import PAGESIZE

from harness import rendezvous
from harness.api import Probe
from harness.factors import Spec
from harness.load.tally import OUTCOMES
from harness.measure import file_sets, record
from harness.measure.channels import Channels, channels
from harness.measure.faults import outage
from harness.measure.feasible import impossible
from harness.measure.file_sets import FileSet
from harness.measure.leftovers import keep_logs, sweep
from harness.measure.placement import Placement, effective
from harness.measure.probes.proc import Cpu, read_from_disks, resident
from harness.measure.probing import ProbeFailed, Probing, Seen
from harness.measure.program import CellRefused, Program, TrialError, caused, failed
from harness.measure.servers import START, Servers
from harness.measure.starting import Command
from harness.results import APART, Bucket, Trial

_REQUEST = 30.0  # seconds for a request of the load
_LONG = 86_400.0  # seconds for a load that is a number of requests
_COLD = 0.8  # share of the pages that must have come from disks; some are held when they are to be dropped

Live = Callable[[Mapping[str, float]], None]


def run(
    spec: Spec,
    trial: Trial,
    probes: Sequence[Probe] = (),
    seen: Seen | None = None,
    logs: str = "",
    live: Live | None = None,
) -> Trial:
    """Run one trial and fill in `trial`, whose identity (experiment, number, block) the caller has set.

    A trial that fails is a record too: status `failed` and the reason; `refused` where transport or machine cannot do
    it. probes: made afresh; those of every trial need not be named. seen: gets what has no column, by table. logs:
    the directory that gets the standard errors of the programs of a trial that failed. live: called each second while
    the load runs, which costs a little.
    """
    seen = {} if seen is None else seen
    name = f"trial-{os.getpid()}-{trial.trial}"
    try:
        record.fill_known(spec, trial)
        trial.design = APART
        pair = channels(spec)
        record.fill_channels(trial, pair)
        if reason := impossible(spec):
            raise CellRefused(reason)
        with ExitStack() as undo:
            home = rendezvous.Home(name, "trial", sweeps=True)
            undo.callback(home.close)
            undo.push(partial(keep_logs, [home.directory], logs, f"trial-{trial.trial}-attempt-{trial.attempt}"))
            _measure(spec, pair, trial, name, home.directory, Probing(trial, probes, seen), seen, live, undo)
        trial.status = "ok"
    except (TrialError, ProbeFailed, OSError, ValueError) as error:
        trial.status = "refused" if isinstance(error, CellRefused) else "failed"
        trial.reason = " ".join(str(error).split())
    finally:
        trial.swept = sweep(name)
    return trial


def refuse(spec: Spec, trial: Trial, reason: str) -> Trial:
    """The record of a trial that is not run, because it cannot be done here."""
    record.fill_known(spec, trial)
    record.fill_channels(trial, channels(spec))
    trial.status, trial.reason = "refused", reason
    return trial


def _measure(
    spec: Spec,
    pair: Channels | None,
    trial: Trial,
    name: str,
    directory: str,
    probing: Probing,
    seen: Seen,
    live: Live | None,
    undo: ExitStack,
) -> None:
    moves_content = pair is None or pair.data.moves_content
    files = _make_files(spec, directory, zeros=not moves_content)
    trial.file_size_bytes = files.mean_size
    cell = _Programs(spec, name, directory, files, probing.environment(directory), undo)
    with caused(cell.cause, ProbeFailed):
        live = None if spec.fault else live  # what it looks at may die
        client = cell.start(trial, bool(live))
        processes = cell.pids()
        trial.placement_effective = effective(processes)
        cold = spec.page_cache == "cold"
        before = _read_from_disks(processes) if cold else 0
        with _looking(spec, probing, processes, directory):
            client.say("go")
            if spec.fault:
                trial.outage_s = cell.suffer()
            _await_end(spec, client, processes, live)
        read = _read_from_disks(processes) - before if cold else 0
        client.say("end")
        report = client.expect("requests", seconds=START + spec.warmup)  # it compares content once more
        client.wait()
        record.fill_measured(trial, report)
        if not trial.ok or trial.wrong or (trial.ok != trial.requests_ended and not spec.fault):
            bad = ", ".join(f"{getattr(trial, kind.lower())} {kind}" for kind in OUTCOMES[1:])
            raise TrialError(f"not every reply was OK: {bad}")
    wanted = trial.ok * sum(-(-size // PAGESIZE) * PAGESIZE for size in files.sizes) / len(files.sizes)
    if cold and read < _COLD * wanted and moves_content:
        raise TrialError(f"page_cache cold: only {read / wanted:.0%} of the pages came from disks; take more copies")
    seen["latency"] = [Bucket(trial.trial, bound / 1e3, count) for bound, count in report["histogram"]]


def _looking(
    spec: Spec, probing: Probing, processes: Mapping[str, Sequence[int]], directory: str
) -> AbstractContextManager[None]:
    """The probes at work; none where programs are killed, as what these have used cannot be read."""
    return nullcontext() if spec.kills else probing.looking(processes, directory)


class _Programs:
    """The programs of a trial: its servers, and what makes the requests. environment: variables that the servers are
    started with."""

    def __init__(
        self, spec: Spec, name: str, directory: str, files: FileSet, environment: Mapping[str, str], undo: ExitStack
    ) -> None:
        self._spec, self._name, self._directory, self._files = spec, name, directory, files
        self._start_server = partial(Command, interpreter=spec.interpreter, environment=environment)
        self._undo = undo
        self._servers: Servers | None = None
        self._pids: dict[str, list[int]] = {}  # of the servers, once they serve

    def start(self, trial: Trial, live: bool) -> Program:
        """Start them all. Returns the one that makes the requests, when it is warm. Fills in trial.origin."""
        spec, load = self._spec, self._load(live)
        where = self._name, self._directory, self._files.directory
        self._servers = servers = Servers(spec, *where, self._undo, load, self._start_server)
        servers.await_ready(spec.warmup)
        self._pids, trial.origin = servers.pids(), servers.origin
        if spec.scope == "lane":
            self._client = servers.programs["proxy"]
        else:
            self._client = self._start_client(servers.port, trial, load)
            self._client.expect("ready", seconds=START + spec.warmup)
            self._client.may_fail = bool(spec.fault)  # as it does where a reply is not OK
        return self._client

    def _start_client(self, port: int, trial: Trial, load: list[str]) -> Program:
        spec = self._spec
        if spec.rate:
            load += ["--rate", str(spec.rate), "--arrivals", spec.arrivals]
            load += ["--seed", str(trial.seed + trial.block)]  # requests come to all cells of a block alike
        clients = ["-t", str(spec.clients), "--processes", str(spec.client_processes), "--timeout", str(_REQUEST)]
        sink = [] if spec.fault else [f"--{spec.sink}"]  # with none, the content of all replies is compared
        command = ["gfclient", "-p", str(port), *clients, *sink, *load]
        return Program(self._directory, self._undo, Placement(spec), Command, "client", *command)

    def _load(self, live: bool) -> list[str]:
        spec = self._spec
        amount = ["-r", str(spec.requests)] if spec.requests else ["--seconds", str(spec.seconds)]
        warmup = ["--warmup", str(spec.warmup), "--verify", self._files.directory]
        gate = ["--gate", "--json", *(["--live"] if live else [])]
        apart = ["--apart"] if spec.page_cache == "cold" else []
        return ["-w", f"{self._directory}/workload.txt", *warmup, *gate, *amount, *apart]

    def suffer(self) -> float:
        """Wait for the time of the cell's fault, and let it happen. Returns for how many seconds no file came."""
        assert self._servers is not None
        time.sleep(self._spec.fault_at)
        path = self._files.paths[0]
        with open(f"{self._files.directory}{path}", "rb") as file:
            lasted = outage(self._spec.fault, self._servers, path, file.read(), self._spec.timeout)
        self._pids = self._servers.pids()
        return lasted

    def cause(self) -> str:
        """How one of its servers has ended or been stopped; empty where all run."""
        programs = self._servers.programs.values() if self._servers else ()
        return failed(programs, list(chain.from_iterable(self._pids.values())))[1]

    def pids(self) -> dict[str, list[int]]:
        """The processes of each role that has any."""
        return self._pids if self._spec.scope == "lane" else {"client": self._client.pids(), **self._pids}


def _await_end(spec: Spec, client: Program, processes: Mapping[str, Sequence[int]], live: Live | None) -> None:
    """Return when the load has ended; meanwhile pass on each second what has come of it, and shares of CPUs."""
    # In an open loop what was due in time may be sent until a request's timeout has passed, and then takes its own.
    deadline = time.monotonic() + (_LONG if spec.requests else spec.seconds) + 2 * _REQUEST + 5
    if not live:
        client.expect("done", seconds=deadline - time.monotonic())
        return
    last = {"seconds": 0.0, "requests": 0.0, "content_bytes": 0.0}
    looked, cpu = time.monotonic(), Cpu()
    cpu.begin(processes, "")
    while "done" not in (said := client.expect("tick", "done", seconds=deadline - time.monotonic())):
        now = said["tick"]
        passed = max(now["seconds"] - last["seconds"], 1e-9)
        figures = {
            "requests": now["requests"],
            "requests_per_s": (now["requests"] - last["requests"]) / passed,
            "bytes_per_s": (now["content_bytes"] - last["content_bytes"]) / passed,
        }
        since = time.monotonic() - looked
        used = {f"{role}_{metric}": value / since for role, metric, value, _ in cpu.end()}
        for role, pids in processes.items():
            user, kernel = used[f"{role}_user_s"], used[f"{role}_kernel_s"]
            figures |= {f"{role}_user": user, f"{role}_kernel": kernel, f"{role}_cpu": user + kernel}
            figures[f"{role}_rss_mib"] = sum(map(resident, pids)) / (1 << 20)
        live(figures)
        last, looked = now, time.monotonic()
        cpu.begin(processes, "")


def _make_files(spec: Spec, directory: str, zeros: bool) -> FileSet:
    """The files to be asked for, and the list of them. Random bytes, or zeros where the transport invents zeros."""
    files = file_sets.file_set(spec.files, spec.copies, f"{directory}/files")
    if files.directory == f"{directory}/files":
        file_sets.make(files, zeros, durable=spec.page_cache == "cold")
    file_sets.write_workload(files, f"{directory}/workload.txt")
    return files


def _read_from_disks(processes: Mapping[str, Sequence[int]]) -> int:
    return sum(read_from_disks(pid) for pids in processes.values() for pid in pids)
