"""One study at a time on a machine: two that measure at once measure each other.

The lock is a name in the abstract namespace of Unix sockets, unix(7): every user can take it, no file is left behind,
it ends with its holder, and a process that finds it taken asks the kernel for the holder, SO_PEERCRED. It holds within
a network namespace: containers of one machine do not see each other's.
"""

import errno
import os
import pwd
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.console import Failure, say

_NAME = "\0transport-harness-measures"
_OWN = "TRANSPORT_HARNESS_LOCK"  # tests that run while a study does have a lock of their own, by this variable
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@contextmanager
def alone(patience: float, name: str = "", beside: bool = False) -> Iterator[None]:
    """Hold the lock in the body. Waits for it, at most `patience` seconds. Raises Failure, which names the holder.

    name: of another lock than that of studies. beside: go on without the lock where another process holds it.
    """
    name = name or _NAME + os.environ.get(_OWN, "")
    deadline = time.monotonic() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        announced = False
        while not _bind(lock, name):
            if beside:
                say("another study measures on this machine: each disturbs the other")
                yield
                return
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                try:
                    other.connect(name)
                except OSError:  # it has just ended, or is just beginning
                    if time.monotonic() > deadline + 1:
                        raise Failure("another study begins to measure on this machine: try again") from None
                    time.sleep(0.01)
                    continue
                holder = _describe(other)
                if not announced and patience:
                    say(f"another study measures on this machine, {holder}; waiting, for {patience:g} s at most")
                announced = True
                if not select.select([other], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise Failure(f"another study measures on this machine, {holder}: wait for it, or take --beside")
        lock.listen()
        yield


def _bind(lock: socket.socket, name: str) -> bool:
    try:
        lock.bind(name)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _describe(other: socket.socket) -> str:
    pid, uid, _ = _CREDENTIALS.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            command = os.fsdecode(line.read().rstrip(b"\0").replace(b"\0", b" "))
    except OSError:
        command = "?"
    return f"pid {pid} of {user} ({command})"
