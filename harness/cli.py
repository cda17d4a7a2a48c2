"""The command `harness`. Each subcommand is the `main(argv)` of a module, which is imported only when it is run."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

_COMMANDS = {
    "simplecached": ("harness.pipeline.simplecached", "serve files to web proxies"),
    "webproxy": ("harness.pipeline.webproxy", "serve GETFILE clients from a cache"),
    "origin": ("harness.origin.server", "serve files over HTTP, for proxies and caches that fetch from an origin"),
    "gfclient": ("harness.load.gfclient", "ask a proxy for files, count and time the replies"),
    "lane": ("harness.load.lane", "ask a cache for files over the two channels alone, count and time the replies"),
    "ipc": ("harness.experiment.ipc", "say which mechanism suits messages between two processes"),
    "experiment": (
        "harness.experiment.experiment_command",
        "say what a file would run, list the studies that come along, begin one",
    ),
    "run": ("harness.experiment.run", "run an experiment file and keep its results"),
    "show": ("harness.analysis.show", "print the tables of a run again"),
    "report": ("harness.report.report_command", "write the report of a run: a page and pictures"),
    "trace": ("harness.report.trace", "write where requests spent their time, for Perfetto and Chrome"),
    "claims": ("harness.analysis.claims_command", "say which claims of an experiment its trials support"),
    "ab": ("harness.experiment.ab", "say what another version of the harness changes, both measured side by side"),
    "compare": ("harness.analysis.compare", "compare two runs, such as before and after a change"),
    "fleet": ("harness.fleet.fleet_command", "run a study on many hosts"),
    "doctor": ("harness.doctor", "say what this machine allows, and what will disturb a study"),
    "plugins": ("harness.plugins", "list the installed transports and probes, and whether they work here"),
    "new-transport": ("harness.new_transport", "write a package with a transport of your own to start from"),
    "check": ("harness.testkit.check", "test whether transports keep what the contract promises"),
    "clean": ("harness.clean", "remove what killed programs left behind"),
    "completion": ("harness.completion", "print what a shell needs to complete all of this"),
    "docs": ("harness.documentation", "show the pages that come with the package"),
}


def usage() -> str:
    rows = "\n".join(f"  {name:15}{what}" for name, (_, what) in _COMMANDS.items())
    return f"usage: harness COMMAND ...\n\n{rows}\n\n`harness COMMAND --help` says more."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand. Returns its exit code, 2 if there is no such command, or 141 where nothing reads what it
    prints any more: it ends as quietly as a program that SIGPIPE kills."""
    try:
        code: int | SystemExit
        try:
            code = _run(argv)
        except SystemExit as ended:  # of argparse, which has printed its help
            code = ended
        if sys.stdout is not None:  # it is closed from the start, as by `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        from harness import suggest  # noqa: PLC0415

        if not suggest.unread():
            raise
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    if isinstance(code, SystemExit):
        raise code
    return code


def _run(argv: Sequence[str] | None) -> int:
    arguments = sys.argv[1:] if argv is None else list(argv)
    if "_ARGCOMPLETE" in os.environ:
        importlib.import_module(_COMMANDS["completion"][0]).complete(_COMMANDS)
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print(usage())
        return 0 if arguments else 2
    if arguments == ["--version"]:
        from harness import __version__  # noqa: PLC0415

        print(f"harness {__version__}")
        return 0
    if arguments[0] not in _COMMANDS:
        from harness.suggest import unknown  # noqa: PLC0415

        print(f"harness: {unknown('command', arguments[0], _COMMANDS)}\n\n{usage()}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(_COMMANDS[arguments[0]][0]).main(arguments[1:])
    return code
