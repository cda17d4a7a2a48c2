"""What the tallies of all processes add up to: the result of a load, and how it is printed."""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from harness import units
from harness.load.histogram import bucket, upper_bound
from harness.load.tally import BYTES, COUNT, END, EXACT, FIRSTS, OK, OUTCOMES, RSS_KIB, SWITCHES, SYSTEM, USER, Tally

PERCENTILES = (50, 90, 99, 99.9, 99.99)


def progress(tallies: Sequence[Tally], begun: int) -> dict[str, float]:
    """What has come until now: `requests`, `content_bytes`, and `seconds` from `begun` to when that was counted."""
    ends, requests, content = ([tally.words[word] for tally in tallies] for word in (END, COUNT, BYTES))
    seconds = (sum(ends) / len(ends) - begun) / 1e9
    return {"seconds": seconds, "requests": sum(requests), "content_bytes": sum(content)}


def summarise(tallies: Sequence[Tally], begun: int) -> dict[str, Any]:
    """The result of a load. begun: when it began, ns on the clock of time.monotonic_ns().

    requests: those that ended, well or not. requests_per_s and latencies are of the replies `OK`; `others_*` are the
    latencies of all other requests, upper bounds of buckets.
    histogram: pairs of a latency in ns and a count, see harness.load.histogram: so many requests took so long or a
    little less. Percentiles are exact, but read off the histogram where there were more requests than latencies could
    be kept one by one. user_s, kernel_s, switches, peak_rss_bytes: sums over the processes. busy: the share of the
    time for which the busiest process used a CPU.
    """
    words = [tally.words for tally in tallies]
    elapsed = max(max(word[END] for word in words) - begun, 1) / 1e9
    good = sum(word[OK] for word in words)
    exact = sorted(ns for tally in tallies for ns in tally.latencies[: tally.words[EXACT]])
    histogram = histogram_of(exact, [tally.histogram for tally in tallies])
    firsts = sorted(ns for tally in tallies for ns in tally.firsts[: tally.words[FIRSTS]])
    latencies = exact
    others = ranked(histogram_of((), [tally.others for tally in tallies]))
    up_to: Sequence[int] = range(1, good + 1)
    if len(exact) < good:
        latencies, up_to = ranked(histogram)
    return {
        "requests": sum(word[COUNT] for word in words),
        **{outcome: sum(word[index] for word in words) for index, outcome in enumerate(OUTCOMES)},
        "seconds": elapsed,
        "requests_per_s": good / elapsed,
        "content_bytes": sum(word[BYTES] for word in words),
        **{f"latency_p{p:g}_us": percentile(latencies, up_to, p) / 1e3 for p in PERCENTILES},
        "first_byte_p50_us": percentile(firsts, range(1, len(firsts) + 1), 50) / 1e3,
        "latency_max_us": percentile(latencies, up_to, 100) / 1e3,
        "others_p50_us": percentile(*others, 50) / 1e3,
        "others_max_us": percentile(*others, 100) / 1e3,
        "user_s": sum(word[USER] for word in words) / 1e9,
        "kernel_s": sum(word[SYSTEM] for word in words) / 1e9,
        "busy": min(1.0, max(word[USER] + word[SYSTEM] for word in words) / 1e9 / elapsed),
        "switches": sum(word[SWITCHES] for word in words),
        "peak_rss_bytes": sum(word[RSS_KIB] for word in words) * 1024,
        "histogram": histogram,
    }


def histogram_of(latencies: Iterable[int], more: Iterable[Sequence[int]] = ()) -> list[tuple[int, int]]:
    """Pairs of a latency in ns, the upper bound of a bucket, and a count. more: counts by bucket of other latencies."""
    buckets = Counter(map(bucket, latencies))
    for histogram in more:
        buckets.update({index: count for index, count in enumerate(histogram) if count})
    return [(upper_bound(index), count) for index, count in sorted(buckets.items())]


def ranked(histogram: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Pairs of a value and a count, ascending, as percentile() takes them: the values, and how many are not larger."""
    pairs = list(histogram)
    return [value for value, _ in pairs], list(accumulate(count for _, count in pairs))


def percentile(values: Sequence[int], up_to: Sequence[int], percent: float) -> int:
    """The nearest-rank percentile: the smallest value that at least `percent` % do not exceed; 0 where there is none.

    values: ascending. up_to: for each of them, how many are not larger.
    """
    return values[bisect_left(up_to, -(-up_to[-1] * round(percent * 100) // 10000))] if values else 0


def print_result(result: dict[str, Any], as_json: bool, asked: float | None = None) -> int:
    """Print what summarise() returned: one line of JSON, or some to be read. Returns the program's exit code.

    asked: for how many seconds the requests of an open loop were due.
    """
    print(json.dumps(result) if as_json else _text(result, asked))
    return 0 if result["OK"] == result["requests"] else 1


def _text(result: dict[str, Any], asked: float | None) -> str:
    spectrum = "  ".join(f"p{p:g} {result[f'latency_p{p:g}_us']:.0f}" for p in PERCENTILES)
    lines = [
        f"{result['requests']} requests in {result['seconds']:.3f} s: {result['requests_per_s']:.0f} replies OK/s, "
        f"{result['content_bytes'] / result['seconds'] / 1e6:.1f} MB/s",
        f"latency of replies OK in us: {spectrum}  max {result['latency_max_us']:.0f}",
        "  ".join(f"{outcome} {result[outcome]}" for outcome in OUTCOMES),
    ]
    if result["OK"] < result["requests"]:
        lines.append(f"latency of the others: p50 {result['others_p50_us']:.0f}  max {result['others_max_us']:.0f}")
    if asked and units.saturated(asked, result["seconds"], result["latency_p50_us"] / 1e6):
        lines.append("Saturated: the rate is more than was served, and the latency is that of a growing queue.")
    if result["busy"] > 0.9:
        lines.append(f"The client itself was busy {result['busy']:.0%} of the time: it may be what you measure.")
    return "\n".join(lines)
