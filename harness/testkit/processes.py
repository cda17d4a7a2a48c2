"""The processes of a check: its own, and the others, which send, receive, and are killed; and its threads.

A check runs in a process of its own, so that the process that runs the kit never opens an end. The others of a check
are forked as a program forks its workers: from a process that has provisioned, and in which no end is open (the
nursery). Some libraries with threads of their own do not survive a fork of a process that uses them.
"""

import contextlib
import io
import os
import pickle
import re
import signal
import socket
import subprocess
import tempfile
import traceback
import unittest
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, ClassVar, NamedTuple, NoReturn

from harness.testkit import leaks
from harness.testkit.promise import Broken, expect

LIMIT = 20  # seconds that a process of a check may live
_CHECK_LIMIT = 120  # seconds for a check, besides those of its stress
_MOST = 250  # descriptors in a message, unix(7)


class Descriptor(NamedTuple):
    """A descriptor among the arguments of a second process, which gets it as its own: an int."""

    number: int


def apart(check: Callable[[], None], seconds: float = 0) -> None:
    """Run `check` in a process of its own. Raises what it raises; Broken where the process crashed, or did not end.

    seconds: that it takes more than other checks.
    """
    with tempfile.TemporaryFile() as report:
        pid = os.fork()
        if not pid:
            _be_the_check(check, report, round(_CHECK_LIMIT + seconds))
        try:
            status = os.waitpid(pid, 0)[1]
        except BaseException:  # the kit is interrupted
            os.kill(pid, signal.SIGINT)
            os.waitpid(pid, 0)
            raise
        if status:
            leaks.sweep_after(os.getpid())
            raise Broken(f"the process that checked it {_how(status)}")
        report.seek(0)
        error = pickle.load(report)  # noqa: S301  of our own fork
    if error is not None:
        raise error


def in_a_process_of_its_own(test: Callable[..., None]) -> Callable[..., None]:
    """A test that apart() runs: this process may not use a library that survives no fork, for the kit forks it."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        apart(partial(test, *args, **kwargs))

    return run


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


def _be_the_check(check: Callable[[], None], report: Any, limit: int) -> NoReturn:
    code = 1
    _end_after(limit)
    try:
        raised: BaseException | None = None
        try:
            check()
        except Exception as error:  # noqa: BLE001  a transport under test may raise anything
            error.add_note(traceback.format_exc())
            raised = error
        try:
            text = pickle.dumps(raised)
            pickle.loads(text)  # noqa: S301  an exception whose arguments are not those of its class can only be written
        except Exception:  # noqa: BLE001
            text = pickle.dumps(Broken(f"{type(raised).__name__}: {raised}"))
        report.write(text)
        report.flush()
        code = 0
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def _end_after(seconds: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


class Nursery:
    """A fork of this process, made while no end is open here, from which the other processes of a check are forked.

    While the context lasts, Child uses the nursery entered last. known: what the second processes share with this one
    by identity, such as the contract; their other arguments are pickled. One thread uses it.
    """

    _latest: ClassVar[list["Nursery"]] = []

    def __init__(self, *known: object) -> None:
        self._known = known

    def __enter__(self) -> "Nursery":
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if not self._pid:
            try:
                self._asked.close()
                self._serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._latest.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._latest.remove(self)
        self._asked.close()
        os.waitpid(self._pid, 0)

    @classmethod
    def latest(cls) -> "Nursery":
        return cls._latest[-1]

    def fork(self, work: Callable[[], None]) -> int:
        """Have `work` called in a new process. Returns its pid."""
        with tempfile.TemporaryFile() as order:
            pickler = _Pickler(order, self._known)
            pickler.dump(work)
            order.flush()
            assert len(pickler.descriptors) < _MOST
            socket.send_fds(self._asked, [b"fork"], [order.fileno(), *pickler.descriptors])
        return int(self._asked.recv(64))

    def reap(self, pid: int) -> int:
        """Wait until a process has ended. Returns its status, waitpid(2)."""
        self._asked.send(b"%d" % pid)
        return int(self._asked.recv(64))

    def _serve(self, asked: socket.socket) -> None:
        alive: set[int] = set()
        while True:
            text, descriptors, _, _ = socket.recv_fds(asked, 64, _MOST)
            if not text:
                for pid in alive:  # a stopped one takes no alarm
                    os.kill(pid, signal.SIGKILL)
                return
            if text != b"fork":
                asked.send(b"%d" % os.waitpid(int(text), 0)[1])
                alive.discard(int(text))
                continue
            pid = os.fork()
            if not pid:
                self._work(asked, descriptors)
            alive.add(pid)
            for one in descriptors:
                os.close(one)
            asked.send(b"%d" % pid)

    def _work(self, asked: socket.socket, descriptors: Sequence[int]) -> NoReturn:
        code = 1
        try:
            _end_after(LIMIT)
            asked.close()
            with open(descriptors[0], "rb") as order:
                order.seek(0)
                work = _Unpickler(order, self._known, descriptors[1:]).load()
            work()
            code = 0
        finally:
            os._exit(code)


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, known: Sequence[object]) -> None:
        super().__init__(file)
        self._known = known
        self.descriptors: list[int] = []

    def persistent_id(self, value: object) -> tuple[str, int] | None:
        if isinstance(value, Descriptor):
            self.descriptors.append(value.number)
            return "descriptor", len(self.descriptors) - 1
        for number, known in enumerate(self._known):
            if value is known:
                return "known", number
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedReader, known: Sequence[object], descriptors: Sequence[int]) -> None:
        super().__init__(file)
        self._values = {"known": known, "descriptor": descriptors}

    def persistent_load(self, name: tuple[str, int]) -> object:
        kind, number = name
        return self._values[kind][number]


class Child:
    """A second process that calls `work` with the arguments and ends; with `waits`, not before go().

    It is forked from the latest nursery, so it has no end open, and no descriptor that was opened since.
    """

    def __init__(self, work: Callable[..., None], *arguments: object, waits: bool = False) -> None:
        self._nursery = Nursery.latest()
        gate, self._gate = os.pipe()
        own_gate: Any = Descriptor(gate)
        self.pid = self._nursery.fork(partial(_work_once, own_gate, waits, work, arguments))
        self._code: int | None = None
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
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(self._nursery.reap(self.pid))
        return self._code


def _work_once(gate: int, waits: bool, work: Callable[..., None], arguments: Sequence[object]) -> None:
    if waits:
        os.read(gate, 1)
    os.close(gate)
    work(*arguments)


def opened(work: Callable[..., None], *arguments: object) -> Child:
    """A second process that calls work(say_opened, *arguments); it has called say_opened, as its end is open."""
    reading, writing = os.pipe()
    child = Child(_say_and_work, Descriptor(writing), work, arguments)
    os.close(writing)
    said = os.read(reading, 1)
    os.close(reading)
    expect(bool(said), "provision() or receiver() failed in a second process")
    return child


def _say_and_work(writing: int, work: Callable[..., None], arguments: Sequence[object]) -> None:
    work(lambda: os.write(writing, b"+"), *arguments)


def at_once(work: Callable[..., None], *arguments: Sequence[object]) -> None:
    """Call `work` with the arguments as map() would, each call in a thread of its own. Raises what one has raised."""
    with ThreadPoolExecutor(len(arguments[0])) as pool:
        for call in [pool.submit(work, *one) for one in zip(*arguments, strict=True)]:
            call.result()


@contextlib.contextmanager
def traced(pid: int, go: Callable[[], None]) -> Iterator[list[int]]:
    """Have a process that waits traced by strace(1), and let it go; afterwards the list has the bytes that each of its
    reads has copied."""
    calls = "read,pread64,readv,preadv,preadv2,recvfrom,recvmsg"
    with tempfile.NamedTemporaryFile("r") as log:
        strace = subprocess.Popen(
            ["strace", "-f", "-p", str(pid), "-e", f"trace={calls}", "-o", log.name], stderr=subprocess.PIPE
        )
        try:
            assert strace.stderr is not None
            if b"attached" not in strace.stderr.readline():
                raise unittest.SkipTest("strace may not attach here")
            go()
            copied: list[int] = []
            yield copied
            strace.wait(LIMIT)
            copied += [int(call[1]) for line in log if (call := re.search(r" = (\d+)", line))]
        finally:
            strace.kill()
            strace.communicate()
