"""Faults as a factor: what is done to a program in the middle of a trial, and how long files then fail to come."""

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import closing, suppress

from harness.api.sockets import reset_on_close
from harness.measure.program import TrialError
from harness.measure.servers import START, Servers
from harness.protocol import getfile

_AGAIN = 0.001  # seconds between requests that fail


def outage(fault: str, servers: Servers, path: str, content: bytes, timeout: float) -> float:
    """Do what `fault` says, as harness.factors writes it, and ask for a file until it comes, whole and right.

    The file is asked for once the fault is over: where a program is killed, when all of it has ended and it has been
    started again; where one is stopped, when it goes on. Returns the seconds from the fault to the end of that reply.
    Raises TrialError: where the file does not come within two times `timeout`, which bounds each wait of the programs,
    and the time of a start; where it comes wrong; where a program does not end or start.
    """
    action, target, *more = fault.split()
    begun = time.monotonic()
    if action == "reset":
        _reset_a_client(servers.port, path)
    elif action == "stop":
        _stop(servers.programs[target].pids(), float(more[1].removesuffix("s")))
    else:
        role, _, worker = target.partition("-")
        servers.programs[role].kill(worker=bool(worker))
        servers.start_again(role)
    _await_file(servers.port, path, content, 2 * timeout + START)
    took = time.monotonic() - begun
    if action == "kill":
        servers.programs[role].expect("ready", seconds=START)  # its line, which has been there for a while
    return took


def _stop(pids: Sequence[int], seconds: float) -> None:
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _reset_a_client(port: int, path: str) -> None:
    """Ask for a file, and reset the connection when the reply has begun."""
    with socket.create_connection(("127.0.0.1", port), START) as connection:
        connection.sendall(getfile.encode_request(path))
        connection.recv(1)
        reset_on_close(connection)


def _await_file(port: int, path: str, content: bytes, seconds: float) -> None:
    """Ask for a file until it comes. Raises TrialError where it comes wrong, or not within `seconds`."""
    whole = getfile.OK_HEADER % len(content) + content
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        reply = _ask(port, path, left)
        if reply == whole:
            return
        if not whole.startswith(reply) and reply not in map(getfile.refusal_header, getfile.REFUSALS):
            raise TrialError(f"after the fault a reply was wrong: {reply[:60]!r}")
        time.sleep(_AGAIN)
    raise TrialError(f"no file came for {seconds:g} s after the fault")


def _ask(port: int, path: str, seconds: float) -> bytes:
    """What comes for a request until its connection ends, however it does; nothing where there is no connection."""
    reply = bytearray()
    try:
        with closing(socket.create_connection(("127.0.0.1", port), seconds)) as connection:
            connection.sendall(getfile.encode_request(path))
            while piece := connection.recv(1 << 18):
                reply += piece
    except OSError:
        pass
    return bytes(reply)
