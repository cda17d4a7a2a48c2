"""`harness completion`: prints what a shell needs to complete commands, options and names, by argcomplete.

The shell then runs `harness` itself, with the line in its environment, and complete() answers it.
"""

import argparse
import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness import console, registry, shipped

_SHELLS = ("bash", "zsh", "fish")
_LATER = {
    "bash": 'put eval "$(harness completion bash)" into ~/.bashrc',
    "zsh": 'put eval "$(harness completion zsh)" into ~/.zshrc, after compinit',
    "fish": "put harness completion fish | source into ~/.config/fish/config.fish",
}
# By the name of an argument: the names that can stand there, beside files.
_NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "data": lambda: registry.installed().data,
    "command": lambda: registry.installed().command,
    "transports": lambda: {**registry.installed().data, **registry.installed().command},
    "experiment": shipped.studies,
    "page": shipped.pages,
}


def arguments() -> argparse.ArgumentParser:
    later = "; ".join(f"{shell}: {what}" for shell, what in _LATER.items())
    parser = argparse.ArgumentParser(
        prog="harness completion",
        description="Print what a shell needs to complete commands, options and names.",
        epilog=f"To have it in each shell: {later}.",
    )
    parser.add_argument("shell", choices=_SHELLS)
    return parser


def main(argv: Sequence[str]) -> int:
    """Print it. Returns the exit code."""
    args = arguments().parse_args(argv)

    def write() -> None:
        from argcomplete.shell_integration import shellcode  # noqa: PLC0415

        print(shellcode(["harness"], shell=args.shell), end="")

    return console.main("completion", write)


def complete(commands: Mapping[str, tuple[str, str]]) -> None:
    """Answer the shell that asks what can come next, and end; where none asks, return.

    commands: by name, the module of each and what it does. Of the one in the line the arguments are made.
    """
    import argcomplete  # noqa: PLC0415

    _, _, line = os.environ.get("COMP_LINE", "").lstrip().partition(" ")
    chosen = line.split(" ")[0] if " " in line else ""
    parser = argparse.ArgumentParser(prog="harness")
    added = parser.add_subparsers()
    for name, (module, what) in commands.items():
        own = [_prepared(importlib.import_module(module).arguments())] if name == chosen else []
        added.add_parser(name, help=what, parents=own, add_help=False)
    argcomplete.autocomplete(parser)


def _prepared(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, whose arguments know what can stand there."""
    for action in parser._actions:
        if names := _NAMES.get(action.dest):
            action.completer = _completer(names)  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _prepared(one)
    return parser


def _completer(names: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    from argcomplete.completers import FilesCompleter  # noqa: PLC0415

    files = FilesCompleter()

    def known(prefix: str, action: argparse.Action, **_: object) -> list[str]:
        beside = [] if action.option_strings or action.dest in {"page", "transports"} else list(files(prefix))
        return [*(name for name in names() if name.startswith(prefix)), *beside]

    return known
