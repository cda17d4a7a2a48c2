"""A lane over a Unix stream socket whose ends send and receive by io_uring(7), in place of send(2) and recv(2).

A byte goes preadv(2) -> buffer of the cache -> IORING_OP_SEND -> socket buffers -> IORING_OP_RECV -> buffer of the
proxy: one copy in, one copy out, as with `unix`. The cache has two buffers: while the kernel sends one, the next piece
is read into the other. The kernel goes on by itself until all of a piece is sent (MSG_WAITALL), and a completion is
read from shared memory, without a call. The proxy learns from poll(2) which connection speaks next, as with `unix`:
harness/api/streams.py.

Each end sets up a ring of its own when it opens, and a fork closes those that it inherits. The calls are made with
ctypes, and the rings are read and written here: they are an interface of the kernel, linux/io_uring.h. What is under
way when a wait has lasted too long, or when an end closes, is cancelled (IORING_OP_ASYNC_CANCEL) before its buffer is
used again or freed. In a thread that has used the ring close() takes 15 to 90 ms more: await_notice() says why.

Limits: Linux 5.19. Where the kernel forbids io_uring (kernel.io_uring_disabled, a container's seccomp profile),
provision fails and says so. An open end has a descriptor and two pages of rings beside those of its socket. That an end
sees entries of a ring in order is so on x86-64, and not shown for other architectures, which are refused. A lane that
closes, as one that failed does, interrupts all threads that have used it. close() protects its own thread alone: a slow
client that another thread of the proxy writes to at that moment is cut off.

Killed peers: those of a socket. A connection that ends within a reply means that the sender gave up or was killed
(EOFError at once), one that ends between replies means nothing. A killed proxy: EPIPE.
"""

import ctypes
import errno
import mmap
import os
import platform
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from weakref import WeakSet

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

# io_uring_setup(2), io_uring_enter(2), and linux/io_uring.h
_SETUP, _ENTER = 425, 426  # the same numbers on all architectures
_OFFSET_SQES = 0x10000000
_SINGLE_MMAP, _EXT_ARG = 1 << 0, 1 << 8  # features
_GETEVENTS, _WITH_ARG = 1 << 0, 1 << 3  # flags of io_uring_enter(2)
_ASYNC_CANCEL, _SEND, _RECV = 14, 26, 27
_ENTRY = struct.Struct("<BBHiQQIIQ24x")  # opcode, flags, ioprio, fd, offset, address, length, flags of it, user data
_RESULT = struct.Struct("<Qi4x")  # user data, result
_PARAMETERS = struct.Struct("<7I12x10I10I")  # struct io_uring_params
_ENTRIES = 4
_NOTICE_SECONDS = 2.0  # far more than the kernel takes
_USER = 1  # user data of what is under way; that of its cancellation is 0
DISABLED = "/proc/sys/kernel/io_uring_disabled"


class Time(ctypes.Structure):  # struct __kernel_timespec
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class Argument(ctypes.Structure):  # struct io_uring_getevents_arg
    _fields_ = (
        ("mask", ctypes.c_uint64),
        ("size", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("time", ctypes.c_uint64),
    )


_call = ctypes.CDLL(None, use_errno=True).syscall
_call.restype = ctypes.c_long


class Uring:
    """An io_uring with one operation under way at a time.

    timeout: seconds that an operation may be waited for, and then the end of its cancellation.
    buffers: what operations move bytes from or to. They are never freed where the kernel may still use one.
    """

    def __init__(self, timeout: float, *buffers: bytearray | memoryview) -> None:
        self._timeout, self._buffers = timeout, buffers
        self._thread = threading.local()  # has `user` where the ring was used; idents are given to later threads again
        self._thread.user = True
        self._time, self._argument = Time(), Argument()
        self._argument.time = ctypes.addressof(self._time)
        self._argument_at = ctypes.addressof(self._argument)
        self._under_way = False
        parameters = ctypes.create_string_buffer(_PARAMETERS.size)
        with ExitStack() as undo:
            self._fd = _call(_SETUP, _ENTRIES, parameters)
            if self._fd < 0:
                raise OSError(ctypes.get_errno(), refusal(ctypes.get_errno()))
            undo.callback(os.close, self._fd)
            entries, completions, _, _, _, features, _, *offsets = _PARAMETERS.unpack(parameters.raw)
            if ~features & (_SINGLE_MMAP | _EXT_ARG):
                raise OSError("the io_uring of this kernel has no timeouts; that of Linux 5.11 has them")
            tail, array = offsets[1], offsets[6]
            head, self._results_at = offsets[10], offsets[15]
            size = max(array + 4 * entries, self._results_at + _RESULT.size * completions)
            self._rings = mmap.mmap(self._fd, size)
            undo.callback(self._rings.close)
            self._entries = mmap.mmap(self._fd, _ENTRY.size * entries, offset=_OFFSET_SQES)
            undo.callback(self._entries.close)
            struct.pack_into(f"<{entries}I", self._rings, array, *range(entries))
            self._words = undo.enter_context(memoryview(self._rings)[: size // 4 * 4].cast("I"))
            self._tail, self._head, self._ended = tail // 4, head // 4, offsets[11] // 4
            self._mask, self._results_mask = entries - 1, completions - 1
            self._undo = undo.pop_all()
        _open.add(self)

    def move(self, operation: int, fd: int, address: int, count: int) -> int:
        """Send or receive, and wait. Returns and raises as result() does."""
        deadline = time.monotonic() + self._timeout
        self.submit(operation, fd, address, count, self._timeout)
        return self.result(deadline)

    def submit(self, operation: int, fd: int, address: int, count: int, seconds: float = 0.0) -> None:
        """Begin to send or receive, and wait so long in the same call. Raises OSError if the kernel refuses."""
        self._add(operation, fd, address, count)
        if self._enter(1, seconds) < 1:
            raise OSError(ctypes.get_errno(), f"io_uring_enter(2): {os.strerror(ctypes.get_errno())}")
        self._under_way = True

    def result(self, deadline: float | None = None) -> int:
        """The bytes that were moved. Raises OSError if that failed. What takes too long is cancelled: TimeoutError.

        deadline: of the monotonic clock; None: the timeout from now on.
        """
        if deadline is None:
            deadline = time.monotonic() + self._timeout
        if (result := self._awaited(deadline)) is None:
            self.cancel()
            raise TimeoutError(f"the socket was not ready for {self._timeout} s")
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def cancel(self) -> None:
        """End what is under way. Then the kernel does not use its buffer any more. Raises OSError if it still may."""
        if self._under_way:
            self._add(_ASYNC_CANCEL, -1, _USER, 0)
            self._enter(1, 0.0)
            if self._awaited(time.monotonic() + self._timeout) is None:
                _held.append(self._buffers)
                raise OSError("the kernel still uses a buffer")

    def _add(self, operation: int, fd: int, address: int, count: int) -> None:
        words, tail = self._words, self._words[self._tail]
        mark = 0 if operation == _ASYNC_CANCEL else _USER
        flags = socket.MSG_WAITALL if operation == _SEND else 0
        _ENTRY.pack_into(
            self._entries, (tail & self._mask) * _ENTRY.size, operation, 0, 0, fd, 0, address, count, flags, mark
        )
        words[self._tail] = tail + 1 & 0xFFFFFFFF
        self._thread.user = True

    def _awaited(self, deadline: float) -> int | None:
        """The result of what is under way, None after the deadline."""
        while (result := self._completed()) is None:
            if (left := deadline - time.monotonic()) <= 0:
                return None
            self._enter(0, left)
        self._under_way = False
        return result

    def _completed(self) -> int | None:
        """Take completions from the ring up to that of what is under way."""
        words = self._words
        while (head := words[self._head]) != words[self._ended]:
            user, result = _RESULT.unpack_from(
                self._rings, self._results_at + (head & self._results_mask) * _RESULT.size
            )
            words[self._head] = head + 1 & 0xFFFFFFFF
            if user == _USER:
                return int(result)
        return None

    def _enter(self, submitted: int, seconds: float) -> int:
        """Tell the kernel of new entries, and wait for a completion unless `seconds` is 0. Returns as the call does."""
        if not seconds:
            return int(_call(_ENTER, self._fd, submitted, 0, 0, None, ctypes.c_size_t(0)))
        self._time.seconds, self._time.nanoseconds = divmod(round(seconds * 1e9), 10**9)
        size = ctypes.c_size_t(ctypes.sizeof(Argument))
        return int(
            _call(_ENTER, self._fd, submitted, 1, _GETEVENTS | _WITH_ARG, ctypes.c_void_p(self._argument_at), size)
        )

    def close(self) -> None:
        """Raises OSError, and is closed, where the kernel still uses a buffer."""
        if self not in _open:
            return
        try:
            self.cancel()
        finally:
            self.leave()
        if hasattr(self._thread, "user"):
            await_notice()

    def leave(self) -> None:
        """Close this process's descriptor and memory of the ring."""
        _open.discard(self)
        self._under_way = False
        self._undo.close()


_open: "WeakSet[Uring]" = WeakSet()  # of this process
_held: list[object] = []  # buffers that the kernel may still use: kept until the process ends


def _leave_inherited() -> None:
    """In a fork. Else a ring would not end with the end that has it, and the notice would come later."""
    for uring in list(_open):
        uring.leave()


os.register_at_fork(after_in_child=_leave_inherited)


def await_notice() -> None:
    """Wait until the kernel has interrupted this thread, as it does once, some time after a ring was closed.

    It sends each thread that has used the ring some task work (io_tctx_exit_cb in io_uring/io_uring.c), which ends a
    blocking call as a signal does, but starts no handler. A write(2) that had moved a part then returns. To the proxy
    that looks like a client that took nothing for SO_SNDTIMEO, and the client would be cut off. So this is such a
    write, to a socket that is not read. A thread that has not used the ring would wait 2 s in vain.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        limit_waits(ours, _NOTICE_SECONDS)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)  # the least there is
        with suppress(BlockingIOError):
            ours.send(bytes(1 << 16))


def check_permitted() -> None:
    """Raises OSError where the kernel forbids io_uring. It makes none: without entries it refuses after that check."""
    _call(_SETUP, 0, ctypes.create_string_buffer(_PARAMETERS.size))
    if (error := ctypes.get_errno()) != errno.EINVAL:
        raise OSError(error, refusal(error))


def refusal(error: int) -> str:
    """Why io_uring_setup(2) has failed."""
    setting = ""
    with suppress(FileNotFoundError), open(DISABLED) as file:  # since Linux 6.6
        setting = file.read().strip()
    if setting not in {"", "0"} and error == errno.EPERM:
        return f"{DISABLED} is {setting}; as root: sysctl -w kernel.io_uring_disabled=0"
    return (
        f"io_uring_setup(2): {os.strerror(error)}: a container's seccomp profile may forbid it, or the kernel has none"
    )


@dataclass(frozen=True)
class IoUring(DataTransport):
    """chunk: bytes that either end moves at a time."""

    name = "io_uring"
    chunk: int = 1 << 18

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1)

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        if platform.machine() != "x86_64":
            raise OSError(f"io_uring: the order of stores is not shown for {platform.machine()}, only for x86_64")
        check_permitted()
        with socket_name(scope.path("socket")):
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return UringReceiver(
            bound_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout), self.chunk, scope.timeout
        )

    def sender(self, scope: Scope) -> Sender:
        connection = connected_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout)
        return UringSender(connection, self.chunk, scope.timeout)


class UringSender(Sender):
    def __init__(self, connection: socket.socket, chunk: int, timeout: float) -> None:
        self._connection, self._fd = connection, connection.fileno()
        self._buffers = [bytearray(chunk) for _ in range(2)]
        self._addresses = [address_of(buffer) for buffer in self._buffers]
        self._sending = 0  # bytes of the other buffer that the kernel has been given to send
        try:
            self._uring: Uring | None = Uring(timeout, *self._buffers)
        except OSError:
            connection.close()
            raise

    def loan(self) -> memoryview:
        return memoryview(self._buffers[0])

    def publish(self, count: int) -> None:
        self._settle()
        if not count:
            self.close()
            return
        assert self._uring is not None
        self._uring.submit(_SEND, self._fd, self._addresses[0], count)
        self._sending = count
        self._buffers.reverse()
        self._addresses.reverse()

    def _settle(self) -> None:
        """Wait until the kernel has sent what it was given."""
        if self._sending:
            assert self._uring is not None
            wanted, self._sending = self._sending, 0
            if (sent := self._uring.result()) < wanted:
                raise ConnectionError(f"{sent} of {wanted} bytes were sent")

    def close(self) -> None:
        if (uring := self._uring) is None:
            return
        with suppress(OSError):  # the proxy has gone, or read nothing for the timeout
            self._settle()
        self._uring = None
        try:
            uring.close()
        finally:
            self._connection.close()


class UringReceiver(StreamReceiver):
    def __init__(self, listener: socket.socket, chunk: int, timeout: float) -> None:
        super().__init__(listener, chunk, timeout)
        try:
            self._uring: Uring | None = Uring(timeout, self._buffer)
        except OSError:
            super().close()
            raise

    def receive(self, connection: socket.socket, room: memoryview) -> int:
        assert self._uring is not None
        return self._uring.move(_RECV, connection.fileno(), address_of(room), len(room))

    def close(self) -> None:
        uring, self._uring = self._uring, None
        try:
            if uring is not None:
                uring.close()
        finally:
            super().close()


def address_of(room: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [IoUring]
