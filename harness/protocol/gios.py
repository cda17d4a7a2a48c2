r"""GETFILE as the prebuilt programs of the course speak it, dialect `gios`: pure functions on bytes, both halves.

    request  = "GETFILE GET " path line-end         the words in any case; path as in the dialect `getfile`
    line-end = any of CR and LF, of which the first LF counts
    reply    = "GETFILE OK " length " " content     one space, then content at once
             | "GETFILE " ("FILE_NOT_FOUND" | "ERROR") " 0" LF

Laws:
- A parser takes all bytes that have arrived so far, and returns or raises as the one in `getfile` does.
- A request is at most 127 bytes. It ends with its first LF: bytes after that are ignored.
- There is no INVALID: bytes that are no request are answered with ERROR.
- One request a connection; the client closes when it has `length` bytes, and the server waits for that.
"""

import re
from typing import Final

from harness.protocol.getfile import ERROR, FILE_NOT_FOUND, INVALID, Malformed, Reply, match_reply

HEADER_LIMIT: Final = 127
END: Final = b"\n"
CLIENT_CLOSES_FIRST: Final = True
OK_HEADER: Final = b"GETFILE OK %d "  # % length in bytes

PLAIN: Final = re.compile(rb"GETFILE GET (/[!-~]{0,110})\r\n\r\n")  # as in the dialect `getfile`
OK_REPLY: Final = re.compile(rb"GETFILE OK ([1-9][0-9]{0,18}) ")

_WORDS: Final = b"getfile get /"
_PATH: Final = re.compile(rb"/[^\x00-\x20\x7f]*")
_REPLY: Final = re.compile(rb"GETFILE (?:OK (0|[1-9][0-9]{0,19}) |(FILE_NOT_FOUND|ERROR) 0\n)")
_LENGTH_SO_FAR: Final = re.compile(rb"GETFILE OK (?:0|[1-9][0-9]{0,19})")
_REFUSALS: Final = (b"GETFILE FILE_NOT_FOUND 0\n", b"GETFILE ERROR 0\n")
_STATUS_LINES: Final = (b"GETFILE OK ", *_REFUSALS)
_REFUSAL_HEADERS: Final = {FILE_NOT_FOUND: _REFUSALS[0], ERROR: _REFUSALS[1], INVALID: _REFUSALS[1]}


def encode_request(path: str) -> bytes:
    """The request for `path`. Raises Malformed if parse_request would."""
    request = b"GETFILE GET " + path.encode("utf-8", "surrogateescape") + b"\r\n\r\n"
    if len(request) > HEADER_LIMIT:
        raise Malformed(f"a request of {len(request)} bytes; the dialect gios ends at {HEADER_LIMIT}")
    if parse_request(request) != request[12:-4]:
        raise Malformed("a path cannot hold a line end")
    return request


def parse_request(data: bytes) -> bytes | None:
    """The path of a request, as UTF-8 bytes that start with "/"; None while its line end has not arrived."""
    end = data.find(END)
    request = data if end < 0 else data[: end + 1]
    if len(request) + (end < 0) > HEADER_LIMIT:
        raise Malformed(f"no line end within {HEADER_LIMIT} bytes")
    words = request[: len(_WORDS)].lower()
    if not (words == _WORDS or (end < 0 and _WORDS.startswith(words))):
        raise Malformed("not a GETFILE request")
    path = request[len(_WORDS) - 1 :].rstrip(b"\r\n")
    if path and not _PATH.fullmatch(path):
        raise Malformed("a path cannot hold blanks or control bytes")
    if end < 0:
        return None
    try:
        path.decode()
    except UnicodeDecodeError:
        raise Malformed("the path is not UTF-8") from None
    return path


def refusal_header(status: str) -> bytes:
    """The whole reply for FILE_NOT_FOUND, ERROR or INVALID."""
    return _REFUSAL_HEADERS[status]


def parse_reply(data: bytes) -> Reply | None:
    """The header of a reply; None while it is incomplete. Raises Malformed."""
    return match_reply(data, _REPLY, _STATUS_LINES, _LENGTH_SO_FAR)
