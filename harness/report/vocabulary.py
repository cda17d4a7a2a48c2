"""The words of a page: of the pipeline, which serves files, or of messages between two processes (docs/ipc.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.analysis import naming
from harness.analysis.study import Context, Study


@dataclass(frozen=True)
class Words:
    """request, size, latency, cpu: nouns for sentences. files: the head of the column with sizes. rate: a unit. roles:
    role -> what the page calls its processes; `reader` is who reads a socket that a mechanism ends in."""

    request: str
    files: str
    size: str
    latency: str
    rate: str
    cpu: str
    roles: dict[str, str]

    def factor(self, name: str) -> str:
        """The name of a factor: `proxy_threads` is `receiver_threads` where the page speaks of messages."""
        if name == "files":
            return self.files
        role, _, rest = name.partition("_")
        return f"{self.roles[role]}_{rest}" if rest and role in self.roles else name

    def label(self, levels: Mapping[str, Any]) -> str:
        """The label of contexts that have these levels."""
        return naming.of_messages(levels) if self is MESSAGES else naming.label(levels)


PIPELINE = Words(
    request="request",
    files="files",
    size="size of a file",
    latency="latency",
    rate="requests/s",
    cpu="CPU time of proxy and cache",
    roles={"client": "client", "proxy": "proxy", "cache": "cache"},
)
MESSAGES = Words(
    request="message",
    files="message",
    size="size of a message",
    latency="round trip",
    rate="messages/s",
    cpu="CPU time of both processes",
    roles={"client": "reader", "proxy": "receiver", "cache": "sender"},
)


def of_context(context: Context) -> Words:
    """The words for the cells of a context."""
    return MESSAGES if context.messages else PIPELINE


def of_study(study: Study) -> Words:
    """The words for what is said of all contexts at once."""
    return MESSAGES if study.contexts and all(context.messages for context in study.contexts) else PIPELINE
