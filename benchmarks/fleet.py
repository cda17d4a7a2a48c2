"""What a fleet costs: python benchmarks/fleet.py beside, or: ... scale [HOSTS].

beside  does a worker of Dask disturb what is measured beside it? Blocks with a worker that runs, and with one that is
        stopped, take turns. Takes about a minute and a half; the machine should have nothing else to do.
scale   how many rows a coordinator keeps in a second, and in how much memory, of hosts that hand back rows at once
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from math import exp, log, sqrt
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.fleet_hosts import Engine, Host

from harness import results
from harness.experiment import planner
from harness.fleet.coordinator import Bounds, Coordinator
from harness.fleet.fleet_directory import FleetDirectory
from harness.fleet.host import part

_STUDY = """\
factors: {data: [posix_shm], files: [1KiB]}
settings: {placement: free, clients: 4, proxy_processes: 2, cache_processes: 2, lanes: 2, warmup: 20ms}
slices: {rounds: 60}
control: true
repeats: 100
"""
_AS_CONFIGURED = {  # as harness/fleet/dask_engine.py has it
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
}
_PAIRS = 16  # blocks with the worker at work, and as many without
_CELLS, _ROUNDS, _BLOCKS = 10, 10, 10  # of the simulated study: 1,000 slices a host


def beside() -> None:
    """Print the ratio of the rates with and without a worker, the CPU time of others, and the A/A ratio of both."""
    with tempfile.TemporaryDirectory(prefix="th-fleet-", dir="/tmp") as place:
        Path(f"{place}/study.yaml").write_text(_STUDY)
        text = planner.load_plan(f"{place}/study.yaml").text()
        dask = [sys.executable, "-m", "distributed.cli"]
        scheduler = [f"{dask[-1]}.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        worker = [
            f"{dask[-1]}.dask_worker",
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--local-directory",
            place,
        ]
        worker += ["--memory-limit", "0"]
        environment = os.environ | _AS_CONFIGURED
        file = ["--scheduler-file", f"{place}/scheduler.json"]
        running = []
        try:
            for command in (scheduler, worker):
                running.append(
                    subprocess.Popen([*dask[:2], *command, *file], env=environment, stderr=subprocess.DEVNULL)
                )
                time.sleep(4)
            for block in range(1, 2 * _PAIRS + 1):
                _set(running, at_work=_is_beside(block))
                asked = {"plan": text, "name": "study", "directory": f"{place}/run", "rows": 0, "block": block}
                part({**asked, "traits": {}, "patience": 0.0, "quiet": 0.0, "beside": True})
        finally:
            _set(running, at_work=True)
            for process in reversed(running):
                process.terminate()
                process.wait(20)
        rows = list(results.read(f"{place}/run/trials.csv"))
    rates, others = defaultdict(list), defaultdict(list)
    for row in rows:
        rates[row.block].append(row.requests_per_s)
        others[_is_beside(row.block)].append(row.foreign_cpu_s / row.measured_s)
    pairs = [
        log(fmean(rates[block]) / fmean(rates[block + 1])) * (1 if _is_beside(block) else -1)
        for block in range(1, 2 * _PAIRS, 2)
    ]
    _say("requests/s with a worker / without", pairs)
    for at_work in (True, False):
        known = [log(one / other) for block, (one, other) in rates.items() if _is_beside(block) == at_work]
        _say(f"A/A {'with' if at_work else 'without'} a worker", known)
        print(f"  CPU time of others: {fmean(others[at_work]):.4f} s a measured second")


def _is_beside(block: int) -> bool:
    """Whether the worker runs beside a block: with, without, without, with ..."""
    return block % 4 in {1, 0}


def _set(running: list["subprocess.Popen[bytes]"], at_work: bool) -> None:
    for process in running:
        process.send_signal(signal.SIGCONT if at_work else signal.SIGSTOP)


def _say(what: str, logs: list[float]) -> None:
    half = t.ppf(0.975, len(logs) - 1) * stdev(logs) / sqrt(len(logs))
    middle = fmean(logs)
    print(f"{what}: {exp(middle):.4f} ({exp(middle - half):.4f} to {exp(middle + half):.4f}), {len(logs)} values")


def scale(count: int) -> None:
    """Print what a coordinator needs for `count` hosts."""
    with tempfile.TemporaryDirectory(prefix="th-fleet-", dir="/var/tmp") as place:  # on a disk: fsync(2) counts
        Path(f"{place}/study.yaml").write_text(_STUDY)
        plan = planner.load_plan(f"{place}/study.yaml").repeated(_BLOCKS)
        for mode in ("each", "share"):
            blocks = _BLOCKS if mode == "each" else _BLOCKS * count
            hosts = {f"h{number:04}": _Forgetful(_CELLS, _ROUNDS, blocks) for number in range(count)}
            engine = _Timed(hosts)
            directory = FleetDirectory.create(f"{place}/{mode}", plan.repeated(blocks), mode, list(hosts), {}, {})
            bounds = Bounds(60.0, 60.0, 0.0, 0.0)
            fleet = Coordinator(engine, directory, plan.repeated(blocks), dict.fromkeys(hosts, "python3"), bounds)
            begun, used = time.monotonic(), time.process_time()
            assert fleet.run()
            wall = time.monotonic() - begun - engine.seconds
            cpu = time.process_time() - used - engine.cpu
            rows = count * _BLOCKS * _CELLS
            rss, begun = _peak(), time.monotonic()
            FleetDirectory.reopen(f"{place}/{mode}")
            again = time.monotonic() - begun
            size = sum(file.stat().st_size for file in Path(f"{place}/{mode}").rglob("*.csv"))
            print(
                f"{mode}: {count} hosts, {rows:,} trials and {rows * _ROUNDS:,} slices, {size / 2**20:.0f} MiB: "
                f"{wall:.1f} s, {cpu:.1f} s of CPU; {count * _BLOCKS / wall:,.0f} blocks/s, "
                f"{rows * _ROUNDS / wall:,.0f} slices/s; at most {rss:.0f} MiB resident; to resume: {again:.1f} s"
            )


class _Forgetful(Host):
    """A host that keeps no rows, so that memory is the coordinator's."""

    def part(self, asked):
        answer = super().part({**asked, "rows": 0})
        self.rows.clear()
        self.slices.clear()
        return answer


class _Timed(Engine):
    """Counts the time that the hosts take themselves."""

    seconds = cpu = 0.0

    def send(self, host, command, given):
        super().send(host, command, given)
        self.asked.clear()

    def answers(self, bound: float):
        begun, used = time.monotonic(), time.process_time()
        found = super().answers(bound)
        self.seconds += time.monotonic() - begun
        self.cpu += time.process_time() - used
        return found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["beside"]:
        beside()
    elif sys.argv[1:2] == ["scale"]:
        scale(int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    else:
        sys.exit(__doc__)
