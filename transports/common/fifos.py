"""FIFOs, fifo(7) and pipe(7): making them, and an end whose waits end in time."""

import errno
import fcntl
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.api import Scope


@contextmanager
def provisioned_fifos(scope: Scope, *parts: str) -> Iterator[None]:
    """Make FIFOs of these names, and remove them on exit."""
    with ExitStack() as undo:
        for path in map(scope.path, parts):
            os.mkfifo(path, 0o600)
            undo.callback(os.unlink, path)
        yield


class FifoEnd:
    """One open end of a FIFO.

    part: which FIFO. flags: of open(2); the descriptor is non-blocking. size: bytes that the pipe shall hold, unless 0.
    """

    def __init__(self, scope: Scope, part: str, flags: int, size: int = 0) -> None:
        self._timeout = scope.timeout
        try:
            self._fd = os.open(scope.path(part), flags | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:  # open(2): O_WRONLY | O_NONBLOCK and no reader
                raise ConnectionRefusedError("no process has the FIFO open for reading") from None
            raise
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT if flags & os.O_WRONLY else select.POLLIN)
        try:
            if size:
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, size)
        except OSError as error:
            os.close(self._fd)
            raise OSError(f"pipe_size={size}: {_reason(size, error)}") from error

    def _wait(self, what: str) -> None:
        """Wait until the FIFO can be read or written. Raises TimeoutError, which begins with `what`."""
        if not self._poll.poll(self._timeout * 1000):
            raise TimeoutError(f"{what} for {self._timeout} s")

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _reason(size: int, error: OSError) -> str:
    """Why a pipe does not hold `size` bytes, fcntl(2) F_SETPIPE_SZ and pipe(7): EPERM has two causes."""
    if error.errno != errno.EPERM:
        return os.strerror(error.errno or 0)
    largest, pages = (f"/proc/sys/fs/{name}" for name in ("pipe-max-size", "pipe-user-pages-soft"))
    with open(largest) as most:
        if size > (limit := int(most.read())):
            return f"over the {limit} of {largest}"
    return (
        f"all pipes of this user hold as many pages as {pages} allows: take fewer lanes or smaller pipes, or raise it"
    )
