"""`harness clean`: remove what killed programs of this user left behind. What living programs own is not touched."""

import argparse
import os
from collections.abc import Sequence
from glob import escape, glob

from harness import console, rendezvous


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="harness clean", description=__doc__)
    parser.add_argument(
        "--name", default=None, metavar="RENDEZVOUS", help="only at this rendezvous (default: at all of yours)"
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Sweep, and print each object and each program's directory that was removed. Returns the exit code."""
    args = arguments().parse_args(argv)

    def body() -> int:
        failed: list[str] = []
        homes = glob(f"{escape(rendezvous.base_directory())}/{args.name or '*'}/*")
        found = rendezvous.sweep(args.name, failed)
        print("\n".join([*found, *(home for home in homes if not os.path.exists(home))]) or "nothing to remove")
        for line in failed:
            console.say(f"cannot remove {line}")
        return int(bool(failed))

    return console.main("clean", body)
