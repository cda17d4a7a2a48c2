"""Tools that look at processes from outside, such as strace(1): started at the go-ahead, ended in bounded time."""

import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from harness.api import Probe, Reading

ATTACH = 20.0  # seconds for a tool to be attached: it stops each thread of each process to do so
_DETACH = 20.0  # seconds for a tool to let go, and to write what it has seen
ENVIRONMENT = {**os.environ, "LC_ALL": "C", "DEBUGINFOD_URLS": ""}  # figures as ever; no symbols from the network


def missing(tool: str, package: str) -> str:
    """That a tool is not installed, and what to do; empty where it is."""
    return "" if shutil.which(tool) else f"{tool} is not installed; apt-get install {package}"


class Tool(ABC):
    """A process that looks at others until it is interrupted, or they have ended."""

    def __init__(self, command: Sequence[str], log: str, keep: Sequence[int] = ()) -> None:
        """Start it. log: the file that gets what it says. keep: descriptors that it gets, too. Raises OSError."""
        self._name, self._log = command[0], log
        with open(log, "wb") as says:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=says,
                stderr=says,
                pass_fds=keep,
                env=ENVIRONMENT,
                process_group=0,  # Ctrl-C is for the runner, which ends its tools in order
            )

    @abstractmethod
    def ready(self) -> None:
        """Return when it looks at all it is to look at. Raises OSError where it does not within ATTACH seconds."""

    def failure(self, what: str) -> OSError:
        """An error that says what went wrong, and the tool's last words."""
        with open(self._log, errors="replace") as log:
            return OSError(f"{self._name} {what}; its last words: {' / '.join(log.read().splitlines()[-2:]) or 'none'}")

    def check(self) -> None:
        """Raises OSError where it has ended."""
        if self._process.poll() is not None:
            raise self.failure("ended too early")

    def interrupt(self) -> None:
        """Ask it to end; it may have ended by itself."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> None:
        """Return when it has ended. Raises OSError where it does not."""
        try:
            self._process.wait(_DETACH)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {_DETACH:g} s") from None

    def close(self) -> None:
        """Kill it where it has not ended: the kernel lets go of what it looked at."""
        self._process.kill()
        self._process.wait()


class Attached(Probe):
    """Looks at each role with a tool of its own. It slows the role down, or stops it now and then."""

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
        return [Reading(role, *told) for role in self._tools for told in self._seen(role)]

    def _close(self) -> None:
        for tool in self._tools.values():
            tool.close()

    @abstractmethod
    def _start(self, role: str, pids: Sequence[int]) -> Tool:
        """Start the tool of a role; files go to self._directory."""

    @abstractmethod
    def _seen(self, role: str) -> list[tuple[str, float, str]]:
        """Metric, value and unit of what the tool of a role has seen, once it has ended."""
