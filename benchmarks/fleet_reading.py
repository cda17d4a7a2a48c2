"""How long `harness show` and `harness report` take for a fleet, and how much memory: simulated hosts, real readers.

    python benchmarks/fleet_reading.py DIR --hosts 10 100 1000

For each number of hosts it writes a results directory below DIR, unless it is there, and prints a row of the table of
docs/fleet.md. A host has the cells of a kept study, with speeds of its own: on one half of the hosts, which have the
congestion control bbr, sendfile is slower, on the others faster.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np

from harness import results

STUDY = "results/quick"  # whose rows are the templates
TRANSPORTS = ("posix_shm", "sendfile", "fifo", "unix", "mmap")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--hosts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    print("| hosts | trials | slices | MB of CSV | `show` s | MB | `show --json` s | `report` s | MB | page MB |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for hosts in args.hosts:
        place = f"{args.directory}/fleet-{hosts}-{args.blocks}x{args.rounds}"
        if not os.path.exists(f"{place}/fleet.json"):
            simulate(place, hosts, args.blocks, args.rounds)
        cells = len(templates())
        size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(place) for name in names)
        trials = hosts * cells * args.blocks
        shown, memory = timed("show", place)
        as_json, _ = timed("show", "--json", place)
        reported, of_report = timed("report", place)
        page = os.path.getsize(f"{place}/report.html") / 1e6
        print(
            f"| {hosts:,} | {trials:,} | {trials * args.rounds:,} | {size / 1e6:.0f} | {shown:.1f} | {memory:.0f} | "
            f"{as_json:.1f} | {reported:.1f} | {of_report:.0f} | {page:.1f} |",
            flush=True,
        )
    return 0


def timed(*command: str) -> tuple[float, float]:
    """Seconds of CPU that a command takes, and its peak memory in MB. CPU, because other work may run beside it."""
    code = (
        "import resource, sys; from harness import cli; code = cli.main(sys.argv[1:]); "
        "use = resource.getrusage(resource.RUSAGE_SELF); "
        "print(use.ru_utime + use.ru_stime, use.ru_maxrss / 1000, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
    )
    seconds, memory = done.stderr.split()[-2:]
    return float(seconds), float(memory)


def templates() -> list[results.Trial]:
    """A row for each cell, the cells in the order of the file."""
    found: dict[int, results.Trial] = {}
    for row in results.read(f"{STUDY}/{results.TRIALS}"):
        if row.status == "ok" and row.data in TRANSPORTS and row.command == "posix_mq" and not row.control:
            found.setdefault(row.cell, row)
    return [found[cell] for cell in sorted(found)]


def simulate(place: str, hosts: int, blocks: int, rounds: int) -> None:
    """Write the results directory of a fleet."""
    random = np.random.default_rng(hosts)
    names = [f"host{number:04}" for number in range(1, hosts + 1)]
    os.makedirs(place)
    shutil.copy(f"{STUDY}/experiment.yaml", place)
    with open(f"{STUDY}/environment.json", encoding="utf-8") as file:
        environment = json.load(file)
    rows = templates()
    for number, name in enumerate(names):
        directory = f"{place}/hosts/{name}"
        os.makedirs(directory)
        slower = number % 2 == 0
        environment["host"], environment["tcp"]["congestion"] = name, "bbr" if slower else "reno"
        with open(f"{directory}/environment.json", "w", encoding="utf-8") as file:
            json.dump(environment, file)
        own = np.exp(random.normal(0, 0.1, len(rows)))
        own *= [{"sendfile": 0.8 if slower else 1.3}.get(row.data, 1.0) for row in rows]
        write_host(directory, name, rows, own, blocks, rounds, random)
    with open(f"{place}/fleet.json", "w", encoding="utf-8") as file:
        json.dump({"schema": 1, "mode": "each", "hosts": names, "refused": {}}, file)


def write_host(
    directory: str,
    name: str,
    rows: list[results.Trial],
    own: np.ndarray,
    blocks: int,
    rounds: int,
    random: np.random.Generator,
) -> None:
    """Write trials.csv and slices.csv of a host. own: how fast each cell is there, to the template."""
    trials, slices = [], []
    for block in range(1, blocks + 1):
        speeds = own * np.exp(random.normal(0, 0.02, len(rows)))
        for cell, (row, speed) in enumerate(zip(rows, speeds, strict=True)):
            trial = (block - 1) * len(rows) + cell + 1
            rate = row.requests_per_s * speed
            given = asdict(row) | {"trial": trial, "block": block, "host": name, "requests_per_s": rate}
            written = [
                f"{one:.9g}" if isinstance(one, float) else int(one) if one is False else one for one in given.values()
            ]
            trials.append(written)
            seconds = 60 / (rate * np.exp(random.normal(0, 0.1, rounds)))
            for number, took in enumerate(seconds.tolist(), 1):
                start = number * 0.5 + cell * 0.04
                cpu = took * 0.3
                slices.append(
                    f"{trial},{number},{cell + 1},{start:.9g},{took:.9g},60,{60 * row.file_size_bytes},"
                    f"{1e6 * took / 60:.9g},72,{cpu:.9g},{cpu:.9g},{cpu:.9g},0,{name}\n"
                )
    with open(f"{directory}/{results.TRIALS}", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(results.COLUMNS)
        writer.writerows(trials)
    with open(f"{directory}/{results.SLICES}", "w", encoding="utf-8") as file:
        file.write(",".join(column for column in results.Slice.__dataclass_fields__) + "\n")
        file.writelines(slices)


if __name__ == "__main__":
    sys.exit(main())
