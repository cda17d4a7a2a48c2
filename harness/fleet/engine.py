"""What a coordinator needs of the machinery that reaches hosts: harness/fleet/dask_engine.py is one, by Dask."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Seen(NamedTuple):
    """A host that is there. address: of its worker; another one is another process. silent_s: since it was heard of."""

    address: str
    silent_s: float


class Answer(NamedTuple):
    """What a command on a host has come to. code: its exit code, -1 where it could not be run."""

    host: str
    code: int
    output: bytes
    errors: str


class Engine(Protocol):
    """Runs commands on hosts, at most one on each at a time."""

    def look(self) -> Mapping[str, Seen]:
        """The hosts that are there now. Raises OSError where the machinery itself is gone."""

    def send(self, host: str, command: Sequence[str], given: bytes) -> None:
        """Have a host run a command. given: its standard input."""

    def answers(self, bound: float) -> list[Answer]:
        """What has been answered; waits for the first one, at most `bound` seconds."""

    def drop(self, host: str) -> None:
        """Forget what a host was sent: no answer comes any more."""

    def revive(self, host: str) -> None:
        """Try to reach a host that is not there, where that is possible. Returns at once."""
