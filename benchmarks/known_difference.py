"""Is a known difference found? A data transport that burns 0, 1, 2 and 5 us of CPU time for each reply.

    python benchmarks/known_difference.py --budget 60s

It is `posix_shm` whose sender burns before the first piece. Prints the differences in microseconds a request that the
study finds, with their intervals: they must hold the known ones. On one core these are of the whole request; free,
where several requests are under way, of the CPU time of proxy and cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

PLUGIN = """
import time
from dataclasses import dataclass
from harness.api import DataTransport, Sender, hookimpl
from transports.posix_shm import PosixShm


class Burning(Sender):
    def __init__(self, sender, us):
        self._sender, self._ns, self._fresh = sender, us * 1000, True

    def loan(self):
        if self._fresh:
            end = time.perf_counter_ns() + self._ns
            while time.perf_counter_ns() < end:
                pass
        self._fresh = False
        return self._sender.loan()

    def publish(self, count):
        self._sender.publish(count)
        self._fresh = True  # files of this study take one piece

    def close(self):
        self._sender.close()


@dataclass(frozen=True)
class Burn(PosixShm):
    us: int = 0
    name = "burn"

    def sender(self, scope) -> Sender:
        return Burning(super().sender(scope), self.us)


@hookimpl
def data_transports():
    return [Burn]
"""
STUDY = """
question: Is a known difference found?
factors: {data: [burn, "burn:us=1", "burn:us=2", "burn:us=5"]}
zip: [{placement: [same-core, free], clients: [1, 4]}]
settings: {proxy_processes: 2, cache_processes: 2, lanes: 2, warmup: 10ms, seconds: 60ms}
baseline: {data: burn}
control: true
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="60s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        install(directory)
        with open(f"{directory}/known.yaml", "w") as file:
            file.write(STUDY)
        harness = [sys.executable, "-m", "harness"]
        environment = {**os.environ, "PYTHONPATH": directory}
        out = f"{directory}/results"
        command = [*harness, "run", f"{directory}/known.yaml", "--budget", args.budget, "-o", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        shown = subprocess.run([*harness, "show", "--json", out], check=True, capture_output=True, env=environment)
    tell(json.loads(shown.stdout))
    return 0


def install(directory: str) -> None:
    """Make the plugin one that is found where `directory` is in PYTHONPATH."""
    metadata = f"{directory}/burn-1.0.dist-info"
    os.makedirs(metadata)
    for path, text in {
        f"{directory}/burn.py": PLUGIN,
        f"{metadata}/METADATA": "Metadata-Version: 2.1\nName: burn\nVersion: 1.0\n",
        f"{metadata}/entry_points.txt": "[transport_harness]\nburn = burn\n",
    }.items():
        with open(path, "w") as file:
            file.write(text)


def tell(study: dict) -> None:
    for context in study["contexts"]:
        for cell in context["cells"]:
            if cell["difference_us"]:
                known = int(cell["levels"]["data"].rpartition("=")[2])
                found = cell["difference_us"]
                if context["levels"]["placement"] == "free":
                    found = cell["metrics"]["cpu_us_per_request"]["difference_us"]
                held = found["low"] <= known <= found["high"]
                print(
                    f"{context['levels']['placement']}: {known} us: found {found['value']:.2f} "
                    f"({found['low']:.2f} to {found['high']:.2f}){'' if held else ' MISSED'}, {cell['verdict']}"
                )


if __name__ == "__main__":
    sys.exit(main())
