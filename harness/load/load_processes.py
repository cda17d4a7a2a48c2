"""The processes of a load: forked together, let go together, ended together.

Each tells by one byte that it is warm, and by another that its requests have ended.
"""

import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import NoReturn

from harness import console, supervisor

# What a process does, given its number and a function that says whether to stop at once: a generator that prepares,
# warms up, and yields; makes the requests that count, and yields again; cleans up. It is closed in any case, so `with`
# does that.
Work = Callable[[int, Callable[[], bool]], Generator[None]]

_LOOK = 0.25  # seconds between looks for the parent


def drive(processes: int, work: Work, gate: bool, tick: Callable[[int], None] | None = None) -> int:
    """Have `work(0, ...)` ... `work(processes - 1, ...)` done, each in a process of its own.

    gate: print `warm` when all are, and wait for a line on standard input; print `done` when the requests have ended,
    and wait for another (or the end of it) while whoever wants to look at the processes does so.
    tick: called each second while they run, with the time of the go-ahead.

    Returns when they were let go, ns on the clock of time.monotonic_ns(). Raises Failure where one ends early, or
    whoever holds the gate does.
    """
    crew = _Crew(processes, work, gate)
    try:
        crew.expect("warm up")
        if gate:
            print("warm", flush=True)
            if not sys.stdin.readline():
                raise console.Failure("standard input ended before the go-ahead")
        begun = time.monotonic_ns()
        crew.go()
        crew.expect("finish", partial(tick, begun) if tick else None)
        if gate:
            print("done", flush=True)
            sys.stdin.readline()
    finally:
        crew.end()
    return begun


class _Crew:
    def __init__(self, processes: int, work: Work, gate: bool) -> None:
        self._poll = select.poll()
        if gate:
            self._poll.register(sys.stdin.fileno(), 0)  # POLLHUP, poll(2): nobody can say `go` or `end` any more
        self._reports: list[int] = []
        go_ahead, self._gate = os.pipe2(os.O_CLOEXEC)
        self._children: dict[int, int] = {}
        gc.freeze()
        # The processes look for signals now and then: an interruption could come anywhere, also between the making
        # and the noting of a file.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        for index in range(processes):
            report, tell = os.pipe2(os.O_CLOEXEC)
            pid = os.fork()
            if not pid:
                os.close(self._gate)
                _serve(index, work, tell, go_ahead)
            self._children[os.pidfd_open(pid)] = pid
            self._reports.append(report)
            os.close(tell)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(go_ahead)

    def expect(self, what: str, each_second: Callable[[], None] | None = None) -> None:
        """Wait for a byte of each process. Raises Failure where one ends without, or standard input does."""
        due = time.monotonic() + 1
        for report in self._reports:
            self._poll.register(report, select.POLLIN)
            while not (ended := dict(self._poll.poll(1e3 * max(0.0, due - time.monotonic()) if each_second else None))):
                if each_second:
                    each_second()
                due += 1
            if report not in ended:
                raise console.Failure(f"standard input ended before all processes could {what}")
            self._poll.unregister(report)
            if not os.read(report, 1):
                raise console.Failure(f"a process ended before it could {what}")

    def go(self) -> None:
        os.write(self._gate, b"+" * len(self._children))

    def end(self) -> None:
        for fd in (self._gate, *self._reports):
            os.close(fd)
        supervisor.end(self._children)


def _serve(index: int, work: Work, tell: int, gate: int) -> NoReturn:
    code = 1
    parent = os.getppid()

    def abandoned() -> bool:
        return signal.SIGTERM in signal.sigpending() or os.getppid() != parent

    try:
        with closing(work(index, abandoned)) as steps:
            next(steps)
            os.write(tell, b"+")
            if os.read(gate, 1):
                next(steps, None)
                os.write(tell, b"+")
                while not signal.sigtimedwait({signal.SIGTERM}, _LOOK) and os.getppid() == parent:
                    pass  # stay to be looked at
                code = 0
    except KeyboardInterrupt:
        pass  # abandoned
    except OSError as error:
        console.say(str(error))
    except BaseException:  # noqa: BLE001  a defect of ours, told in full
        traceback.print_exc()
    finally:
        os._exit(code)
