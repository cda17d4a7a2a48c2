"""What proxy and cache send each other: the command record and the head of a reply. Pure functions on bytes.

A command is one record of COMMAND_BYTES: atomic on a pipe (<= PIPE_BUF, pipe(7)), fits any queue, needs no
framing. It names the request, the lane that waits for the reply, and the path. A reply is HEAD_BYTES of head,
then the content.

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

_COMMAND: Final = struct.Struct("<QHH500s")
_FRONT: Final = struct.Struct("<QHH")  # of a command, before its text
_HEAD: Final = struct.Struct("<QQQ40x")
TEXT_BYTES: Final = 500  # lane and path together
_TEXT: Final = COMMAND_BYTES - TEXT_BYTES  # where they begin

encode_head = _HEAD.pack  # (request id, status, content length) -> HEAD_BYTES bytes
encode_head_into = _HEAD.pack_into  # (memory, offset, request id, status, content length)


def encode_command(request_id: int, lane: bytes, path: bytes) -> bytes:
    """A record of COMMAND_BYTES. Raises ValueError if lane and path together are over TEXT_BYTES."""
    if len(lane) + len(path) > TEXT_BYTES:
        raise ValueError(f"a path of {len(path)} bytes does not fit a command (room for {TEXT_BYTES - len(lane)})")
    return _COMMAND.pack(request_id, len(lane), len(path), lane + path)


def decode_command(record: bytes) -> tuple[int, bytes, bytes]:
    """Request id (unique within its proxy process), lane, path (starts with "/", UTF-8).

    Raises ValueError if `record` is not a command.
    """
    if len(record) != COMMAND_BYTES:
        raise ValueError(f"a command of {len(record)} bytes instead of {COMMAND_BYTES}")
    request_id, lane, path = _FRONT.unpack_from(record)
    lane_end = _TEXT + lane
    end = lane_end + path
    if end > COMMAND_BYTES:
        raise ValueError(f"a command with {lane + path} bytes of text; it has room for {TEXT_BYTES}")
    return request_id, record[_TEXT:lane_end], record[lane_end:end]


def decode_head(data: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """(request id, status, content length in bytes) at the front of `data`, which is at least HEAD_BYTES long.

    Raises ValueError if it cannot be a head.
    """
    request_id, status, length = _HEAD.unpack_from(data)
    if status > STATUS_ERROR or (status and length):
        raise ValueError(f"not the head of a reply: status {status}, length {length}")
    return request_id, status, length
