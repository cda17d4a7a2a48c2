"""`harness check`: holds installed transports to the conformance kit."""

import argparse
import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from harness import console, registry, testkit
from harness.api import DataTransport
from harness.registry import AnyTransport
from harness.testkit import leaks
from harness.testkit.contract import Contract


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness check",
        description="Check that transports keep their promises. Each line is one promise.",
        epilog="Exit codes: 0 all promises kept, but for those that a transport says it does not keep; 1 some broken, "
        "2 misused.",
    )
    parser.add_argument("transports", nargs="*", metavar="NAME[:opt=val,...]", help="both kinds of that name")
    parser.add_argument("--all", action="store_true", help="every installed transport, with its default options")
    parser.add_argument("--opt", action="append", default=[], metavar="opt=val", help="an option of the one NAME")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show the promises that were kept, too")
    parser.add_argument(
        "-j",
        dest="jobs",
        type=console.positive,
        default=min(8, 3 * len(os.sched_getaffinity(0))),
        metavar="N",
        help="transports that are checked at once; their checks mostly wait (%(default)s)",
    )
    parser.add_argument(
        "--stress",
        type=console.seconds,
        default=0.0,
        metavar="SECONDS",
        help="go on for so long with each promise about many ends that are used at once",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Check one transport or all. Returns the exit code: 0 where every promise was kept."""
    parser = arguments()
    args = parser.parse_args(argv)
    if bool(args.transports) == args.all or (args.opt and len(args.transports) != 1):
        parser.error("name transports, or --all; --opt goes with one name")
    texts = args.transports
    if args.opt:
        texts = [f"{text}{',' if ':' in text else ':'}{','.join(args.opt)}" for text in texts]
    return console.main("check", lambda: _run(_transports(texts), args), stopped=130)


def _run(transports: list[AnyTransport], args: argparse.Namespace) -> int:
    broken = 0
    contracts = [testkit.contract_for(transport) for transport in transports]
    for contract in contracts:
        contract.stress = args.stress
    for transport, outcomes in zip(transports, _checked(contracts, args.jobs), strict=True):
        kind = "data" if isinstance(transport, DataTransport) else "command"
        for outcome in outcomes:
            if outcome.problem:
                print(f"  BROKEN   {outcome.sentence}\n           {outcome.problem}\n           {outcome.hint}")
            elif outcome.not_kept:
                print(f"  not kept {outcome.sentence}: {outcome.not_kept}")
            elif outcome.skipped:
                print(f"  skipped  {outcome.sentence}: {outcome.skipped}")
            elif args.verbose:
                print(f"  kept     {outcome.sentence}")
        bad = sum(bool(outcome.problem) for outcome in outcomes)
        not_kept = sum(bool(outcome.not_kept) for outcome in outcomes)
        kept = sum(not (outcome.problem or outcome.skipped or outcome.not_kept) for outcome in outcomes)
        says = f", {not_kept} not kept, as it says" if not_kept else ""
        print(f"{kind} {registry.describe(transport)}: {kept} promises kept, {bad} broken{says}", flush=True)
        broken += bad
    return min(broken, 1)


def _checked(contracts: Sequence[type[Contract]], jobs: int) -> Iterator[list[testkit.Outcome]]:
    """The outcomes of each contract, in their order.

    `jobs` contracts are checked at once, each in a process of its own: a transport that crashes ends only that. The
    promises of one contract are checked in turn, for limits such as RLIMIT_MSGQUEUE are those of a user.
    """
    running: dict[int, int] = {}  # contract by pid
    reports: list[IO[str]] = []
    done: dict[int, list[testkit.Outcome]] = {}
    with ExitStack() as files, _ended(running):
        for number in range(len(contracts)):
            while number not in done:
                while len(running) < jobs and len(reports) < len(contracts):
                    reports.append(files.enter_context(tempfile.TemporaryFile("w+")))
                    running[_start(contracts[len(reports) - 1], reports[-1])] = len(reports) - 1
                pid, status = os.waitpid(-1, 0)
                if (ended := running.pop(pid, None)) is not None:
                    done[ended] = _outcomes(contracts[ended], reports[ended], pid, status)
            yield done.pop(number)


@contextmanager
def _ended(running: dict[int, int]) -> Iterator[None]:
    """End the processes that still run, where the command is interrupted."""
    try:
        yield
    finally:
        for pid in running:  # of which one may have ended a moment ago
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        for pid in running:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
            leaks.sweep_after(pid)


def _start(contract: type[Contract], report: IO[str]) -> int:
    """Check a contract in a process that writes an outcome a line. Returns its pid."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        for outcome in testkit.run(contract):
            print(json.dumps(outcome), file=report, flush=True)
        code = 0
    except KeyboardInterrupt:
        pass
    finally:
        os._exit(code)


def _outcomes(contract: type[Contract], report: IO[str], pid: int, status: int) -> list[testkit.Outcome]:
    report.seek(0)
    outcomes = [testkit.Outcome(*json.loads(line)) for line in report]
    if status:
        leaks.sweep_after(pid)
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        *_, check = testkit.checks(contract)[: len(outcomes) + 1]
        hint = "The promises that come after this one were not checked."
        outcomes.append(testkit.Outcome(testkit.sentence(check), f"the process that checked it {how}", hint, ""))
    return outcomes


def _transports(texts: list[str]) -> list[AnyTransport]:
    return [transport for text in texts for transport in _of_both_kinds(text)] if texts else registry.defaults()


def _of_both_kinds(text: str) -> list[AnyTransport]:
    """The transports of that name; with options, of the kinds that have them. Raises UnknownTransport."""
    found: list[AnyTransport] = []
    wrong = None
    names = {*registry.installed().command, *registry.installed().data}
    if (name := registry.parse(text)[0]) not in names:
        raise registry.UnknownTransport(registry.unknown("transport", name, names))
    for build, known in (
        (registry.command_transport, registry.installed().command),
        (registry.data_transport, registry.installed().data),
    ):
        try:
            found.append(build(text))
        except registry.UnknownTransport as error:
            if wrong is None or name in known:
                wrong = error
    if wrong is not None and not found:
        raise wrong
    return found
