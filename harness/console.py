"""How a command talks and ends, and the types of its arguments."""

import argparse
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from harness import rendezvous, suggest, units

_Value = TypeVar("_Value")

ENDING_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Failure(Exception):
    """A program ends without success; the one line of this says why."""


class Refused(Failure):
    """A transport, or the machine under it, cannot do what the program was asked for."""


_PROGRAM = ["harness"]  # the name that each line begins with


def say(text: str) -> None:
    """Write a line on standard error after the program's name: in one call, so that lines of processes do not mix."""
    os.write(2, f"{named(text)}\n".encode(errors="backslashreplace"))


def named(text: str) -> str:
    """A line after the program's name."""
    return f"{_PROGRAM[0]}: {text}"


def greet(as_json: bool, text: str, **facts: str | int) -> None:
    """Print that the program serves: `webproxy: listening on ...`, or {"ready": "webproxy", **facts} as a line of JSON.

    as_json: the option --json of add_serving().
    """
    line = f"{_PROGRAM[0]}: {text}"
    if as_json:
        import json  # noqa: PLC0415  a start without it is 2 ms shorter

        line = json.dumps({"ready": _PROGRAM[0], **facts})
    print(line, flush=True)


def main(program: str, body: Callable[[], int | None], stopped: int = 0) -> int:
    """Run the body of the program with that name. Returns its exit code.

    Where the body raises, a line on standard error says why, and the code is 1 for Failure and OSError, 2 for
    ValueError (misuse), 3 for Refused. stopped: the code where a signal ends the program.
    """
    _PROGRAM[0] = program
    for number in heeded_signals():
        signal.signal(number, signal.default_int_handler)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a descriptor for each file, lane and client
    try:
        return body() or 0
    except (Failure, OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError) and suggest.unread():
            raise  # harness.cli ends quietly
        say(suggest.reason(error))
        return 3 if isinstance(error, Refused) else 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        return stopped


def heeded_signals() -> list[signal.Signals]:
    """The signals that ask to end. SIGHUP is not one of them under nohup(1), which has it ignored."""
    return [
        number for number in ENDING_SIGNALS if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]


def pause(seconds: float, until_eof: bool) -> None:
    """Wait `seconds`. until_eof: raise KeyboardInterrupt, as a signal does, when standard input ends meanwhile."""
    if not until_eof:
        time.sleep(seconds)
    elif select.select([0], [], [], seconds)[0]:
        raise KeyboardInterrupt


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of every program that serves others at a rendezvous."""
    add_rendezvous(parser)
    add_serving(parser)


def add_serving(parser: argparse.ArgumentParser) -> None:
    """The options of every program that serves others."""
    parser.add_argument(
        "--until-eof", action="store_true", help="end when standard input does: for programs that start this one"
    )
    parser.add_argument("--json", action="store_true", help="print the greeting as one line of JSON")


def add_rendezvous(parser: argparse.ArgumentParser) -> None:
    """The options of every program that meets others."""
    parser.add_argument(
        "--name",
        default=rendezvous.DEFAULT,
        metavar="RENDEZVOUS",
        help="where cache and proxies of one user meet (%(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="limit of every wait for another program (%(default)g)",
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
    """The type of an argument that `parse` reads: the message of its ValueError becomes the parser's."""

    def convert(text: str) -> _Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


size = _argument(units.size)
seconds = _argument(units.seconds)
rate = _argument(units.rate)
bandwidth = _argument(units.bandwidth)
seconds_or_0 = _argument(lambda text: 0.0 if text == "0" else units.seconds(text))


def multiplier(text: str) -> float:
    """An argument that multiplies something: a number over 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0")
    return value
