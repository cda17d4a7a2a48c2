"""What proxy and cache send each other: the command record and the head of a reply. Pure functions on bytes.

A command is one record of COMMAND_BYTES: atomic on a pipe (<= PIPE_BUF, pipe(7)), fits any queue, needs no
framing. It names the request, the lane that waits for the reply, and the path. The lane has a number as well as a
name, so that a cache which has it open need not read the name. A reply is HEAD_BYTES of head, then the content.

The head is 64 bytes although it needs 24, so that content behind it lies at 64 modulo the page size. If a
copy's destination is 1 to 31 bytes ahead of its source modulo 4096, `rep movsb` on Zen 3 falls from 17 GB/s to
2 (measured, docs/decisions/0002).
"""

import struct
from typing import Final

COMMAND_BYTES: Final = 512
HEAD_BYTES: Final = 64

STATUS_OK: Final = 0
STATUS_NOT_FOUND: Final = 1
STATUS_ERROR: Final = 2

_FRONT: Final = struct.Struct("<QQHH")  # of a command, before its text
_TEXT: Final = _FRONT.size  # where that begins
TEXT_BYTES: Final = COMMAND_BYTES - _TEXT  # path and name of the lane together
_COMMAND: Final = struct.Struct(f"{_FRONT.format}{TEXT_BYTES}s")
_HEAD: Final = struct.Struct("<QQQ40x")

encode_head = _HEAD.pack  # (request id, status, content length) -> HEAD_BYTES bytes
encode_head_into = _HEAD.pack_into  # (memory, offset, request id, status, content length)
read_head = _HEAD.unpack_from  # decode_head() without its check; raises struct.error where `data` is too short


def encode_command(request_id: int, lane: int, path: bytes, name: bytes) -> bytes:
    """A record of COMMAND_BYTES. lane: below 2**64, never that of another lane. name: of the lane.

    Raises ValueError if path and name together are over TEXT_BYTES.
    """
    size, text = len(path), path + name
    if len(text) > TEXT_BYTES:
        raise ValueError(f"a path of {size} bytes does not fit a command (room for {TEXT_BYTES - len(name)})")
    return _COMMAND.pack(request_id, lane, size, len(name), text)


def decode_command(record: bytes) -> tuple[int, int, bytes]:
    """Request id (unique within its proxy process), lane, path (starts with "/", UTF-8).

    Raises ValueError if `record` is not a command.
    """
    if len(record) != COMMAND_BYTES:
        raise ValueError(f"a command of {len(record)} bytes instead of {COMMAND_BYTES}")
    request_id, lane, path, name = _FRONT.unpack_from(record)
    if path + name > TEXT_BYTES:
        raise ValueError(f"a command with {path + name} bytes of text; it has room for {TEXT_BYTES}")
    return request_id, lane, record[_TEXT : _TEXT + path]


def lane_name(record: bytes) -> bytes:
    """The name of the lane that a command is for."""
    _, _, path, name = _FRONT.unpack_from(record)
    return record[_TEXT + path : _TEXT + path + name]


def decode_head(data: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """(request id, status, content length in bytes) at the front of `data`, which is at least HEAD_BYTES long.

    Raises ValueError if it cannot be a head.
    """
    request_id, status, length = read_head(data)
    if status > STATUS_ERROR or (status and length):
        raise ValueError(f"not the head of a reply: status {status}, length {length}")
    return request_id, status, length
