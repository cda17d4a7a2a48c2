"""What a probe is: it looks at the processes of a trial and reports figures. docs/probes.md shows how to write one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple


class Reading(NamedTuple):
    """One figure of a probe: a total over the trial, as a probe does not know how many requests there were.

    role: `client`, `proxy`, `cache`, or "" for the machine. metric: its name. unit: such as `1`, `s`, `B`.
    """

    role: str
    metric: str
    value: float
    unit: str


class Moments(NamedTuple):
    """When one request reached its stages: ns since the go-ahead; 0 where it has no such stage.

    request: its number within its proxy process. *_pid, *_thread: the process, and the thread there (gettid(2)), that
    had it in each role; 0: none. The columns of stages.csv say what each stage is: docs/results.md.
    """

    request: int
    proxy_pid: int
    proxy_thread: int
    cache_pid: int
    cache_thread: int
    accepted: int
    read: int
    sent: int
    received: int
    found: int
    published: int
    taken: int
    delivered: int
    closed: int
    answered: int


class Probe(ABC):
    """Looks at the processes of a trial from the go-ahead to the last reply.

    name: what an experiment's `probes` call it.
    costly: whether it slows down the processes that it looks at. It then runs in trials of its own, whose figures are
        never compared.
    table: the result file that keeps its readings, without `.csv`. Where trials.csv has a column named `role_metric`,
        or `metric` for the machine, that probes fill in, the reading stands in that column instead, unless a built-in
        probe has filled it in.

    begin and end run while the load waits, so their time is in no figure. The harness calls end once after begin,
    also if the trial fails; the readings of a failed trial are dropped. The processes live until end has returned,
    unless the trial failed.
    """

    name: ClassVar[str]
    costly: ClassVar[bool] = False
    table: ClassVar[str] = "probes"

    def unusable(self) -> str:
        """Why the probe cannot work on this machine, and the command that mends it, in one line; empty if it can."""
        return ""

    def environment(self, directory: str) -> Mapping[str, str]:
        """Variables that the programs of the trial are started with, for a costly probe. By default there are none.

        directory: as in begin.
        """
        return {}

    @abstractmethod
    def begin(self, processes: Mapping[str, Sequence[int]], directory: str) -> None:
        """Start to look, and return once it does. Raises OSError, and then leaves nothing behind.

        processes: pids by role, a program's parent process before its workers.
        directory: for the files of this probe alone; the harness removes it after the trial.
        """

    @abstractmethod
    def end(self) -> Sequence[Reading | Moments]:
        """Stop looking, within a bounded time, and return what was seen since begin. Raises OSError.

        Moments are kept in stages.csv, readings in the probe's table.
        """
