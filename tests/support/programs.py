"""Programs of the harness as real processes, and what one looks for in them."""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time

from support import zygote


class Program:
    """A program of the harness as a real process; `errors` is what it wrote on standard error.

    command: what to start in place of a fork of a process that has the modules of our programs.
    """

    def __init__(self, directory, *arguments, command=None, env=None, **options):
        self._errors = directory / f"{secrets.token_hex(4)}.err"
        arguments = [*map(str, arguments)]
        with open(self._errors, "wb") as errors:
            if command is None and zygote.can_start(env):
                self.process = zygote.Forked(arguments, errors, env, **options)
            else:
                self.process = subprocess.Popen(
                    [*(command or (sys.executable, "-m", "harness")), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=env,
                    **options,
                )
        self.pid = self.process.pid
        self._unread = b""

    @property
    def errors(self):
        return self._errors.read_text()

    def line(self, timeout=60):
        """The next line of its output."""
        while b"\n" not in self._unread:
            assert select.select([self.process.stdout], [], [], timeout)[0], f"no line; {self.errors}"
            piece = os.read(self.process.stdout.fileno(), 4096)
            assert piece, f"ended: {self.errors}"
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def children(self):
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
            return [int(pid) for pid in children.read().split()]

    def kill(self):
        """SIGKILL, for the program's parent process; its workers notice."""
        self.process.kill()
        self.wait()

    def kill_all(self):
        """SIGKILL for it and its workers; returns when all are gone, and with them their locks and descriptors."""
        with contextlib.ExitStack() as stack:
            workers = [os.pidfd_open(pid) for pid in self.children()]
            for pidfd in workers:
                stack.callback(os.close, pidfd)
            self.process.kill()
            for pidfd in workers:
                with contextlib.suppress(ProcessLookupError):  # it noticed that its parent is gone
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self.wait()
            for pidfd in workers:
                assert select.select([pidfd], [], [], 20)[0], "a worker outlived SIGKILL"

    def stop(self, number=signal.SIGTERM):
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, timeout=60):
        code = self.process.wait(timeout)
        self.process.stdout.close()
        return code


def start_run(*arguments, **options):
    """A process of `harness run` that does not wait for a quiet machine. command: as of Program."""
    return start("run", "--quiet", "0", *arguments, **options)


def start(*arguments, command=None, env=None, **options):
    """A process whose output and errors are pipes with text. command: as of Program."""
    arguments = [*map(str, arguments)]
    if command is None and zygote.can_start(env):
        return zygote.Forked(arguments, env=env, **options)
    return subprocess.Popen(
        [*(command or (sys.executable, "-m", "harness")), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        **options,
    )


class Pipeline:
    """Starts caches and proxies on the files of one directory, and asks for files."""

    def __init__(self, directory):
        self.directory = directory
        self.files = directory / "files"
        self.files.mkdir()
        self._programs = []

    def start(self, *arguments, **options):
        program = Program(self.directory, *arguments, **options)
        self._programs.append(program)
        return program

    def cache(self, *arguments, source=None):
        program = self.start("simplecached", "-c", source or self.files, "-t", 2, *arguments)
        assert program.line().startswith("simplecached: ready")
        return program

    def proxy(self, *arguments, port=0):
        program = self.start("webproxy", "-p", port, "-t", 2, *arguments)
        program.greeting = program.line()
        program.port = int(program.greeting.split()[3].rstrip(",").rpartition(":")[2])
        return program

    def client(self, port, paths, *arguments):
        """Run gfclient to its end: (exit code, output)."""
        workload = self.directory / f"{secrets.token_hex(4)}.txt"
        workload.write_text("\n".join(paths) + "\n")
        program = self.start("gfclient", "-p", port, "-w", workload, *arguments)
        output = program.process.stdout.read().decode()
        code = program.wait(60)
        return code, output + program.errors

    def write(self, name, content):
        (self.files / name).write_bytes(content)
        return f"/{name}"

    def write_zeros(self, name, size):
        """A large file that takes no time to write: all of it is a hole."""
        with open(self.files / name, "wb") as file:
            file.truncate(size)
        return f"/{name}"

    def stop(self):
        for program in reversed(self._programs):
            if program.process.poll() is None:
                program.stop()
            program.process.stdout.close()


class SharedPipeline(Pipeline):
    """Several tests use it: it starts a cache only where none like it runs.

    environment: variables of its programs, beside those of this process.
    """

    def __init__(self, directory, environment):
        super().__init__(directory)
        self.environment = environment
        self._caches = {}

    def start(self, *arguments, **options):
        return super().start(*arguments, env={**os.environ, **self.environment}, **options)

    def cache(self, *arguments, source=None):
        if (arguments, source) not in self._caches:
            self._caches[arguments, source] = super().cache(*arguments, source=source)
        return self._caches[arguments, source]


def open_files(pid):
    """What the descriptors of a process are of, as proc_pid_fd(5) names it."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it has just been closed
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def eventually(condition, timeout=60):
    """Whether `condition()` becomes true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
