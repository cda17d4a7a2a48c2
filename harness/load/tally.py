"""What came of the requests of a load, counted in memory that its processes share."""

import mmap
import resource
import time
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from harness.load.histogram import BUCKETS, bucket

# What can come of a request. `short`: the content ended early. `wrong`: the content was not what was announced or
# expected, or the reply was not GETFILE. `failed`: there was no reply, because the connection was refused, reset or
# silent, or because the request was never sent.
OUTCOMES = ("OK", "FILE_NOT_FOUND", "ERROR", "INVALID", "short", "wrong", "failed")
OK, NOT_FOUND, ERROR, INVALID, SHORT, WRONG, FAILED = range(len(OUTCOMES))

# The words of a tally behind its counts of outcomes, all unsigned 64-bit. Times are in ns, END, OPENED and CLOSED on
# CLOCK_MONOTONIC. EXACT: how many latencies are kept one by one. FIRSTS: how many times to first bytes are kept. The
# last three are those of harness/load/slices.py.
COUNT, BYTES, END, EXACT, FIRSTS, USER, SYSTEM, SWITCHES, RSS_KIB, OPENED, CLOSED, OVER = range(
    len(OUTCOMES), len(OUTCOMES) + 12
)
_WORDS = OVER + 1
MOST_FIRSTS = 1 << 14  # times to first bytes that are kept: those of the latest requests
_LATENCIES = _WORDS + 2 * BUCKETS + MOST_FIRSTS
_MOST_EXACT = 1 << 20  # latencies that are kept one by one: 8 MiB, and seconds to sort


class Usage(NamedTuple):
    """What a process has used since some time; peak_rss_kib counts from its start. The last words of a tally."""

    user_ns: int = 0
    system_ns: int = 0
    switches: int = 0
    peak_rss_kib: int = 0

    def plus(self, later: "Usage") -> "Usage":
        """The usage of both times together, of one process."""
        return Usage(
            self.user_ns + later.user_ns,
            self.system_ns + later.system_ns,
            self.switches + later.switches,
            max(self.peak_rss_kib, later.peak_rss_kib),
        )


def usage_since(before: resource.struct_rusage) -> Usage:
    """What this process has used since getrusage(RUSAGE_SELF) returned `before`."""
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(
        round((after.ru_utime - before.ru_utime) * 1e9),
        round((after.ru_stime - before.ru_stime) * 1e9),
        after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
        after.ru_maxrss,
    )


class Tally:
    """What came of the requests of one process or thread, in memory that it shares with the process that forked it.

    words: a count for each of OUTCOMES, then the words named above. While requests are made, the words up to END are
    those of the latest flush(), and END is its time; the others are written by end(). latencies: ns, in the order in
    which the requests ended that were OK, as far as there is room. histogram: how many of the later latencies are in
    each bucket of histogram.py, so that hours of requests have room. others: the same of the requests that were not OK.
    firsts: ns to the first bytes of replies.
    counts: how many requests had each of OUTCOMES, up to date, in the process that counts only.
    """

    def __init__(self, memory: memoryview) -> None:
        self.words = memory[:_WORDS]
        self.histogram = memory[_WORDS : _WORDS + BUCKETS]
        self.others = memory[_WORDS + BUCKETS : _WORDS + 2 * BUCKETS]
        self.firsts = memory[_WORDS + 2 * BUCKETS : _LATENCIES]
        self.latencies = memory[_LATENCIES:]
        self._room = len(self.latencies)

    def begin(self) -> None:
        """Set all counts to 0. Can be called again, after a warm-up."""
        self.counts = [0] * len(OUTCOMES)
        self._buckets, self._others = [0] * BUCKETS, [0] * BUCKETS
        self._content = self._exact = self._firsts = 0
        self.flush(time.monotonic_ns())

    def add(self, outcome: int, content: int, begun: int, ended: int, first: int = 0) -> None:
        """Count a request that has ended: its outcome, and the bytes of its content.

        Its latency is from `begun` to `ended`, both ns on one clock. Those of other outcomes than OK are kept apart:
        what fails takes another time. first: when the first bytes of its reply came; 0: none came, or it is not known.
        """
        self.counts[outcome] += 1
        self._content += content
        latency, exact = ended - begun, self._exact
        if outcome != OK:
            self._others[bucket(latency)] += 1
        elif exact < self._room:
            self.latencies[exact] = latency
            self._exact = exact + 1
        else:
            self._buckets[bucket(latency)] += 1
        if first:
            self.firsts[self._firsts % MOST_FIRSTS] = first - begun
            self._firsts += 1

    def flush(self, now: int) -> None:
        """Write what was counted until `now` to the shared memory."""
        self._write(now)

    def end(self, end: int, usage: Usage) -> None:
        """Write everything to the shared memory; the last request ended at `end`."""
        self.histogram[:] = memoryview(array("Q", self._buckets))
        self.others[:] = memoryview(array("Q", self._others))
        self._write(end, self._exact, min(self._firsts, MOST_FIRSTS), *usage)

    def _write(self, *words: int) -> None:
        for word, value in enumerate((*self.counts, sum(self.counts), self._content, *words)):
            self.words[word] = value


def shared_tallies(count: int, requests: int | None) -> list[Tally]:
    """`count` tallies with room for the latencies of `requests` requests each; None where their number is not known.

    Make them before forking.
    """
    return [Tally(memory) for memory in shared_memory(count, requests)]


def shared_memory(count: int, requests: int | None) -> list[memoryview]:
    """The memory of shared_tallies(). A page of it is allocated when it is first written."""
    words = _LATENCIES + min(requests or _MOST_EXACT, _MOST_EXACT)
    memory = memoryview(mmap.mmap(-1, count * words * 8)).cast("Q")
    return [memory[start : start + words] for start in range(0, len(memory), words)]


def all_ok(tallies: Sequence[Tally]) -> bool:
    """Whether all requests that other processes have counted were OK."""
    return all(tally.words[OK] == tally.words[COUNT] for tally in tallies)


def check_all_ok(tallies: Sequence[Tally], when: str) -> None:
    """Raises OSError with the counts where a reply was not OK. when: for the message: `warm-up`."""
    counts = [sum(tally.counts[outcome] for tally in tallies) for outcome in range(len(OUTCOMES))]
    if any(counts[OK + 1 :]):
        found = ", ".join(f"{count} {outcome}" for outcome, count in zip(OUTCOMES, counts, strict=True) if count)
        raise OSError(f"{when}: not every reply was OK: {found}")
