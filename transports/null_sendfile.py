"""The floor of a lane whose proxy does not copy: no real one with an end of that shape can be faster.

Only the head crosses, transports/common/null_lane.py. The proxy has a file of its own, memfd_create(2), that is one
hole: sendfile(2) moves the kernel's page of zeros from it to the client's socket, and the client copies from there.
No memory is filled, and none is read but that page, which stays in the nearest cache.

Limits: a page of /dev/shm for each lane. The file is sparse.

Killed peers: noticed by the timeout, of transports/common/ticks.py.
"""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.api import DataTransport, FileSender, Scope, SocketReceiver, hookimpl, send_file
from transports.common.null_lane import NullLaneEnd, NullSender, provisioned_lane

_HOLE = 1 << 40  # bytes, more than any reply has


@dataclass(frozen=True)
class NullSendfile(DataTransport):
    """It has no options."""

    name = "null_sendfile"
    floor = True
    moves_content = False

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return provisioned_lane(scope)

    def receiver(self, scope: Scope) -> SocketReceiver:
        return ZerosToSocket(scope)

    def sender(self, scope: Scope) -> FileSender:
        return NullSender(scope)


class ZerosToSocket(NullLaneEnd, SocketReceiver):
    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        try:
            self._file = os.memfd_create("zeros")
            self._resources.callback(os.close, self._file)
            os.truncate(self._file, _HOLE)
        except OSError:
            self.close()
            raise

    def take(self) -> bytes:
        return self._head()[0]

    def deliver(self, sink: int, count: int) -> None:
        send_file(sink, self._file, 0, count, self._timeout)

    def give_back(self) -> None:
        """Nothing is left of a reply: it is this end's own."""


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [NullSendfile]
