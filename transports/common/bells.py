"""What a process waits for that looks at shared memory: a bell that others ring. It counts nothing.

A bell that rings while no process waits lets the next one through at once. A process that is let through looks at the
memory again. So a bell that rings too often costs time, never a record.
"""

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

import posix_ipc

from harness.api import Scope, bound_socket, connected_socket, socket_name
from transports.common.posix_waits import wait


class Bell(Protocol):
    def ring(self, needed: bool = True) -> None:
        """Let one process through. needed: False if none waits, as far as the caller can tell."""

    def wait(self, seconds: float) -> bool:
        """Returns whether there is reason to look at the memory again, False not before `seconds` have passed."""


class SemaphoreBell:
    """A POSIX semaphore, sem_overview(7), that is 0 or 1, or a little more. Ringing it needs a system call only where a
    process waits, so it is rung whether or not that is needed.
    """

    def __init__(self, semaphore: posix_ipc.Semaphore) -> None:
        self._semaphore = semaphore

    def ring(self, needed: bool = True) -> None:
        if not self._semaphore.value:  # one that is up already lets the next process through
            self._semaphore.release()

    def wait(self, seconds: float) -> bool:
        return wait(self._semaphore, seconds)


class EventfdBell:
    """An eventfd, eventfd(2); epoll(7) with EPOLLEXCLUSIVE wakes one of those that wait, and not all.

    look_every: seconds after which wait() returns True although it did not ring.
    """

    def __init__(self, fd: int, look_every: float, undo: ExitStack) -> None:
        self._fd, self._look_every = fd, look_every
        self._epoll = undo.enter_context(select.epoll())
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def ring(self, needed: bool = True) -> None:
        if needed:
            os.eventfd_write(self._fd, 1)

    def wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + min(seconds, self._look_every)
        while True:
            with suppress(BlockingIOError):
                return bool(os.eventfd_read(self._fd))
            if (left := deadline - time.monotonic()) <= 0:
                return seconds > self._look_every
            self._epoll.poll(left)


_made: dict[str, list[int]] = {}  # eventfds of this process, by the path of their socket; forks inherit them


@contextmanager
def provisioned_eventfds(scope: Scope, count: int) -> Iterator[None]:
    """Make eventfds, and hand them to any process that asks, unix(7) SCM_RIGHTS, by a thread of this process."""
    path = scope.path("socket")
    with ExitStack() as undo:
        undo.enter_context(socket_name(path))
        listener = undo.enter_context(bound_socket(socket.SOCK_STREAM, path, scope.timeout))
        undo.callback(_made.pop, path, None)
        _made[path] = []
        for _ in range(count):
            _made[path].append(fd := os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            undo.callback(os.close, fd)
        thread = threading.Thread(target=_hand_out, args=(listener, _made[path]), daemon=True)
        thread.start()
        undo.callback(thread.join)
        undo.callback(listener.shutdown, socket.SHUT_RDWR)  # ends accept(2)
        yield


def _hand_out(listener: socket.socket, fds: list[int]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # its SO_RCVTIMEO
            continue
        except OSError as error:
            if error.errno == errno.EINVAL:  # it was shut down
                return
            time.sleep(0.1)  # no room for a descriptor, perhaps
            continue
        with connection, suppress(OSError):  # that process has gone
            socket.send_fds(connection, (b"x",), fds)


def inherited_eventfds(scope: Scope, undo: ExitStack) -> list[int]:
    """The eventfds, in the process that made them or a fork of it. undo: gets what closes them."""
    fds = [os.dup(fd) for fd in _made[scope.path("socket")]]
    for fd in fds:
        undo.callback(os.close, fd)
    return fds


def asked_eventfds(scope: Scope, count: int, undo: ExitStack) -> list[int]:
    """The eventfds, in any process of the same user. undo: gets what closes them.

    Raises FileNotFoundError or ConnectionError if no process hands them out, TimeoutError if it does not answer.
    """
    with connected_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout) as connection:
        try:
            _, fds, _, _ = socket.recv_fds(connection, 1, count, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            raise TimeoutError(f"the cache handed over no eventfds for {scope.timeout} s") from None
    for fd in fds:
        undo.callback(os.close, fd)
    if len(fds) < count:
        raise ConnectionError("the cache handed over no eventfds, or there is no room for them; ulimit -n")
    return fds
