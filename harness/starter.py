"""Starts the programs of a live block: each is a fork of this process, which has imported what they all need.

A start of Python and of our modules costs 0.1 s of CPU time, a fork a hundredth of that. The process is fresh for each
block, so that what differs from one start of Python to the next (where memory lies, how strings hash) is sampled by
blocks, and is alike in the programs that are compared within one.

Its arguments are the descriptor of a socket, and the transports of the block, [[COMMAND, DATA], ...] in JSON: it
imports their plugins and no other. The socket is of type SOCK_SEQPACKET. The other end asks by JSON objects:

    {"start": [ARGUMENT, ...], "log": FILE, "cpus": [...], "policy": N}
    {"reap": PID}

With the first come two descriptors, for standard input and output; the second is for a program that has ended. The
answers are {"pid": PID} and {"status": N}, as waitpid(2) has it. The end of the socket ends this process.
"""

import gc
import importlib
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

from harness import cli, registry

_MODULES = ("pipeline.simplecached", "pipeline.webproxy", "load.gfclient", "load.lane")
_MOST = 1 << 18  # bytes of a request: more than a socket sends at once by default, socket(7)


def main(control: int, transports: Iterable[Sequence[str]]) -> None:
    """Answer until the socket with this descriptor ends. transports: (command, data) of each cell that has a cache."""
    for module in _MODULES:
        importlib.import_module(f"harness.{module}")
    for command, data in transports:
        registry.command_transport(command)
        registry.data_transport(data)
    gc.collect()
    gc.freeze()  # else a collection in each program would copy the pages that they share
    serve(control, partial(_prepare, control))


def serve(control: int, prepare: Callable[[dict[str, Any], list[int]], None]) -> None:
    """Answer until the socket with this descriptor ends.

    prepare: called in the fork that is to be a program, with the request to start it and the descriptors that came.
    """
    with socket.socket(fileno=control) as asked:
        while True:
            text, descriptors, _, _ = socket.recv_fds(asked, _MOST, 2)
            if not text:
                return
            request = json.loads(text)
            if "reap" in request:
                answer = {"status": os.waitpid(request["reap"], 0)[1]}
            else:
                pid = os.fork()
                if not pid:
                    _become(request, descriptors, prepare)
                answer = {"pid": pid}
                for one in descriptors:
                    os.close(one)
            asked.send(json.dumps(answer).encode())


def _become(
    request: dict[str, Any], descriptors: list[int], prepare: Callable[[dict[str, Any], list[int]], None]
) -> NoReturn:
    """Be the program that is asked for."""
    code: Any = 1
    try:
        prepare(request, descriptors)
        code = cli.main(request["start"])
    except SystemExit as error:  # of an argument that is wrong
        code = error.code
    except BaseException:  # noqa: BLE001  a defect of ours
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def _prepare(control: int, request: dict[str, Any], descriptors: list[int]) -> None:
    """What a program of a block has of its own. It must not keep the starter's end of its socket open."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for target, one in enumerate((*descriptors, log)):
        os.dup2(one, target)
    os.closerange(3, max(log, control, *descriptors) + 1)
    os.setpgid(0, 0)  # Ctrl-C is for the program that started all this
    os.sched_setscheduler(0, request["policy"], os.sched_param(os.sched_get_priority_min(request["policy"])))
    os.sched_setaffinity(0, request["cpus"])


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
