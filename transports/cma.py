"""Cross memory attach: the proxy reads the cache's own memory, process_vm_readv(2).

A byte goes preadv(2) -> buffer of the cache -> process_vm_readv(2) -> buffer of the proxy -> write(2): one copy between
the processes, and no shared memory. The notice where a piece lies goes over a Unix stream socket, unix(7), and so does
the receipt, a byte, when the proxy has copied it. Each cache worker that serves a lane connects to it once, as in
`unix`: harness/api/streams.py.

Never a wrong byte:

- A buffer is lent again only after the receipt for what it held. close() waits for the receipts.
- An end that closes shuts the connection down before it frees its buffers. So a receipt that could be sent proves that
  the buffers were there until the copy was complete; otherwise the copy is dropped.
- A number of a process may belong to another one by now. Behind each piece lies a stamp, a random key of this end and
  the number of the piece, and the notice has it, too. Piece and stamp are read in one call, which reads one address
  space. With another stamp, or a piece out of turn (as from a fork that uses the end), what was read is dropped.

Killed peers: as the connection ends, at once: the proxy gets EOFError within a reply, the cache ConnectionError. What a
killed cache had published but the proxy had not read is lost with its memory.

Limits: the kernel lets a process read another one of the same user, ptrace(2) PTRACE_MODE_ATTACH_REALCREDS, unless Yama
(/proc/sys/kernel/yama/ptrace_scope), a container's seccomp profile or prctl(2) PR_SET_DUMPABLE forbid it. provision()
tries what it can try alone. Each cache process has chunk times depth bytes for each lane. Both programs must be in one
PID namespace. ctypes takes 5 ms to load; only the proxy does.
"""

import errno
import mmap
import os
import select
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from harness.api import (
    HEAD_BYTES,
    DataTransport,
    Receiver,
    Scope,
    Sender,
    StreamReceiver,
    bound_socket,
    check_least,
    connected_socket,
    hookimpl,
    limit_waits,
    socket_name,
)

PTRACE_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
_STAMP = struct.Struct("<16sQ")  # key of the sender, number of the piece
_NOTICE = struct.Struct(f"<QQ{_STAMP.size}s")  # address, bytes, stamp
_CREDENTIALS = struct.Struct("@iII")  # struct ucred, unix(7): pid, uid, gid
_CAP_SYS_PTRACE = 1 << 19  # capabilities(7)
_MOST = 128  # receipts that a socket's buffer surely holds


@dataclass(frozen=True)
class Cma(DataTransport):
    """chunk: bytes of a buffer. depth: buffers of each cache process, at most 128."""

    name = "cma"
    chunk: int = 1 << 18
    depth: int = 4

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1, depth=1)
        if self.depth > _MOST:
            raise ValueError(f"depth={self.depth}: must be at most {_MOST}")

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        check_permitted()
        with socket_name(scope.path("socket")):
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return CmaReceiver(bound_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout), self, scope.timeout)

    def sender(self, scope: Scope) -> Sender:
        connection = connected_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout)
        return CmaSender(connection, self, scope.timeout)


class CmaSender(Sender):
    def __init__(self, connection: socket.socket, options: Cma, timeout: float) -> None:
        self._connection, self._timeout = connection, timeout
        self._key = os.urandom(16)
        self._published = 0  # pieces
        self._unread = 0  # pieces without a receipt
        stride = -(-(options.chunk + _STAMP.size) // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = array("B", b"\0") * (options.depth * stride + mmap.PAGESIZE)  # an array says where it lies
        address, _ = memory.buffer_info()
        start = -address % mmap.PAGESIZE
        starts = range(start, start + options.depth * stride, stride)
        self._addresses = [address + start for start in starts]
        self._slots = [memoryview(memory)[start : start + stride] for start in starts]
        self._rooms = [slot[: options.chunk] for slot in self._slots]

    def loan(self) -> memoryview:
        if self._unread == len(self._rooms):
            self._await_receipts()
        return self._rooms[self._published % len(self._rooms)]

    def publish(self, count: int) -> None:
        index = self._published % len(self._slots)
        stamp = _STAMP.pack(self._key, self._published)
        if count:
            self._slots[index][count : count + _STAMP.size] = stamp
            self._unread += 1
        self._published += 1
        self._connection.send(_NOTICE.pack(self._addresses[index], count, stamp))

    def _await_receipts(self) -> None:
        try:
            receipts = self._connection.recv(_MOST)
        except BlockingIOError:
            self._shut_down()  # the lane is not used again, and close() need not wait once more
            raise TimeoutError(f"the proxy read nothing for {self._timeout} s") from None
        if not receipts:
            raise ConnectionResetError("the proxy has closed its end, or was killed")
        self._unread -= len(receipts)

    def _shut_down(self) -> None:
        with suppress(OSError):  # the proxy did so, or a close() before
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        deadline = time.monotonic() + self._timeout
        if self._slots:
            poll = select.poll()
            poll.register(self._connection, select.POLLIN)
            with suppress(OSError):
                while self._unread and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    self._await_receipts()
        self._shut_down()  # before the buffers are freed
        self._connection.close()
        self._rooms.clear()
        self._slots.clear()


class CmaReceiver(StreamReceiver):
    def __init__(self, listener: socket.socket, options: Cma, timeout: float) -> None:
        # A piece is at most a chunk, and may follow a part of a head.
        super().__init__(listener, options.chunk + HEAD_BYTES, timeout, self._accepted)
        self._listening, self._limit = listener, timeout
        self._peers: dict[int, Peer] = {}  # by the descriptor of the connection
        self._read = memory_reader()

    def _accepted(self) -> socket.socket:
        connection, _ = self._listening.accept()
        limit_waits(connection, self._limit)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._peers[connection.fileno()] = Peer(_CREDENTIALS.unpack(credentials)[0])
        return connection

    def receive(self, connection: socket.socket, room: memoryview) -> int:
        notice = connection.recv(_NOTICE.size, socket.MSG_WAITALL)
        if len(notice) < _NOTICE.size:
            return 0
        place: tuple[int, int, bytes] = _NOTICE.unpack(notice)
        address, count, stamp = place
        if not count:
            raise EOFError("the sender gave up")
        if count > len(room):
            raise OSError(f"a piece of {count} bytes, and room for {len(room)}")
        peer = self._peers[connection.fileno()]
        found = self._read(peer.pid, address, room[:count])
        try:
            connection.send(b"x")
        except ConnectionError:
            found = b""
        if found != stamp or _STAMP.unpack(stamp)[1] != peer.read:
            raise EOFError(f"process {peer.pid} closed its end, or was killed, before its reply was read")
        peer.read += 1
        return count


@dataclass
class Peer:
    """The process that opened a connection, and how many of its pieces were read."""

    pid: int
    read: int = 0


def check_permitted() -> None:
    """Raises PermissionError if this process may not read the memory of others, OSError if the kernel cannot do it."""
    with suppress(FileNotFoundError), open(PTRACE_SCOPE) as file:
        scope = int(file.read())
        if scope > 2:
            raise PermissionError(
                f"{PTRACE_SCOPE} is {scope}: no process may read another; restart the machine without"
            )
        if scope and not _effective_capabilities() & _CAP_SYS_PTRACE:
            raise PermissionError(f"{PTRACE_SCOPE} is {scope}: as root, run `sysctl -w kernel.yama.ptrace_scope=0`")
    own = array("B", bytes(1 + _STAMP.size))
    memory_reader()(os.getpid(), own.buffer_info()[0], memoryview(bytearray(1)))


def _effective_capabilities() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))


def memory_reader() -> Callable[[int, int, memoryview], bytes]:
    """A function (pid, address, room) that fills `room` from the memory of a process, process_vm_readv(2).

    It returns the stamp that follows there; b"" if the process has gone, or that memory. It raises PermissionError if
    the kernel forbids it, another OSError if it cannot. For one thread at a time.
    """
    import ctypes  # noqa: PLC0415  5 ms

    class Vector(ctypes.Structure):  # struct iovec, readv(2)
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    call = ctypes.CDLL(None, use_errno=True).process_vm_readv
    call.restype = ctypes.c_ssize_t
    call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    stamp = ctypes.create_string_buffer(_STAMP.size)
    ours, theirs = (Vector * 2)(), Vector()
    ours[1].base, ours[1].length = ctypes.addressof(stamp), _STAMP.size
    first, vectors, vector = ours[0], ctypes.addressof(ours), ctypes.addressof(theirs)
    address_of, byte_of = ctypes.addressof, ctypes.c_char.from_buffer

    def read(pid: int, address: int, room: memoryview) -> bytes:
        first.base, first.length = address_of(byte_of(room)), len(room)
        theirs.base, theirs.length = address, len(room) + _STAMP.size
        count = call(pid, vectors, 2, vector, 1, 0)
        if count == theirs.length:
            return stamp.raw
        error = ctypes.get_errno() if count < 0 else errno.EFAULT
        if error in {errno.ESRCH, errno.EFAULT}:
            return b""
        if error == errno.EPERM:
            raise PermissionError(
                f"the kernel forbids to read the memory of process {pid}: it must have the same user and be dumpable, "
                f"prctl(2), and a container's seccomp profile must allow process_vm_readv(2)"
            )
        raise OSError(error, f"process_vm_readv(2): {os.strerror(error)}")

    return read


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Cma]
