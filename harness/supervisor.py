"""A program of several worker processes: fork, readiness, signals, and an end that leaves nothing behind.

The parent makes and removes what the program owns and serves nobody; its children serve. So a child that crashes
takes no cleaning up with it. SIGTERM or SIGINT ends the program; a child that ends by itself ends it as a failure.
Children notice at once, or nearly, that their parent was killed, and end.
"""

import argparse
import gc
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import NoReturn, Protocol

from harness import registry, rendezvous

GRACE = 1.5  # seconds that requests in flight have left after SIGTERM; with the rest of the ending it stays under 2
_PATIENCE = 3.0  # seconds until a worker that has been asked to end, and has not, is killed
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_HAND_OVER = 2.0  # seconds for the workers of a killed program to be gone
_PARENT_CHECK = 0.25  # seconds
SWITCH_INTERVAL = 1e-4  # seconds after which a thread of a worker insists on the GIL (docs/decisions/0014-the-gil.md)
_STARTED = "+"  # what a child tells when it serves; anything else is why it cannot


class Workers(Protocol):
    """What serves in one process, from its making on."""

    def stop(self, grace: float) -> None:
        """Refuse what is new, give requests in flight `grace` seconds, remove the names this process made."""


class Failure(Exception):
    """The one line that says why a program ends."""


class Refused(Failure):
    """What a transport, or the machine under it, says no to."""


def run(
    processes: int,
    serve: Callable[[int], Workers],
    ready: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
    until_eof: bool = False,
) -> None:
    """Run `serve(0)` ... `serve(processes - 1)`, each in a process of its own, until a signal asks to end.

    `ready` is called once all of them serve, `ending` before they are asked to end. until_eof: end with standard
    input, too. Raises Failure where one of the processes ends by itself, or badly, Refused where one cannot serve.
    """
    signals, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in _heeded():
        signal.signal(number, lambda *_: None)  # from here on a signal only writes to `signals`
    started, tell_started = os.pipe2(os.O_CLOEXEC)
    gc.freeze()  # what is here now stays: the children need neither look at it nor copy its pages
    parent = os.getpid()
    children = {}
    for index in range(processes):
        pid = os.fork()
        if pid == 0:
            _serve(serve, index, parent, tell_started)
        children[os.pidfd_open(pid)] = pid
    os.close(tell_started)
    try:
        _watch([signals, 0] if until_eof else [signals], started, children, ready)
        ending()
    finally:
        bad = end(children)
        os.close(signals)
        os.close(told)
        os.close(started)
    if bad:
        raise Failure(bad)


def _watch(ends: list[int], started: int, children: dict[int, int], ready: Callable[[], None]) -> None:
    poll = select.poll()
    for fd in (*ends, started, *children):
        poll.register(fd, select.POLLIN)
    waiting = len(children)
    while True:
        for fd, _ in poll.poll():
            if fd in ends and (fd or not os.read(0, 4096)):
                return
            if fd in children:
                raise Failure(_how_it_ended(children[fd]))
            if fd != started:
                continue
            for told in os.read(started, 1 << 16).decode(errors="replace").splitlines():
                if told != _STARTED:
                    raise Refused(told)
                waiting -= 1
            if not waiting:
                poll.unregister(started)
                ready()


def _how_it_ended(pid: int) -> str:
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    if status.si_code == os.CLD_EXITED:
        return f"worker process {pid} ended with exit code {status.si_status}"
    return f"worker process {pid} was ended by {signal.Signals(status.si_status).name}"


def end(children: dict[int, int]) -> str:
    """End and reap them all: pids by their pidfds. Returns how one ended that did not end well, or nothing."""
    bad = ""
    for pidfd in children:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    for pidfd, pid in children.items():
        if not select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if os.waitpid(pid, 0)[1]:
            bad = bad or f"worker process {pid} did not end well"
        os.close(pidfd)
    return bad


def _serve(serve: Callable[[int], Workers], index: int, parent: int, tell_started: int) -> NoReturn:
    code = 1
    try:
        # Ctrl-C reaches the whole process group; the parent passes it on as SIGTERM. The signals are blocked, in
        # the threads that start from here too: they are waited for, and interrupt nothing.
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        sys.setswitchinterval(SWITCH_INTERVAL)
        workers = serve(index)
        os.write(tell_started, f"{_STARTED}\n".encode())
        # Woken from SIGSTOP after its time is up, CPython's sigtimedwait returns a siginfo that nobody has filled in.
        while not (got := signal.sigtimedwait({signal.SIGTERM}, _PARENT_CHECK)) or got.si_signo != signal.SIGTERM:
            if os.getppid() != parent:
                os._exit(1)  # it was killed; what it made, and so what this process made, is swept by the next one
        workers.stop(GRACE)
        code = 0
    except (OSError, ValueError) as error:
        os.write(tell_started, (" ".join(str(error).split()) + "\n").encode()[: select.PIPE_BUF])
    except BaseException:  # noqa: BLE001  a defect of ours, told in full
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # threads may still wait somewhere; nothing of theirs needs an end of its own


def say(text: str) -> None:
    """One line on standard error, with the program's name, whole even where several processes write."""
    os.write(2, f"{_PROGRAM[0]}: {text}\n".encode(errors="backslashreplace"))


_PROGRAM = ["harness"]


def main(program: str, body: Callable[[], int | None], stopped: int = 0) -> int:
    """Run a program's body: its exit code, with one line on standard error where it fails (1), is misused (2) or
    Refused (3).

    stopped: the exit code where a signal ends it.
    """
    _PROGRAM[0] = program
    for number in _heeded():
        signal.signal(number, signal.default_int_handler)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for each file, lane and client
    try:
        return body() or 0
    except (Failure, OSError, ValueError) as error:
        say(str(error))
        return 3 if isinstance(error, Refused) else 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        return stopped


def _heeded() -> list[signal.Signals]:
    """The signals that ask to end; nohup(1) keeps its word."""
    return [number for number in _STOP if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN]


def pause(seconds: float, until_eof: bool) -> None:
    """Wait so long. Raises KeyboardInterrupt, as a signal does, where the program is to end with standard input, and
    that has ended."""
    if not until_eof:
        time.sleep(seconds)
    elif select.select([0], [], [], seconds)[0]:
        raise KeyboardInterrupt


def open_home(undo: ExitStack, name: str, part: str) -> rendezvous.Home:
    """The program's own directory at a rendezvous, closed by `undo`. Raises Failure where another one keeps it, and
    at its closing where something had been left behind in it."""
    deadline = time.monotonic() + _HAND_OVER
    while True:
        try:
            home = rendezvous.Home(name, part)
            break
        except rendezvous.Taken:  # perhaps by the workers of a killed one, who have yet to notice
            if time.monotonic() > deadline:
                raise Failure(f"another {part} runs at rendezvous {name!r}: stop it, or use another --name") from None
            time.sleep(0.02)

    def close() -> None:
        if found := home.close():
            left = f"removed {len(found)} objects that were left behind: {', '.join(found)}"
            if sys.exc_info()[0] is None:
                raise Failure(left)
            say(left)  # no news where the program fails anyway

    undo.callback(close)
    return home


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of every program that serves others at a rendezvous."""
    add_rendezvous(parser)
    parser.add_argument("--until-eof", action="store_true",
                        help="end when standard input does: for programs that start this one")  # fmt: skip


def add_rendezvous(parser: argparse.ArgumentParser) -> None:
    """The options of every program that meets others."""
    parser.add_argument("--name", default=rendezvous.DEFAULT, metavar="RENDEZVOUS",
                        help="where cache and proxies of one user meet (%(default)s)")  # fmt: skip
    parser.add_argument("--timeout", type=seconds, default=5.0, metavar="SECONDS",
                        help="bound on every wait for a peer (%(default)g)")  # fmt: skip


def count(text: str) -> int:
    """An argument that is a whole number from 0 on."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def positive(text: str) -> int:
    """An argument that counts something: 1 or more."""
    if not count(text):
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def port(text: str) -> int:
    """An argument that is a TCP port, or 0."""
    if count(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is over 65535")
    return int(text)


def size(text: str) -> int:
    """An argument that is a number of bytes, such as 4096 or 64KiB."""
    try:
        return registry.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds_or_0(text: str) -> float:
    """An argument that is a time in seconds, or 0."""
    return 0.0 if text == "0" else seconds(text)


def seconds(text: str) -> float:
    """An argument that is a time in seconds, over 0."""
    return _over_zero(text, "seconds")


def rate(text: str) -> float:
    """An argument that is a number of requests a second, over 0."""
    return _over_zero(text, "requests/s")


def _over_zero(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit} over 0")
    return value
