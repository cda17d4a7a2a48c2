"""The contract between the harness and a transport: everything that a plugin may import.

A *command transport* carries records of COMMAND_BYTES from many proxy workers to many cache workers; each record
reaches exactly one of them, the first that asks. A *data transport* carries replies over a *lane*: one reply in
flight, from one cache worker to one proxy worker. Either is a frozen dataclass whose fields are its options, with
three verbs:

- `provision(scope)`: a context manager that creates the names and removes them after.
- `receiver(scope)`, `sender(scope)`: open one end by name. The receiver is always opened first.

Rules, for both kinds:

1. A lane has one reply in flight; no end is used by two threads at once. A plugin needs no locks.
2. Between replies a lane is at rest: the next reply may come from another thread or process, so nothing that it
   depends on may live only in a Python object.
3. Every call that blocks ends within `scope.timeout` seconds with TimeoutError, also where the peer was killed.
4. No silent fallback: a transport that cannot work as named raises, saying why and what to change.
5. Plugins raise plain OSError (TimeoutError is one) and EOFError; the harness adds transport, lane and verb.
6. `close()` may be called twice, waits for what has yet to leave this process, and leaves no descriptor and no mapping.

A reply is HEAD_BYTES of head, then its content. What an end can do is its type:

| shape         | cache end                            | proxy end                                    |
|---------------|--------------------------------------|----------------------------------------------|
| copying       | `Sender`: loan, publish              | `Receiver`: take, give_back                  |
| zero-copy in  | `FileSender`: send_file              |                                              |
| zero-copy out |                                      | `SocketReceiver`: take, deliver, give_back   |
| hand-off      | `FileSender` that answers the client | `ClientGiver`: give, take, finish, take_back |

The two ends of one transport are chosen independently, but for the hand-off. Register with a module like this one,
named by an entry point of the group `transport_harness`:

    @hookimpl
    def data_transports() -> list[type[DataTransport]]:
        return [MyTransport]
"""

import errno
import os
import select
import socket
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import pluggy

from harness.protocol.wire import COMMAND_BYTES, HEAD_BYTES, decode_head

__all__ = [
    "COMMAND_BYTES",
    "HEAD_BYTES",
    "ClientGiver",
    "CommandReceiver",
    "CommandSender",
    "CommandTransport",
    "DataTransport",
    "DescriptorSocket",
    "End",
    "FileSender",
    "Probe",
    "Reading",
    "Receiver",
    "Scope",
    "Sender",
    "SocketReceiver",
    "SysvKind",
    "await_room",
    "bound_socket",
    "check_least",
    "connected_socket",
    "content_length",
    "hookimpl",
    "limit_waits",
    "send_file",
    "socket_name",
]

SysvKind = Literal["shm", "sem", "msg"]
hookspec = pluggy.HookspecMarker("transport_harness")
hookimpl = pluggy.HookimplMarker("transport_harness")


@dataclass(frozen=True)
class Scope:
    """The namespace of one channel or lane, unique to user, rendezvous, program, lane and generation.

    directory: absolute path of a private directory (mode 0700) that exists as long as the channel does.
    label: what the names of this scope begin with.
    timeout: seconds that a blocking call may take.
    ledger: whether names are written down as they are handed out, so that they can be swept should the owner
        be killed. True for whoever provisions; the ends only open names.
    """

    directory: str
    label: str
    timeout: float
    ledger: bool = False

    def path(self, part: str) -> str:
        """A file name for a FIFO or a socket. Removed with the directory, where the plugin did not."""
        return f"{self.directory}/{part}"

    def posix_name(self, part: str) -> str:
        """A name for shm_open(3), sem_open(3) or mq_open(3)."""
        name = f"/{self.label}-{part}"
        self._record(f"posix {name}")
        return name

    def sysv_key(self, kind: SysvKind, part: str) -> int:
        """A key for shmget(2), semget(2) or msgget(2): positive, 31 bits, never IPC_PRIVATE.

        Its first call by whoever provisions raises FileExistsError where a stranger's object has the key. So every
        object whose key is in the ledger is younger than the entry: ours, whether or not the owner lived to say that
        it was created. That leaves the stranger who takes the key between this call and the creation.
        """
        key = zlib.crc32(f"{self.directory}/{part}".encode()) & 0x7FFFFFFF or 1
        if self.ledger and f"{kind} {key}" not in self._recorded():
            if holder := sysv_object(kind, key):
                raise FileExistsError(f"SysV {kind} {key:#x} is somebody else's, id {holder['id']}; see ipcs(1)")
            self._record(f"{kind} {key}")
        return key

    def _recorded(self) -> list[str]:
        try:
            with open(f"{self.directory}/{LEDGER}") as ledger:
                return ledger.read().splitlines()
        except FileNotFoundError:
            return []

    def _record(self, line: str) -> None:
        if self.ledger:
            with open(f"{self.directory}/{LEDGER}", "a", opener=private_file) as ledger:
                ledger.write(line + "\n")


LEDGER = "names"


def sysv_object(kind: str, key: int) -> dict[str, int]:
    """What /proc/sysvipc, proc(5), tells of the object that has a key: id, cuid and more; empty where none has."""
    with open(f"/proc/sysvipc/{kind}") as table:
        names = ["key", "id", *next(table).split()[2:]]
        rows = (dict(zip(names, map(int, line.split()), strict=True)) for line in table)
        return next((row for row in rows if row["key"] == key), {})


def private_file(path: str, flags: int) -> int:
    """An opener for open() whose files are the owner's alone, mode 0600."""
    return os.open(path, flags, 0o600)


class End(ABC):
    """One open end of a channel."""

    @abstractmethod
    def close(self) -> None:
        """Let go of descriptors and mappings, once what was sent has left this process; a second call does nothing."""


class CommandSender(End):
    @abstractmethod
    def send(self, record: bytes) -> None:
        """Queue one record of COMMAND_BYTES, whole or not at all.

        Raises TimeoutError where the channel stays full, other OSError where nobody can receive any more.
        """


class CommandReceiver(End):
    @abstractmethod
    def receive(self) -> bytes:
        """The next record that no other receiver got. Raises TimeoutError where none comes."""


class Sender(End):
    """Cache end, copying: the harness fills the loaned memory, which is the shared memory itself where there is any."""

    @abstractmethod
    def loan(self) -> memoryview:
        """Writable room for the next piece of the reply, more than HEAD_BYTES; valid until publish."""

    @abstractmethod
    def publish(self, count: int) -> None:
        """Pass on the first `count` bytes of the loan.

        count 0 says that the rest of this reply will never come: the receiver's take raises EOFError at once where
        the mechanism can tell, TimeoutError otherwise. The lane is not used again.
        """


class FileSender(End):
    """Cache end, zero-copy: gets the open file."""

    @abstractmethod
    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Send `head`, then `count` bytes of `fd` from `offset`, leaving the file's own position alone.

        count 0 sends the head alone, and fd is then no file. Raises EOFError where the file is shorter.
        """


class Receiver(End):
    """Proxy end, copying: the harness sends from the memory that take returns."""

    @abstractmethod
    def take(self) -> memoryview:
        """The next piece of the reply, at least one byte, not necessarily as it was published; valid until give_back.

        Raises EOFError where the sender gave up, TimeoutError where nothing comes.
        """

    @abstractmethod
    def give_back(self) -> None:
        """Done with what take returned."""


class SocketReceiver(End):
    """Proxy end, zero-copy: gets the client's socket."""

    @abstractmethod
    def take(self) -> bytes:
        """The head of the reply, HEAD_BYTES. Raises as Receiver.take."""

    @abstractmethod
    def deliver(self, sink: int, count: int) -> None:
        """Move the `count` bytes of content to the descriptor of a connected blocking socket.

        Raises EOFError where the content ends early, ConnectionError where the client is gone and give_back will
        bring the lane to rest all the same, TimeoutError where the client stalled, other OSError where the lane
        fails. A blocking call that moves less than it could has met the sink's SO_SNDTIMEO, socket(7).
        """

    @abstractmethod
    def give_back(self) -> None:
        """Done with the reply, delivered or not: what is left of it is dropped."""


class ClientGiver(End):
    """Proxy end, hand-off: gives the client's socket away, and the cache end answers the client itself.

    The cache end is a FileSender. Where there is content its send_file takes the client, writes the header and the
    content to it, and lets go of it; with count 0 it sends the head alone, and the proxy takes the client back.
    Whoever has the client in the end writes to it, so no client gets two replies.
    """

    @abstractmethod
    def give(self, client: int, header: bytes) -> None:
        """Before the command is sent, give away a duplicate of the client's socket.

        header: what precedes the content, with `%d` where its length in bytes is to be: header % count.
        """

    @abstractmethod
    def take(self) -> bytes:
        """The head of the reply, HEAD_BYTES, when the content has left or is on its way. Raises as Receiver.take."""

    @abstractmethod
    def finish(self) -> None:
        """Return when the client's reply has left. Raises as SocketReceiver.deliver; there is no give_back.

        It may take longer than `scope.timeout`, as long as the cache says within each that it goes on.
        """

    @abstractmethod
    def take_back(self) -> bool:
        """Undo give, for good: whether the cache had not taken the client, and so never will. Does not wait."""


class CommandTransport(ABC):
    """A kind of command channel. Subclasses are frozen dataclasses; their fields are the options.

    floor: it does less than any real channel must, and is measured to show what the harness itself costs.
    """

    name: ClassVar[str]
    floor: ClassVar[bool] = False

    @abstractmethod
    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        """Create the names of the channel; remove them on leaving."""

    @abstractmethod
    def receiver(self, scope: Scope) -> CommandReceiver:
        """Open a cache worker's end, in the process that provisioned or a fork of it."""

    @abstractmethod
    def sender(self, scope: Scope) -> CommandSender:
        """Open a proxy worker's end, in any process of the same user."""


class DataTransport(ABC):
    """A kind of lane. Subclasses are frozen dataclasses; their fields are the options.

    A transport that moves content in pieces calls their size `chunk` (bytes): `webproxy -z` sets that option.

    floor: it does less than any real lane must, and is measured to show what the harness itself costs.
    moves_content: False where the receiver gets as many bytes as the file has, but not those of the file: zeros.
    keeps_content: True where a file's content, or its pages, stay with the transport after a reply; a second reply
    then does not come from the file, so a cold page cache cannot be measured.
    """

    name: ClassVar[str]
    floor: ClassVar[bool] = False
    moves_content: ClassVar[bool] = True
    keeps_content: ClassVar[bool] = False

    @abstractmethod
    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        """Create the names of a lane; remove them on leaving."""

    @abstractmethod
    def receiver(self, scope: Scope) -> Receiver | SocketReceiver | ClientGiver:
        """Open the proxy's end, in the process that provisioned."""

    @abstractmethod
    def sender(self, scope: Scope) -> Sender | FileSender:
        """Open a cache worker's end, in any process of the same user; a lane may have several, used in turn."""


def check_least(options: object, **least: int) -> None:
    """For the __post_init__ of a transport. Raises ValueError where one of its options is below the least given."""
    for option, value in least.items():
        if (given := getattr(options, option)) < value:
            raise ValueError(f"{option}={given}: must be at least {value}")


def content_length(head: bytes | bytearray | memoryview) -> int:
    """Bytes of content that follow the head of a reply: for ends that must know where a reply ends.

    Raises ValueError where that is no head.
    """
    return decode_head(head)[2]


def send_file(sink: int, fd: int, offset: int, count: int, timeout: float) -> None:
    """sendfile(2) all `count` bytes of `fd` from `offset` to a socket: for zero-copy ends that have a file.

    The socket is made non-blocking and stays so. One blocking sendfile(2) would wait for SO_SNDTIMEO several times
    over, once for each part of its inner loop.

    Raises EOFError where the file ends early, TimeoutError where the socket takes nothing for `timeout` seconds,
    ConnectionError where its peer is gone.
    """
    os.set_blocking(sink, False)
    end = offset + count
    while offset < end:
        try:
            moved = os.sendfile(sink, fd, offset, end - offset)
        except BlockingIOError:
            await_room(sink, timeout)
            continue
        if not moved:
            raise EOFError(f"the file ended {end - offset} bytes early")
        offset += moved


def await_room(sink: int, timeout: float) -> None:
    """Return when a non-blocking socket can take more. Raises TimeoutError after `timeout` seconds."""
    poll = select.poll()
    poll.register(sink, select.POLLOUT)
    if not poll.poll(timeout * 1000):
        raise TimeoutError("the client stalled")


def limit_waits(end: socket.socket, timeout: float) -> None:
    """Have the kernel end blocking calls after `timeout` seconds, SO_RCVTIMEO and SO_SNDTIMEO of socket(7).

    It costs no system call a wait. Python then raises BlockingIOError. A limit of 0 would be none.
    """
    limit = struct.pack("@ll", *divmod(max(1, round(timeout * 1e6)), 1_000_000))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


@contextmanager
def socket_name(path: str) -> Iterator[None]:
    """Provides for the name of a Unix socket: whoever receives makes it, bind(2), and leaving this removes it."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def bound_socket(kind: socket.SocketKind, path: str, timeout: float) -> socket.socket:
    """A Unix socket with a name, for this user alone; its calls end within `timeout` seconds, see limit_waits."""
    end = socket.socket(socket.AF_UNIX, kind)
    try:
        end.bind(path)
        os.chmod(path, 0o600)
    except OSError:
        end.close()
        raise
    limit_waits(end, timeout)
    return end


def connected_socket(kind: socket.SocketKind, path: str, timeout: float) -> socket.socket:
    """The socket of a sender, likewise. Raises FileNotFoundError, ConnectionRefusedError."""
    end = socket.socket(socket.AF_UNIX, kind)
    limit_waits(end, timeout)
    try:
        end.connect(path)
    except OSError:
        end.close()
        raise
    return end


class DescriptorSocket:
    """A Unix datagram socket whose messages may each bear one descriptor, unix(7) SCM_RIGHTS: for zero-copy ends.

    Whoever binds the name owns the queue: once it is gone, sending raises ConnectionRefusedError. Each call ends
    within `timeout` seconds with TimeoutError, which the kernel sees to, socket(7): it costs no system call.
    """

    def __init__(self, timeout: float, fd: int) -> None:
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, 0, fd)
        limit_waits(self._socket, timeout)

    @classmethod
    def pair(cls, timeout: float) -> "tuple[DescriptorSocket, DescriptorSocket]":
        """Two ends without a name, connected to each other."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return cls(timeout, one.detach()), cls(timeout, other.detach())

    @classmethod
    def bound(cls, path: str, timeout: float) -> "DescriptorSocket":
        """The receiving end, as bound_socket. socket_name removes the name."""
        return cls(timeout, bound_socket(socket.SOCK_DGRAM, path, timeout).detach())

    @classmethod
    def connected(cls, path: str, timeout: float) -> "DescriptorSocket":
        """A sending end, as connected_socket."""
        return cls(timeout, connected_socket(socket.SOCK_DGRAM, path, timeout).detach())

    def send(self, message: bytes, fd: int = -1) -> None:
        """Send a message, and with it a duplicate of `fd` where that is a descriptor."""
        try:
            if fd < 0:
                self._socket.send(message)
            else:
                self._socket.sendmsg((message,), [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(fd))])
        except BlockingIOError:
            raise TimeoutError(f"the socket stayed full for {self._timeout} s") from None

    def receive(self, size: int, flags: int = 0) -> tuple[bytes, int]:
        """A message of at most `size` bytes, and its descriptor, the caller's to close, or -1."""
        try:
            data, ancillary, told, _ = self._socket.recvmsg(size, _FD_ROOM, flags | socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise TimeoutError(f"no message for {self._timeout} s") from None
        if told & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "no room for a descriptor; raise ulimit -n")
        for _, _, rights in ancillary:
            return data, _FD.unpack(rights)[0]
        return data, -1

    def fileno(self) -> int:
        """The socket's own descriptor, which can be sent, too."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the socket; a second call does nothing."""
        self._socket.close()


_FD = struct.Struct("@i")
_FD_ROOM = socket.CMSG_SPACE(_FD.size)


class Reading(NamedTuple):
    """One figure of a probe. role: `client`, `proxy`, `cache`, or "" for the machine. unit: such as `1`, `s`, `B`.

    A probe does not know how many requests there were: it tells totals.
    """

    role: str
    metric: str
    value: float
    unit: str


class Probe(ABC):
    """Looks at the processes of a trial from the go-ahead to the last reply.

    name: what an experiment's `probes` call it. costly: whether it slows down what it looks at; it then runs in
    trials of its own, whose figures are never compared. table: the result file that keeps its readings, without
    `.csv`. A reading whose `role_metric`, or `metric` without a role, is a column of trials.csv that probes fill in
    stands there instead, unless a built-in probe has filled it in.

    begin and end run while the load waits: their time is in no figure. After begin comes end, once, also where the
    trial fails; what it tells is then lost. The processes live until end has returned, or are those of a failed trial.
    """

    name: ClassVar[str]
    costly: ClassVar[bool] = False
    table: ClassVar[str] = "probes"

    def unusable(self) -> str:
        """Why it cannot work on this machine, and the command that mends it, in one line; empty where it can."""
        return ""

    @abstractmethod
    def begin(self, processes: Mapping[str, Sequence[int]], directory: str) -> None:
        """Start to look; return when it does. Raises OSError, and leaves nothing behind then.

        processes: pids by role, a program's parent process before its workers. directory: of this probe alone; it is
        removed after the trial.
        """

    @abstractmethod
    def end(self) -> list[Reading]:
        """Stop, in bounded time, and let go of the processes: what was seen since begin. Raises OSError."""


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
        """The probes that this plugin adds. Each is made without arguments, afresh for each trial."""
        raise NotImplementedError
