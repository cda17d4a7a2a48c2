"""Made-up results, in the files that `harness run` writes: for tests of what reads them, and to look at by hand.

PYTHONPATH=tests python -m support.studies DIRECTORY
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from harness import results

SIZES = (1024, 102400, 3145728)
# requests/s at these sizes, close to measured values
SPEEDS = {
    "posix_shm": (21800, 18500, 3060),
    "sendfile": (20600, 17500, 4030),
    "fifo": (22000, 15900, 1360),
    "memfd": (19200, 16900, 3480),
    "unix": (21000, 16200, 1890),
    "null": (22900, 19000, 4480),
}
COMMANDS = {"posix_mq": 1.0, "fifo": 1.03, "unix": 1.06, "shm_ring": 0.93}


def floor_of(factors):
    """The column `floor` of a cell whose floors are `direct` and the transports called null."""
    named = [name for name in ("command", "data") if factors.get(name, "").partition(":")[0] == "null"]
    return " ".join(["source"] * (factors.get("source") == "direct") + named)


def trial(number, block, cell, speed, random, **factors):
    """A good trial of a cell that serves about `speed` requests/s. factors: columns and their values."""
    given = {
        "experiment": "made-up",
        "trial": number,
        "block": block,
        "cell": cell,
        "seed": 1,
        "status": "ok",
        "started_utc": f"2026-11-24T09:{number // 60 % 60:02}:{number % 60:02}.000+00:00",
        "scope": "pipeline",
        "source": "cache",
        "command": "posix_mq",
        "data": "posix_shm",
        "files": "1024",
        "copies": 4,
        "clients": 8,
        "client_processes": 2,
        "sink": "discard",
        "proxy_threads": 1,
        "proxy_processes": 4,
        "lanes": 4,
        "cache_threads": 1,
        "cache_processes": 4,
        "placement": "free",
        "page_cache": "warm",
        "congestion": "reno",
        "host": "made-up",
        "cpu": "a processor",
        "cpus": 2,
        "kernel": "6.18",
        "python": "3.11.7",
        "harness": "0.1.0",
        "commit": "0123456789ab",
        "seconds": 0.4,
        "measured_s": 0.4,
        **factors,
    }
    speed *= float(np.exp(random.normal(0, 0.02)))
    size = int(given["files"].split()[0]) if given["files"][:1].isdigit() else 10000
    micros, requests = 2e6 / speed, int(speed * 0.4)
    seconds = dict(
        zip(
            ("client_user", "client_kernel", "proxy_user", "proxy_kernel", "cache_user", "cache_kernel"),
            (0.09, 0.42, 0.12, 0.5, 0.08, 0.25),
            strict=True,
        )
    )
    return results.Trial(
        **{
            "file_size_bytes": size,
            "requests_ended": requests,
            "floor": floor_of(given),
            "ok": requests,
            "requests_per_s": speed,
            "content_bytes": requests * size,
            "content_bytes_per_s": speed * size,
            "cpu_us_per_request": micros * 0.48,
            "latency_p50_us": micros * 4,
            "latency_p90_us": micros * 7,
            "latency_p99_us": micros * 12,
            "latency_p99_9_us": micros * 30,
            "latency_max_us": micros * 60,
            "client_busy": 0.5,
            **{f"{name}_s": micros * share * requests / 1e6 for name, share in seconds.items()},
            **given,
        }
    )


def trials(cells, blocks, seed=1):
    """Trials of cells, given as (factors, requests/s), in shuffled blocks."""
    random = np.random.default_rng(seed)
    number = itertools.count(1)
    return [
        trial(next(number), block, int(cell) + 1, cells[cell][1], random, **cells[cell][0])
        for block in range(1, blocks + 1)
        for cell in random.permutation(len(cells))
    ]


def write(place, rows, experiment=None, latency=False, symbols=False, environment=False, stages=False):
    """Write the files of a run into a directory, and return it. rows: its trials."""
    place = Path(place)
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(2)
    if symbols:
        first = {row.cell: row for row in reversed(rows)}
        probed = [dataclasses.replace(row, trial=10_000 + row.cell, block=0, probe="perf") for row in first.values()]
        names = [
            "kernel copy_user_generic",
            "kernel tcp_sendmsg_locked",
            "kernel __schedule",
            "user PyEval_EvalFrame",
            "kernel do_syscall_64",
            "kernel shmem_fault",
            "kernel pipe_write",
            "user memcpy",
        ]
        seen = [
            results.Observation(row.trial, "perf", role, name, float(share), "share")
            for row in probed
            for role in ("proxy", "cache")
            for name, share in zip(names, random.dirichlet(np.ones(len(names))), strict=True)
        ]
        results.append(str(place / "symbols.csv"), *seen)
        rows = [*rows, *probed]
    if stages:
        first = {row.cell: row for row in reversed(rows) if not row.probe}
        probed = [dataclasses.replace(row, trial=20_000 + row.cell, block=0, probe="stages") for row in first.values()]
        results.append(str(place / results.STAGES), *(one for row in probed for one in requests(row, random)))
        rows = [*rows, *probed]
    if rows:
        results.append(str(place / results.TRIALS), *rows)
    if latency:
        lines = ["trial,latency_us,count"]
        for row in rows:
            sample = row.latency_p50_us * np.exp(np.abs(random.standard_t(4, row.requests_ended)) * 0.3 - 0.2)
            edges, counts = np.unique(np.ceil(np.exp2(np.ceil(np.log2(sample) * 32) / 32)), return_counts=True)
            lines += [f"{row.trial},{edge:.0f},{count}" for edge, count in zip(edges, counts, strict=True)]
        (place / "latency.csv").write_text("\n".join(lines) + "\n")
    if experiment is not None:
        with (place / "experiment.yaml").open("w") as file:
            YAML(typ="safe", pure=True).dump(experiment, file)
    if environment:
        (place / "environment.json").write_text(
            json.dumps(
                {
                    "host": "made-up",
                    "cpu": {"model": "a processor", "usable": 2, "governors": None},
                    "kernel": {"release": "6.18"},
                    "limits": {"open_files": {"soft": 1024, "hard": 4096}},
                    "experiment": {
                        "name": "made-up",
                        "file": "quick.yaml",
                        "command": ["quick.yaml", "--scale", "0.1"],
                    },
                }
            )
        )
    return place


def requests(row, random, count=40):
    """Requests of a trial that took about its median latency, and how long their stages took."""
    shares = np.array((0.05, 0.04, 0.2, 0.07, 0.06, 0.2, 0.28, 0.1))
    for number in range(1, count + 1):
        begun = number * 1_000_000
        moments = begun + np.cumsum(shares * row.latency_p50_us * 1e3 * random.lognormal(0, 0.3, len(shares)))
        times = [begun, *map(int, moments)]
        yield results.Request(row.trial, number, 100 + row.cell, 7, 200 + row.cell, 8, *times, times[5] + 1000)


CLAIMS = [
    {
        "text": "sendfile beats shared memory for large files",
        "metric": "requests_per_s",
        "test": {"data": "sendfile"},
        "baseline": {"data": "posix_shm"},
        "where": {"files": [3145728]},
        "expect": "higher",
    },
    {
        "text": "A FIFO is as fast as shared memory, within a twentieth",
        "metric": "requests_per_s",
        "test": {"data": "fifo"},
        "baseline": {"data": "posix_shm"},
        "expect": "within 5%",
    },
    {
        "text": "memfd costs less CPU than a FIFO at 1 KiB",
        "metric": "cpu_us_per_request",
        "test": {"data": "memfd"},
        "baseline": {"data": "fifo"},
        "where": {"files": [1024]},
        "expect": "within 3%",
    },
]


def by_size():
    """Cells of one factor at several file sizes, and the A/A control."""
    cells = [
        ({"data": data, "files": str(size)}, speed)
        for data, speeds in SPEEDS.items()
        for size, speed in zip(SIZES, speeds, strict=True)
    ]
    return cells + [
        ({"data": "posix_shm", "files": str(size), "control": 1}, speed)
        for size, speed in zip(SIZES, SPEEDS["posix_shm"], strict=True)
    ]


def whole(place, blocks=6):
    """A study that has every file, a failed and a disturbed trial, an A/A control, and claims."""
    rows = trials(by_size(), blocks)
    rows[7] = dataclasses.replace(rows[7], disturbed="foreign load 12 %")
    rows[30] = dataclasses.replace(rows[30], status="failed", reason="the proxy went away", requests_per_s=0.0)
    experiment = {
        "question": "Which data transport serves files the fastest, and at what CPU cost?",
        "baseline": {"data": "posix_shm"},
        "claims": CLAIMS,
        "seed": 1,
    }
    return write(place, rows, experiment, latency=True, symbols=True, environment=True, stages=True)


def pairs(place, blocks=5):
    """A study of all pairs of command and data transports."""
    cells = [
        ({"command": command, "data": data, "files": str(size)}, factor * speed)
        for command, factor in COMMANDS.items()
        for data, speeds in SPEEDS.items()
        for size, speed in ((1024, speeds[0]), (3145728, speeds[2]))
    ]
    return write(
        place,
        trials(cells, blocks),
        {
            "question": "Does the best data transport depend on the command channel?",
            "baseline": {"command": "posix_mq", "data": "posix_shm"},
        },
    )


def surface(place):
    """A study of depth against chunk."""
    cells = [
        (
            {"depth": depth, "chunk": chunk, "files": "3145728"},
            3000 * (1 - 0.5 / depth) * (1 - 3000 / (chunk + 4000)),
        )
        for depth in (1, 2, 4, 8)
        for chunk in (4096, 16384, 65536, 262144, 1048576)
    ]
    return write(
        place,
        trials(cells, 5),
        {"question": "How large, and how many?", "baseline": {"chunk": 262144, "depth": 4}},
    )


def open_loop(place):
    """A study of rates of requests, whose cells are ranked by latency."""
    cells = [
        ({"data": data, "rate": float(rate), "arrivals": "poisson", "files": "16384"}, speed)
        for data, speed in (("posix_shm", 18000), ("fifo", 15000), ("sendfile", 19000), ("null", 21000))
        for rate in (2000, 8000, 12000)
    ]
    experiment = {"question": "What latency, at which rate?", "baseline": {"data": "posix_shm"}}
    return write(place, trials(cells, 6), experiment)


def concurrency(place):
    """A study of numbers of clients, at two file sizes."""
    cells = [
        ({"data": data, "clients": clients, "files": str(size)}, speed * clients / (clients + 3))
        for data in ("posix_shm", "sendfile", "unix")
        for clients in (1, 2, 4, 8, 16, 64)
        for size, speed in ((1024, SPEEDS[data][0]), (1048576, SPEEDS[data][2] * 2))
    ]
    return write(
        place, trials(cells, 5), {"question": "From how many requests at a time on?", "baseline": {"data": "posix_shm"}}
    )


def slices_of(rows, rounds, random, spread=0.1, restart=0.0, spikes=0.01):
    """The slices of live trials: in each round a slice of each cell. The rows become sums of their slices.

    spread: of a slice, by which log ratios of a round spread sqrt(2) times. restart: of what a cell has of its own in a
    block. spikes: the share of slices that something makes up to three times as slow.
    """
    found = []
    for block in sorted({row.block for row in rows}):
        alive = [row for row in rows if row.block == block]
        speeds = [row.requests_per_s * np.exp(random.normal(0, restart)) for row in alive]
        clock = 0.0
        own = {row.trial: [] for row in alive}
        for number in range(1, rounds + 1):
            slow = np.exp(random.normal(0, spread, len(alive)))
            slow *= np.where(random.random(len(alive)) < spikes, random.uniform(1.5, 3, len(alive)), 1)
            for place, at in enumerate(random.permutation(len(alive)), 1):
                row, requests = alive[at], 120
                seconds = requests / speeds[at] * float(slow[at])
                cpu = row.cpu_us_per_request * 1.2 * requests / 1e6 * float(slow[at]) ** 0.3
                latency = row.latency_p50_us * float(slow[at])
                one = results.Slice(
                    row.trial, number, place, clock, seconds, requests, requests * row.file_size_bytes, latency,
                    int(requests * 1.2), cpu, cpu * 0.6, cpu * 0.4, 0.0,
                )  # fmt: skip
                own[row.trial].append(one)
                clock += 1.5 * seconds
        for row in alive:
            some = own[row.trial]
            row.design, row.rounds = "live", rounds
            row.measured_s = sum(one.seconds for one in some)
            row.requests_ended = row.ok = sum(one.requests for one in some)
            row.content_bytes = sum(one.content_bytes for one in some)
            row.requests_per_s = row.requests_ended / row.measured_s
            row.content_bytes_per_s = row.content_bytes / row.measured_s
            row.latency_p50_us = sorted(one.latency_p50_us for one in some)[rounds // 2]
            found += some
    return found


def live(place, blocks=4, rounds=60):
    """A study of live blocks, at two file sizes, with an A/A control."""
    rows = trials([(factors, speed) for factors, speed in by_size() if factors["files"] != str(SIZES[1])], blocks)
    slices = slices_of(rows, rounds, np.random.default_rng(3))
    write(place, rows, {"question": "Which is the fastest?", "baseline": {"data": "posix_shm"}, "claims": CLAIMS[:2]})
    results.append(str(Path(place) / results.SLICES), *slices)
    return Path(place)


def large(place, count=10_000):
    """A study of 10,000 trials: 25 designs, 20 contexts, 20 blocks."""
    cells = [
        (
            {"data": f"transport{design}", "clients": clients, "files": str(1024 << shift)},
            1000 * (30 + design) / (1 + shift),
        )
        for design in range(25)
        for clients in (1, 8, 64, 256)
        for shift in range(0, 10, 2)
    ]
    experiment = {"question": "Ten thousand?", "baseline": {"data": "transport3"}}
    return write(place, trials(cells, count // len(cells)), experiment)


ALL = {one.__name__: one for one in (whole, pairs, surface, open_loop, concurrency, live, large)}


if __name__ == "__main__":
    for name, make in ALL.items():
        make(Path(sys.argv[1]) / name)
