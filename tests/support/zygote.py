"""Programs of the harness as forks of a process that has their modules: each start costs a tenth of the CPU time.

There is one such process for the programs that move files, and one for the runner. Each is started by the first test
that wants it, and ends with the process that runs the tests. It answers as harness/starter.py does. What differs from a
program of its own: its parent is that process, and its output is flushed before it ends, not by Python's own end.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

from harness import starter

RUNNER = ("experiment.run", "experiment.ipc", "measure.live", "report.run_page", "analysis.show")
OTHERS = ("pipeline.simplecached", "pipeline.webproxy", "load.gfclient", "load.lane", "origin.server")
PYTHONPATH = os.environ.get("PYTHONPATH")


class Forked:
    """A running program, with what subprocess.Popen has of the same names.

    errors: a file for standard error; without one there is `stderr`, and `stdout` and `stderr` are text.
    """

    def __init__(self, arguments, errors=None, env=None, cwd=None):
        self._zygote = Zygote.of(RUNNER if arguments[0] in {"run", "ipc"} else OTHERS)
        self.returncode = None
        request = {"start": arguments, "env": env or dict(os.environ), "cwd": str(cwd or os.getcwd())}
        with contextlib.ExitStack() as ours:  # what the program has a descriptor of its own for
            self.stdout, output = pipe(ours, "r" if errors is None else "rb")
            self.stderr = None
            if errors is None:
                self.stderr, errors = pipe(ours, "r")
            self.pid = self._zygote.ask(request, [output, errors if isinstance(errors, int) else errors.fileno()])[
                "pid"
            ]
        self._pidfd = os.pidfd_open(self.pid)  # it stays a zombie until we ask for its exit code

    def poll(self):
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            os.close(self._pidfd)
            self.returncode = os.waitstatus_to_exitcode(self._zygote.ask({"reap": self.pid})["status"])
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked program", timeout)
        return self.poll()

    def communicate(self, timeout=120):
        """All that it writes on standard output and standard error until it ends, as text."""
        deadline = time.monotonic() + timeout
        texts = {self.stdout: b"", self.stderr: b""}
        left = list(texts)
        while left:
            ready = select.select(left, [], [], max(0, deadline - time.monotonic()))[0]
            if not ready:
                raise subprocess.TimeoutExpired("a forked program", timeout)
            for stream in ready:
                piece = os.read(stream.fileno(), 1 << 16)
                texts[stream] += piece
                if not piece:
                    left.remove(stream)
                    stream.close()
        self.wait(max(0, deadline - time.monotonic()))
        return tuple(text.decode() for text in texts.values())

    def send_signal(self, number):
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def pipe(closing, mode):
    """The end of a new pipe to read from, as a file, and the descriptor of the other, which `closing` closes."""
    reading, writing = os.pipe()
    closing.callback(os.close, writing)
    return open(reading, mode), writing


class Zygote:
    """The process that forks programs. modules: of the harness, that it imports at once."""

    def __init__(self, modules):
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # -P: modules of this directory have names that others of the harness have.
            command = [sys.executable, "-P", __file__, str(theirs.fileno()), *modules]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        atexit.register(self._end)

    @classmethod
    @functools.cache
    def of(cls, modules):
        return cls(modules)

    def ask(self, request, descriptors=()):
        socket.send_fds(self._asked, [json.dumps(request).encode()], descriptors)
        return json.loads(self._asked.recv(4096))

    def _end(self):
        self._asked.close()
        self._process.wait(10)


def can_start(env):
    """Whether a program with these variables imports what this process does."""
    return (env or os.environ).get("PYTHONPATH") == PYTHONPATH


def main(control, modules):
    for module in modules:
        importlib.import_module(f"harness.{module}")
    starter.serve(control, prepare)


def prepare(request, descriptors):
    null = os.open(os.devnull, os.O_RDONLY)
    for target, one in enumerate((null, *descriptors)):
        os.dup2(one, target)
    os.closerange(3, 1000)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
