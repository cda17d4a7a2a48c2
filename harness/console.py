"""How a command talks and ends, and the types of its arguments."""

import argparse
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from harness import rendezvous, units

_Value = TypeVar("_Value")

ENDING_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Failure(Exception):
    """The one line that says why a program ends."""


class Refused(Failure):
    """What a transport, or the machine under it, says no to."""


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
    for number in heeded_signals():
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


def heeded_signals() -> list[signal.Signals]:
    """The signals that ask to end; nohup(1) keeps its word."""
    return [
        number for number in ENDING_SIGNALS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]


def pause(seconds: float, until_eof: bool) -> None:
    """Wait so long. Raises KeyboardInterrupt, as a signal does, where the program is to end with standard input, and
    that has ended."""
    if not until_eof:
        time.sleep(seconds)
    elif select.select([0], [], [], seconds)[0]:
        raise KeyboardInterrupt


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of every program that serves others at a rendezvous."""
    add_rendezvous(parser)
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input does: for programs that start this one"
    )


def add_rendezvous(parser: argparse.ArgumentParser) -> None:
    """The options of every program that meets others."""
    parser.add_argument(
        "--name",
        default=rendezvous.DEFAULT,
        metavar="RENDEZVOUS",
        help="where cache and proxies of one user meet (%(default)s)",
    )
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="SECONDS", help="bound on every wait for a peer (%(default)g)"
    )


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


def _argument(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """The type of an argument that `parse` reads; its ValueError becomes the message of the parser."""

    def convert(text: str) -> _Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


size = _argument(units.size)
seconds = _argument(units.seconds)
rate = _argument(units.rate)
seconds_or_0 = _argument(lambda text: 0.0 if text == "0" else units.seconds(text))


def factor(text: str) -> float:
    """An argument that multiplies something: a number over 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0")
    return value
