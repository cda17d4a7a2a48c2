"""The dialects of GETFILE by name, and what each offers as a module."""

from typing import Final, Protocol

from harness.protocol import getfile, gios


class Dialect(Protocol):
    """HEADER_LIMIT: bytes that a request may have. OK_HEADER: what precedes content, % its length in bytes.

    CLIENT_CLOSES_FIRST: who ends the connection after a whole reply; the server, where it is not the client.
    """

    @property
    def HEADER_LIMIT(self) -> int: ...  # noqa: N802
    @property
    def OK_HEADER(self) -> bytes: ...  # noqa: N802
    @property
    def CLIENT_CLOSES_FIRST(self) -> bool: ...  # noqa: N802

    def encode_request(self, path: str) -> bytes: ...
    def parse_request(self, data: bytes) -> bytes | None: ...
    def refusal_header(self, status: str) -> bytes: ...
    def parse_reply(self, data: bytes) -> getfile.Reply | None: ...


DIALECTS: Final[dict[str, Dialect]] = {"getfile": getfile, "gios": gios}
