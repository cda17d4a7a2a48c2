"""The contract between the harness and a transport.

A *command transport* carries records of COMMAND_BYTES from many proxy workers to many cache workers. Each record
reaches exactly one cache worker, the first that asks. A *data transport* carries replies over a *lane*: one reply in
flight, from one cache worker to one proxy worker. Both are frozen dataclasses whose fields are their options, with
three verbs:

- `provision(scope)`: a context manager that creates the names and removes them on exit.
- `receiver(scope)`, `sender(scope)`: open one end by name. The receiver is always opened first.

Rules, for both kinds:

1. A lane has one reply in flight, and no end is used by two threads at once. A plugin needs no locks.
2. Between replies a lane is at rest. The next reply may come from another thread or process, so nothing that it
   depends on may live only in a Python object.
3. Every call that blocks ends within `scope.timeout` seconds with TimeoutError, also if the peer was killed.
4. No silent fallback: a transport that cannot work as named raises, and says why and what to change.
5. Plugins raise plain OSError (TimeoutError is one) and EOFError. The harness adds transport, lane and verb.
6. `close()` may be called twice. It waits until what was sent has left this process, and leaves no descriptor and no
   mapping open.
7. An end may be opened in a process that was forked from one with an end open.

A reply is HEAD_BYTES of head, then its content. The type of an end says what it can do:

| shape         | cache end                            | proxy end                                    |
|---------------|--------------------------------------|----------------------------------------------|
| copying       | `Sender`: loan, publish              | `Receiver`: take, give_back                  |
| zero-copy in  | `FileSender`: send_file              |                                              |
| zero-copy out |                                      | `SocketReceiver`: take, deliver, give_back   |
| hand-off      | `FileSender` that answers the client | `ClientGiver`: give, take, finish, take_back |

The two ends of a transport may have different shapes, except that a `ClientGiver` needs the `FileSender` beside it.

Transports say what they are; no part of the harness knows one by its name:

- `name`, and each option's default, unit and meaning, in the class and its docstring.
- The shape of each end, by the return annotations of `receiver()` and `sender()`. `harness.registry.shape` reads them.
- `floor`, `moves_content`, `keeps_content`: class attributes, True or False. CommandTransport and DataTransport explain
  them and have defaults, so a transport sets only those in which it differs: `floor = True`, without an annotation.
- `not_kept`: promises that it does not keep, and why, {promise: reason}. `harness check` lists them. Of those that the
  kit checks, only rule 7 may be among them: no program of the harness opens an end before it forks.

To register, a module that an entry point of the group `transport_harness` names implements a hook of `Hooks`:

    @hookimpl
    def data_transports() -> list[type[DataTransport]]:
        return [MyTransport]
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import ClassVar

import pluggy

from harness.api.probe import Probe
from harness.api.scope import Scope
from harness.protocol.wire import COMMAND_BYTES, HEAD_BYTES, decode_head

__all__ = [
    "COMMAND_BYTES",
    "HEAD_BYTES",
    "ClientGiver",
    "CommandReceiver",
    "CommandSender",
    "CommandTransport",
    "DataTransport",
    "End",
    "FileSender",
    "Hooks",
    "Receiver",
    "Sender",
    "SocketReceiver",
    "check_least",
    "content_length",
    "hookimpl",
]

GROUP = "transport_harness"  # of entry points and of hooks
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class End(ABC):
    """One open end of a channel."""

    @abstractmethod
    def close(self) -> None:
        """Close descriptors and mappings once what was sent has left this process. A second call does nothing."""


class CommandSender(End):
    """Proxy end of a command channel."""

    @abstractmethod
    def send(self, record: bytes) -> None:
        """Queue one record of COMMAND_BYTES, whole or not at all.

        Raises TimeoutError if the channel stays full, another OSError if there is no receiver any more.
        """


class CommandReceiver(End):
    """Cache end of a command channel."""

    @abstractmethod
    def receive(self) -> bytes:
        """The next record that no other receiver got. Raises TimeoutError if none comes."""


class Sender(End):
    """Cache end, copying: the harness fills the memory that loan returns, the shared memory itself if there is any."""

    @abstractmethod
    def loan(self) -> memoryview:
        """Writable room for the next piece of the reply, more than HEAD_BYTES; valid until publish."""

    @abstractmethod
    def publish(self, count: int) -> None:
        """Pass on the first `count` bytes of the loan.

        count 0 says that the rest of this reply will never come: the receiver's take raises EOFError at once if the
        mechanism can tell, TimeoutError otherwise. The lane is not used again.
        """


class FileSender(End):
    """Cache end, zero-copy: gets the open file."""

    @abstractmethod
    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Send `head`, then `count` bytes of `fd` from `offset`, without moving the file's own position.

        count 0 sends the head alone, and fd is then no file. Raises EOFError if the file is shorter.
        """


class Receiver(End):
    """Proxy end, copying: the harness sends from the memory that take returns."""

    @abstractmethod
    def take(self) -> memoryview:
        """The next piece of the reply, at least one byte, not necessarily as it was published; valid until give_back.

        Raises EOFError if the sender gave up, TimeoutError if nothing comes.
        """

    @abstractmethod
    def give_back(self) -> None:
        """The harness is done with the memory that take returned."""


class SocketReceiver(End):
    """Proxy end, zero-copy: gets the client's socket."""

    @abstractmethod
    def take(self) -> bytes:
        """The head of the reply, HEAD_BYTES. Raises as Receiver.take."""

    @abstractmethod
    def deliver(self, sink: int, count: int) -> None:
        """Move the `count` bytes of content to `sink`, the descriptor of a connected blocking socket.

        Raises EOFError if the content ends early, ConnectionError if the client is gone and give_back will bring the
        lane to rest all the same, TimeoutError if the client stalled, another OSError if the lane fails. A blocking
        call that moves less than it could has met the sink's SO_SNDTIMEO, socket(7).
        """

    @abstractmethod
    def give_back(self) -> None:
        """The harness is done with the reply, delivered or not: drop what is left of it."""


class ClientGiver(End):
    """Proxy end, hand-off: gives the client's socket away, and the cache end answers the client itself.

    The cache end is a FileSender. If there is content, its send_file takes the client, writes the header and the
    content to it, and closes it. With count 0 it sends the head alone, and the proxy takes the client back. Only the
    end that has the client last writes to it, so no client gets two replies.
    """

    @abstractmethod
    def give(self, client: int, header: bytes) -> None:
        """Before the command is sent, give away a duplicate of the client's socket.

        header: what precedes the content, with `%d` in place of the content's length in bytes: header % count.
        """

    @abstractmethod
    def take(self) -> bytes:
        """The head of the reply, HEAD_BYTES, when the content has left or is on its way. Raises as Receiver.take."""

    @abstractmethod
    def finish(self) -> None:
        """Return when the client's reply has left. Raises as SocketReceiver.deliver. There is no give_back.

        It may take longer than `scope.timeout`, as long as the cache reports progress at least that often.
        """

    @abstractmethod
    def take_back(self) -> bool:
        """Undo give, for good. Does not wait.

        Returns whether the cache had not taken the client; it then never will.
        """


class CommandTransport(ABC):
    """A kind of command channel. Subclasses are frozen dataclasses; their fields are the options.

    name: how experiments and programs name it: letters, digits, `_` and `-`.
    floor: True if it does less than any real channel must, and is measured to show what the harness itself costs.
    not_kept: {promise: why it is not kept}.
    """

    name: ClassVar[str]
    floor: ClassVar[bool] = False
    not_kept: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        """Create the names of the channel, and remove them on exit."""

    @abstractmethod
    def receiver(self, scope: Scope) -> CommandReceiver:
        """Open a cache worker's end, in the process that provisioned or a fork of it."""

    @abstractmethod
    def sender(self, scope: Scope) -> CommandSender:
        """Open a proxy worker's end, in any process of the same user."""


class DataTransport(ABC):
    """A kind of lane. Subclasses are frozen dataclasses; their fields are the options.

    A transport that moves content in pieces calls their size `chunk` (bytes): `webproxy -z` sets that option.

    name: how experiments and programs name it: letters, digits, `_` and `-`.
    floor: True if it does less than any real lane must, and is measured to show what the harness itself costs.
    moves_content: False if the receiver gets as many bytes as the file has, but zeros in place of the file's own.
    keeps_content: True if a file's content, or its pages, stay with the transport after a reply. A second reply then
        does not come from the file, so a cold page cache cannot be measured.
    not_kept: {promise: why it is not kept}.
    """

    name: ClassVar[str]
    floor: ClassVar[bool] = False
    moves_content: ClassVar[bool] = True
    keeps_content: ClassVar[bool] = False
    not_kept: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        """Create the names of a lane, and remove them on exit."""

    @abstractmethod
    def receiver(self, scope: Scope) -> Receiver | SocketReceiver | ClientGiver:
        """Open the proxy's end, in the process that provisioned."""

    @abstractmethod
    def sender(self, scope: Scope) -> Sender | FileSender:
        """Open a cache worker's end, in any process of the same user. A lane may have several, used in turn."""


class Hooks:
    """What a plugin module may implement, with @hookimpl."""

    @hookspec
    def command_transports(self) -> list[type[CommandTransport]]:
        """The command transports that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def data_transports(self) -> list[type[DataTransport]]:
        """The data transports that this plugin adds."""
        raise NotImplementedError

    @hookspec
    def probes(self) -> list[type[Probe]]:
        """The probes that this plugin adds. The harness makes each without arguments, anew for each trial."""
        raise NotImplementedError


def check_least(options: object, **least: int) -> None:
    """For the __post_init__ of a transport. Raises ValueError if one of its options is below the least given."""
    for option, value in least.items():
        if (given := getattr(options, option)) < value:
            raise ValueError(f"{option}={given}: must be at least {value}")


def content_length(head: bytes | bytearray | memoryview) -> int:
    """Bytes of content that follow the head of a reply, for ends that must know where a reply ends.

    Raises ValueError if `head` is no head.
    """
    return decode_head(head)[2]
