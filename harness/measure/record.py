"""A trial's row: what is known of it before it runs, and what the load reports."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import harness
from harness import contents, machine
from harness.factors import FACTORS, Spec, applies
from harness.load.tally import OUTCOMES
from harness.measure import versions
from harness.measure.channels import Channels
from harness.measure.probing import disturbance
from harness.measure.this_version import channel_columns
from harness.pipeline.gfserver import SYSTEM
from harness.results import Trial


def fill_known(spec: Spec, trial: Trial) -> None:
    """Fill in what is known before the trial: the factors that mean something in the cell, and the machine."""
    trial.started_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
    for name, factor in FACTORS.items():
        setattr(trial, name, getattr(spec, name) if applies(name, spec) else factor.empty)
    if spec.requests:
        trial.seconds = 0.0
    if not spec.rate:
        trial.arrivals = ""
    if not spec.fault:
        trial.fault_at = 0.0
    if trial.congestion == SYSTEM:
        with open("/proc/sys/net/ipv4/tcp_congestion_control") as file:
            trial.congestion = file.read().strip()
    trial.host, trial.kernel, trial.python = platform.node(), platform.release(), platform.python_version()
    trial.cpu, trial.cpus = machine.cpu_model(), len(os.sched_getaffinity(0))
    trial.harness, trial.commit, trial.version = harness.__version__, machine.commit(), versions.version(spec)
    trial.code = contents.code()
    trial.floor = "source" if spec.source == "direct" else ""


def fill_channels(trial: Trial, pair: Channels | None) -> None:
    """Fill in what the transports are; nothing where the cell has none."""
    if pair:
        trial.floor = " ".join(name for name, transport in pair._asdict().items() if transport.floor)
        for name, value in (versions.columns(trial) if trial.interpreter else channel_columns(*pair)).items():
            setattr(trial, name, value)


def fill_measured(trial: Trial, report: Mapping[str, Any]) -> None:
    """Fill in what the load reports, `harness gfclient --json`, and what follows from it and the probes' figures."""
    for outcome in OUTCOMES:
        setattr(trial, outcome.lower(), report[outcome])
    for same in ("requests_per_s", "content_bytes", "latency_max_us", "first_byte_p50_us"):
        setattr(trial, same, report[same])
    for percentile in ("50", "90", "99", "99.9", "99.99"):
        setattr(trial, f"latency_p{percentile.replace('.', '_')}_us", report[f"latency_p{percentile}_us"])
    trial.requests_ended = report["requests"]
    trial.measured_s = report["seconds"]
    trial.content_bytes_per_s = report["content_bytes"] / report["seconds"]
    trial.client_busy = report["busy"]
    cpu = trial.proxy_user_s + trial.proxy_kernel_s + trial.cache_user_s + trial.cache_kernel_s
    trial.cpu_us_per_request = cpu * 1e6 / max(1, trial.requests_ended)
    if trial.content_bytes:
        trial.cpu_s_per_gib = cpu * 2**30 / trial.content_bytes
    if not trial.probe:
        trial.disturbed = disturbance(trial)
