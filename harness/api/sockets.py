"""Sockets for transports: Unix sockets, TCP on the loopback, descriptors in messages, and waits that end in time.

A stream transport needs three calls, and `harness.api.StreamReceiver` and `StreamSender` for its ends:

    at the receiver    bound_socket(SOCK_STREAM, path, timeout) or tcp_listener(path, timeout)
    at the sender      connected_socket(SOCK_STREAM, path, timeout) or tcp_connected(path, timeout)
    in provision()     socket_name(path)
"""

import errno
import math
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from harness.api.scope import write_private_file

_KEY_BYTES = 16  # of the key in a port file
_FD = struct.Struct("@i")
_FD_ROOM = socket.CMSG_SPACE(_FD.size)


def send_file(sink: int, fd: int, offset: int, count: int, timeout: float) -> None:
    """sendfile(2) all `count` bytes of `fd` from `offset` to a socket: for zero-copy ends that have a file.

    The socket is made non-blocking and stays so. One blocking sendfile(2) would wait for SO_SNDTIMEO several times
    over, once for each part of its inner loop.

    Raises EOFError if the file ends early, TimeoutError if the socket takes nothing for `timeout` seconds,
    ConnectionError if its peer is gone.
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


def reset_on_close(connection: socket.socket) -> None:
    """Have close(2) reset the connection: SO_LINGER of socket(7) with a time of 0."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))


def limit_waits(end: socket.socket, timeout: float) -> None:
    """Have the kernel end blocking calls after `timeout` seconds, SO_RCVTIMEO and SO_SNDTIMEO of socket(7).

    This costs no system call a wait, unlike settimeout(). Python then raises BlockingIOError. A limit of 0 would mean
    no limit, so the least is a microsecond.
    """
    limit = struct.pack("@ll", *divmod(max(1, round(timeout * 1e6)), 1_000_000))
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


@contextmanager
def socket_name(path: str) -> Iterator[None]:
    """For provision(): removes the name of a Unix socket, or the port file of a TCP listener, on exit.

    The receiver creates it later, with bound_socket, DescriptorSocket.bound or tcp_listener.
    """
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def bound_socket(kind: socket.SocketKind, path: str, timeout: float) -> socket.socket:
    """A Unix socket bound to `path`, mode 0600. A stream socket listens already.

    Its calls end within `timeout` seconds, see limit_waits.
    """
    end = socket.socket(socket.AF_UNIX, kind)
    try:
        end.bind(path)
        os.chmod(path, 0o600)
        if kind == socket.SOCK_STREAM:
            end.listen()
    except OSError:
        end.close()
        raise
    limit_waits(end, timeout)
    return end


def connected_socket(kind: socket.SocketKind, path: str, timeout: float) -> socket.socket:
    """A Unix socket connected to the one that is bound to `path`. Its calls end within `timeout` seconds.

    Raises FileNotFoundError or ConnectionRefusedError if there is none.
    """
    end = socket.socket(socket.AF_UNIX, kind)
    limit_waits(end, timeout)
    try:
        end.connect(path)
    except OSError:
        end.close()
        raise
    return end


def tcp_listener(path: str, timeout: float, backlog: int = 128) -> socket.socket:
    """A TCP socket that listens on a free port of 127.0.0.1, tcp(7). tcp_connected finds it by the file `path`.

    The file has mode 0600 and appears in one step, once the socket listens. It holds the port and a random key: a port
    has no owner and no mode, so any user of the machine may connect to it, and tcp_accepted lets in only connections
    that begin with the key. socket_name removes the file. Calls of the socket end within `timeout` seconds.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Linux has a connection inherit both from its listener.
        limit_waits(listener, timeout)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # accept() returns a connection once its first bytes are there, so no receiver has to wait for the key.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, math.ceil(timeout))
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        write_private_file(path, f"{listener.getsockname()[1]} {os.urandom(_KEY_BYTES).hex()}\n")
    except OSError:
        listener.close()
        raise
    return listener


def tcp_accepted(listener: socket.socket, path: str, timeout: float) -> socket.socket | None:
    """Accept a connection to the tcp_listener that wrote the file `path`; it gets TCP_NODELAY.

    Returns None if it does not begin with the key, as one of another program; it is closed then. Each call of the
    connection ends within `timeout` seconds, that of the listener. Raises TimeoutError if none comes for so long.
    """
    return TcpPort.read(path).accepted(listener, timeout)


def tcp_connected(path: str, timeout: float) -> socket.socket:
    """A TCP socket connected to the tcp_listener that wrote the file `path`, with TCP_NODELAY.

    Each of its calls ends within `timeout` seconds. Raises FileNotFoundError or ConnectionRefusedError if there is no
    listener, TimeoutError if its backlog stays full.
    """
    try:
        return TcpPort.read(path).connected(timeout)
    except (ConnectionRefusedError, TimeoutError) as error:
        raise type(error)(f"{path}: {error}") from None


class TcpPort(NamedTuple):
    """What a port file says, for ends that connect or accept often and read the file once."""

    number: int
    key: bytes

    @classmethod
    def read(cls, path: str) -> "TcpPort":
        """The port and the key in the file that a tcp_listener wrote. Raises FileNotFoundError if there is none."""
        with open(path) as file:
            number, key = file.read().split()
        return cls(int(number), bytes.fromhex(key))

    def connected(self, timeout: float, first: bytes = b"") -> socket.socket:
        """As tcp_connected. first: bytes that are sent at once, in the segment of the key."""
        end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            limit_waits(end, timeout)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.connect(("127.0.0.1", self.number))
            # To a free port in ip_local_port_range a socket can connect itself.
            if end.getsockname() == end.getpeername():
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"nothing listens on port {self.number}")
            end.send(self.key + first)  # a new connection has room for it
        except BlockingIOError:
            end.close()
            raise TimeoutError(f"no connection to port {self.number} for {timeout} s") from None
        except OSError:
            end.close()
            raise
        return end

    def accepted(self, listener: socket.socket, timeout: float) -> socket.socket | None:
        """As tcp_accepted."""
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            raise TimeoutError(f"no connection for {timeout} s") from None
        try:
            given = connection.recv(_KEY_BYTES, socket.MSG_DONTWAIT)
        except OSError:  # nothing came, or a reset
            given = b""
        if given == self.key:
            return connection
        connection.close()
        return None


class DescriptorSocket:
    """A Unix datagram socket whose messages may each bear one descriptor, unix(7) SCM_RIGHTS: for zero-copy ends.

    The end that binds the name owns the queue: once it is gone, sending raises ConnectionRefusedError. Each call ends
    within `timeout` seconds with TimeoutError, see limit_waits.
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
        """Send a message, and with it a duplicate of `fd` unless that is negative."""
        try:
            if fd < 0:
                self._socket.send(message)
            else:
                self._socket.sendmsg((message,), [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(fd))])
        except BlockingIOError:
            raise TimeoutError(f"the socket stayed full for {self._timeout} s") from None

    def receive(self, size: int, flags: int = 0) -> tuple[bytes, int]:
        """A message of at most `size` bytes, and its descriptor, which the caller closes, or -1."""
        try:
            data, ancillary, met, _ = self._socket.recvmsg(size, _FD_ROOM, flags | socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise TimeoutError(f"no message for {self._timeout} s") from None
        if met & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "no room for a descriptor; raise ulimit -n")
        for _, _, rights in ancillary:
            return data, _FD.unpack(rights)[0]
        return data, -1

    def fileno(self) -> int:
        """The socket's own descriptor, which can be sent, too."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket. A second call does nothing."""
        self._socket.close()
