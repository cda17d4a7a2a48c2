"""Hosts by `dask.distributed`: workers run on them, and a scheduler, which may be in this process, knows the workers.

No code is sent to a worker: all that one is asked for is `subprocess.run`, which is pickled as that name, with a
command line. So a worker needs Python and `distributed`. What measures is the command: the Python there that has the
harness.
"""

import logging
import queue
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import dask.config
from distributed import Client, Future, Nanny, Scheduler, SpecCluster

from harness.console import Failure
from harness.fleet.engine import Answer, Seen

_TCP = 12.0  # seconds: the least that Dask's keep-alive can do
START = 60.0  # seconds in which a worker has to start, or a scheduler to answer
# Options of a worker: one task at a time, no limit of memory, no page about itself; it ends where no scheduler answers.
WORKER = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "dashboard_address": None, "death_timeout": START}


class Tls(NamedTuple):
    """Paths of PEM files, the same on all hosts; empty: no TLS."""

    ca_file: str = ""
    cert: str = ""
    key: str = ""


def configure(tls: Tls, silent: float) -> None:
    """Set what holds for this process and for all workers that it starts. silent: seconds without a word.

    A worker's own looks at itself would disturb what is measured beside it: its profiler and memory monitor are off.
    """
    settings: dict[str, Any] = {
        "distributed.worker.profile.enabled": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.admin.system-monitor.interval": "10s",
        "distributed.admin.tick.interval": "1s",
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.comm.timeouts.connect": "10s",
        "distributed.comm.timeouts.tcp": f"{max(_TCP, silent)}s",
        "distributed.scheduler.worker-ttl": None,  # the coordinator drops what is silent
        "distributed.scheduler.allowed-failures": 1000,  # it decides what is done again
    }
    if tls.ca_file:
        settings["distributed.comm.require-encryption"] = True
        settings["distributed.comm.default-scheme"] = "tls"
        settings["distributed.comm.tls.ca-file"] = tls.ca_file
        for role in ("client", "scheduler", "worker"):
            settings[f"distributed.comm.tls.{role}.cert"] = tls.cert
            settings[f"distributed.comm.tls.{role}.key"] = tls.key
    dask.config.set(settings)


class DaskEngine:
    """See harness.fleet.engine.Engine.

    pythons: host -> the Python with which it measures. close: ends what this process has started. revive: starts the
    worker of a host again. unreachable: host -> why no worker could be started there.
    """

    def __init__(
        self,
        client: Client,
        pythons: Mapping[str, str],
        close: Callable[[], None] = lambda: None,
        revive: Callable[[str], None] = lambda _: None,
        unreachable: Mapping[str, str] = {},
    ) -> None:
        self._client, self.pythons, self._close, self._revive = client, dict(pythons), close, revive
        self.unreachable = unreachable
        self._sent: dict[str, Future] = {}
        self._answered: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._heard: dict[str, tuple[float, float]] = {}  # address -> the scheduler's time, and ours when that was new
        self._addresses: dict[str, str] = {}

    def look(self) -> dict[str, Seen]:
        """The hosts that are there. Raises OSError where the scheduler is gone."""
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError, RuntimeError) as error:
            raise OSError(f"the scheduler is gone: {error}") from None
        now, found = time.monotonic(), {}
        for address, worker in workers.items():
            then, heard = self._heard.get(address, (0.0, now))
            if worker["last_seen"] != then:
                heard = now
            self._heard[address] = worker["last_seen"], heard
            found[name_of(worker["name"])] = Seen(address, now - heard)
        self._addresses = {name: one.address for name, one in found.items()}
        return found

    def send(self, host: str, command: Sequence[str], given: bytes) -> None:
        """Have a host's worker run a command."""
        future = self._client.submit(
            subprocess.run,
            list(command),
            input=given,
            capture_output=True,
            workers=[self._addresses[host]],
            pure=False,
        )
        self._sent[host] = future
        future.add_done_callback(lambda done: self._answered.put((host, done)))

    def answers(self, bound: float) -> list[Answer]:
        """What has been answered. A worker that died with its answer has none."""
        found = []
        try:
            waiting = [self._answered.get(timeout=bound)]
            while not self._answered.empty():
                waiting.append(self._answered.get())
        except queue.Empty:
            return []
        for host, future in waiting:
            if self._sent.get(host) != future:
                continue
            del self._sent[host]
            try:
                done = future.result(timeout=START)
                found.append(Answer(host, done.returncode, done.stdout, done.stderr.decode(errors="replace")))
            except Exception as error:  # noqa: BLE001  a task fails with whatever the worker raises
                found.append(Answer(host, -1, b"", f"{type(error).__name__}: {error}"))
        return found

    def drop(self, host: str) -> None:
        """Forget what a host was sent."""
        if future := self._sent.pop(host, None):
            future.cancel(force=True)

    def revive(self, host: str) -> None:
        """Start the worker of a host again, where this process has started it."""
        self._revive(host)

    def close(self) -> None:
        """End what this process has started. What a host measures goes on to the end of its block."""
        self._client.close(timeout=2)
        self._close()


def name_of(worker: object) -> str:
    """The name of a host, by that of its worker: it names a directory."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"^(tcp|tls)://", "", str(worker))).strip("-.")
    return plain or "host"


def on_scheduler(address: str, count: int, python: str) -> DaskEngine:
    """The workers of a cluster that is there. count: of workers that are waited for; 0: those that are there.

    python: what measures there; empty: that of each worker. Raises Failure.
    """
    try:
        client = Client(address, timeout=START)
    except (OSError, TimeoutError) as error:
        raise Failure(f"no scheduler answers at {address}: {error}") from None
    try:
        client.wait_for_workers(count or 1, timeout=START)
    except TimeoutError:
        there = len(client.scheduler_info(n_workers=-1)["workers"])
        client.close()
        raise Failure(f"{there} of {count or 1} workers are at {address}, after {START:g} s") from None
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if many := [worker["name"] for worker in workers.values() if worker["nthreads"] != 1]:
        client.close()
        raise Failure(f"worker {many[0]} takes several tasks at a time: start it with --nthreads 1")
    names = [name_of(worker["name"]) for worker in workers.values()]
    if twice := [name for name in names if names.count(name) > 1]:
        client.close()
        raise Failure(f"two workers of the name {twice[0]}: give each a name of its own")
    asked = {
        name: python or f"{client.submit(sysconfig.get_path, 'scripts', workers=[at], pure=False).result()}/python3"
        for name, at in zip(names, workers, strict=True)
    }
    return DaskEngine(client, asked)


def locally(count: int) -> DaskEngine:
    """So many workers on this machine, to try it: they measure one after the other, by the machine's lock."""
    workers = {
        f"local-{number}": {"cls": Nanny, "options": {**WORKER, "host": "127.0.0.1", "silence_logs": logging.ERROR}}
        for number in range(1, count + 1)
    }
    cluster = started("127.0.0.1", workers)
    return DaskEngine(Client(cluster, timeout=START), dict.fromkeys(workers, sys.executable), cluster.close)


def started(host: str, workers: dict[str, Any]) -> SpecCluster:
    """A scheduler in this process that listens at an address, and workers."""
    options = {"host": host, "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    return SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": options}, silence_logs=logging.ERROR)
