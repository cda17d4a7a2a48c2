"""`harness check`: holds installed transports to the conformance kit."""

import argparse
from collections.abc import Sequence

from harness import console, registry, testkit
from harness.api import DataTransport
from harness.registry import AnyTransport


def main(argv: Sequence[str]) -> int:
    """Check one transport or all. Returns the exit code: 0 where every promise was kept."""
    parser = argparse.ArgumentParser(
        prog="harness check",
        description="Hold transports to what they promise. Each line is one promise.",
        epilog="Exit codes: 0 all promises kept, 1 some broken, 2 misused.",
    )
    parser.add_argument("transports", nargs="*", metavar="NAME[:opt=val,...]", help="both kinds of that name")
    parser.add_argument("--all", action="store_true", help="every installed transport, with its default options")
    parser.add_argument("--opt", action="append", default=[], metavar="opt=val", help="an option of the one NAME")
    parser.add_argument("-v", dest="verbose", action="store_true", help="show the promises that were kept, too")
    args = parser.parse_args(argv)
    if bool(args.transports) == args.all or (args.opt and len(args.transports) != 1):
        parser.error("name transports, or --all; --opt goes with one name")
    texts = (
        [f"{text}{',' if ':' in text else ':'}{','.join(args.opt)}" for text in args.transports]
        if args.opt
        else (args.transports)
    )
    return console.main("check", lambda: _run(texts, args.verbose), stopped=130)


def _run(texts: list[str], verbose: bool) -> int:
    broken = 0
    for transport in _transports(texts):
        kind = "data" if isinstance(transport, DataTransport) else "command"
        outcomes = []
        for outcome in testkit.run(testkit.contract_for(transport)):
            outcomes.append(outcome)
            if outcome.problem:
                print(f"  BROKEN   {outcome.sentence}\n           {outcome.problem}\n           {outcome.hint}")
            elif outcome.skipped:
                print(f"  skipped  {outcome.sentence}: {outcome.skipped}")
            elif verbose:
                print(f"  kept     {outcome.sentence}")
        bad = sum(bool(outcome.problem) for outcome in outcomes)
        kept = sum(not (outcome.problem or outcome.skipped) for outcome in outcomes)
        print(f"{kind} {registry.describe(transport)}: {kept} promises kept, {bad} broken", flush=True)
        broken += bad
    return min(broken, 1)


def _transports(texts: list[str]) -> list[AnyTransport]:
    return [transport for text in texts for transport in _of_both_kinds(text)] if texts else registry.defaults()


def _of_both_kinds(text: str) -> list[AnyTransport]:
    """The transports of that name; with options, of the kinds that have them. Raises UnknownTransport."""
    found: list[AnyTransport] = []
    wrong = None
    for build, known in (
        (registry.command_transport, registry.load().command),
        (registry.data_transport, registry.load().data),
    ):
        try:
            found.append(build(text))
        except registry.UnknownTransport as error:
            if wrong is None or registry.parse(text)[0] in known:
                wrong = error
    if wrong is not None and not found:
        raise wrong
    return found
