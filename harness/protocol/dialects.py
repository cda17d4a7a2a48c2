"""The dialects of GETFILE by name, and what the module of a dialect offers."""

import re
from typing import Final, Protocol

from harness.protocol import getfile, gios


class Dialect(Protocol):
    """The module of a dialect.

    HEADER_LIMIT: the most bytes that a request may have. END: what a request ends with. PLAIN: matches most requests
    that have come as a whole, with nothing after them; its group is what parse_request would return. OK_HEADER: what
    precedes content, % its length in bytes. OK_REPLY: matches most such headers at the front of a reply; its group is
    the length. CLIENT_CLOSES_FIRST: whether the client closes the connection first after a whole reply; otherwise the
    server does.
    """

    @property
    def HEADER_LIMIT(self) -> int: ...  # noqa: N802
    @property
    def END(self) -> bytes: ...  # noqa: N802
    @property
    def PLAIN(self) -> re.Pattern[bytes]: ...  # noqa: N802
    @property
    def OK_HEADER(self) -> bytes: ...  # noqa: N802
    @property
    def OK_REPLY(self) -> re.Pattern[bytes]: ...  # noqa: N802
    @property
    def CLIENT_CLOSES_FIRST(self) -> bool: ...  # noqa: N802

    def encode_request(self, path: str) -> bytes: ...
    def parse_request(self, data: bytes) -> bytes | None: ...
    def refusal_header(self, status: str) -> bytes: ...
    def parse_reply(self, data: bytes) -> getfile.Reply | None: ...


DIALECTS: Final[dict[str, Dialect]] = {"getfile": getfile, "gios": gios}
