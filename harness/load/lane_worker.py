"""The workers of `harness lane`: each makes requests over lanes of its own, in a thread of its own.

A worker has one request under way at a time, or sends a batch of commands, a lane for each, and then takes the replies
in the same order. So with a batch many requests are under way, and no other thread has to be woken for them.
"""

import argparse
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from harness import console, registry, rendezvous, supervisor
from harness.api import DataTransport
from harness.load.sinks import Checksum, Compare, Copy, Sink
from harness.load.socket_reader import SocketReader
from harness.load.tally import ERROR, NOT_FOUND, OK, WRONG, Tally, Usage
from harness.load.workload import part
from harness.pipeline import transfer
from harness.pipeline.cache_link import CacheLink, NoCache
from harness.pipeline.exchange import Exchange, Lane, provision_lanes
from harness.protocol import wire

VERIFIED, MEASURED = range(2)  # the phases
_CHECK = 0.25  # seconds between checks whether to stop, and between flushes of the counts
_OUTCOME = {wire.STATUS_NOT_FOUND: NOT_FOUND, wire.STATUS_ERROR: ERROR}


class Way(NamedTuple):
    """What one request at a time goes over."""

    lane: Lane
    exchange: Exchange


# The request's way, index and beginning, and what its reply comes over; None: its command was not sent.
_Sent = tuple[Way, int, int, transfer.Relay | None]


class Worker:
    """Makes the requests of one thread, over one lane or in batches over several.

    ways: one for each request of a batch. paths: all that it may be asked for. sinks: what becomes of content in each
    phase; None: it is taken and given back. reader: has the client's socket where the lane's end needs one. all_paths:
    the workload of all paths. stopping: set it to make the requests under way the last ones.
    """

    def __init__(
        self,
        ways: Sequence[Way],
        paths: Sequence[str],
        sinks: Sequence[Sink | None],
        reader: SocketReader | None,
    ) -> None:
        self._ways, self._reader = ways, reader
        self._paths, self._encoded = paths, [os.fsencode(path) for path in paths]
        self._sinks = sinks
        self._sink: Sink | None = None  # of the phase
        self.all_paths = range(len(paths))
        self._first, self._count = 0, len(paths)  # the workload
        self._no_cache = False
        self.stopping = False

    def run(self, phase: int, workload: range, indices: Iterable[int], until: int, tally: Tally) -> None:
        """Request the paths of `indices` (into the workload, modulo its length) until these or the time end.

        workload: which of the worker's paths it is. until: ns on the clock of time.monotonic_ns(). Raises OSError where
        the process that reads from the socket fails.
        """
        clock, reader, send, take, add = time.monotonic_ns, self._reader, self._send, self._take, tally.add
        way, together = self._ways[0], len(self._ways)
        end = check = clock()
        tally.begin()
        self._sink, self._no_cache = self._sinks[phase], False
        self._first, self._count = workload.start, len(workload)
        if reader is not None:
            reader.begin(phase)
        indices = iter(indices)
        for index in indices:
            begun = clock()
            if begun >= until or self.stopping or self._no_cache:
                break
            relay = send(way, index)
            rest = self._send_rest(indices) if together > 1 and relay is not None else []
            outcome, content = (ERROR, 0) if relay is None else take(way, index, relay)
            end = clock()
            add(outcome, content, begun, end)
            if rest:
                end = self._take_rest(rest, tally)
            if end > check:
                check = end + int(_CHECK * 1e9)
                tally.flush(end)
        if reader is not None:
            wrong = reader.end()
            tally.counts[OK] -= wrong
            tally.counts[WRONG] += wrong
        tally.end(end, Usage() if reader is None else reader.usage)

    def _send_rest(self, indices: Iterator[int]) -> list[_Sent]:
        """Send the other commands of a batch, until one fails."""
        batch: list[_Sent] = []
        for way, index in zip(self._ways[1:], indices, strict=False):
            batch.append((way, index, time.monotonic_ns(), self._send(way, index)))
            if batch[-1][3] is None:
                break
        return batch

    def _take_rest(self, batch: list[_Sent], tally: Tally) -> int:
        """Take the other replies of a batch. Returns when the last one ended."""
        failed, end = self._ways[0].lane.relay is None, 0  # retired: its reply did not come
        for way, index, begun, relay in batch:
            outcome, content = ERROR, 0
            if failed and relay is not None:  # it would wait as long, for the same reason
                self._undo(way)
            elif relay is not None:
                outcome, content = self._take(way, index, relay)
                failed = way.lane.relay is None
            end = time.monotonic_ns()
            tally.add(outcome, content, begun, end)
        return end

    def _send(self, way: Way, index: int) -> transfer.Relay | None:
        """Send the command of a request, whose id is `index`. Returns what its reply comes over; None: it failed."""
        lane, exchange = way
        reader, client, header = self._reader, -1, b""
        number = self._first + index % self._count
        try:
            if reader is not None and lane.hand_off is not None:
                client, header = reader.sink, reader.header(number)
                if header:
                    reader.await_room()
            return exchange.send(lane, index, self._encoded[number], client, header)
        except NoCache as error:
            self._no_cache = True  # the next request would fail, too
            wrong = str(error)
        except Exception as error:  # noqa: BLE001  whatever a stranger's transport raises, its lane is retired
            wrong = self._wrong(index, error)
        self._fail(way, wrong)
        return None

    def _take(self, way: Way, index: int, relay: transfer.Relay) -> tuple[int, int]:
        """Take the reply to a request. Returns its outcome, and the length of its content in bytes."""
        reader, sink = self._reader, self._sink
        try:
            status, length = relay.await_head(index)
            right = True
            if reader is not None:
                header = b"" if status else reader.header(self._first + index % self._count)
                if header:
                    header %= length
                    if way.lane.hand_off is None:
                        reader.await_room()
                relay.pass_on(reader.sink, header)
                reader.delivered += len(header) + length
            elif sink is None or status:  # without a reader the relay is a CopyingRelay
                relay.spend(None)  # type: ignore[attr-defined]
            else:
                sink.open(self._paths[self._first + index % self._count])
                right = relay.spend(sink.write)  # type: ignore[attr-defined]
                right = sink.close(complete=True) and right
            return _OUTCOME[status] if status else OK if right else WRONG, length
        except transfer.ClientGone as error:
            raise OSError(f"the process that reads from the socket has ended: {error}") from None
        except Exception as error:  # noqa: BLE001  as above
            wrong = self._wrong(index, error)
        self._fail(way, wrong)
        return ERROR, 0

    def _wrong(self, index: int, error: Exception) -> str:
        """What went wrong as text: an exception would keep views of the lane's memory."""
        return f"{self._paths[self._first + index % self._count]}: {type(error).__name__}: {error}"

    def _fail(self, way: Way, wrong: str) -> None:
        """Say what went wrong with a request, and undo it."""
        if not self.stopping:  # else the end of the process has removed what this request needed
            console.say(wrong)
        self._undo(way)

    def _undo(self, way: Way) -> None:
        """Undo a request that went wrong."""
        exchange, reader = way.exchange, self._reader
        exchange.undo(-1 if reader is None else reader.sink)
        if reader is not None and (exchange.given or exchange.sent):
            reader.renew()


class Team:
    """The workers of one process, from construction until `undo` is left.

    Each has a lane, and a thread that stays until the process ends, so that a probe can read what it has used.
    numbers: those of the workers, among all of the load.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        home: rendezvous.Home,
        data: DataTransport,
        paths: list[str],
        sums: dict[str, int],
        process: int,
        stop_requested: Callable[[], bool],
        undo: ExitStack,
    ) -> None:
        sys.setswitchinterval(supervisor.SWITCH_INTERVAL)  # as in a proxy, whose threads these stand for
        self._stop_requested = stop_requested
        count = args.processes * args.threads
        self.numbers = range(process, count, args.processes)
        parts = [part(len(paths), number, count) for number in self.numbers]
        own = [paths[one.start : one.stop] if args.apart else paths for one in parts]
        sinks = [_sinks(args, sums) for _ in self.numbers]
        readers: list[SocketReader | None] = [None for _ in self.numbers]
        if (end := registry.shape(data)[1]) != "copy":
            for index, (own_paths, own_sinks) in enumerate(zip(own, sinks, strict=True)):
                reader = SocketReader(own_paths, own_sinks, end == "hand-off", args.timeout)  # forks: no threads yet
                readers[index] = reader
                undo.callback(reader.close)
        slots = [f"{process}.{lane}" for lane in range(process, args.lanes, args.processes)]
        lanes = provision_lanes(undo, home, data, slots, args.timeout)  # each for one worker; any others stay unused
        link = CacheLink(args.name)
        ways = [Way(lane, Exchange(link, args.timeout)) for lane in lanes]
        self._workers = [
            Worker(ways[first : first + args.batch], own_paths, own_sinks, reader)
            for first, own_paths, own_sinks, reader in zip(
                range(0, len(ways), args.batch), own, sinks, readers, strict=False
            )
        ]
        self._tasks: list[queue.SimpleQueue[Callable[[], None]]] = [queue.SimpleQueue() for _ in self._workers]
        self._ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        for tasks in self._tasks:
            threading.Thread(target=self._serve, args=(tasks,), daemon=True).start()

    def run(
        self,
        phase: int,
        indices: Sequence[Iterable[int]],
        until: int,
        tallies: Sequence[Tally],
        workload: range | None = None,
    ) -> None:
        """Have each worker run() with its own indices and tally. workload: which of its paths; None: all.

        Raises what a worker raises, and KeyboardInterrupt where a stop is requested.
        """
        for queued, worker, own_indices, tally in zip(self._tasks, self._workers, indices, tallies, strict=True):
            queued.put(partial(worker.run, phase, workload or worker.all_paths, own_indices, until, tally))
        left = len(tallies)
        try:
            while left:
                try:
                    if (error := self._ended.get(timeout=_CHECK)) is not None:
                        raise error
                    left -= 1
                except queue.Empty:
                    if self._stop_requested():
                        raise KeyboardInterrupt from None
        except BaseException:
            for worker in self._workers:
                worker.stopping = True  # else it could provision one more lane, which would stay after the end
            raise

    def _serve(self, tasks: "queue.SimpleQueue[Callable[[], None]]") -> None:
        while True:
            try:
                tasks.get()()
                self._ended.put(None)
            except Exception as error:  # noqa: BLE001  for run() to raise
                self._ended.put(error)


def _sinks(args: argparse.Namespace, sums: dict[str, int]) -> tuple[Sink | None, Sink | None]:
    """What becomes of content in each phase, for one worker."""
    measured = {"discard": None, "copy": Copy(), "checksum": Checksum(sums)}[args.sink]
    return Compare(args.verify, Sink()) if args.verify else measured, measured
