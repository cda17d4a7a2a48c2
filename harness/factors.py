"""What one trial runs: the cell of a study. Its fields are the factors of the YAML language.

Values are plain strings and numbers in one canonical spelling: two cells are alike exactly where they are equal.
"""

from dataclasses import dataclass

CLASSIC = "classic"
DIRECTORY = "directory:"


@dataclass(frozen=True)
class Spec:
    """What one trial runs. Transports as `name[:option=value,...]`. The columns of results.Trial say what each means.

    files: the file set: sizes in bytes, served in turn (`1024`, or `1024 3145728`), `classic`, or `directory:<path>`.
    chunk, depth, wait: the data transport's options of these names; 0 or "": the transport's own.
    rate: requests/s of an open loop; 0: closed loop. requests: how many to make; 0: for `seconds` instead.
    strategy, reuse: of `source: curl`, as `harness webproxy --help` has them. origin_server: as `harness origin --help`
    has it. origin_latency: seconds before each response. origin_bandwidth: bytes/s of each connection, 0: no limit.
    placement: `free`, `same-core`, `spread`, or CPUs a role: `client=0 proxy=1 cache=0-1`.
    """

    scope: str = "pipeline"
    source: str = "cache"
    command: str = "posix_mq"
    data: str = "posix_shm"
    files: str = "1024"
    copies: int = 4
    clients: int = 8
    client_processes: int = 2
    sink: str = "discard"
    rate: float = 0.0
    arrivals: str = "poisson"
    proxy_threads: int = 1
    proxy_processes: int = 4
    congestion: str = "reno"
    lanes: int = 4
    chunk: int = 0
    depth: int = 0
    wait: str = ""
    cache_threads: int = 1
    cache_processes: int = 4
    placement: str = "free"
    page_cache: str = "warm"
    strategy: str = "single-get"
    reuse: bool = True
    origin_latency: float = 0.0
    origin_bandwidth: int = 0
    origin_server: str = "auto"
    timeout: float = 5.0
    warmup: float = 0.2
    seconds: float = 1.0
    requests: int = 0
    control: bool = False


# Factors that say nothing where there is no cache, where there is no TCP, and where there is no HTTP origin.
OF_THE_CACHE = ("command", "data", "lanes", "chunk", "depth", "wait", "cache_threads", "cache_processes")
OF_TCP = ("clients", "client_processes", "congestion", "rate", "arrivals")
OF_CURL = ("strategy", "reuse", "origin_latency", "origin_bandwidth", "origin_server")


def idle(source: str, scope: str) -> tuple[str, ...]:
    """The factors that say nothing of a trial with this source and scope."""
    return (
        *(() if source == "cache" else OF_THE_CACHE),
        *(() if source == "curl" else OF_CURL),
        *(OF_TCP if scope == "lane" else ()),
    )
