r"""GETFILE between client and proxy, dialect `getfile`: pure functions on bytes, server and client half.

    request  = "GETFILE GET " path CRLF CRLF        path = "/" then no space, no control byte, UTF-8
    reply    = "GETFILE OK " length CRLF CRLF content
             | "GETFILE " ("FILE_NOT_FOUND" | "ERROR" | "INVALID") CRLF CRLF

Laws:
- A parser takes all bytes that have arrived so far. It returns None while more are needed, raises `Malformed` as soon
  as no continuation can be valid, and never looks past the blank line: what follows is content.
- A header is at most 4096 bytes, the blank line included; a length is an unsigned 64-bit decimal.
- One request a connection; the server closes.

Another dialect is a module beside this one with the same functions and constants: dialects.Dialect.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

HEADER_LIMIT: Final = 4096
CLIENT_CLOSES_FIRST: Final = False
MAX_LENGTH: Final = 2**64 - 1
END: Final = b"\r\n\r\n"

OK: Final = "OK"
FILE_NOT_FOUND: Final = "FILE_NOT_FOUND"
ERROR: Final = "ERROR"
INVALID: Final = "INVALID"
OK_HEADER: Final = b"GETFILE OK %d\r\n\r\n"  # % length in bytes
REFUSALS: Final = (FILE_NOT_FOUND, ERROR, INVALID)

# A whole request whose path is ASCII, and nothing after it: what parse_request() says of nearly all, in one step.
PLAIN: Final = re.compile(rb"GETFILE GET (/[!-~]{0,4079})\r\n\r\n")

# The header of a reply with content, of which parse_reply() would say the same; its group is the length.
OK_REPLY: Final = re.compile(rb"GETFILE OK ([1-9][0-9]{0,18})\r\n\r\n")

_REQUEST: Final = b"GETFILE GET /"
_FORBIDDEN: Final = re.compile(rb"[\x00-\x20\x7f]")
_REPLY: Final = re.compile(rb"GETFILE (?:OK (0|[1-9][0-9]{0,19})|(FILE_NOT_FOUND|ERROR|INVALID))\r\n\r\n")
_LENGTH_SO_FAR: Final = re.compile(rb"GETFILE OK (?:0|[1-9][0-9]{0,19})(?:\r(?:\n\r?)?)?")
_STATUS_LINES: Final = (b"GETFILE OK ", *(b"GETFILE " + status.encode() + END for status in REFUSALS))
_REFUSAL_HEADERS: Final = {status: f"GETFILE {status}\r\n\r\n".encode() for status in REFUSALS}


class Malformed(ValueError):
    """These bytes are not the beginning of any valid header."""


class Reply(NamedTuple):
    """A parsed reply header: status, content length in bytes (0 for a refusal), size of the header in bytes."""

    status: str
    length: int
    header_bytes: int


def encode_request(path: str) -> bytes:
    """The request for `path`. Raises Malformed if parse_request would."""
    request = b"GETFILE GET " + path.encode("utf-8", "surrogateescape") + END
    if parse_request(request) is None:
        raise Malformed("a path cannot hold a blank line")
    return request


def parse_request(data: bytes) -> bytes | None:
    """The path of a request, as UTF-8 bytes that start with "/"; None while the blank line has not arrived.

    `data` is all that has arrived, in any pieces. Raises Malformed.
    """
    end = data.find(END)
    if end < 0:
        # `\r`, `\n` at the end may begin the blank line: only what stands before them is judged.
        path = data[12:].rstrip(b"\r\n")
        if len(data) > HEADER_LIMIT - 1:
            raise Malformed(f"no blank line within {HEADER_LIMIT} bytes")
        if not (data.startswith(_REQUEST) or _REQUEST.startswith(data)) or _FORBIDDEN.search(path):
            raise Malformed("not a GETFILE request")
        if not END.startswith(data[12 + len(path) :]):
            raise Malformed("a stray line end in the path")
        return None
    if end > HEADER_LIMIT - len(END):
        raise Malformed(f"the header is over {HEADER_LIMIT} bytes")
    path = data[12:end]
    if not data.startswith(_REQUEST) or _FORBIDDEN.search(path):
        raise Malformed("not a GETFILE request")
    try:
        path.decode()
    except UnicodeDecodeError:
        raise Malformed("the path is not UTF-8") from None
    return path


def refusal_header(status: str) -> bytes:
    """The whole reply for a status of REFUSALS."""
    return _REFUSAL_HEADERS[status]


def parse_reply(data: bytes) -> Reply | None:
    """The header of a reply; None while it is incomplete. Raises Malformed."""
    return match_reply(data, _REPLY, _STATUS_LINES, _LENGTH_SO_FAR)


def match_reply(
    data: bytes, whole: re.Pattern[bytes], lines: Iterable[bytes], length_so_far: re.Pattern[bytes]
) -> Reply | None:
    """parse_reply for any dialect.

    whole: matches a whole header; its groups are the length, and the status of a refusal. lines: the fixed beginnings
    of headers, of which any part may have come. length_so_far: matches a header that is cut behind the first digit of
    its length.
    """
    if match := whole.match(data):
        if match[1] is None:
            return Reply(match[2].decode(), 0, match.end())
        length = int(match[1])
        if length > MAX_LENGTH:
            raise Malformed("the length does not fit 64 bits")
        return Reply(OK, length, match.end())
    if any(line.startswith(data) for line in lines) or length_so_far.fullmatch(data):
        return None
    raise Malformed("not a GETFILE reply")
