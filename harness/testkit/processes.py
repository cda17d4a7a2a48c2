"""The other processes of a check, which send, receive, and are killed; and its threads."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from harness.testkit.promise import expect

LIMIT = 20  # seconds that a process of a check may live


class Child:
    """A second process that runs `work` and ends; with `waits`, not before go(). It closes the sockets of `closes`."""

    def __init__(self, work: Callable[[], None], waits: bool = False, closes: Iterable[socket.socket] = ()) -> None:
        gate, self._gate = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                signal.alarm(LIMIT)
                os.close(self._gate)
                for inherited in closes:
                    inherited.close()
                if waits:
                    os.read(gate, 1)
                work()
                code = 0
            finally:
                os._exit(code)
        os.close(gate)

    def go(self) -> None:
        """Let it begin. A second call does nothing."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def kill(self) -> None:
        """Kill it, and wait until it has ended."""
        os.kill(self.pid, signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Wait until it has ended. Returns its exit code, or minus the number of the signal that ended it."""
        self.go()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def opened(work: Callable[[Callable[[], None]], None]) -> Child:
    """A second process that runs `work`; it has called work's argument, which says that it has opened its end."""
    reading, writing = os.pipe()

    def say_opened() -> None:
        os.write(writing, b"+")

    child = Child(lambda: work(say_opened))
    os.close(writing)
    said = os.read(reading, 1)
    os.close(reading)
    expect(bool(said), "provision() or receiver() failed in a second process")
    return child


def at_once(work: Callable[..., None], *arguments: Sequence[object]) -> None:
    """Call `work` with the arguments as map() would, each call in a thread of its own. Raises what one has raised."""
    with ThreadPoolExecutor(len(arguments[0])) as pool:
        for call in [pool.submit(work, *one) for one in zip(*arguments, strict=True)]:
            call.result()


@contextlib.contextmanager
def traced(child: Child) -> Iterator[list[int]]:
    """Let a waiting child go under strace(1); afterwards the list has the bytes that each of its reads has copied."""
    calls = "read,pread64,readv,preadv,preadv2,recvfrom,recvmsg"
    with tempfile.NamedTemporaryFile("r") as log:
        strace = subprocess.Popen(
            ["strace", "-f", "-p", str(child.pid), "-e", f"trace={calls}", "-o", log.name], stderr=subprocess.PIPE
        )
        try:
            assert strace.stderr is not None
            if b"attached" not in strace.stderr.readline():
                raise unittest.SkipTest("strace may not attach here")
            child.go()
            copied: list[int] = []
            yield copied
            strace.wait(LIMIT)
            copied += [int(call[1]) for line in log if (call := re.search(r" = (\d+)", line))]
        finally:
            strace.kill()
            strace.communicate()
