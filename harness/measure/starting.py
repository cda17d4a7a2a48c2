"""How a program of a trial is started: as a command of its own, or as a fork of a process that has its modules."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, Protocol

from harness.measure.placement import Placement
from harness.measure.probes.proc import state

_IMPORTS = 30.0  # seconds for the starter to answer its first request: it imports before
_ANSWER = 10.0  # seconds for it to answer each later one
_MOST = 1 << 12  # bytes of an answer


class Process(Protocol):
    """A started program."""

    @property
    def pid(self) -> int:
        """Of its first process."""

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or minus the signal that ended it; None where it has not ended within `seconds`."""

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended."""


class Wanted(NamedTuple):
    """What to start. arguments: of the command `harness`. stdin, stdout: descriptors. log: file for standard error."""

    arguments: Sequence[str]
    stdin: int
    stdout: int
    log: str
    placement: Placement
    role: str


Start = Callable[[Wanted], Process]


def python(interpreter: str = "") -> list[str]:
    """The beginning of a command that runs a module of the harness which `interpreter` has; "": of this one.

    -P: never of one that happens to lie in the working directory, unless that is what this process runs.
    """
    if interpreter:
        return [interpreter, "-P"]
    return [sys.executable] if os.getcwd() in sys.path else [sys.executable, "-P"]


class Command:
    """A Process that is a command of its own. interpreter: the Python that runs it; "": this one. environment:
    variables that it has beside those of this process."""

    def __init__(self, wanted: Wanted, interpreter: str = "", environment: Mapping[str, str] | None = None) -> None:
        with open(wanted.log, "ab") as log, wanted.placement.inherited(wanted.role):
            self._process = subprocess.Popen(
                [*python(interpreter), "-m", "harness", *wanted.arguments],
                stdin=wanted.stdin,
                stdout=wanted.stdout,
                stderr=log,
                env={**os.environ, **(environment or {})},
                process_group=0,  # Ctrl-C is for the runner, which ends its programs in order
            )
        self.pid = self._process.pid

    def wait(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode

    def signal(self, number: int) -> None:
        self._process.send_signal(number)


class Starter:
    """A process that forks programs, see harness/starter.py: from construction until `undo` ends it.

    transports: (command, data) of what it is to start, as text. trouble: why it does not answer; empty while it does.
    """

    def __init__(self, undo: ExitStack, transports: Iterable[tuple[str, str]]) -> None:
        self.trouble = ""
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*python(), "-m", "harness.starter", str(theirs.fileno()), json.dumps(sorted(transports))],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._asked.settimeout(_IMPORTS)
        undo.callback(self._end)

    def start(self, wanted: Wanted) -> Process:
        """Fork a program. Raises OSError where the starter has ended."""
        request = {
            "start": wanted.arguments,
            "log": wanted.log,
            "cpus": sorted(wanted.placement.cpus(wanted.role)),
            "policy": wanted.placement.policy(wanted.role),
        }
        return Forked(self, self.ask(request, [wanted.stdin, wanted.stdout])["pid"])

    def ask(self, request: Any, descriptors: Sequence[int] = ()) -> Any:
        """The answer to a request. Raises OSError where there is none, and from then on."""
        if self.trouble:
            raise OSError(self.trouble)
        with suppress(ConnectionError, TimeoutError):
            socket.send_fds(self._asked, [json.dumps(request).encode()], descriptors)
            if answer := self._asked.recv(_MOST):
                self._asked.settimeout(_ANSWER)
                return json.loads(answer)
        self.trouble = f"the starter of the programs {_trouble(self._process)}"
        self._process.kill()  # a late answer would be taken for that to the next request
        raise OSError(self.trouble)

    def _end(self) -> None:
        self._asked.close()
        try:
            self._process.wait(_ANSWER)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _trouble(process: subprocess.Popen[bytes]) -> str:
    """Why a process does not answer."""
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(1)
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return "is stopped, as by SIGSTOP" if state(process.pid) == "T" else "does not answer"


class Forked:
    """A Process that is a fork of the starter, which alone can learn its exit code, wait(2)."""

    def __init__(self, starter: Starter, pid: int) -> None:
        self._starter, self.pid = starter, pid
        self._code: int | None = None
        self._pidfd = os.pidfd_open(pid)  # the starter reaps it only when it is asked to

    def wait(self, seconds: float) -> int | None:
        if self._code is None and select.select([self._pidfd], [], [], seconds)[0]:
            os.close(self._pidfd)
            self._code = 1  # also where the starter cannot say
            self._code = os.waitstatus_to_exitcode(self._starter.ask({"reap": self.pid})["status"])
        return self._code

    def signal(self, number: int) -> None:
        if self._code is None:
            signal.pidfd_send_signal(self._pidfd, number)
