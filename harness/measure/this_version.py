"""What this Python has: which harness, which options its programs have, and what its transports are.

Another harness runs this file by its path, with one of the interpreters that it compares. So what is imported here is
that interpreter's harness, which may be older. The argument is [[COMMAND, DATA], ...], transports as cells describe
them, in JSON; the answer is a line of JSON.
"""

import contextlib
import io
import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import harness
from harness import cli, registry
from harness.api import CommandTransport, DataTransport

_PROGRAMS = ("simplecached", "webproxy", "origin", "lane")


def channel_columns(command: CommandTransport, data: DataTransport) -> dict[str, Any]:
    """The columns of trials.csv that say what the transports of a cell are."""
    cache_end, proxy_end = registry.shape(data)
    return {
        "command_effective": registry.describe(command),
        "data_effective": registry.describe(data),
        "cache_end": cache_end,
        "proxy_end": proxy_end,
        "chunk_effective_bytes": getattr(data, "chunk", 0),
        "depth_effective": getattr(data, "depth", 0),
        "wait_effective": getattr(data, "wait", ""),
    }


def _answer(pairs: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {
        "version": harness.__version__,
        "root": os.path.dirname(os.path.dirname(os.path.abspath(harness.__file__))),
        "python": platform.python_version(),
        "pycurl": find_spec("pycurl") is not None,
        "options": {program: _options(program) for program in _PROGRAMS},
        "pairs": [_pair(*pair) for pair in pairs],
    }


def _options(program: str) -> list[str]:
    """The options of a program; none where this version has no such program."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main([program, "--help"])
    return sorted(set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", said.getvalue())))


def _pair(command_text: str, data_text: str) -> dict[str, Any]:
    """The columns of two transports, and which distributions brought them, or what is wrong with them."""
    try:
        command, data = registry.command_transport(command_text), registry.data_transport(data_text)
        brought = sorted({registry.installed().origins[type(one)] for one in (command, data)})
        return {"columns": channel_columns(command, data), "brought": brought, "wrong": ""}
    except Exception as error:  # noqa: BLE001  a plugin may raise anything
        return {"columns": {}, "brought": [], "wrong": " ".join(str(error).split())}


if __name__ == "__main__":
    print(json.dumps(_answer(json.loads(sys.argv[1]))))
