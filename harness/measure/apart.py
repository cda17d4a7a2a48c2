"""One trial: start the programs afresh, load, measure, stop, sweep, and return a record.

While the load runs this process sleeps. What the programs use meanwhile is told by probes, which look at them from the
go-ahead to the last reply.
"""

import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from mmap import PAGESIZE
from typing import IO, Any

import harness
from harness import machine, registry, rendezvous
from harness.api import DataTransport, Probe
from harness.factors import DIRECTORY, Spec, idle
from harness.load.tally import OUTCOMES
from harness.measure import file_sets
from harness.measure.file_sets import Workload
from harness.measure.probes.proc import Cpu, read_from_disks, resident
from harness.measure.probing import ProbeFailed, Probing, Seen, disturbance
from harness.origin import nginx
from harness.pipeline.gfserver import SYSTEM
from harness.results import COLUMN_OF, Bucket, Trial

_START = 30.0  # seconds for the programs to be ready
_END = 4.0  # seconds for a program to end after SIGTERM
_REQUEST = 30.0  # seconds for a request of the load
_LONG = 86_400.0  # seconds for a load that is a number of requests
_NULL = "null"
_KEEPS_CONTENT = {"memfd", "mmap"}  # content that has been served once does not come from the file any more
_COLD = 0.8  # share of the pages that must have come from disks; some are held when they are to be dropped
_APART = 4  # files for each request under way: dropping spares pages that the network still holds
_REFUSED = {2, 3}  # exit codes of a program that says no to what the cell asks for

Live = Callable[[Mapping[str, float]], None]


class TrialError(Exception):
    """Why a trial has no result, in one line."""


class Refused(TrialError):
    """What it was to do cannot be done here."""


def run(
    spec: Spec,
    trial: Trial,
    probes: Sequence[Probe] = (),
    seen: Seen | None = None,
    logs: str = "",
    live: Live | None = None,
) -> Trial:
    """Run one trial and fill in `trial`, whose identity (experiment, number, block) the caller has set.

    A trial that fails is a record too: status `failed` and the reason; `refused` where transport or machine say no.
    probes: made afresh; those of every trial need not be named. seen: gets what has no column, by table. logs: the
    directory that gets the words of the programs of a trial that failed. live: called each second while the load runs,
    which costs a little.
    """
    seen = {} if seen is None else seen
    name = f"trial-{os.getpid()}-{trial.trial}"
    try:
        _describe(spec, trial)
        if reason := impossible(spec):
            raise Refused(reason)
        with ExitStack() as undo:
            home = rendezvous.Home(name, "trial")
            undo.callback(home.close)
            undo.push(partial(_keep_logs, home.directory, logs, f"trial-{trial.trial}-attempt-{trial.attempt}"))
            _measure(spec, trial, name, home.directory, Probing(trial, probes, seen), seen, live, undo)
            if trial.ok != trial.requests:
                bad = ", ".join(f"{getattr(trial, kind.lower())} {kind}" for kind in OUTCOMES[1:])
                raise TrialError(f"not every reply was OK: {bad}")
        trial.status = "ok"
    except (TrialError, ProbeFailed, OSError, ValueError) as error:
        trial.status = "refused" if isinstance(error, Refused) else "failed"
        trial.reason = " ".join(str(error).split())
    finally:
        trial.swept = _sweep(name)
    return trial


def refuse(spec: Spec, trial: Trial, reason: str) -> Trial:
    """The record of a trial that is not run, for what it was to do cannot be done here."""
    _describe(spec, trial)
    trial.status, trial.reason = "refused", reason
    return trial


def impossible(spec: Spec) -> str:
    """Why a trial could not do what its spec says, empty where nothing speaks against it."""
    kind = registry.data_transport(spec.data).name if spec.source == "cache" else ""
    if spec.placement == "spread" and len(os.sched_getaffinity(0)) < 2:
        return "placement spread: this run may use but one CPU"
    missing = {cpu for cpus in _placed(spec.placement).values() for cpu in cpus} - os.sched_getaffinity(0)
    if missing:
        has = _text(os.sched_getaffinity(0))
        return f"placement {spec.placement}: this run may not use CPU {min(missing)}; it has {has}"
    if spec.scope == "lane" and (spec.rate or spec.source != "cache"):
        return (
            "scope lane: a lane leads to a cache, and each request waits for its reply; leave `rate` and "
            f"`source: {spec.source}` to the pipeline"
        )
    if spec.source == "curl" and find_spec("pycurl") is None:
        return "source curl: needs pycurl: pip install 'transport-harness[curl]'"
    if spec.source == "curl" and spec.origin_server == "nginx":
        root = spec.files.removeprefix(DIRECTORY) if spec.files.startswith(DIRECTORY) else "/"
        if reason := nginx.unable(root, bool(spec.origin_latency or spec.origin_bandwidth)):
            return f"origin_server nginx: {reason}"
    if spec.source == "curl" and spec.page_cache == "cold":
        return "page_cache cold: the origin of `source: curl` serves from the page cache"
    if spec.page_cache == "cold" and kind in _KEEPS_CONTENT:
        return f"page_cache cold: {kind} keeps content, or the pages of files, itself; take another transport"
    if spec.files.startswith(DIRECTORY) and kind == _NULL:
        return f"files {spec.files}: the null transport serves zeros; take a file set of sizes"
    if spec.page_cache == "cold":
        files = len(file_sets.describe(spec.files, spec.copies, "").paths)
        at_once = spec.clients if spec.scope == "pipeline" else spec.proxy_threads * spec.proxy_processes
        if files < at_once * _APART:
            return (
                f"page_cache cold: {files} files for {at_once} requests at a time, which would find pages that others "
                f"still hold; take {at_once * _APART} files or more (copies)"
            )
    return ""


def data_transport(spec: Spec) -> DataTransport:
    """The data transport of a cell, with the options that it sets. Raises ValueError."""
    return registry.data_transport(spec.data, chunk=spec.chunk, depth=spec.depth, wait=spec.wait)


def _keep_logs(directory: str, logs: str, name: str, _: object, error: BaseException | None, __: object) -> None:
    """Keep what the programs said, where the trial failed. It is called when all of them have ended."""
    if logs and isinstance(error, Exception):
        os.makedirs(logs, exist_ok=True)
        for log in os.listdir(directory):
            if log.endswith(".log"):
                shutil.copyfile(f"{directory}/{log}", f"{logs}/{name}-{log}")


def _sweep(name: str) -> int:
    """Sweep the rendezvous, also where the last of its killed processes are yet to end. Returns what was found."""
    found = len(rendezvous.sweep(name))
    deadline = time.monotonic() + 1
    while os.path.exists(rendezvous.rendezvous_directory(name)) and time.monotonic() < deadline:
        time.sleep(0.01)
        found += len(rendezvous.sweep(name))
    return found


def _measure(
    spec: Spec,
    trial: Trial,
    name: str,
    directory: str,
    probing: Probing,
    seen: Seen,
    live: Live | None,
    undo: ExitStack,
) -> None:
    files = _make_files(spec, directory)
    trial.file_size_bytes = files.mean_size
    where = ["--name", name, "--timeout", str(spec.timeout)]
    common = [*where, "--until-eof"]
    cold = ["--cold"] if spec.page_cache == "cold" else []
    servers = {}
    start = partial(_Program, directory, undo, _placed(spec.placement))
    if spec.source == "direct":
        backend = ["--direct", files.directory, *cold]
    elif spec.source == "curl":
        servers["origin"] = start(
            "origin",
            "origin",
            "-c",
            files.directory,
            "-p",
            "0",
            "--latency",
            str(round(spec.origin_latency * 1e6)),
            *(["--bandwidth", str(spec.origin_bandwidth)] if spec.origin_bandwidth else []),
            "--server",
            spec.origin_server,
            "--name",
            name,
            "--until-eof",
        )
        told, _, trial.origin = servers["origin"].expect("origin: listening on", _START).rpartition(" by ")
        url = told.split()[3].rstrip(",")
        backend = ["-s", url, "--strategy", spec.strategy, "--reuse" if spec.reuse else "--no-reuse"]
    else:
        backend = ["-n", str(spec.lanes), "--data", registry.describe(data_transport(spec))]
        servers["cache"] = start(
            "cache",
            "simplecached",
            "-c",
            files.directory,
            "-t",
            str(spec.cache_threads),
            "--processes",
            str(spec.cache_processes),
            "--command",
            spec.command,
            *cold,
            *common,
        )
    workers = ["-t", str(spec.proxy_threads), "--processes", str(spec.proxy_processes)]
    load = [
        "-w",
        f"{directory}/file_sets.txt",
        "--warmup",
        str(spec.warmup),
        "--verify",
        files.directory,
        "--gate",
        "--json",
        *(["-r", str(spec.requests)] if spec.requests else ["--seconds", str(spec.seconds)]),
        *(["--live"] if live else []),
        *(["--apart"] if cold else []),
    ]
    if spec.scope == "lane":
        servers["cache"].expect("simplecached: ready", _START)
        client = servers["proxy"] = start("proxy", "lane", *workers, "--sink", spec.sink, *backend, *where, *load)
    else:
        servers["proxy"] = proxy = start(
            "proxy", "webproxy", "-p", "0", *workers, "--congestion", spec.congestion, *backend, *common
        )
        if "cache" in servers:
            servers["cache"].expect("simplecached: ready", _START)
        port = proxy.expect("webproxy: listening on", _START).split()[3].rstrip(",").rpartition(":")[2]
        if spec.rate:
            load += ["--rate", str(spec.rate), "--arrivals", spec.arrivals]
            load += ["--seed", str(trial.seed + trial.block)]  # requests come to all cells of a block alike
        client = start(
            "client",
            "gfclient",
            "-p",
            port,
            "-t",
            str(spec.clients),
            "--processes",
            str(spec.client_processes),
            "--timeout",
            str(_REQUEST),
            f"--{spec.sink}",
            *load,
        )
    client.expect('{"ready": ', _START + spec.warmup)
    processes = {"client": client.pids(), **{role: program.pids() for role, program in servers.items()}}
    if "origin" in servers:  # it may be an nginx, which has workers of its own
        processes["origin"] += [pid for child in servers["origin"].pids()[1:] for pid in _children(child)]
    if spec.scope == "lane":  # it has none but those that read from the sockets which some lanes need
        processes["client"] = [pid for worker in client.pids()[1:] for pid in _children(worker)]
    processes = {role: pids for role, pids in processes.items() if pids}
    trial.placement_effective = " ".join(
        f"{role}={_text(set().union(*map(os.sched_getaffinity, processes[role])))}"
        for role in ("client", "proxy", "cache", "origin")
        if role in processes
    )
    before = _read_from_disks(processes) if cold else 0
    with probing.looking(processes, directory):
        client.say("go")
        _await_end(spec, client, processes, live)
    read = _read_from_disks(processes) - before if cold else 0
    client.say("end")
    report = json.loads(client.expect("{", _START))
    client.wait()
    _fill(trial, report)
    wanted = trial.ok * sum(-(-size // PAGESIZE) * PAGESIZE for size in files.sizes) / len(files.sizes)
    if cold and read < _COLD * wanted and not _serves_zeros(spec):
        raise TrialError(f"page_cache cold: only {read / wanted:.0%} of the pages came from disks; take more copies")
    seen["latency"] = [Bucket(trial.trial, bound / 1e3, count) for bound, count in report["histogram"]]


def _await_end(spec: Spec, client: "_Program", processes: Mapping[str, Sequence[int]], live: Live | None) -> None:
    """Return when the load has ended; meanwhile pass on each second what has come of it, and shares of CPUs."""
    # In an open loop what was due in time may be sent until a request's timeout has passed, and then takes its own.
    deadline = time.monotonic() + (_LONG if spec.requests else spec.seconds) + 2 * _REQUEST + 5
    if not live:
        client.expect('{"done": ', deadline - time.monotonic())
        return
    last = {"seconds": 0.0, "requests": 0.0, "content_bytes": 0.0}
    looked, cpu = time.monotonic(), Cpu()
    cpu.begin(processes, "")
    beginnings = ('{"tick": ', '{"done": ')
    while now := json.loads(client.expect(beginnings, deadline - time.monotonic())).get("tick"):
        passed = max(now["seconds"] - last["seconds"], 1e-9)
        told = {
            "requests": now["requests"],
            "requests_per_s": (now["requests"] - last["requests"]) / passed,
            "bytes_per_s": (now["content_bytes"] - last["content_bytes"]) / passed,
        }
        since = time.monotonic() - looked
        used = {f"{role}_{metric}": value / since for role, metric, value, _ in cpu.end()}
        for role, pids in processes.items():
            user, kernel = used[f"{role}_user_s"], used[f"{role}_kernel_s"]
            told |= {f"{role}_user": user, f"{role}_kernel": kernel, f"{role}_cpu": user + kernel}
            told[f"{role}_rss_mib"] = sum(map(resident, pids)) / (1 << 20)
        live(told)
        last, looked = now, time.monotonic()
        cpu.begin(processes, "")


class _Program:
    """A program of the harness in a fresh process, ended by `undo`; it ends by itself should this process be killed."""

    def __init__(
        self, directory: str, undo: ExitStack, placed: Mapping[str, set[int]], role: str, name: str, *arguments: str
    ) -> None:
        self._name = name
        self._log = f"{directory}/{name}.log"
        with open(self._log, "wb") as log, _on(placed.get(role)):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness", name, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,  # Ctrl-C is for the runner, which ends its programs in order
            )
        undo.callback(self._end)
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout
        self._unread = b""

    def pids(self) -> list[int]:
        """Its processes: the parent first, then its workers."""
        return [self.pid, *_children(self.pid)]

    def say(self, line: str) -> None:
        self._in.write(f"{line}\n".encode())
        self._in.flush()

    def expect(self, beginning: str | tuple[str, ...], seconds: float) -> str:
        """The next line of its output, which begins like this, or like one of these. Raises TrialError."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            if not select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TrialError(f"{self._name} did not say {beginning!r} within {seconds:g} s; {self._last_words()}")
            piece = os.read(self._out.fileno(), 1 << 16)
            if not piece:
                self.wait()
                kind = Refused if self._process.returncode in _REFUSED else TrialError
                raise kind(f"{self._name} ended too early; {self._last_words()}")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        told = line.decode(errors="replace")
        if not told.startswith(beginning):
            raise TrialError(f"{self._name} said {told!r} instead of {beginning!r}")
        return told

    def _last_words(self) -> str:
        with open(self._log, errors="replace") as log:
            lines = log.read().splitlines()
        return f"its last words: {' / '.join(lines[-2:])}" if lines else "it said nothing"

    def wait(self) -> None:
        """Wait until it has ended by itself. Raises TrialError where it does not."""
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            raise TrialError(f"{self._name} did not end; {self._last_words()}") from None

    def _end(self) -> None:
        """End it, with its workers. Raises TrialError where it does not end by itself, or badly."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        with suppress(BrokenPipeError):
            self._in.close()
        self._out.close()
        if self._process.returncode and sys.exc_info()[0] is None:
            raise TrialError(f"{self._name} ended with exit code {self._process.returncode}; {self._last_words()}")


@contextmanager
def _on(cpus: set[int] | None) -> Iterator[None]:
    """What is started meanwhile runs on these CPUs, and so do its forks: sched_setaffinity(2) is inherited."""
    mine = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def _placed(placement: str) -> dict[str, set[int]]:
    """The CPUs of each role that is not free to run anywhere."""
    cpus = sorted(os.sched_getaffinity(0))
    if placement == "free":
        return {}
    if placement == "same-core":
        return {role: {cpus[0]} for role in ("client", "proxy", "cache")}
    if placement == "spread":  # the channel goes from one CPU to another; the client has the others where there are any
        return {"proxy": {cpus[0]}, "cache": {cpus[-1]}, "client": set(cpus[1:-1] or cpus)}
    given = dict(part.split("=") for part in placement.split())
    return {role: _cpus(text) for role, text in given.items()}


def _cpus(text: str) -> set[int]:
    """`0,2-3` as a set."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _text(cpus: set[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


def _make_files(spec: Spec, directory: str) -> Workload:
    """The files to be asked for, and the list of them. Random bytes, but zeros where the transport invents zeros."""
    files = file_sets.describe(spec.files, spec.copies, f"{directory}/files")
    if files.directory == f"{directory}/files":
        file_sets.make(files, _serves_zeros(spec), durable=spec.page_cache == "cold")
    with open(f"{directory}/file_sets.txt", "w", encoding="utf-8", errors="surrogateescape") as lines:
        lines.writelines(f"{path}\n" for path in files.paths)
    return files


def _serves_zeros(spec: Spec) -> bool:
    return spec.source == "cache" and registry.data_transport(spec.data).name == _NULL


def _read_from_disks(processes: Mapping[str, Sequence[int]]) -> int:
    return sum(read_from_disks(pid) for pids in processes.values() for pid in pids)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return list(map(int, children.read().split()))


def _fill(trial: Trial, result: Mapping[str, Any]) -> None:
    for outcome in OUTCOMES:
        setattr(trial, outcome.lower(), result[outcome])
    for same in ("requests", "requests_per_s", "content_bytes", "latency_max_us", "first_byte_p50_us"):
        setattr(trial, same, result[same])
    for percentile in ("50", "90", "99", "99.9", "99.99"):
        setattr(trial, f"latency_p{percentile.replace('.', '_')}_us", result[f"latency_p{percentile}_us"])
    trial.measured_s = result["seconds"]
    trial.content_bytes_per_s = result["content_bytes"] / result["seconds"]
    trial.client_busy = result["busy"]
    cpu = trial.proxy_user_s + trial.proxy_kernel_s + trial.cache_user_s + trial.cache_kernel_s
    trial.cpu_us_per_request = cpu * 1e6 / max(1, trial.requests)
    if trial.content_bytes:
        trial.cpu_s_per_gib = cpu * 2**30 / trial.content_bytes
    if not trial.probe:
        trial.disturbed = disturbance(trial)


def _describe(spec: Spec, trial: Trial) -> None:
    """Fill in what is known before the trial."""
    trial.started_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
    silent = idle(spec.source, spec.scope)
    for factor in fields(Spec):
        if factor.name not in silent:
            setattr(trial, COLUMN_OF.get(factor.name, factor.name), getattr(spec, factor.name))
    trial.control, trial.reuse = int(spec.control), int(trial.reuse)
    if spec.requests:
        trial.load_s = 0.0
    if not spec.rate:
        trial.arrivals = ""
    if trial.congestion == SYSTEM:
        with open("/proc/sys/net/ipv4/tcp_congestion_control") as name:
            trial.congestion = name.read().strip()
    trial.host, trial.kernel, trial.python = platform.node(), platform.release(), platform.python_version()
    trial.cpu, trial.cpus = machine.cpu_model(), len(os.sched_getaffinity(0))
    trial.harness, trial.commit = harness.__version__, machine.commit()
    if spec.source == "cache":
        data = data_transport(spec)
        trial.command_effective = registry.describe(registry.command_transport(spec.command))
        trial.data_effective = registry.describe(data)
        trial.cache_end, trial.proxy_end = registry.shape(data)
        trial.chunk_effective_bytes = getattr(data, "chunk", 0)
        trial.depth_effective = getattr(data, "depth", 0)
        trial.wait_effective = getattr(data, "wait", "")
