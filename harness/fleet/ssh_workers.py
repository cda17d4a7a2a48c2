"""Workers that this process starts on hosts by SSH. Their scheduler is in this process.

They are the workers of dask.distributed.SSHCluster, each started by itself: a host that cannot be reached costs nothing
but itself, and is tried again. A worker ends when its scheduler does.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Sequence

from distributed import Client
from distributed.deploy import ssh

from harness.console import Failure
from harness.fleet.dask_engine import START, WORKER, DaskEngine, started
from harness.fleet.hosts_file import SshHost

_AGAIN = 3.0  # seconds between attempts to start a worker again
_ALL = "0.0.0.0"  # noqa: S104  where the hosts are in several networks


class SshWorkers:
    """listen: this machine's address; empty: that from which it reaches the hosts. unreachable: host -> why."""

    def __init__(self, hosts: Sequence[SshHost], listen: str) -> None:
        self._hosts = {host.name: host for host in hosts}
        self._routes = {host.name: listen or _own_address(host.address) for host in hosts}
        routes = {*self._routes.values()}
        self._cluster = started(routes.pop() if len(routes) == 1 else _ALL, {})
        self._scheme, _, rest = self._cluster.scheduler_address.partition("://")
        self._port = rest.rpartition(":")[2]
        self._workers: dict[str, ssh.Worker] = {}
        self._next = dict.fromkeys(self._hosts, 0.0)  # host -> when it may be tried again
        self.unreachable: dict[str, str] = {}

    def engine(self, wait: bool) -> DaskEngine:
        """Start all of them. wait: until each has started, or failed to."""
        if wait:
            self._cluster.sync(self._start_all)
        pythons = {name: host.python for name, host in self._hosts.items()}
        client = Client(self._cluster, timeout=START)
        return DaskEngine(client, pythons, self._close, self._revive, self.unreachable)

    async def _start_all(self) -> None:
        await asyncio.gather(*map(self._start, self._hosts))

    async def _start(self, name: str) -> None:
        host = self._hosts[name]
        if old := self._workers.pop(name, None):
            await _quietly(old.close())
        worker = ssh.Worker(
            f"{self._scheme}://{self._routes[name]}:{self._port}",
            host.address,
            {"connect_timeout": START / 4, **({"username": host.user} if host.user else {}), **host.options},
            {**WORKER, "name": name},
            "distributed.Worker",  # no nanny beside it: a worker that ends is started from here
            host.python,
        )
        try:
            await asyncio.wait_for(worker.start(), START)
            self._workers[name] = worker
            self.unreachable.pop(name, None)
        except Exception as error:  # noqa: BLE001  asyncssh raises many kinds
            self.unreachable[name] = f"no worker starts there: {error or type(error).__name__}"
            await _quietly(worker.close())
        self._next[name] = time.monotonic() + _AGAIN

    def _revive(self, name: str) -> None:
        if time.monotonic() > self._next[name]:
            self._next[name] = time.monotonic() + 2 * START
            self._cluster.loop.add_callback(self._start, name)

    async def _end(self) -> None:
        await asyncio.gather(*(_quietly(worker.close()) for worker in self._workers.values()))

    def _close(self) -> None:
        self._cluster.sync(self._end)
        self._cluster.close()


def _own_address(other: str) -> str:
    """The address of this machine from which it reaches another one; nothing is sent."""
    try:
        family, _, _, _, address = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Failure(f"{other} cannot be reached: {error}") from None


async def _quietly(ending: Awaitable[None]) -> None:
    try:
        await asyncio.wait_for(ending, 5)
    except Exception:  # noqa: BLE001, S110  it was gone already
        pass
