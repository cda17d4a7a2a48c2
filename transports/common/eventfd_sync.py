"""Eventfds in place of the semaphores of a ring, eventfd(2): each counts slots, those free or those full.

An eventfd has no name. So a sender makes a pair of its own, and hands it over when it opens: it connects to a Unix
socket and sends both descriptors, unix(7) SCM_RIGHTS. It waits for nothing, as the receiver may be busy; the receiver
takes the descriptors before it looks for the first piece of that sender. One write(2) adds to the count of an eventfd,
one read(2) takes all of it, so an end that lags behind needs one call for several slots.

The connection stays open and carries nothing more: it ends when the peer closes its end or is killed. A cache worker
that waits for a slot notices at once that the proxy has gone. The proxy notices that a sender has gone, but only within
a reply of it: between replies that means nothing, as the next one may come from another sender.
"""

import errno
import os
import select
import socket
import time
from contextlib import ExitStack

from harness.api import Scope, bound_socket, connected_socket
from transports.common.ring import AwareReceiver, InTime, Parts, Ring, late

_FLAGS = os.EFD_CLOEXEC | os.EFD_NONBLOCK


def eventfd_ring_receiver(ring: Ring, parts: Parts) -> AwareReceiver:
    """The receiver over the eventfds of `parts`."""
    assert isinstance(parts.full, ReceivingEventfds)
    return AwareReceiver(ring, parts, parts.full)


class SendingEventfds(InTime):
    """A sender's two counts: acquire() is that of `free`, release() that of `full`.

    depth: slots that are free. undo: gets what closes the end. Raises FileNotFoundError or ConnectionRefusedError if
    there is no receiver.
    """

    def __init__(self, scope: Scope, depth: int, undo: ExitStack) -> None:
        self._timeout, self._late = scope.timeout, late("free", scope)
        self._left = depth  # slots that this end may fill before it looks again
        connection = undo.enter_context(connected_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout))
        free = os.eventfd(0, _FLAGS)
        undo.callback(os.close, free)
        self._full = os.eventfd(0, _FLAGS)
        undo.callback(os.close, self._full)
        self._free = Count(free, connection)
        socket.send_fds(connection, (b"x",), (free, self._full))

    def acquire(self, _: float | None = None) -> None:
        """Raises ConnectionError if the proxy has gone."""
        if not self._left:
            self._left = self._free.awaited(self._timeout, self._late)
            if not self._left:
                raise ConnectionResetError("the proxy has closed its end, or was killed")
        self._left -= 1

    def release(self) -> None:
        os.eventfd_write(self._full, 1)


class ReceivingEventfds(InTime):
    """The receiver's counts, a pair for each sender: acquire() is that of `full`, release() that of `free`.

    resting: whether no reply is under way, so that the next piece may come from any sender. undo: as above.
    """

    resting = True

    def __init__(self, scope: Scope, undo: ExitStack) -> None:
        self._timeout, self._late = scope.timeout, late("full", scope)
        self._left = 0  # slots that are full, as far as this end has looked
        self._peers: dict[int, Peer] = {}  # by the descriptor of the connection
        self._filling: dict[int, Peer] = {}  # those whose eventfds have come, by the descriptor of `full`
        self._listener = undo.enter_context(bound_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout))
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        undo.callback(self._close)

    def acquire(self, _: float | None = None) -> None:
        """Raises EOFError if the sender has gone within its reply."""
        if not self._left:
            if self.resting:
                self._await_sender()
            else:
                self._left = self._current.full.awaited(self._timeout, self._late)
            if not self._left:
                raise EOFError("the cache closed its end within the reply, or was killed")
        self._left -= 1

    def release(self) -> None:
        os.eventfd_write(self._current.free, 1)

    def _await_sender(self) -> None:
        """Wait until some sender has filled a slot; accept new ones on the way, and close those that have gone."""
        deadline = time.monotonic() + self._timeout
        while ready := self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            for fd, _ in ready:
                if (peer := self._filling.get(fd)) is not None and self._take_from(peer):
                    return
            for fd, _ in ready:
                if fd == self._listener.fileno():
                    self._accept()
                elif (peer := self._peers.get(fd)) is not None and self._heard(peer):
                    return
        raise TimeoutError(self._late)

    def _take_from(self, peer: "Peer") -> int:
        self._current, self._left = peer, peer.full.now()
        return self._left

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._peers[connection.fileno()] = Peer(connection)
        self._poll.register(connection, select.POLLIN)

    def _heard(self, peer: "Peer") -> int:
        """A connection carries its eventfds, or has ended. Returns how many slots have been filled after all."""
        if peer.receive():
            self._filling[peer.full.fd] = peer
            self._poll.register(peer.full.fd, select.POLLIN)
            return 0
        if peer.fds and self._take_from(peer):  # it filled them after poll(2) had looked at its eventfd
            return self._left
        self._dismiss(peer)
        return 0

    def _dismiss(self, peer: "Peer") -> None:
        del self._peers[peer.connection.fileno()]
        self._poll.unregister(peer.connection)
        if peer.fds:
            del self._filling[peer.full.fd]
            self._poll.unregister(peer.full.fd)
        peer.close()

    def _close(self) -> None:
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()


class Peer:
    """What the receiver has of a sender: its connection, and once they have come its eventfds.

    fds: descriptors of both eventfds, or none. free: that of `free`.
    """

    free: int
    full: "Count"

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.fds: list[int] = []

    def receive(self) -> bool:
        """Whether the connection carried the eventfds, and did not end."""
        message, fds, flags, _ = socket.recv_fds(self.connection, 1, 2, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        self.fds += fds
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "no room for two descriptors; raise ulimit -n")
        if message:
            self.free, full = fds
            self.full = Count(full, self.connection)
        return bool(message)

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.connection.close()


class Count:
    """An eventfd that this end reads. fd: its descriptor. connection: ends when the peer has gone."""

    def __init__(self, fd: int, connection: socket.socket) -> None:
        self.fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(connection, select.POLLIN)

    def now(self) -> int:
        """The count, which is 0 from now on."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    def awaited(self, timeout: float, late: str) -> int:
        """The count as soon as it is not 0; 0 if the peer has gone. Raises TimeoutError(late)."""
        deadline = time.monotonic() + timeout
        while not (count := self.now()):
            ready = self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise TimeoutError(late)
            if all(fd != self.fd for fd, _ in ready):
                return self.now()  # as the peer may have added to it before it went
        return count
