"""What the proxy has of the cache: lanes for replies, shared fairly by the workers, and the command channel.

    Lane       a provisioned lane, and its successors: one whose request went wrong is retired, its names are removed
    LanePool   leases lanes, first come first served
    CacheLink  follows the cache that runs at a rendezvous, through its deaths and restarts
    Commands   one thread's end of the command channel of whichever cache that is

A program that has lanes is a proxy: its home is named so, and a cache can tell whether there is any.
"""

import itertools
import os
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

from harness import registry, rendezvous
from harness.api import CommandSender, CommandTransport, DataTransport, Scope
from harness.console import Failure, pause, say
from harness.pipeline import transfer
from harness.pipeline.gfserver import Handler
from harness.protocol import getfile, wire
from harness.protocol.dialects import Dialect
from harness.supervisor import open_home

CACHE = "cache"
CHANNEL = "channel"
COMMANDS = "commands"
LANE = "lane"
_PROXY = "proxy-"

_LOOK_AGAIN = 0.02  # seconds between looks for a cache that is not there
_STATUS = {wire.STATUS_NOT_FOUND: getfile.FILE_NOT_FOUND, wire.STATUS_ERROR: getfile.ERROR}


def open_proxy_home(undo: ExitStack, name: str) -> rendezvous.Home:
    """The home of a program that has lanes, as program.open_home()."""
    return open_home(undo, name, f"{_PROXY}{os.getpid()}-{os.urandom(3).hex()}")


def proxies(name: str) -> list[str]:
    """The homes of the proxies at a rendezvous, and of those that were killed there and are yet to be swept."""
    try:
        return [home for home in os.listdir(rendezvous.rendezvous_directory(name)) if home.startswith(_PROXY)]
    except FileNotFoundError:
        return []


class Lane:
    """One lane of a proxy process, with fresh names each time it is provisioned.

    name: what commands call it, program/scope. relay: None while it is retired. hand_off: the relay, where it takes
    the client before the command is sent.
    """

    def __init__(self, home: rendezvous.Home, transport: DataTransport, timeout: float, slot: str) -> None:
        self._home, self._transport, self._timeout, self._slot = home, transport, timeout, slot
        self._generations = itertools.count()
        self._names = ExitStack()
        self.name = b""
        self.relay: transfer.Relay | None = None
        self.hand_off: transfer.HandOffRelay | None = None

    def provision(self) -> transfer.Relay:
        """Make the lane and open this end of it. Raises OSError."""
        with ExitStack() as undo:
            scope = self._home.scope(f"{self._slot}.{next(self._generations)}", self._timeout)
            undo.callback(rendezvous.remove_scope, scope)
            undo.enter_context(self._transport.provision(scope))
            relay = transfer.relay_over(self._transport.receiver(scope))
            rendezvous.write_note(f"{scope.directory}/{LANE}", self._timeout, registry.describe(self._transport))
            self.name = os.fsencode(f"{os.path.basename(self._home.directory)}/{os.path.basename(scope.directory)}")
            self._names, self.relay = undo.pop_all(), relay
            self.hand_off = relay if isinstance(relay, transfer.HandOffRelay) else None
        return relay

    def retire(self) -> None:
        """Close the lane and remove its names, so that no late writer reaches the request that comes next."""
        relay, self.relay = self.relay, None
        self.remove_names()
        if relay is not None:
            relay.close()

    def give_up(self, client: int, given: bool, sent: bool) -> bool:
        """Undo what a request has done that went wrong. Returns whether `client` is still the caller's to answer.

        given: whether the client was given away; sent: whether the command was sent.
        """
        ours = not given or self.hand_off is None or self.hand_off.take_back(client)
        if sent or given:
            self.retire()
        return ours

    def remove_names(self) -> None:
        """All that may be done to a lane that another thread is using, at the end of the process."""
        self._names.pop_all().close()


def provision_lanes(
    undo: ExitStack, home: rendezvous.Home, data: DataTransport, slots: list[str], timeout: float
) -> list[Lane]:
    """Lanes of one process, whose names `undo` removes; requests may still be in flight then. Raises OSError."""
    lanes = [Lane(home, data, timeout, slot) for slot in slots]
    for number, lane in enumerate(lanes, 1):
        undo.callback(lane.remove_names)
        try:
            lane.provision()
        except OSError as error:
            raise OSError(f"lane {number} of {len(slots)} over {data.name}: {error}") from error
    return lanes


class LanePool:
    """Leases lanes: first come, first served, and a freed lane goes to whoever waits longest."""

    def __init__(self, lanes: list[Lane]) -> None:
        self._free = list(lanes)  # the last one used is the next one leased: its memory is warm
        self._waiting: deque[_Ticket] = deque()
        self._lock = threading.Lock()

    def lease(self, timeout: float) -> Lane:
        """A lane that is this thread's until give_back. Raises TimeoutError after `timeout` seconds."""
        with self._lock:
            if self._free:
                return self._free.pop()
            ticket = _Ticket()
            self._waiting.append(ticket)
        if not ticket.called.acquire(timeout=timeout):
            with self._lock:
                if ticket.lane is None:
                    self._waiting.remove(ticket)
                    raise TimeoutError(f"no lane became free for {timeout} s")
        assert ticket.lane is not None
        return ticket.lane

    def give_back(self, lane: Lane) -> None:
        with self._lock:
            if not self._waiting:
                self._free.append(lane)
                return
            ticket = self._waiting.popleft()
            ticket.lane = lane
        ticket.called.release()


class _Ticket:
    def __init__(self) -> None:
        self.called = threading.Lock()  # taken until then; an Event, of three more objects, costs seven times as much
        self.called.acquire()
        self.lane: Lane | None = None


class Channel(NamedTuple):
    """The command channel of one life of the cache."""

    transport: CommandTransport
    scope: Scope


class NoCache(TimeoutError):
    """No cache came to the rendezvous in time."""


class CacheLink:
    """Knows the command channel of the cache at `rendezvous`, or that there is none."""

    def __init__(self, rendezvous: str) -> None:
        self._rendezvous = rendezvous
        self._changed = threading.Condition()
        self.channel: Channel | None = None
        threading.Thread(target=self._follow, daemon=True).start()

    def wait(self, timeout: float) -> Channel:
        """The channel of the cache that is or comes there. Raises NoCache after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.channel, timeout)
            channel = self.channel
        if channel is None:
            raise NoCache(f"no cache at rendezvous {self._rendezvous!r} for {timeout} s")
        return channel

    def _set(self, channel: Channel | None) -> None:
        with self._changed:
            self.channel = channel
            self._changed.notify_all()

    def _follow(self) -> None:
        home = f"{rendezvous.rendezvous_directory(self._rendezvous)}/{CACHE}"
        while True:
            try:
                with rendezvous.open_lock(home, rendezvous.SERVING) as lock:
                    self._set(find_channel(self._rendezvous))
                    rendezvous.wait_until_free(lock)
                    say("the cache has gone; waiting for another")
            except (OSError, ValueError):
                time.sleep(_LOOK_AGAIN)  # there is none, or it is starting or ending
            self._set(None)


class Commands:
    """One thread's end of the living cache's command channel."""

    def __init__(self, link: CacheLink, timeout: float) -> None:
        self._link, self._timeout = link, timeout
        self._channel: Channel | None = None
        self._sender: CommandSender | None = None

    def sender(self) -> CommandSender:
        """The end, opened again where the cache has changed. Raises OSError, of which NoCache is one."""
        if self._sender is None or self._channel is None or self._channel is not self._link.channel:
            if self._sender is not None:
                self._sender.close()
                self._sender = None
            channel = self._link.wait(self._timeout)
            self._sender = channel.transport.sender(replace(channel.scope, timeout=self._timeout))
            self._channel = channel
        return self._sender

    def forget(self) -> None:
        """It could not be sent over: have it opened again."""
        self._channel = None


def find_channel(name: str) -> Channel:
    """The command channel of the cache at a rendezvous. Raises FileNotFoundError where none is ready."""
    home = f"{rendezvous.rendezvous_directory(name)}/{CACHE}"
    if not rendezvous.is_taken(home, rendezvous.SERVING):
        raise FileNotFoundError(f"no cache at rendezvous {name!r}")
    timeout, transport = rendezvous.read_note(f"{home}/{CHANNEL}")
    return Channel(registry.command_transport(transport), rendezvous.foreign_scope(name, CACHE, COMMANDS, timeout))


def wait_for_cache(name: str, seconds: float, command: CommandTransport | None, until_eof: bool = False) -> None:
    """Return when a cache is at the rendezvous. Raises Failure where none comes, or one with another command channel
    than `command`, and as program.pause()."""
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            channel = find_channel(name)
            break
        except FileNotFoundError:
            if not told:
                say(f"waiting for a cache at rendezvous {name!r}, for {seconds:g} s at most")
                told = True
        if time.monotonic() > deadline:
            raise Failure(f"no cache at rendezvous {name!r} after {seconds:g} s: start `harness simplecached` there")
        pause(_LOOK_AGAIN, until_eof)
    if command is not None and command.name != channel.transport.name:
        raise Failure(
            f"the cache at rendezvous {name!r} takes commands over {channel.transport.name}, not {command.name}: "
            "leave --command out, or start both with the same"
        )


class CacheBackend:
    """Serves from the cache. One a proxy process."""

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
        """One worker thread's way to the cache."""
        return _CacheHandler(self._pool, self._link, self._request_ids, self._timeout, self._dialect)

    def close(self) -> None:
        """Remove the names of the lanes; requests may still be in flight."""
        self._names.close()


class _CacheHandler:
    def __init__(
        self, pool: LanePool, link: CacheLink, request_ids: "itertools.count[int]", timeout: float, dialect: Dialect
    ) -> None:
        self._pool, self._request_ids, self._timeout = pool, request_ids, timeout
        self._commands = Commands(link, timeout)
        self._ok_header = dialect.OK_HEADER
        self._refusals = {number: dialect.refusal_header(status) for number, status in _STATUS.items()}

    def __call__(self, client: int, path: bytes) -> None:
        try:
            lane = self._pool.lease(self._timeout)
        except TimeoutError as error:
            say(str(error))
            os.write(client, self._refusals[wire.STATUS_ERROR])
            return
        try:
            self._fetch(lane, client, path)
        finally:
            self._pool.give_back(lane)

    def _fetch(self, lane: Lane, client: int, path: bytes) -> None:
        # What went wrong is kept as text: an exception would hold on to views of the lane's memory.
        request_id = next(self._request_ids)
        given = sent = answered = False
        try:
            relay = lane.relay or lane.provision()
            record = wire.encode_command(request_id, lane.name, path)
            commands = self._commands.sender()
            if lane.hand_off is not None:
                lane.hand_off.give(client, self._ok_header)
                given = True
            commands.send(record)
            sent = True
            status, length = relay.await_head(request_id)
            answered = True
            relay.pass_on(client, self._refusals[status] if status else self._ok_header % length)
            return
        except transfer.ClientGone:
            return
        except Exception as error:  # noqa: BLE001  whatever a stranger's transport raises, its lane is retired
            wrong = f"{os.fsdecode(path)}: {type(error).__name__}: {error}"
        say(wrong)
        if not sent:
            self._commands.forget()
        if not lane.give_up(client, given, sent) or answered:
            raise EOFError("the reply is cut")
        os.write(client, self._refusals[wire.STATUS_ERROR])
