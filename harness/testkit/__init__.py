"""The conformance kit: what a transport promises, one check for each promise, for any plugin and any test runner.

    from harness.testkit import DataContract

    class TestMine(DataContract):
        transport = Mine()

is all that pytest needs; `harness check NAME` runs the same checks without it. The name of a check is the promise.
Its docstring says what to look at where the promise is broken. Replies are sent, and processes are killed, in real
processes of their own.

Each check runs in a process of its own. `in_a_process_of_its_own` decorates a test of yours that needs one, too: the
process that runs the kit may not use a library that survives no fork.

A check that cannot work here raises unittest.SkipTest with the reason; any other exception is a failure.
"""

from harness.api import CommandTransport, DataTransport
from harness.testkit.command import CommandContract
from harness.testkit.contract import Outcome, checks, run, sentence
from harness.testkit.data import DataContract
from harness.testkit.processes import in_a_process_of_its_own
from harness.testkit.promise import Broken

__all__ = [
    "Broken",
    "CommandContract",
    "DataContract",
    "Outcome",
    "checks",
    "contract_for",
    "in_a_process_of_its_own",
    "run",
    "sentence",
]


def contract_for(transport: CommandTransport | DataTransport) -> type[DataContract] | type[CommandContract]:
    """The contract of a transport's kind, with `transport` set."""
    base = DataContract if isinstance(transport, DataTransport) else CommandContract
    return type(f"Test{type(transport).__name__}", (base,), {"transport": transport})
