"""The HTTP client: URLs of origins, and one thread's session with one over libcurl.

Laws:
- A response other than 200 raises: 404 and 410 NotThere, all else OriginError. Its content is never passed on.
- A body that the origin has compressed, or coded otherwise, is refused: it was not asked for.
- What takes the body gets it as it comes; it learns the announced length first, and checks that by itself.
- A session speaks only http and https, also after a redirect. Credentials go to the origin that they were given for,
  and into no line that is printed.

An origin that ends bodies of no announced length by closing the connection cannot be distinguished from one that
broke off gently: that is HTTP/1.0.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from harness import __version__
from harness.console import Failure
from harness.pipeline.gfserver import readable

try:
    import pycurl
except ImportError:
    raise Failure("an HTTP origin needs pycurl: pip install 'transport-harness[curl]'") from None

_REDIRECTS = 5
_ERROR_PAGE = 1 << 16  # bytes of an error's content that are read, so that the connection can be kept
_ABORT = -1  # what a callback returns to end the transfer
_STATUS = re.compile(rb"HTTP/[\d.]+ +(\d{3})")
_LENGTH = re.compile(rb"\s*(\d{1,18})\s*")  # what fits an off_t
_STEPS = re.compile(rb"/\.{1,2}(?:/|$)")


class Taker(Protocol):
    """Takes a body as it comes."""

    def write(self, piece: bytes) -> None:
        """The next piece."""

    def pause(self) -> None:
        """Nothing more has come for now."""


Begin = Callable[[int | None], Taker]  # (announced length of the body; None: not announced) -> what takes the body


class OriginError(OSError):
    """The origin did not give what was asked for; one line says why."""


class NotThere(OriginError):
    """The origin has no such file."""


@dataclass(frozen=True)
class Origin:
    """An HTTP server that files come from.

    url: without credentials, and without a slash at its end. timeout: seconds for a connection to be made, for the
    header to come, and for each wait for content; libcurl may take a second longer. reuse: whether a session keeps its
    connections.
    """

    url: str
    timeout: float
    reuse: bool = True
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def url_of(self, path: bytes) -> str:
        """The URL of a GETFILE path. The path is plain text: what has a meaning in URLs is percent-encoded."""
        return self.url + quote(path)


def parse_url(text: str, timeout: float, reuse: bool = True) -> Origin:
    """The origin that a URL names; without a scheme it is http. Raises ValueError, whose text has no credentials."""
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
        self._raised: BaseException | None = None  # in a callback
        self._status, self._length = 0, -1  # of the latest response; -1: no length was announced
        self._dropped = 0  # bytes of content that was not asked for
        self._chunked = self._complete = False  # of the response's header
        self._coding = ""  # of its body
        self._since = 0.0  # when something came, or was asked for; time.monotonic()
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
            (pycurl.HTTPHEADER, ["Accept-Encoding: identity"]),  # without it any coding is acceptable, RFC 9110 12.5.3
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
        """The handle. Its kept connection is dropped if something has come unasked over it: libcurl would take that for
        the next response."""
        if (kept := self._curl.getinfo(pycurl.ACTIVESOCKET)) >= 0 and readable(kept, 0):
            self._curl.close()
            self._curl = self._open()
        return self._curl

    def head(self, path: bytes) -> int | None:
        """The length that HEAD announces, None if it announces none. Raises NotThere, OriginError."""
        self._perform(path, "HEAD", None)
        return self._length if self._length >= 0 else None

    def get(self, path: bytes, begin: Begin) -> None:
        """GET: call `begin` when the header has come; what it returns takes the body.

        Raises NotThere or OriginError, and what `begin` and the taker raise.
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
        if not self._complete:  # libcurl also takes the end of the connection for the end of a header
            raise OriginError(f"{method}: the header has no end")

    def _take_header(self, line: bytes) -> int | None:
        return self._guard(self._note, line)

    def _take_body(self, piece: bytes) -> int | None:
        if self._taker is None:
            self._dropped += len(piece)
            taken = None if self._dropped <= _ERROR_PAGE else _ABORT
        else:
            taken = self._guard(self._taker.write, piece)
        self._since = time.monotonic()  # the time that the taker needs does not count
        return taken

    def _watch(self, *_: int) -> int:
        """Called when libcurl has to wait, and each second while it does: tells the taker, ends what takes too long.

        libcurl's LOW_SPEED_TIME would not do: it looks at the mean of five seconds.
        """
        if time.monotonic() - self._since > self._origin.timeout:
            return _ABORT
        return (self._taker and self._guard(self._taker.pause)) or 0

    def _guard(self, step: Callable[..., None], *arguments: bytes) -> int | None:
        """Call `step` from within a callback of libcurl; _perform raises what it raises."""
        try:
            step(*arguments)
        except BaseException as error:  # noqa: BLE001  no exception passes through libcurl
            self._raised = error
            return _ABORT
        return None

    def _note(self, line: bytes) -> None:
        """Take a line of a header."""
        if status := _STATUS.match(line):  # there may be several responses: 1xx, redirects
            self._status, self._length, self._coding = int(status[1]), -1, ""
            self._chunked = self._complete = False
            return
        if line.strip():
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"content-length":
                if (length := _LENGTH.fullmatch(value)) is None:
                    raise OriginError(f"a Content-Length of {value.strip()!r}")
                self._length = int(length[1])
            if name == b"content-encoding" and (coding := value.strip().lower()) not in {b"", b"identity"}:
                self._coding = coding.decode(errors="replace")
            self._chunked |= name == b"transfer-encoding"
            return
        self._complete = True
        if self._chunked:  # Content-Length does not count then, RFC 9112
            self._length = -1
        if self._status == 200 and self._coding:
            raise OriginError(f"a body in the coding {self._coding}, which was not asked for")
        if self._status == 200 and self._begin is not None:
            begin, self._begin = self._begin, None  # further lines are trailers
            self._taker = begin(self._length if self._length >= 0 else None)
