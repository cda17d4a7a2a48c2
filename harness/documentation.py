"""`harness docs`: lists the pages that come with the package, or shows one."""

import argparse
import os
import sys
from collections.abc import Sequence

from harness import console, shipped


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness docs",
        description="List the pages that come with the package, or show one: in $PAGER on a terminal.",
        epilog="Exit codes: 0 shown, 2 there is no such page.",
    )
    parser.add_argument("page", metavar="NAME", nargs="?", help="such as `ipc`, `statistics` or `decisions/0016`")
    parser.add_argument("--path", action="store_true", help="print where it is instead")
    return parser


def main(argv: Sequence[str]) -> int:
    """List or show. Returns the exit code."""
    args = arguments().parse_args(argv)
    return console.main("docs", lambda: _show(args.page, args.path) if args.page else _list())


def _list() -> None:
    known = shipped.pages()
    width = max(len(name) for name in known if "/" not in name)
    for name, path in known.items():
        if "/" not in name:
            print(f"{name:{width}}  {_title(path)}")
    print(f"\n`harness docs decisions/0016` shows a decision; decisions/README lists all. They are in {shipped.root()}")


def _title(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return next((line.strip("# \n") for line in file if line.startswith("# ")), os.path.basename(path))


def _show(name: str, only_path: bool) -> None:
    path = shipped.page(name)
    if only_path:
        print(path)
        return
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if sys.stdout.isatty():
        import pydoc  # noqa: PLC0415  it imports much, and only a terminal needs it

        pydoc.pager(text)
    else:
        print(text, end="")
