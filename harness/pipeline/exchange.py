"""One request to the cache: the command goes over the channel, the reply comes back over a lane.

Lane       one end of a provisioned lane; a lane whose request went wrong is retired and provisioned anew
Exchange   a way for requests, one after the other; it undoes the one that went wrong
"""

import itertools
import os
from contextlib import ExitStack
from dataclasses import replace

from harness import registry, rendezvous
from harness.api import CommandSender, DataTransport
from harness.pipeline import transfer
from harness.pipeline.cache_link import LANE, CacheLink, Channel
from harness.protocol.wire import encode_command

_NONE = object()  # in place of a channel: no CacheLink ever has it


class Lane:
    """One lane of a proxy process, with fresh names each time it is provisioned.

    name: program/scope. number: what commands call it, 64 random bits. relay: None while the lane is retired. hand_off:
    the relay, if it is one that is given the client before the command is sent; otherwise None.
    """

    def __init__(self, home: rendezvous.Home, transport: DataTransport, timeout: float, slot: str) -> None:
        self._home, self._transport, self._timeout, self._slot = home, transport, timeout, slot
        self._generations = itertools.count()
        self._names = ExitStack()
        self.name, self.number = b"", 0
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
            self.number = int.from_bytes(os.urandom(8), "little")
            self._names, self.relay = undo.pop_all(), relay
            self.hand_off = relay if isinstance(relay, transfer.HandOffRelay) else None
        return relay

    def retire(self) -> None:
        """Close the lane and remove its names, so that no late writer reaches the request that comes next."""
        relay, self.relay = self.relay, None
        self.remove_names()
        if relay is not None:
            relay.close()

    def remove_names(self) -> None:
        """Remove the lane's names. At the end of the process this is safe while another thread uses the lane."""
        self._names.pop_all().close()


def provision_lanes(
    undo: ExitStack, home: rendezvous.Home, data: DataTransport, slots: list[str], timeout: float
) -> list[Lane]:
    """The lanes of one process, a lane for each of `slots`. `undo` removes their names, also while requests are in
    flight. Raises OSError."""
    lanes = [Lane(home, data, timeout, slot) for slot in slots]
    for number, lane in enumerate(lanes, 1):
        undo.callback(lane.remove_names)
        try:
            lane.provision()
        except OSError as error:
            raise OSError(f"lane {number} of {len(slots)} over {data.name}: {error}") from error
    return lanes


class Exchange:
    """A thread's requests to the cache that `link` follows, one after the other: send(), and undo() where
    something went wrong. The reply comes over the relay that send() returns.

    given: whether the latest request's client was given away. sent: whether its command was sent. timeout: seconds for
    a cache to come, and for each wait of the command channel.
    """

    def __init__(self, link: CacheLink, timeout: float) -> None:
        self._link, self._timeout = link, timeout
        self._channel: Channel | object = _NONE  # that the sender belongs to
        self._sender: CommandSender | None = None
        self._lane: Lane
        self.given = self.sent = False

    def send(self, lane: Lane, request_id: int, path: bytes, client: int, header: bytes) -> transfer.Relay:
        """Send the command of a request over `lane`, which is provisioned if it was retired. Returns what its reply
        comes over.

        client: the socket that a hand-off lane gives to the cache, with `header` (`%d` for the length) to precede the
        content; other lanes use neither. Raises NoCache, OSError, ValueError.
        """
        self._lane = lane
        self.given = self.sent = False
        relay = lane.relay or lane.provision()
        record = encode_command(request_id, lane.number, path, lane.name)
        sender = self._sender
        if sender is None or self._channel is not self._link.channel:
            sender = self._connect()
        if lane.hand_off is not None:
            lane.hand_off.give(client, header)
            self.given = True
        sender.send(record)
        self.sent = True
        return relay

    def undo(self, client: int) -> bool:
        """Undo what the latest request has done, after an exception. Returns whether the caller has still to answer
        `client`: the cache may have it, and then its connection is ended.

        A lane that the cache may know of is retired; a channel that took no command is opened again.
        """
        lane = self._lane
        if not self.sent:
            self._channel = _NONE
        ours = not self.given or lane.hand_off is None or lane.hand_off.take_back(client)
        if self.sent or self.given:
            lane.retire()
        return ours

    def _connect(self) -> CommandSender:
        """Open the command channel of the cache that is there, or comes. Raises OSError (NoCache is one)."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        channel = self._link.wait(self._timeout)
        self._sender = sender = channel.transport.sender(replace(channel.scope, timeout=self._timeout))
        self._channel = channel
        return sender
