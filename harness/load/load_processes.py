"""The processes of a load: all forked together, started together, ended together.

Each process writes one byte to a pipe when its warm-up is complete, and another when its requests have ended.

With a gate, the program that started the load decides when. It reads one JSON object a line from standard output, and
answers the first and the last with a line on standard input, whose text does not matter:

    {"ready": "gfclient"}   all processes are warm; their requests begin when it answers
    {"tick": {...}}         each second while they run, where there is a `progress`: what has come until then
    {"done": true}          all requests have ended; the processes stay until it answers, for it to read their usage;
                            then they may compare content for as long as in the warm-up

A load in slices (harness/load/slices.py) is asked for each of them by a line on standard input, and answers it by a
line. Its processes stay until standard input ends. Between slices each process waits for its pipe, and uses no CPU.
"""

import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import Any, NoReturn

from harness import console, supervisor

# What a process is sent for each part of the load: a JSON object, in one line.
Order = dict[str, Any]

# What a process does, given its number and a function that returns whether to stop at once: a generator that prepares
# and warms up, then yields; is sent an order, makes the requests that count, then yields again, as often as there are
# orders; then cleans up. It is always closed, so a `with` in it cleans up in any case.
Work = Callable[[int, Callable[[], bool]], Generator[None, Order]]


def run_processes(
    count: int,
    work: Work,
    gate: str = "",
    progress: Callable[[int], dict[str, float]] | None = None,
    compares_after: Callable[[], bool] = lambda: False,
) -> int:
    """Run `work(0, ...)` to `work(count - 1, ...)`, each in a process of its own, until all have ended.

    gate: the program's name, for `ready`; "": there is no gate. progress: returns what to print each second, given the
    time at which the requests began. compares_after: called when the requests that count have ended; returns whether
    the work gets another order then, to compare content once more.

    Returns when the requests began, ns on the clock of time.monotonic_ns(). Raises Failure where a process ends early,
    or standard input does.
    """
    processes = _Processes(count, work, bool(gate))
    try:
        processes.await_each("warm up")
        if gate:
            lines = _Input()
            _print({"ready": gate})
            if not lines.line():
                raise console.Failure("standard input ended before the line that starts the load")
        begun = time.monotonic_ns()
        processes.start({})
        processes.await_each("finish", (lambda: _print({"tick": progress(begun)})) if progress else None)
        if gate:
            _print({"done": True})
            lines.line()
            processes.forget_gate()
        if compares_after():
            processes.start({})
            processes.await_each("compare content after the load")
    finally:
        processes.end()
    return begun


def run_slices(
    count: int, work: Work, program: str, read: Callable[[bytes], Order], result: Callable[[Order], dict[str, Any]]
) -> None:
    """Run `work` in `count` processes as run_processes() does, and make a slice for each line of standard input.

    program: its name, for `ready`. read: makes a line the order that each process is sent. result: returns what came
    of an order that all have carried out. Returns when standard input ends between slices. Raises Failure where a
    process ends early, or standard input does in a slice, and what the functions raise.
    """
    processes = _Processes(count, work, True)
    try:
        lines = _Input()
        processes.await_each("start")
        _print({"ready": program})
        while line := lines.line():
            order = read(line)
            processes.start(order)
            processes.await_each("finish its slice")
            _print({"slice": result(order)})
    finally:
        processes.end()


class _Input:
    """The lines of standard input. A signal ends the wait for one, also where it comes just before the wait begins.

    A handler of Python runs between two of its instructions. So a signal that comes after the last of them and before
    read(2) would be heeded when a line comes. signal.set_wakeup_fd() has the kernel's handler write to a pipe.
    """

    def __init__(self) -> None:
        self._woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._unread = b""
        for fd in (sys.stdin.fileno(), self._woken):
            self._poll.register(fd, select.POLLIN)

    def line(self) -> bytes:
        """The next line, or what came before the end of the input; empty at the end."""
        while b"\n" not in self._unread:
            ready = {fd for fd, _ in self._poll.poll()}  # what the handler raises, it raises here
            if self._woken in ready:
                os.read(self._woken, 1 << 10)
            if sys.stdin.fileno() in ready:
                piece = os.read(sys.stdin.fileno(), 1 << 16)
                if not piece:
                    break
                self._unread += piece
        line, end, self._unread = self._unread.partition(b"\n")
        return line + end


def _print(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


class _Processes:
    """The processes as their parent has them, from construction to end()."""

    def __init__(self, count: int, work: Work, gate: bool) -> None:
        self._poll = select.poll()
        if gate:
            self._poll.register(sys.stdin.fileno(), 0)  # POLLHUP, poll(2): the program with the gate has ended
        self._reports: list[int] = []
        self._orders: list[int] = []
        self._children: dict[int, int] = {}  # pids by pidfd
        gc.freeze()
        # The processes check for signals now and then. An interruption could come anywhere, also after a file was
        # made and before its name was noted.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        for index in range(count):
            report, own_report = os.pipe2(os.O_CLOEXEC)
            own_orders, orders = os.pipe2(os.O_CLOEXEC)
            self._reports.append(report)
            self._orders.append(orders)
            pid = os.fork()
            if not pid:
                for fd in self._orders:  # else the pipes would not end when the parent does
                    os.close(fd)
                _run(index, work, own_report, own_orders)
            self._children[os.pidfd_open(pid)] = pid
            os.close(own_report)
            os.close(own_orders)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def await_each(self, what: str, each_second: Callable[[], None] | None = None) -> None:
        """Wait for a byte of each process. Raises Failure where a process ends without it, or standard input does.

        what: that the byte reports, for the message: `warm up`.
        """
        due = time.monotonic() + 1
        waiting = set(self._reports)
        for report in waiting:
            self._poll.register(report, select.POLLIN)
        while waiting:
            ended = dict(self._poll.poll(1e3 * max(0.0, due - time.monotonic()) if each_second else None))
            if not ended and each_second:
                each_second()
                due += 1
            reported = waiting & ended.keys()
            if ended and not reported:
                raise console.Failure(f"standard input ended before all processes could {what}")
            for report in reported:
                self._poll.unregister(report)
                if not os.read(report, 1):
                    pid = list(self._children.values())[self._reports.index(report)]
                    raise console.Failure(f"{supervisor.how_it_ended(pid)} before it could {what}")
            waiting -= reported

    def start(self, order: Order) -> None:
        """Send the order to each process. One that has ended is noticed when its report is awaited."""
        line = json.dumps(order).encode() + b"\n"
        for fd in self._orders:
            with suppress(BrokenPipeError):
                os.write(fd, line)

    def forget_gate(self) -> None:
        """Go on where standard input ends, after the last answer."""
        self._poll.unregister(sys.stdin.fileno())

    def end(self) -> None:
        """End all processes and wait for them."""
        for fd in (*self._orders, *self._reports):
            os.close(fd)
        supervisor.end(self._children)


def _run(index: int, work: Work, report: int, orders: int) -> NoReturn:
    """The process: does the work, order by order, and ends when the parent closes the pipe, or has ended."""
    code = 1
    parent = os.getppid()

    def stop_requested() -> bool:
        return signal.SIGTERM in signal.sigpending() or os.getppid() != parent

    try:
        with closing(work(index, stop_requested)) as steps:
            next(steps)
            os.write(report, b"+")
            while order := os.read(orders, select.PIPE_BUF):  # whole: pipe(7)
                steps.send(json.loads(order))
                if stop_requested():  # so the requests may have ended early
                    raise KeyboardInterrupt
                os.write(report, b"+")
            code = 0
    except KeyboardInterrupt:
        pass  # the work was asked to stop
    except OSError as error:
        console.say(str(error))
    except BaseException:  # noqa: BLE001  a defect of this program: print all of it
        traceback.print_exc()
    finally:
        os._exit(code)
