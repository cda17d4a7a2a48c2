"""Every test has a rendezvous base of its own, which must be gone in the end: nothing is left behind."""

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from hypothesis import settings
from misbehaving import Origin

from harness import registry, rendezvous

settings.register_profile("tests", deadline=None)  # other work may hold one example up
settings.load_profile("tests")

# The transports of this package. Strangers' may be installed, too, as examples/harness-zmq is by `make test`: they
# have tests of their own, and our pages are not about them.
COMMAND, DATA = (
    {name: kind for name, kind in kinds.items() if kind.__module__.startswith("transports.")}
    for kinds in (registry.load().command, registry.load().data)
)


@pytest.fixture
def base(monkeypatch):
    """The directory of this test's rendezvous; empty and removed when the test has ended, or it fails."""
    directory = tempfile.mkdtemp(prefix="th-test-", dir="/tmp")
    monkeypatch.setenv(rendezvous.BASE_VARIABLE, directory)
    monkeypatch.setenv("no_proxy", "*")  # libcurl would heed the proxies of whoever runs the tests
    monkeypatch.setenv("TRANSPORT_HARNESS_LOCK", directory)  # a study may run on this machine
    yield rendezvous.base_directory()
    left = rendezvous.sweep()
    there = os.listdir(directory)
    shutil.rmtree(directory)
    assert (left, there) == ([], []), "something was left behind"


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """Installs modules as plugins, for processes that start from here: plugins(name, source)."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def install(name, source, entry=None):
        (tmp_path / f"{name}.py").write_text(source)
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[transport_harness]\n{entry or name} = {name}\n")

    return install


@pytest.fixture
def home(base):
    home = rendezvous.Home("tests", "owner")
    yield home
    home.close()


class Program:
    """A program of the harness as a real process; `errors` is what it wrote on standard error."""

    def __init__(self, directory, *arguments, command=(sys.executable, "-m", "harness"), cwd=None):
        self._errors = directory / f"{secrets.token_hex(4)}.err"
        with open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(
                [*command, *map(str, arguments)], cwd=cwd,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self.pid = self.process.pid
        self._unread = b""

    @property
    def errors(self):
        return self._errors.read_text()

    def line(self, timeout=20):
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

    def stop(self, number=signal.SIGTERM):
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, timeout=20):
        code = self.process.wait(timeout)
        self.process.stdout.close()
        return code


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

    def stop(self):
        for program in reversed(self._programs):
            if program.process.poll() is None:
                program.stop()
            program.process.stdout.close()


@pytest.fixture
def pipeline(base, tmp_path):
    pipeline = Pipeline(tmp_path)
    yield pipeline
    pipeline.stop()


@pytest.fixture
def origin():
    """An HTTP origin that misbehaves as a test wants."""
    origin = Origin()
    yield origin
    origin.close()


class Connection:
    """A GETFILE client that behaves as badly as a test wants."""

    def __init__(self, port, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def rest(self):
        """All that comes until the connection ends; a reset ends it, too."""
        received = bytearray()
        try:
            while piece := self.socket.recv(1 << 20):
                received += piece
        except ConnectionResetError:
            pass
        return bytes(received)


def get(port, path):
    """The whole reply to one request."""
    with Connection(port) as connection:
        return connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).rest()


# The replies of the dialect `getfile`.
NOT_FOUND, ERROR = b"GETFILE FILE_NOT_FOUND\r\n\r\n", b"GETFILE ERROR\r\n\r\n"


def whole(content):
    """The reply with this content."""
    return b"GETFILE OK %d\r\n\r\n" % len(content) + content


def open_files(pid):
    """What the descriptors of a process are of, as proc_pid_fd(5) names it."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it has just been closed
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def eventually(condition, timeout=20):
    """Whether `condition()` becomes true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
