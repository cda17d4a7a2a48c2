"""The command-line arguments that every program which makes a load has in common."""

import argparse

from harness import console


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the workload, the warm-up, how much load, how the result is reported."""
    add = parser.add_argument
    add(
        "-w",
        dest="workloads",
        action="append",
        required=True,
        metavar="WORKLOAD",
        help="a file with a path a line; with --slices several can be given",
    )
    add(
        "--warmup",
        type=console.seconds,
        default=None,
        metavar="SECONDS",
        help="requests before those that count; all must be OK",
    )
    add(
        "--apart",
        action="store_true",
        help="never request a file that is on its way: each requester has a part of WORKLOAD for itself",
    )
    add("--json", action="store_true", help="print the result as one line of JSON")
    add(
        "--gate",
        action="store_true",
        help='let the program that starts this one decide when: print {"ready": PROGRAM} after the warm-up, and wait '
        'for a line on standard input; print {"done": true} when the requests have ended, and wait for another; end '
        "early where standard input ends",
    )
    add(
        "--live",
        action="store_true",
        help='with --gate: print {"tick": {...}} each second, with what has come until then',
    )
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("-r", dest="requests", type=console.positive, help="requests in all")
    amount.add_argument("--seconds", type=console.seconds, help="send requests for this long instead")
    amount.add_argument(
        "--slices",
        action="store_true",
        help="send requests for a few milliseconds whenever a line on standard input asks for it, and print what came "
        "of them in a line, until standard input ends: see `harness docs programs`",
    )


def check_load_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace, **for_one: object) -> None:
    """End with a message where the arguments do not go together.

    for_one: by option, what was given for a load that is one whole, and so does not go with --slices.
    """
    if args.slices:
        given = {"--warmup": args.warmup, "--apart": args.apart, "--gate": args.gate, "--live": args.live, **for_one}
        for option, value in given.items():
            if value is not None and value is not False:
                parser.error(f"argument {option}: not allowed with argument --slices")
        return
    if args.live and not args.gate:
        parser.error("--live needs --gate, which has a program read what this one prints")
    if len(args.workloads) > 1:
        parser.error("several workloads (-w) need --slices")
