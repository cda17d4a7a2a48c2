"""Whether a cell can run: contradictions within the cell, and what this machine cannot do."""

from collections.abc import Iterable
from importlib.util import find_spec

from harness import plugins, registry
from harness.factors import DIRECTORY, Spec
from harness.measure import file_sets, versions
from harness.measure.channels import Channels, channels
from harness.measure.placement import unplaceable, unschedulable
from harness.measure.slicing import at_once
from harness.origin import nginx

HELD = 8  # commands that every channel holds, unless it is asked for fewer
_APART = 4  # files for each request under way: dropping spares pages that the network still holds


def contradiction(spec: Spec) -> tuple[tuple[str, ...], str] | None:
    """Factors whose levels do not go together, the likeliest mistake first, and why not; None where all do."""
    workers = spec.proxy_processes * spec.proxy_threads
    if spec.source == "cache":
        try:
            channels(spec)
        except ValueError as error:
            text = str(error)
            return (*sorted(("chunk", "depth", "wait"), key=lambda name: f"{name}=" not in text), "data"), text
        if spec.lanes < spec.proxy_processes:
            text = f"{spec.lanes} lanes for {spec.proxy_processes} proxy processes: each needs one of its own"
            return ("lanes", "proxy_processes"), text
    if spec.fault:
        if spec.source != "cache" or spec.scope != "pipeline":
            return ("fault",), "is done to the pipeline with a cache: `scope: pipeline`, `source: cache`"
        if spec.page_cache == "cold":
            return (
                "fault",
                "page_cache",
            ), "how much a killed program has read from disks is lost with it: take `page_cache: warm`"
        if not spec.requests and spec.fault_at >= spec.seconds:
            return ("fault_at", "seconds"), f"{spec.fault_at:g} s is after the load, which lasts {spec.seconds:g} s"
    if spec.scope == "lane":
        if spec.source != "cache":
            return ("source", "scope"), f"a lane leads to a cache; `source: {spec.source}` has none"
        if spec.rate:
            return ("rate", "scope"), "in a lane each request waits for its reply; there is no `rate`"
        if spec.lanes < at_once(spec):
            own = spec.batch if spec.batch > 1 else "one"
            text = f"{spec.lanes} lanes for {workers} workers: each needs {own} of its own"
            return ("lanes", "proxy_threads", "proxy_processes", "batch"), text
        if spec.batch > 1 and (least := at_once(spec) - HELD) > spec.cache_processes * spec.cache_threads:
            text = f"{at_once(spec)} commands at a time take {least} workers of the cache, or more"
            return ("cache_threads", "cache_processes", "batch"), text
        if spec.batch > 1 and (pair := channels(spec)) and registry.shape(pair.data)[1] == "hand-off":
            return ("data", "batch"), f"{spec.data} gives its client away for one request at a time: no `batch`"
    return None


def impossible(spec: Spec) -> str:
    """Why a trial could not do what its cell says, here and now, in one line; empty where it can."""
    if wrong := contradiction(spec):
        factors, text = wrong
        return f"{factors[0]}: {text}"
    here = unplaceable(spec.placement) or unschedulable(spec.scheduling)
    return here or versions.unfit(spec) or _bad_origin(spec) or _bad_files(spec)


def _bad_origin(spec: Spec) -> str:
    if spec.source != "curl":
        return ""
    if not spec.interpreter and find_spec("pycurl") is None:
        return "source curl: needs pycurl: pip install 'transport-harness[curl]'"
    if spec.origin_server == "nginx":
        root = spec.files.removeprefix(DIRECTORY) if spec.files.startswith(DIRECTORY) else "/"
        if reason := nginx.unable(root, bool(spec.origin_latency or spec.origin_bandwidth)):
            return f"origin_server nginx: {reason}"
    return ""


def _bad_files(spec: Spec) -> str:
    pair = channels(spec)
    if spec.files.startswith(DIRECTORY) and pair and not pair.data.moves_content:
        return f"files {spec.files}: the {pair.data.name} transport serves zeros; take a file set of sizes"
    if spec.page_cache != "cold":
        return ""
    if spec.source == "curl":
        return "page_cache cold: the origin of `source: curl` serves from the page cache"
    if pair and pair.data.keeps_content:
        return f"page_cache cold: {pair.data.name} keeps content, or the pages of files, itself; take another transport"
    files = len(file_sets.file_set(spec.files, spec.copies, "").paths)
    at_once = spec.clients if spec.scope == "pipeline" else spec.proxy_threads * spec.proxy_processes
    if files < at_once * _APART:
        return (
            f"page_cache cold: {files} files for {at_once} requests at a time, which would find pages that others "
            f"still hold; take {at_once * _APART} files or more (copies)"
        )
    return ""


def refusals(cells: Iterable[Spec]) -> dict[Spec, str]:
    """The cells that cannot run here, with the reason in one line.

    Whether transports and machine can hold a cell is tried, with as many lanes as the cell has: limits such as
    RLIMIT_MSGQUEUE are on the sum.
    """
    versions.ask(cells := list(cells))
    found = {}
    tried: dict[tuple[Channels, int], str] = {}
    for cell in cells:
        if reason := impossible(cell):
            found[cell] = reason
        elif pair := channels(cell):
            key = pair, cell.lanes
            if key not in tried:
                tried[key] = plugins.unusable(pair.command, *[pair.data] * cell.lanes)
            if tried[key]:
                found[cell] = tried[key]
    return found
