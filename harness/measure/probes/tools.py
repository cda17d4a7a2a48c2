"""Tools that observe processes from outside, such as strace(1): started at the go-ahead, ended in bounded time."""

import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from harness.api import Probe, Reading

ATTACH = 20.0  # seconds for a tool to attach: to do so it stops each thread of each process
_DETACH = 20.0  # seconds for a tool to detach and to write its results
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "DEBUGINFOD_URLS": ""}  # numbers in one format; no symbols from the network


def missing(tool: str, package: str) -> str:
    """Says that a tool is not installed, and what to do; empty where it is installed."""
    return "" if shutil.which(tool) else f"{tool} is not installed; apt-get install {package}"


class Tool(ABC):
    """A process that observes others until it is interrupted, or they have ended."""

    def __init__(self, command: Sequence[str], log: str, keep: Sequence[int] = ()) -> None:
        """Start it. log: the file for its output. keep: descriptors that it inherits. Raises OSError."""
        self._name, self._log = command[0], log
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=keep,
                env=ENVIRONMENT,
                process_group=0,  # Ctrl-C goes to the runner, which ends its tools in order
            )

    @abstractmethod
    def ready(self) -> None:
        """Return when it observes all its processes. Raises OSError where it does not within ATTACH seconds."""

    def failure(self, what: str) -> OSError:
        """An error that says what went wrong, with the last lines of the tool's output."""
        with open(self._log, errors="replace") as log:
            return OSError(
                f"{self._name} {what}; its last output: {' / '.join(log.read().splitlines()[-2:]) or 'none'}"
            )

    def check(self) -> None:
        """Raise OSError where it has ended."""
        if self._process.poll() is not None:
            raise self.failure("ended too early")

    def interrupt(self) -> None:
        """Ask it to end; it may have ended by itself."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> None:
        """Return when it has ended. Raises OSError where it does not end in time."""
        try:
            self._process.wait(_DETACH)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {_DETACH:g} s") from None

    def close(self) -> None:
        """Kill it where it has not ended: the kernel then releases the processes that it observed."""
        self._process.kill()
        self._process.wait()


class Attached(Probe):
    """Observes each role with a tool of its own, which slows the role down."""

    costly = True

    def begin(self, processes: Mapping[str, Sequence[int]], directory: str) -> None:
        self._directory = directory
        self._tools: dict[str, Tool] = {}
        try:
            for role, pids in processes.items():
                self._tools[role] = self._start(role, pids)
            for tool in self._tools.values():
                tool.ready()
        except BaseException:
            self._close()
            raise

    def end(self) -> list[Reading]:
        try:
            for tool in self._tools.values():
                tool.interrupt()
            for tool in self._tools.values():
                tool.wait()
        finally:
            self._close()
        return [Reading(role, *one) for role in self._tools for one in self._seen(role)]

    def _close(self) -> None:
        for tool in self._tools.values():
            tool.close()

    @abstractmethod
    def _start(self, role: str, pids: Sequence[int]) -> Tool:
        """Start the tool of a role. Its files go to self._directory."""

    @abstractmethod
    def _seen(self, role: str) -> list[tuple[str, float, str]]:
        """(metric, value, unit) for each figure that a role's tool has reported, once it has ended."""
