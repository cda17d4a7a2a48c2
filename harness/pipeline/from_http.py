"""The proxy's backend that serves from an HTTP origin, without a cache.

Laws:
- A client gets OK only where the origin said 200. 404 and 410 are FILE_NOT_FOUND. Anything else is ERROR before a
  header was sent, and the end of the connection after.
- A client gets the last byte only when the origin's body has ended as it was announced. So a body that is too short,
  too long or broken off never looks whole: it is not padded, and not cut to fit.
- A body is in memory only in part: it is passed on as it comes, or kept in a file beyond a bound.
"""

import os
import tempfile
from dataclasses import dataclass
from typing import IO, Protocol

from harness.api import send_file
from harness.console import say
from harness.pipeline.gfserver import Handler, push
from harness.pipeline.http_session import NotThere, Origin, OriginError, Session, Taker
from harness.protocol import getfile
from harness.protocol.dialects import Dialect

_PIECE = 1 << 16


@dataclass(frozen=True)
class Bounds:
    """How bodies are kept that cannot be passed on as they come: up to `memory` bytes of each in memory, the rest in a
    file without a name in `directory`; a body over `largest` bytes is refused."""

    memory: int = 1 << 20
    largest: int = 4 << 30
    directory: str = "/var/tmp"  # noqa: S108  not /tmp: that may be memory


class Body(Taker, Protocol):
    """A body on its way to the client. begun: whether a header was sent."""

    begun: bool

    def end(self) -> None:
        """Send what is left: the body has come. Raises OriginError where its length is not the announced one."""

    def close(self) -> None:
        """Close the file, if there is one."""


class Passing:
    """Passes on each piece as the next one comes: the last waits until the body has ended as announced.

    The client's socket is corked: what is written leaves in full segments, or when the origin pauses.
    """

    def __init__(self, client: int, header: bytes, length: int) -> None:
        self._client, self._left = client, length
        self._held = header  # what is sent next; of an empty body the header waits for the end
        self._corked = False  # whether something that was written may wait in the socket
        self.begun = False

    def write(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise OriginError("more content than was announced")
        self._held += piece
        if self._left:
            self._send()

    def pause(self) -> None:
        if self._left <= 0:
            return
        if self._held:
            self._send()
        if self._corked:
            push(self._client)
            self._corked = False

    def end(self) -> None:
        if self._left:
            raise OriginError(f"the content ended {self._left} bytes early")
        self._send()

    def _send(self) -> None:
        self.begun = self._corked = True
        held, self._held = self._held, b""
        send_all(self._client, held)

    def close(self) -> None:
        pass


class Collecting:
    """Keeps a body until it has ended, then answers."""

    def __init__(self, client: int, ok_header: bytes, bounds: Bounds, length: int | None, timeout: float) -> None:
        self._client, self._ok_header, self._bounds, self._timeout = client, ok_header, bounds, timeout
        self._announced = length
        self._size = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.begun = False
        self._check(length or 0)

    def _check(self, size: int) -> None:
        if size > self._bounds.largest:
            raise OriginError(f"over {self._bounds.largest} bytes, the most that is collected: see --largest")

    def write(self, piece: bytes) -> None:
        self._size += len(piece)
        self._check(self._size)
        self._memory += piece
        if len(self._memory) > self._bounds.memory:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._bounds.directory, buffering=0)  # noqa: SIM115
            send_all(self._file.fileno(), self._memory)
            self._memory.clear()

    def pause(self) -> None:
        pass

    def end(self) -> None:
        if self._announced not in {None, self._size}:
            raise OriginError(f"{self._size} bytes of content, {self._announced} announced")
        header = self._ok_header % self._size
        if self._file is None:
            self.begun = True
            send_all(self._client, header + self._memory)
        else:
            send_all(self._file.fileno(), self._memory)
            self.begun = True
            send_all(self._client, header)
            send_file(self._client, self._file.fileno(), 0, self._size, self._timeout)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class HttpBackend:
    """Serves from an HTTP origin; each worker thread has a session of its own. strategy: of webproxy.STRATEGIES."""

    def __init__(self, origin: Origin, strategy: str, bounds: Bounds, timeout: float, dialect: Dialect) -> None:
        self._origin, self._strategy, self._bounds, self._timeout = origin, strategy, bounds, timeout
        self._dialect = dialect

    def handler(self) -> Handler:
        """The handler of one worker thread."""
        return _Worker(Session(self._origin), self._strategy, self._bounds, self._timeout, self._dialect).handle

    def close(self) -> None:
        """There is nothing to remove."""


class _Worker:
    """One worker thread's way to the origin."""

    def __init__(self, session: Session, strategy: str, bounds: Bounds, timeout: float, dialect: Dialect) -> None:
        self._session, self._strategy, self._bounds, self._timeout = session, strategy, bounds, timeout
        self._ok_header, self._refusal = dialect.OK_HEADER, dialect.refusal_header

    def handle(self, client: int, path: bytes) -> None:
        body: Body | None = None

        def begin(announced: int | None) -> Body:
            nonlocal body
            body = self._body(client, expected, announced)
            return body

        try:
            expected = self._session.head(path) if self._strategy == "head-then-get" else None
            self._session.get(path, begin)
            assert body is not None
            body.end()
        except OSError as error:
            begun = body is not None and body.begun
            if isinstance(error, OriginError) if begun else not isinstance(error, NotThere):
                say(f"{os.fsdecode(path)}: {error}")  # not where the client went away
            if begun:
                raise
            os.write(client, self._refusal(getfile.FILE_NOT_FOUND if isinstance(error, NotThere) else getfile.ERROR))
        finally:
            if body is not None:
                body.close()

    def _body(self, client: int, expected: int | None, announced: int | None) -> Body:
        """What takes the body. expected: the length that HEAD announced; announced: the one that GET announced."""
        if None not in {expected, announced} and expected != announced:
            raise OriginError(f"HEAD announced {expected} bytes, GET {announced}")
        length = announced if expected is None else expected
        if length is None or self._strategy == "buffered":
            return Collecting(client, self._ok_header, self._bounds, length, self._timeout)
        return Passing(client, self._ok_header % length, length)


def send_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of `data` to a file or socket. Raises TimeoutError where the client stalls: a socket's SO_SNDTIMEO,
    socket(7), passed within one piece."""
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        if os.write(fd, piece) < len(piece):
            raise TimeoutError("the client stalled")
