"""One trial: start the programs afresh, load, measure, stop, sweep, and return a record.

While the load runs this process sleeps. What the programs use meanwhile is told by probes, which look at them from the
go-ahead to the last reply.
"""

import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from typing import IO

import harness
from harness import registry, rendezvous
from harness.api import Probe
from harness.probing import ProbeFailed, Probing, Seen, disturbance
from harness.results import COLUMN_OF, Trial
from harness.roles.gfserver import SYSTEM
from harness.roles.load import OUTCOMES
from harness.spec import OF_THE_CACHE, Spec

_START = 30.0  # seconds for the programs to be ready
_END = 4.0  # seconds for a program to end after SIGTERM
_REQUEST = 10.0  # seconds for a request of the load
_NULL = "null"


class TrialError(Exception):
    """Why a trial has no result, in one line."""


def run(spec: Spec, trial: Trial, probes: Sequence[Probe] = (), seen: Seen | None = None) -> Trial:
    """Run one trial and fill in `trial`, whose identity (experiment, number, block) the caller has set.

    A trial that fails is a record too: status `failed` and the reason. probes: made afresh; those of every trial need
    not be named. seen: gets the readings that have no column, by table.
    """
    trial.started_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
    _describe_spec(spec, trial)
    _describe_host(trial)
    name = f"trial-{os.getpid()}-{trial.trial}"
    try:
        _describe_transports(spec, trial)
        with ExitStack() as undo:
            home = rendezvous.Home(name, "trial")
            undo.callback(home.close)
            probing = Probing(trial, probes, {} if seen is None else seen)
            _measure(spec, trial, name, home.directory, probing, undo)
        trial.status = "ok"
        if trial.ok != trial.requests:
            bad = ", ".join(f"{getattr(trial, kind.lower())} {kind}" for kind in OUTCOMES[1:])
            trial.status, trial.reason = "failed", f"not every reply was OK: {bad}"
    except (TrialError, ProbeFailed, OSError, ValueError) as error:
        trial.status, trial.reason = "failed", " ".join(str(error).split())
    finally:
        trial.swept = _sweep(name)
    return trial


def _sweep(name: str) -> int:
    """Sweep the rendezvous, also where the last of its killed processes are yet to end. Returns what was found."""
    found = len(rendezvous.sweep(name))
    deadline = time.monotonic() + 1
    while os.path.exists(rendezvous.rendezvous_directory(name)) and time.monotonic() < deadline:
        time.sleep(0.01)
        found += len(rendezvous.sweep(name))
    return found


def _measure(spec: Spec, trial: Trial, name: str, directory: str, probing: Probing, undo: ExitStack) -> None:
    _make_files(spec, directory)
    common = ["--name", name, "--timeout", str(spec.timeout), "--until-eof"]
    servers = {}
    if spec.source == "direct":
        backend = ["--direct", f"{directory}/files"]
    else:
        backend = ["-n", str(spec.lanes), "--data", spec.data]
        backend += ["-z", str(spec.chunk)] if spec.chunk else []
        servers["cache"] = _Program(
            "simplecached", directory, undo, "-c", f"{directory}/files", "-t", str(spec.cache_threads),
            "--processes", str(spec.cache_processes), "--command", spec.command, *common,
        )  # fmt: skip
    servers["proxy"] = proxy = _Program(
        "webproxy", directory, undo, "-p", "0", "-t", str(spec.proxy_threads), "--processes",
        str(spec.proxy_processes), "--congestion", spec.congestion, *backend, *common,
    )  # fmt: skip
    if "cache" in servers:
        servers["cache"].expect("simplecached: ready", _START)
    port = proxy.expect("webproxy: listening on", _START).split()[3].rstrip(",").rpartition(":")[2]
    client = _Program(
        "gfclient", directory, undo, "-p", port, "-t", str(spec.clients), "--processes", str(spec.client_processes),
        "-w", f"{directory}/workload.txt", "--seconds", str(spec.seconds), "--warmup", str(spec.warmup),
        "--timeout", str(_REQUEST), "--verify", f"{directory}/files", "--gate", "--json",
        *(["--discard"] if spec.sink == "discard" else []),
    )  # fmt: skip
    client.expect("warm", _START + spec.warmup)
    programs = {"client": client, **servers}
    with probing.looking({role: program.pids() for role, program in programs.items()}, directory):
        client.say("go")
        client.expect("done", spec.seconds + _REQUEST + 5)
    client.say("end")
    report = client.expect("{", _START)
    client.wait()
    _fill(trial, report)


class _Program:
    """A program of the harness in a fresh process, ended by `undo`; it ends by itself should this process be killed."""

    def __init__(self, name: str, directory: str, undo: ExitStack, *arguments: str) -> None:
        self._name = name
        self._log = f"{directory}/{name}.log"
        with open(self._log, "wb") as log:
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
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
            return [self.pid, *map(int, children.read().split())]

    def say(self, line: str) -> None:
        self._in.write(f"{line}\n".encode())
        self._in.flush()

    def expect(self, beginning: str, seconds: float) -> str:
        """The next line of its output, which begins like this. Raises TrialError."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            if not select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TrialError(f"{self._name} did not say {beginning!r} within {seconds:g} s; {self._last_words()}")
            piece = os.read(self._out.fileno(), 1 << 16)
            if not piece:
                raise TrialError(f"{self._name} ended too early; {self._last_words()}")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        if not line.startswith(beginning.encode()):
            raise TrialError(f"{self._name} said {line.decode(errors='replace')!r} instead of {beginning!r}")
        return line.decode()

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


def _make_files(spec: Spec, directory: str) -> None:
    """The files to be asked for, and the workload. Random bytes, but zeros where the transport invents zeros."""
    os.mkdir(f"{directory}/files")
    zeros = spec.source == "cache" and registry.data_transport(spec.data).name == _NULL
    with open(f"{directory}/workload.txt", "w") as workload:
        for number in range(spec.copies):
            workload.write(f"/{number}\n")
            with open(f"{directory}/files/{number}", "wb") as file:
                file.write(bytes(int(spec.files)) if zeros else os.urandom(int(spec.files)))


def _fill(trial: Trial, report: str) -> None:
    result = json.loads(report)
    for outcome in OUTCOMES:
        setattr(trial, outcome.lower(), result[outcome])
    for same in ("requests", "requests_per_s", "content_bytes", "latency_max_us"):
        setattr(trial, same, result[same])
    for percentile in ("50", "90", "99", "99.9"):
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


def _describe_spec(spec: Spec, trial: Trial) -> None:
    for factor in fields(Spec):
        if spec.source == "cache" or factor.name not in OF_THE_CACHE:
            setattr(trial, COLUMN_OF.get(factor.name, factor.name), getattr(spec, factor.name))
    trial.control = int(spec.control)
    trial.file_size_bytes = int(spec.files)
    if spec.congestion == SYSTEM:
        with open("/proc/sys/net/ipv4/tcp_congestion_control") as name:
            trial.congestion = name.read().strip()


def _describe_transports(spec: Spec, trial: Trial) -> None:
    if spec.source == "cache":
        data = registry.data_transport(spec.data, spec.chunk or None)
        trial.command_effective = registry.describe(registry.command_transport(spec.command))
        trial.data_effective = registry.describe(data)
        trial.cache_end, trial.proxy_end = registry.shape(data)


def _describe_host(trial: Trial) -> None:
    trial.host, trial.kernel, trial.python = platform.node(), platform.release(), platform.python_version()
    trial.cpu, trial.cpus = _cpu_model(), len(os.sched_getaffinity(0))
    trial.harness, trial.commit = harness.__version__, _commit()


@cache
def _cpu_model() -> str:
    with open("/proc/cpuinfo") as info:
        return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")


@cache
def _commit() -> str:
    """The commit of the checkout that this package lies in, empty where it lies in none."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not os.path.exists(f"{root}/.git"):
        return ""
    try:
        command = ["git", "-C", root, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
