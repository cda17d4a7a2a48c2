"""The proxy's backend that serves from the cache: worker threads share a pool of lanes."""

import itertools
import os
import threading
from collections import deque
from contextlib import ExitStack

from harness import rendezvous
from harness.api import DataTransport
from harness.console import say
from harness.pipeline.cache_link import CacheLink
from harness.pipeline.exchange import Exchange, Lane, provision_lanes
from harness.pipeline.gfserver import Handler
from harness.pipeline.transfer import ClientGone
from harness.protocol import getfile, wire
from harness.protocol.dialects import Dialect

_STATUS = {wire.STATUS_NOT_FOUND: getfile.FILE_NOT_FOUND, wire.STATUS_ERROR: getfile.ERROR}


class LanePool:
    """Leases lanes: first come, first served; a freed lane goes to the thread that has waited longest."""

    def __init__(self, lanes: list[Lane]) -> None:
        # The last one used is the next one leased: its memory is warm. Taken from and added to without the lock.
        self._free = list(lanes)
        self._waiting: deque[_Ticket] = deque()
        self._lock = threading.Lock()

    def lease(self, timeout: float) -> Lane:
        """A lane for this thread alone, until give_back(). Raises TimeoutError after `timeout` seconds."""
        if not self._waiting:
            try:
                return self._free.pop()
            except IndexError:
                pass
        ticket = _Ticket()
        with self._lock:
            self._waiting.append(ticket)
        self._serve()  # a lane may have been given back before this thread was seen to wait
        if not ticket.called.acquire(timeout=timeout):
            with self._lock:
                if ticket.lane is None:
                    self._waiting.remove(ticket)
                    raise TimeoutError(f"no lane became free for {timeout} s")
        assert ticket.lane is not None
        return ticket.lane

    def give_back(self, lane: Lane) -> None:
        self._free.append(lane)
        if self._waiting:
            self._serve()

    def _serve(self) -> None:
        """Give free lanes to the threads that wait."""
        with self._lock:
            while self._waiting:
                try:
                    lane = self._free.pop()
                except IndexError:
                    return  # a thread has just leased it, and serves those that wait when it gives it back
                ticket = self._waiting.popleft()
                ticket.lane = lane
                ticket.called.release()


class _Ticket:
    """A thread's place in the queue for a lane. called: locked until `lane` is set."""

    def __init__(self) -> None:
        self.called = threading.Lock()  # an Event costs seven times as much to make
        self.called.acquire()
        self.lane: Lane | None = None


class CacheBackend:
    """Serves from the cache at a rendezvous. A proxy process has one."""

    def __init__(
        self,
        home: rendezvous.Home,
        name: str,
        data: DataTransport,
        slots: list[str],
        timeout: float,
        dialect: Dialect,
    ) -> None:
        with ExitStack() as undo:
            self._pool = LanePool(provision_lanes(undo, home, data, slots, timeout))
            self._names = undo.pop_all()
        self._link = CacheLink(name)
        self._request_ids = itertools.count(1)
        self._timeout = timeout
        self._dialect = dialect

    def handler(self) -> Handler:
        """The handler of one worker thread."""
        worker = _Worker(self._pool, self._link, self._request_ids, self._timeout, self._dialect)
        return worker.handle  # in CPython 3.11 a bound method is called 80 ns faster than an object with __call__

    def close(self) -> None:
        """Remove the names of the lanes; requests may still be in flight."""
        self._names.close()


class _Worker:
    """One worker thread's way to the cache."""

    def __init__(
        self, pool: LanePool, link: CacheLink, request_ids: "itertools.count[int]", timeout: float, dialect: Dialect
    ) -> None:
        self._pool, self._request_ids, self._timeout = pool, request_ids, timeout
        self._exchange = Exchange(link, timeout)
        self._ok_header = dialect.OK_HEADER
        self._refusals = {number: dialect.refusal_header(status) for number, status in _STATUS.items()}

    def handle(self, client: int, path: bytes) -> None:
        exchange, ok_header, answered = self._exchange, self._ok_header, False
        try:
            lane = self._pool.lease(self._timeout)
        except TimeoutError as error:
            say(str(error))
            os.write(client, self._refusals[wire.STATUS_ERROR])
            return
        try:
            request_id = next(self._request_ids)
            # What went wrong is kept as text: an exception would keep views of the lane's memory.
            try:
                relay = exchange.send(lane, request_id, path, client, ok_header)
                status, length = relay.await_head(request_id)
                answered = True
                relay.pass_on(client, self._refusals[status] if status else ok_header % length)
                return
            except ClientGone as error:
                raise EOFError(f"the reply is cut: {error}") from None
            except Exception as error:  # noqa: BLE001  a plugin may raise anything; its lane is retired
                wrong = f"{os.fsdecode(path)}: {type(error).__name__}: {error}"
            say(wrong)
            if not exchange.undo(client) or answered:
                raise EOFError("the reply is cut")
            os.write(client, self._refusals[wire.STATUS_ERROR])
        finally:
            self._pool.give_back(lane)
