"""Where content comes over HTTP: sessions with an origin over libcurl, and the proxy that serves from one, no cache.

Laws:
- A client is told OK only where the origin has said 200. 404 and 410 are FILE_NOT_FOUND; all else is ERROR, before a
  header was sent, and the end of the connection after.
- A client gets the last byte only when the origin's body has ended as it was announced. So what is too short, too long
  or broken off is never whole: it is not padded, and not cut to fit.
- A body is in memory only in part: it is passed on as it comes, or kept in a file beyond a bound.
- Only http and https, also after a redirect. Credentials go to the origin that they were given for, and into no line
  that is printed.

An origin that ends bodies of no announced length by closing the connection cannot be told from one that was broken off
gently: that is HTTP/1.0.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import IO, Protocol
from urllib.parse import quote, unquote, urlsplit

from harness import __version__
from harness.api import send_file
from harness.console import Failure, say
from harness.pipeline.gfserver import Handler, push, readable
from harness.protocol import getfile
from harness.protocol.dialects import Dialect

try:
    import pycurl
except ImportError:
    raise Failure("an HTTP origin needs pycurl: pip install 'transport-harness[curl]'") from None

_REDIRECTS = 5
_ERROR_PAGE = 1 << 16  # bytes of content of another status that are read, so that the connection can be kept
_PIECE = 1 << 16
_ABORT = -1  # what a callback returns that has not taken all
_STATUS = re.compile(rb"HTTP/[\d.]+ +(\d{3})")
_LENGTH = re.compile(rb"\s*(\d{1,18})\s*")  # what fits an off_t
_STEPS = re.compile(rb"/\.{1,2}(?:/|$)")


class Taker(Protocol):
    """Takes a body as it comes."""

    def write(self, piece: bytes) -> None:
        """The next piece."""

    def pause(self) -> None:
        """Nothing more is there for now."""


Begin = Callable[[int | None], Taker]  # is told the length of the body that comes, None where nobody knows it


class OriginError(OSError):
    """Why the origin has not given what it was asked for, in one line."""


class NotThere(OriginError):
    """The origin has no such file."""


@dataclass(frozen=True)
class Origin:
    """Where files come from.

    url: without credentials, and no slash at its end. timeout: seconds for a connection to be made, for the header to
    come, and for each wait for content; it may take one more. reuse: whether a session keeps its connections.
    """

    url: str
    timeout: float
    reuse: bool = True
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def url_of(self, path: bytes) -> str:
        """The URL of a GETFILE path, which is plain text: whatever means something in URLs is percent-encoded."""
        return self.url + quote(path)


def parse_url(text: str, timeout: float, reuse: bool = True) -> Origin:
    """The origin that a URL names; without a scheme it is http. Raises ValueError, which tells no credentials."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or re.search(r"[^!-~]", text):
        raise ValueError(f"{text.rpartition('@')[2]!r} is no origin: write http://host/path or https://host/path")
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    credentials = (unquote(name), unquote(password)) if user else None
    return Origin(f"{parts.scheme}://{host}{parts.path.rstrip('/')}", timeout, reuse, credentials)


class Session:
    """One thread's requests to an origin, one after the other."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._begin: Begin | None = None
        self._taker: Taker | None = None
        self._raised: BaseException | None = None  # by what takes the body
        self._status, self._length, self._dropped = 0, -1, 0
        self._chunked = self._complete = False  # of the response's header
        self._since = 0.0  # when something came, or was asked for
        self._curl = self._open()

    def _open(self) -> pycurl.Curl:
        origin, curl = self._origin, pycurl.Curl()
        http = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
        for option, value in (
            (pycurl.NOSIGNAL, 1),  # threads
            (pycurl.PROTOCOLS, http),
            (pycurl.REDIR_PROTOCOLS, http),
            (pycurl.FOLLOWLOCATION, 1),
            (pycurl.MAXREDIRS, _REDIRECTS),
            (pycurl.PATH_AS_IS, 1),
            (pycurl.CONNECTTIMEOUT_MS, ceil(origin.timeout * 1000)),
            (pycurl.FRESH_CONNECT, not origin.reuse),
            (pycurl.FORBID_REUSE, not origin.reuse),
            (pycurl.USERAGENT, f"transport-harness/{__version__}"),
            (pycurl.HEADERFUNCTION, self._take_header),
            (pycurl.WRITEFUNCTION, self._take_body),
            (pycurl.NOPROGRESS, 0),
            (pycurl.XFERINFOFUNCTION, self._watch),
        ):
            curl.setopt(option, value)
        if origin.credentials is not None:
            curl.setopt(pycurl.USERNAME, origin.credentials[0])
            curl.setopt(pycurl.PASSWORD, origin.credentials[1])
        return curl

    def _handle(self) -> pycurl.Curl:
        """The handle, with its connection only if nothing has come over that unasked: it would be taken for the next
        response. libcurl does not look."""
        if (kept := self._curl.getinfo(pycurl.ACTIVESOCKET)) >= 0 and readable(kept, 0):
            self._curl.close()
            self._curl = self._open()
        return self._curl

    def head(self, path: bytes) -> int | None:
        """The length that HEAD announces, None where it does not. Raises NotThere, OriginError."""
        self._perform(path, "HEAD", None)
        return self._length if self._length >= 0 else None

    def get(self, path: bytes, begin: Begin) -> None:
        """GET: call `begin` when the header has come, and have what it returns take the body.

        Raises NotThere or OriginError, and whatever these raise.
        """
        self._perform(path, "GET", begin)

    def _perform(self, path: bytes, method: str, begin: Begin | None) -> None:
        if _STEPS.search(path):
            raise NotThere("a path with . or .. in it")
        self._begin, self._taker, self._raised, self._status, self._dropped = begin, None, None, 0, 0
        self._since = time.monotonic()
        curl = self._handle()
        curl.setopt(pycurl.HTTPGET if begin else pycurl.NOBODY, 1)
        curl.setopt(pycurl.URL, self._origin.url_of(path))
        wrong = ""
        try:
            curl.perform()
        except pycurl.error as error:
            silent = error.args[0] == pycurl.E_ABORTED_BY_CALLBACK
            wrong = f"nothing came for {self._origin.timeout:g} s" if silent else str(error.args[1])
        if self._raised is not None:
            raised, self._raised = self._raised, None
            raise raised
        if self._status in {404, 410}:
            raise NotThere(f"{method}: HTTP {self._status}")
        if wrong and not self._dropped:
            raise OriginError(f"{method}: {wrong}")
        if self._status != 200:
            raise OriginError(f"{method}: HTTP {self._status}")
        if not self._complete:  # libcurl takes the end of the connection for the end of a header, too
            raise OriginError(f"{method}: the header has no end")

    def _take_header(self, line: bytes) -> int | None:
        return self._guard(self._note, line)

    def _take_body(self, piece: bytes) -> int | None:
        if self._taker is None:
            self._dropped += len(piece)
            taken = None if self._dropped <= _ERROR_PAGE else _ABORT
        else:
            taken = self._guard(self._taker.write, piece)
        self._since = time.monotonic()  # the client's time does not count
        return taken

    def _watch(self, *_: int) -> int:
        """Called when libcurl has to wait, and once a second then.

        It keeps the time, too. LOW_SPEED_TIME would not do: it looks at the mean of five seconds.
        """
        if time.monotonic() - self._since > self._origin.timeout:
            return _ABORT
        return (self._taker and self._guard(self._taker.pause)) or 0

    def _guard(self, step: Callable[..., None], *arguments: bytes) -> int | None:
        try:
            step(*arguments)
        except BaseException as error:  # noqa: BLE001  for _perform to raise: libcurl lies between
            self._raised = error
            return _ABORT
        return None

    def _note(self, line: bytes) -> None:
        if status := _STATUS.match(line):  # there may be several responses: 1xx, redirects
            self._status, self._length = int(status[1]), -1
            self._chunked = self._complete = False
            return
        if line.strip():
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"content-length":
                if (length := _LENGTH.fullmatch(value)) is None:
                    raise OriginError(f"a Content-Length of {value.strip()!r}")
                self._length = int(length[1])
            self._chunked |= name == b"transfer-encoding"
            return
        self._complete = True
        if self._chunked:  # then no length counts
            self._length = -1
        if self._status == 200 and self._begin is not None:
            begin, self._begin = self._begin, None  # further lines are trailers
            self._taker = begin(self._length if self._length >= 0 else None)


@dataclass(frozen=True)
class Bounds:
    """What is kept of bodies that cannot be passed on as they come: each up to `memory` bytes in memory, beyond that in
    a file without a name in `directory`; none over `largest` bytes."""

    memory: int = 1 << 20
    largest: int = 4 << 30
    directory: str = "/var/tmp"  # noqa: S108  not /tmp: that may be memory


class Body(Taker, Protocol):
    """A body on its way to the client. begun: whether a header has been sent."""

    begun: bool

    def end(self) -> None:
        """All has come, well. Raises OriginError where it is not what was announced."""

    def close(self) -> None:
        """Let go of what there is."""


class Passing:
    """Passes on what comes, but for the end: that waits until all has come, as announced.

    The client's socket is corked: what is written leaves in full segments, or when the origin pauses.
    """

    def __init__(self, client: int, header: bytes, length: int) -> None:
        self._client, self._left = client, length
        self._held = header  # the next to be sent; the header of an empty body is its end
        self._corked = False  # whether something sent may not have left
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
    """Keeps a body until it has ended, and answers then."""

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
            raise OriginError(f"over {self._bounds.largest} bytes, which is the bound for what has to be kept")

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


class OriginBackend:
    """Serves from an origin, each worker thread over a session of its own. strategy: one of webproxy.STRATEGIES."""

    def __init__(self, origin: Origin, strategy: str, bounds: Bounds, timeout: float, dialect: Dialect) -> None:
        self._origin, self._strategy, self._bounds, self._timeout = origin, strategy, bounds, timeout
        self._dialect = dialect

    def handler(self) -> Handler:
        """One worker thread's way to the origin."""
        return _OriginHandler(Session(self._origin), self._strategy, self._bounds, self._timeout, self._dialect)

    def close(self) -> None:
        """There is nothing to remove."""


class _OriginHandler:
    def __init__(self, session: Session, strategy: str, bounds: Bounds, timeout: float, dialect: Dialect) -> None:
        self._session, self._strategy, self._bounds, self._timeout = session, strategy, bounds, timeout
        self._ok_header, self._refusal = dialect.OK_HEADER, dialect.refusal_header

    def __call__(self, client: int, path: bytes) -> None:
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
                say(f"{os.fsdecode(path)}: {error}")  # but where the client went away, which is its own business
            if begun:
                raise
            os.write(client, self._refusal(getfile.FILE_NOT_FOUND if isinstance(error, NotThere) else getfile.ERROR))
        finally:
            if body is not None:
                body.close()

    def _body(self, client: int, expected: int | None, announced: int | None) -> Body:
        """What takes a body. expected: the length that HEAD announced; announced: the one that GET did."""
        if None not in {expected, announced} and expected != announced:
            raise OriginError(f"HEAD announced {expected} bytes, GET {announced}")
        length = announced if expected is None else expected
        if length is None or self._strategy == "buffered":
            return Collecting(client, self._ok_header, self._bounds, length, self._timeout)
        return Passing(client, self._ok_header % length, length)


def send_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of it, to a file or to a socket whose SO_SNDTIMEO, socket(7), is not to pass within one piece: else the
    client has stalled, TimeoutError."""
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        if os.write(fd, piece) < len(piece):
            raise TimeoutError("the client stalled")
