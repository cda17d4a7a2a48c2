"""Where proxies and cache meet: the names they share at a rendezvous, and the command channel of the cache there.

    CacheLink   follows the cache at a rendezvous, through its deaths and restarts

A program that has lanes is a proxy. The name of its home says so, and tells a cache whether there are any proxies.
"""

import os
import threading
import time
from contextlib import ExitStack
from typing import NamedTuple

from harness import registry, rendezvous
from harness.api import CommandTransport, Scope
from harness.console import Failure, pause, say
from harness.supervisor import open_home

CACHE = "cache"  # the cache's home
CHANNEL = "channel"  # the note there that describes the command channel
COMMANDS = "commands"  # the scope there of the command channel
LANE = "lane"  # the note in a lane's scope that describes the lane
_PROXY = "proxy-"  # begins the name of each proxy's home

_LOOK_AGAIN = 0.02  # seconds between looks for a cache that is not there


def open_proxy_home(undo: ExitStack, name: str) -> rendezvous.Home:
    """The home of a program that has lanes; raises as supervisor.open_home() does."""
    return open_home(undo, name, f"{_PROXY}{os.getpid()}-{os.urandom(3).hex()}")


def proxies(name: str) -> list[str]:
    """The homes of the proxies at a rendezvous. Proxies that were killed count until their homes are swept."""
    try:
        return [home for home in os.listdir(rendezvous.rendezvous_directory(name)) if home.startswith(_PROXY)]
    except FileNotFoundError:
        return []


class Channel(NamedTuple):
    """The command channel of one life of the cache."""

    transport: CommandTransport
    scope: Scope


class NoCache(TimeoutError):
    """No cache came to the rendezvous in time."""


class CacheLink:
    """Follows the cache at `rendezvous` in a thread of its own. channel: its command channel; None while there is no
    cache."""

    def __init__(self, rendezvous: str) -> None:
        self._rendezvous = rendezvous
        self._changed = threading.Condition()
        self.channel: Channel | None = None
        threading.Thread(target=self._follow, daemon=True).start()

    def wait(self, timeout: float) -> Channel:
        """The channel of the cache that is there, or comes. Raises NoCache after `timeout` seconds."""
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
                time.sleep(_LOOK_AGAIN)  # there is no cache, or it is starting or ending
            self._set(None)


def find_channel(name: str) -> Channel:
    """The command channel of the cache at a rendezvous. Raises FileNotFoundError where no cache is ready."""
    home = f"{rendezvous.rendezvous_directory(name)}/{CACHE}"
    if not rendezvous.is_taken(home, rendezvous.SERVING):
        raise FileNotFoundError(f"no cache at rendezvous {name!r}")
    timeout, transport = rendezvous.read_note(f"{home}/{CHANNEL}")
    return Channel(registry.command_transport(transport), rendezvous.foreign_scope(name, CACHE, COMMANDS, timeout))


def wait_for_cache(name: str, seconds: float, command: CommandTransport | None, until_eof: bool = False) -> None:
    """Return when a cache is at the rendezvous.

    command: the transport that its commands must go over; None: any. Raises Failure where no cache comes within
    `seconds`, or one with another command transport, and KeyboardInterrupt as console.pause() does.
    """
    deadline = time.monotonic() + seconds
    announced = False
    while True:
        try:
            channel = find_channel(name)
            break
        except FileNotFoundError:
            if not announced:
                say(f"waiting for a cache at rendezvous {name!r}, for {seconds:g} s at most")
                announced = True
        if time.monotonic() > deadline:
            raise Failure(f"no cache at rendezvous {name!r} after {seconds:g} s: start `harness simplecached` there")
        pause(_LOOK_AGAIN, until_eof)
    if command is not None and command.name != channel.transport.name:
        raise Failure(
            f"the cache at rendezvous {name!r} takes commands over {channel.transport.name}, not {command.name}: "
            "leave --command out, or start both with the same"
        )
