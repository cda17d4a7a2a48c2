"""One cell of a live block: its servers, the program that makes its load, and what its slices add up to."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from harness.api import Reading
from harness.factors import Spec
from harness.load.tally import OUTCOMES
from harness.load.totals import PERCENTILES, percentile, ranked
from harness.measure import record
from harness.measure.live_programs import REQUEST, LiveServers, Load, Pids
from harness.measure.probes.proc import Used, used
from harness.measure.program import Program, TrialError, failed
from harness.measure.slicing import Lengths
from harness.results import Bucket, Slice, Trial

# When content is compared with the files.
COMPARED_FIRST, COMPARED_LAST = "in the warm-up, compared with the files", "after the rounds, compared with the files"
SERVING = ("proxy", "cache")


class LiveCell:
    """A cell of a block. trial: its row. workload: number of the workload among those of its load.

    lengths: of its slices.
    """

    def __init__(self, spec: Spec, trial: Trial, servers: LiveServers, load: Load, workload: int, files: int) -> None:
        self.spec, self.trial, self.servers, self.files = spec, trial, servers, files
        self._load = load
        self.pids: Pids = {**load.pids, **servers.pids}
        self.lengths = Lengths(0.0, 0.0)
        self.slices: list[Slice] = []
        self._request: dict[str, Any] = {"workload": workload}
        if spec.scope == "pipeline":
            self._request |= {"port": servers.servers.port, "clients": spec.clients, "rate": spec.rate}
            self._request |= {"arrivals": spec.arrivals}
        self._latencies: Counter[int] = Counter()  # ns, upper bounds of buckets
        self._totals: dict[str, float] = defaultdict(float)  # of the answers
        self._firsts: list[float] = []
        self._busy = 0.0
        self._used: Counter[tuple[str, str]] = Counter()  # (role, field of Used) -> how much

    def programs(self) -> list[Program]:
        """Its servers, and its client where it has one."""
        return [*self.servers.servers.programs.values(), *([self._load.program] if self._load.pids else [])]

    def ask(self, lead_in: float, window: float, seed: int, compared: str = "") -> Mapping[str, Any]:
        """Have its load make one slice, times in seconds. Returns the answer; raises TrialError if a reply was bad.

        compared: when, in words, if content is compared with the files.
        """
        self.servers.begin(self.spec)
        self._load.begin(self.spec)
        times = {"lead_in": lead_in, "window": window, "verify": bool(compared)}
        asked = self._request | times | ({"seed": seed} if "port" in self._request else {})
        self._load.program.say(json.dumps(asked))
        bound = lead_in + window + 2 * REQUEST + 5
        answer: Mapping[str, Any] = self._load.program.expect("slice", seconds=bound)["slice"]
        if bad := [f"{answer[kind]} {kind}" for kind in OUTCOMES[1:] if answer[kind]]:
            raise TrialError(f"{compared or 'in a slice'}, not every reply was OK: {', '.join(bad)}")
        return answer

    def slice(self, number: int, position: int, begun_ns: int, seed: int) -> None:
        """One slice of round `number`, at this position. begun_ns: when the block's rounds began, CLOCK_MONOTONIC."""
        before = self._read_used()
        answer = self.ask(*self.lengths, seed)
        seen = self._read_used()
        self.servers.count_idle(_serving(before), _serving(seen))
        seen.subtract(before)
        seen = +seen  # without what fell: a thread that has ended took its waits and its switches with it
        self._used.update(seen)
        self._latencies.update(dict(map(tuple, answer["histogram"])))
        for name in ("requests", "seconds", "content_bytes", "all_requests"):
            self._totals[name] += answer[name]
        self._firsts.append(answer["first_byte_p50_us"])
        self._busy += answer["busy"]
        if not answer["requests"]:
            raise TrialError(f"no request ended in the {self.lengths.window:g} s of a slice")
        self.slices.append(
            Slice(
                trial=self.trial.trial,
                round=number,
                place=position,
                start_s=(answer["opened_ns"] - begun_ns) / 1e9,
                seconds=answer["seconds"],
                requests=answer["requests"],
                content_bytes=answer["content_bytes"],
                latency_p50_us=answer["latency_p50_us"],
                all_requests=answer["all_requests"],
                client_cpu_s=seen["client", "cpu"] / 1e9,
                proxy_cpu_s=seen["proxy", "cpu"] / 1e9,
                cache_cpu_s=seen["cache", "cpu"] / 1e9,
            )
        )

    def _read_used(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for role, pids in self.pids.items():
            for pid in pids:
                for what, count in zip(Used._fields, used(pid), strict=True):
                    found[role, what] += count
        return found

    def fill(self, growth: Sequence[Reading], others: float, stolen: float, idle: str) -> list[Bucket]:
        """Fill in the row from the slices. Returns the trial's histogram of latencies.

        growth: what the probe of memory has seen of its processes over all rounds. others, stolen: shares of the CPUs
        that other programs had in the block, and the hypervisor. idle: what disturbed the block from within, in words.
        """
        trial, totals = self.trial, self._totals
        trial.rounds = len(self.slices)
        trial.idle_cpu_s = self.servers.idle_ns / 1e9
        share = totals["requests"] / totals["all_requests"]  # what was used was used for all requests
        roles = {role for role, _ in self._used} & {"client", *SERVING}
        for role in roles:
            cpu, user, kernel, faults, _, switches = (self._used[role, what] for what in Used._fields)
            cpu_s = cpu / 1e9 * share
            user_s = cpu_s * user / max(1, user + kernel)
            setattr(trial, f"{role}_user_s", user_s)
            setattr(trial, f"{role}_kernel_s", cpu_s - user_s)
            setattr(trial, f"{role}_switches", round(switches * share))
            setattr(trial, f"{role}_faults", round(faults * share))
        trial.run_queue_wait_s = sum(self._used[role, "run_queue_wait"] for role in roles) / 1e9 * share
        trial.foreign_cpu_s = others * trial.cpus * totals["seconds"]
        trial.steal_s = max(0.0, stolen) * trial.cpus * totals["seconds"]
        for reading in growth:
            setattr(trial, f"{reading.role}_{reading.metric}", int(reading.value))
        bounds, up_to = ranked(sorted(self._latencies.items()))
        report = {
            **dict.fromkeys(OUTCOMES, 0),
            "OK": int(totals["requests"]),
            "requests": int(totals["requests"]),
            "seconds": totals["seconds"],
            "requests_per_s": totals["requests"] / totals["seconds"],
            "content_bytes": int(totals["content_bytes"]),
            "busy": self._busy / len(self.slices),
            "first_byte_p50_us": sum(self._firsts) / len(self._firsts),
            "latency_max_us": bounds[-1] / 1e3,
            **{f"latency_p{p:g}_us": percentile(bounds, up_to, p) / 1e3 for p in PERCENTILES},
        }
        record.fill_measured(trial, report)
        trial.disturbed = ", ".join(filter(None, (trial.disturbed, idle)))
        return [Bucket(trial.trial, bound / 1e3, self._latencies[bound]) for bound in bounds]


def failed_program(cells: Sequence[LiveCell]) -> tuple[LiveCell | None, str]:
    """The first of these cells of which a program has ended or is stopped, and how; (None, "") where all run.

    Waits a while for one that ends.
    """
    owners: dict[Program, LiveCell] = {}
    for cell in cells:
        for one in cell.programs():
            owners.setdefault(one, cell)
    program, how = failed(owners, {pid for cell in cells for some in cell.pids.values() for pid in some})
    return owners[program] if program else None, how


def _serving(cpu: Mapping[tuple[str, str], int]) -> int:
    return sum(cpu[role, "cpu"] for role in SERVING)
