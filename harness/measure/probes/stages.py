"""Where requests spend their time: when each of a sample reached its stages, in the proxy and in the cache."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.api import Moments, Probe, hookimpl
from harness.pipeline import stages

_MOST = 300  # requests that are reported of a trial
# What is noted of a request: of any client, where the content comes over a lane, and in the cache.
_OF_CLIENT = "accepted read delivered closed".split()
_OVER_LANE, _IN_CACHE = "sent taken delivered".split(), "received found published answered".split()


class Stages(Probe):
    """Moments of at most 300 requests, evenly from the whole load. The programs note them: harness/pipeline/stages.py.

    Only requests that reached all stages of their kind are reported.
    """

    name = "stages"
    costly = True
    table = "stages"

    def environment(self, directory: str) -> Mapping[str, str]:
        return {stages.VARIABLE: directory}

    def begin(self, processes: Mapping[str, Sequence[int]], directory: str) -> None:
        self._directory = directory
        self._begun = time.monotonic_ns()

    def end(self) -> list[Moments]:
        found = sorted(_joined(stages.read(self._directory), self._begun), key=lambda one: one.accepted or one.sent)
        if not found:
            raise OSError("the programs noted no whole request: was the load long enough, is their version this one?")
        return found[:: -(-len(found) // _MOST)]


def _joined(noted: Iterable[stages.Noted], begun: int) -> Iterator[Moments]:
    """What proxy and cache noted of each request that began after `begun`, in ns since then."""
    asked: list[stages.Noted] = []
    answered = defaultdict(list)
    for one in noted:
        if one.moments["received"]:
            answered[one.request, one.crc].append(one)
        else:
            asked.append(one)
    for proxy in asked:
        at = proxy.moments
        wanted = [*(_OF_CLIENT if at["read"] else ()), *(_OVER_LANE if at["sent"] else ())]
        if not all(at[name] > begun for name in wanted):
            continue
        threads = [proxy.pid, proxy.thread, 0, 0]
        if at["sent"]:
            # A load over lanes that is run twice sends equal commands: the time says which answer is to this one.
            same = answered[proxy.request, proxy.crc]
            cache = next((one for one in same if at["sent"] <= one.moments["received"] <= at["taken"]), None)
            if cache is None or not all(cache.moments[name] for name in _IN_CACHE):
                continue
            threads[2:] = cache.pid, cache.thread
            at |= {name: cache.moments[name] for name in _IN_CACHE}
        yield Moments(proxy.request, *threads, **{name: time and time - begun for name, time in at.items()})


@hookimpl
def probes() -> list[type[Probe]]:
    return [Stages]
