"""A program of several worker processes: fork, readiness, signals, and an end that leaves nothing behind.

The parent creates and removes what the program owns; only its children serve. So what a child that crashes leaves
behind is still removed. SIGTERM or SIGINT ends the program; a child that ends by itself ends it as a failure. Children
whose parent was killed end at once.
"""

import gc
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import NoReturn, Protocol

from harness import rendezvous
from harness.console import ENDING_SIGNALS, Failure, Refused, heeded_signals, say

GRACE = 1.5  # seconds for requests in flight after SIGTERM; with everything else the end takes less than 2
_PATIENCE = 3.0  # seconds for a worker to end when asked; then it is killed
_HAND_OVER = 2.0  # seconds for the workers of a killed program to end
SWITCH_INTERVAL = 1e-4  # seconds until a thread of a worker demands the GIL (docs/decisions/0014-the-gil.md)
_STARTED = "+"  # the line that a child writes when it serves; any other line is the reason why it cannot


class Workers(Protocol):
    """What serves in one process, from its construction to stop()."""

    def stop(self, grace: float) -> None:
        """Refuse new requests, give those in flight `grace` seconds, remove the names that this process made."""


def run(
    processes: int,
    serve: Callable[[int], Workers],
    ready: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
    until_eof: bool = False,
) -> None:
    """Run `serve(0)` ... `serve(processes - 1)`, each in a process of its own, until a signal asks to end.

    `ready` is called once all of them serve, `ending` before they are asked to end. until_eof: end also when standard
    input does. Raises Failure if a process ends by itself or with an error, Refused if one cannot serve.
    """
    signals, wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in heeded_signals():
        signal.signal(number, lambda *_: None)  # from here on a signal only writes to `signals`
    started, tell_started = os.pipe2(os.O_CLOEXEC)
    gc.freeze()  # keeps the objects that exist now out of the children's collections, which would copy their pages
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
        os.close(wakeup)
        os.close(started)
    if bad:
        raise Failure(bad)


def _watch(ends: list[int], started: int, children: dict[int, int], ready: Callable[[], None]) -> None:
    """Call `ready` when all children have written _STARTED to `started`; return when one of `ends` asks to end."""
    poll = select.poll()
    for fd in (*ends, started, *children):
        poll.register(fd, select.POLLIN)
    waiting = len(children)
    while True:
        for fd, _ in poll.poll():
            if fd in ends and (fd or not os.read(0, 4096)):
                return
            if fd in children:
                raise Failure(how_it_ended(children[fd]))
            if fd != started:
                continue
            for line in os.read(started, 1 << 16).decode(errors="replace").splitlines():
                if line != _STARTED:
                    raise Refused(line)
                waiting -= 1
            if not waiting:
                poll.unregister(started)
                ready()


def how_it_ended(pid: int) -> str:
    """How a child has ended, or will in a moment, in one line. It can be reaped after that."""
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    if status.si_code == os.CLD_EXITED:
        return f"worker process {pid} ended with exit code {status.si_status}"
    return f"worker process {pid} was ended by {signal.Signals(status.si_status).name}"


def end(children: dict[int, int]) -> str:
    """End and reap all children (pidfd -> pid). Returns a line about one that failed, empty if none did."""
    bad = ""
    for pidfd in children:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    for pidfd, pid in children.items():
        if not select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if os.waitpid(pid, 0)[1]:
            bad = bad or f"worker process {pid} did not end as it was asked to"
        os.close(pidfd)
    return bad


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: the next program sweeps what both have made.

    A thread waits for it, as a look now and then would cost CPU time where nothing else does, between slices of load.
    """
    with suppress(ProcessLookupError):  # it has ended, and was reaped
        select.select([os.pidfd_open(parent)], [], [])
    os._exit(1)


def _serve(serve: Callable[[int], Workers], index: int, parent: int, tell_started: int) -> NoReturn:
    code = 1
    try:
        # Ctrl-C reaches the whole process group; the parent passes it on as SIGTERM. The signals are blocked, also in
        # threads that start later: sigtimedwait takes them, and they interrupt no system call.
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        sys.setswitchinterval(SWITCH_INTERVAL)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        workers = serve(index)
        os.write(tell_started, f"{_STARTED}\n".encode())
        signal.sigwait({signal.SIGTERM})
        workers.stop(GRACE)
        code = 0
    except (OSError, ValueError) as error:
        os.write(tell_started, (" ".join(str(error).split()) + "\n").encode()[: select.PIPE_BUF])
    except BaseException:  # noqa: BLE001  a defect of ours
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # threads may still wait somewhere; none has anything to clean up


def open_home(undo: ExitStack, name: str, part: str) -> rendezvous.Home:
    """The program's own directory at a rendezvous, closed by `undo`.

    Raises Failure if a living program has it; closing it raises Failure if objects had been left behind in it.
    """
    deadline = time.monotonic() + _HAND_OVER
    while True:
        try:
            home = rendezvous.Home(name, part)
            break
        except rendezvous.Taken:  # perhaps by workers of a killed program, which end soon
            if time.monotonic() > deadline:
                raise Failure(f"another {part} runs at rendezvous {name!r}: stop it, or use another --name") from None
            time.sleep(0.02)

    def close() -> None:
        if found := home.close():
            left = f"removed {len(found)} objects that were left behind: {', '.join(found)}"
            if sys.exc_info()[0] is None:
                raise Failure(left)
            say(left)  # the program fails already: keep its reason

    undo.callback(close)
    return home
