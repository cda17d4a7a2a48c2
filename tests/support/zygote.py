"""Programs of the harness as forks of one process that has their modules: each start costs a tenth of the CPU time.

The process is started by the first test that wants it, and ends with the one that runs the tests. Its answers and what
it is asked are JSON objects on a SOCK_SEQPACKET socket, as in harness/starter.py. What differs from a program of its
own: its parent is that process, and its output is flushed before it ends, not by Python's own end.
"""

import atexit
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback

MODULES = ("pipeline.simplecached", "pipeline.webproxy", "load.gfclient", "load.lane", "origin.server")


class Forked:
    """A running program, with what subprocess.Popen has of the same names. output: a file for standard error."""

    def __init__(self, arguments, errors, env=None, cwd=None):
        reading, writing = os.pipe()
        request = {"start": arguments, "env": env or dict(os.environ), "cwd": str(cwd or os.getcwd())}
        try:
            self.pid = _ask(request, [writing, errors.fileno()])["pid"]
        finally:
            os.close(writing)
        self.stdout = open(reading, "rb")  # noqa: SIM115  until the test closes it
        self.returncode = None
        self._pidfd = os.pidfd_open(self.pid)  # it stays a zombie until we ask for its exit code

    def poll(self):
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            os.close(self._pidfd)
            self.returncode = os.waitstatus_to_exitcode(_ask({"reap": self.pid})["status"])
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked program", timeout)
        return self.poll()

    def send_signal(self, number):
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def can_start(env):
    """Whether the process has what a program with these variables imports."""
    return env is None or env.get("PYTHONPATH") == _python_path()


def _ask(request, descriptors=()):
    control = _control()
    socket.send_fds(control, [json.dumps(request).encode()], descriptors)
    return json.loads(control.recv(4096))


@functools.cache
def _python_path():
    _control()
    return os.environ.get("PYTHONPATH")


@functools.cache
def _control():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # -P: modules of this directory have names that others of the harness have.
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    @atexit.register
    def end():
        ours.close()
        process.wait(10)

    return ours


def main(control):
    for module in MODULES:
        importlib.import_module(f"harness.{module}")
    with socket.socket(fileno=control) as asked:
        while True:
            text, descriptors, _, _ = socket.recv_fds(asked, 1 << 20, 2)
            if not text:
                return
            request = json.loads(text)
            if "reap" in request:
                answer = {"status": os.waitpid(request["reap"], 0)[1]}
            else:
                pid = os.fork()
                if not pid:
                    become(request, descriptors)
                answer = {"pid": pid}
                for one in descriptors:
                    os.close(one)
            asked.send(json.dumps(answer).encode())


def become(request, descriptors):
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for target, one in enumerate((null, *descriptors)):
            os.dup2(one, target)
        os.closerange(3, 1000)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        code = importlib.import_module("harness.cli").main(request["start"])
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
