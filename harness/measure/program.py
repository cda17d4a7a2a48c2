"""One program of a trial: a command of the harness in a fresh process, and the lines that it writes."""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from harness.measure.placement import Placement
from harness.measure.probes.proc import state
from harness.measure.starting import Start, Wanted

_END = 4.0  # seconds for a program to end after SIGTERM
_DYING = 1.0  # seconds for a program to end that a failure is due to
_ENDING = 6.0  # the same where a worker of it has ended: the others get some seconds for their requests
_LOOK = 0.001  # seconds between looks whether a program that was killed has ended
_REFUSED = {2, 3}  # exit codes of a program that refuses what the cell asks for


class TrialError(Exception):
    """Why a trial has no result, in one line."""


class CellRefused(TrialError):
    """This machine, or a transport, cannot do what the cell asks for."""


class Program:
    """A command of the harness in a process of its own. `undo` ends it; so does the end of this process.

    Its standard output is one JSON object a line. Its standard error goes to `<directory>/<name>.log`.
    """

    def __init__(
        self,
        directory: str,
        undo: ExitStack,
        placement: Placement,
        start: Start,
        role: str,
        name: str,
        *arguments: str,
    ) -> None:
        self._name, self._role = name, role
        self._log = f"{directory}/{name}.log"
        stdin, self._in = os.pipe2(os.O_CLOEXEC)
        self._out, stdout = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = start(Wanted([name, *arguments], stdin, stdout, self._log, placement, role))
        except BaseException:
            os.close(self._in)
            os.close(self._out)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        undo.callback(self._end)
        self.may_fail = False  # whether it may end with another exit code than 0
        self.pid = self._process.pid
        self._unread = b""

    def pids(self) -> list[int]:
        """Its processes: the parent first, then its workers."""
        return [self.pid, *children(self.pid)]

    def say(self, line: str) -> None:
        """Write a line to its standard input. Raises TrialError where it has ended."""
        try:
            os.write(self._in, f"{line}\n".encode())
        except BrokenPipeError:
            self.wait()
            raise TrialError(self.failure()) from None

    def expect(self, *keys: str, seconds: float) -> Mapping[str, Any]:
        """The object on the next line of its output, which has one of these keys. Raises TrialError after `seconds`."""
        deadline = time.monotonic() + seconds
        wanted = " or ".join(keys)
        late = f"did not say {wanted!r} within {seconds:g} s"
        while b"\n" not in self._unread:
            if not select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TrialError(self.failure() or f"{self._role}: {self._name} {late}; {self._last_words()}")
            piece = os.read(self._out, 1 << 16)
            if not piece:
                self.wait()
                kind = CellRefused if self._process.wait(0) in _REFUSED else TrialError
                raise kind(self.failure())
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict) or said.keys().isdisjoint(keys):
            raise TrialError(f"{self._role}: {self._name} said {line.decode(errors='replace')!r} instead of {wanted!r}")
        return said

    def _last_words(self) -> str:
        with open(self._log, errors="replace") as log:
            lines = log.read().splitlines()
        return f"its last words: {' / '.join(lines[-2:])}" if lines else "it said nothing"

    def failure(self) -> str:
        """How it has ended by itself, or which process of it is stopped, in one line; empty where all run."""
        if (code := self._process.wait(0)) is None:
            stopped = [pid for pid in self.pids() if state(pid) == "T"]
            how = f"process {stopped[0]} is stopped, as by SIGSTOP" if stopped else ""
        else:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{self._role}: {self._name} {how}; {self._last_words()}" if how else ""

    def ask_to_end(self) -> None:
        """End its standard input, which ends it, without waiting: several that are asked to end do so side by side."""
        if self._in >= 0:
            os.close(self._in)
            self._in = -1

    def wait(self) -> None:
        """Wait until it has ended by itself. Raises TrialError where it does not."""
        if self._process.wait(_END) is None:
            raise TrialError(self.failure() or f"{self._role}: {self._name} did not end; {self._last_words()}")

    def check_end(self) -> None:
        """Wait until it has ended, as it was asked to. Raises TrialError where it does not, or ends badly."""
        self.wait()
        if self._process.wait(0):
            raise TrialError(self.failure())

    def kill(self, worker: bool) -> None:
        """Kill its first process, or one of its workers, and wait until all of it has ended. Raises TrialError where it
        has not after some seconds, and where it had ended or was stopped before."""
        if how := self.failure():
            raise TrialError(how)
        self.may_fail = True
        left = self.pids()
        if worker and len(left) < 2:
            raise TrialError(f"{self._role}: {self._name} has no worker to be killed")
        os.kill(left[1] if worker else left[0], signal.SIGKILL)
        until = time.monotonic() + _ENDING
        while (self._process.wait(0) is None or left) and time.monotonic() < until:
            time.sleep(_LOOK)
            left = [pid for pid in left if state(pid) not in {"", "Z"}]
        if left:
            raise TrialError(f"{self._role}: {self._name} goes on although a process of it was killed")

    def _end(self) -> None:
        """End it, with its workers. Raises TrialError where it does not end by itself, or badly."""
        try:
            if self._in >= 0:
                self._process.signal(signal.SIGTERM)
            if self._process.wait(_END) is None:
                os.killpg(self.pid, signal.SIGKILL)
                self._process.wait(_END)
        finally:
            self.ask_to_end()
            os.close(self._out)
        if self._process.wait(0) and not self.may_fail and sys.exc_info()[0] is None:
            raise TrialError(self.failure())


def with_cause(text: str, cause: str) -> str:
    """What was seen, after its cause where there is one."""
    return f"{cause}; so {text}" if cause and cause not in text else text


@contextmanager
def caused(cause: Callable[[], str], other: type[Exception] = TrialError) -> Iterator[None]:
    """A TrialError that the body raises, or an exception of the other kind, becomes a TrialError that begins with its
    cause. CellRefused passes as it is."""
    try:
        yield
    except CellRefused:
        raise
    except (TrialError, other) as error:
        raise TrialError(with_cause(str(error), cause())) from None


def failed(programs: Collection[Program], pids: Collection[int]) -> tuple[Program | None, str]:
    """The first of these programs that has ended or is stopped, and how; (None, "") where all run.

    Waits a while for one that ends. pids: of all their processes, as they were.
    """
    begun = time.monotonic()
    while True:
        for program in programs:
            if how := program.failure():
                return program, how
        ending = any(state(pid) in {"", "Z"} for pid in pids)
        if time.monotonic() - begun > (_ENDING if ending else _DYING) * bool(programs):
            return None, ""
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The pids of a process's children, proc_pid_task(5)."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))
