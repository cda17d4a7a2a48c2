"""`harness doctor`: what this machine allows, and what will disturb a study on it.

Each check turns facts of harness/machine.py into findings; nothing is changed. What cannot be read here is `unknown`.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from harness import console, machine, plugins, registry
from harness.measure.probing import DISTURBED

Facts = dict[str, Any]
Verdict = Literal["ok", "limits", "biases", "unknown"]

_SHM = "/dev/shm"  # noqa: S108
_MIB = 1 << 20
_LANES = 16  # as many as studies of lanes have
# What these take with the default options of their transports: who needs it, and the least of each setting.
_LEAST: dict[str, tuple[str, str, dict[str, int]]] = {
    "POSIX queues": ("`posix_mq`", "fs.mqueue", {"msg_max": 10, "msgsize_max": 8192, "queues_max": _LANES + 1}),
    "SysV queues": ("`sysv_mq`", "kernel", {"msgmax": 8192, "msgmnb": 16384, "msgmni": _LANES + 1}),
    "SysV memory": ("`sysv_shm`", "kernel", {"shmmax": 2 * _MIB, "shmall": _LANES * 512, "shmmni": _LANES}),
    "pipes": ("`fifo` and `splice`", "fs", {"pipe-max-size": _MIB // 4, "pipe-user-pages-soft": _LANES * 64}),
}
_COMMANDS = 10 * (512 + 96)  # bytes of RLIMIT_MSGQUEUE, mq_overview(7): a command channel, a lane
_LANE = 4 * (8192 + 96)
_SHARED = 4 * _MIB // 4  # bytes of a lane in shared memory
_OPEN_FILES = 4096  # some for each client, lane and file
_PORTS = 4096  # many more than clients, so that a free one is found at once
_QUICK_CLOCKS = {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}  # read without a system call
_LOOK = 1.0  # seconds of a look at the load
_UNREADABLE = "cannot be read here"


class Finding(NamedTuple):
    """text: where something limits or biases, what that is first. mend: a command; empty where none mends it."""

    name: str
    verdict: Verdict
    text: str
    mend: str = ""


def main(argv: Sequence[str]) -> int:
    """Check this machine. Returns the exit code: 1 where something limits what can be studied."""
    parser = argparse.ArgumentParser(
        prog="harness doctor",
        description="Say what this machine allows, and what will disturb a study. It looks at the load for a second.",
        epilog="Exit codes: 0 nothing limits what can be studied, 1 something does.",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON list")
    args = parser.parse_args(argv)
    return console.main("doctor", lambda: _show(args.json), stopped=130)


def _show(as_json: bool) -> int:
    found = examine(machine.facts())
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=1))
    else:
        for one in found:
            says = {"limits": "will limit", "biases": "will bias"}.get(one.verdict, one.verdict)
            print(f"{says:11}{one.name:19}{one.text}")
            if one.mend:
                print(f"{'':30}$ {one.mend}")
    return int(any(one.verdict == "limits" for one in found))


def examine(facts: Facts) -> list[Finding]:
    """All findings on harness.machine.facts()."""
    return [finding for check in _CHECKS for finding in check(facts)]


def _settings(facts: Facts) -> Iterator[Finding]:
    for name, (whom, directory, least) in _LEAST.items():
        has = {setting: facts["limits"][setting] for setting in least}
        text = ", ".join(f"{setting} {_UNREADABLE if value is None else value}" for setting, value in has.items())
        lacking = [setting for setting, value in has.items() if value is not None and 0 < value < least[setting]]
        if lacking:
            mend = " ".join(f"{directory}.{setting}={least[setting]}" for setting in lacking)
            yield Finding(name, "limits", f"{whom}, but for root: {text}", f"sysctl -w {mend}")
        else:
            yield Finding(name, "unknown" if None in has.values() else "ok", text)


def _queue_bytes(facts: Facts) -> Iterator[Finding]:
    limit = facts["limits"]["mq_bytes"]["soft"]
    if limit is None:
        yield Finding("ulimit -q", "ok", "unlimited")
        return
    lanes = max(0, limit - _COMMANDS) // _LANE
    text = f"{limit} bytes of POSIX queues a user: a command channel and {lanes} lanes"
    if lanes < _LANES:
        most = _COMMANDS + _LANES * _LANE
        yield Finding("ulimit -q", "limits", f"`posix_mq`: {text}", _raise_limit("msgqueue", most))
    else:
        yield Finding("ulimit -q", "ok", text)


def _raise_limit(name: str, value: int) -> str:
    return f"sudo prlimit --pid $$ --{name}={value}:{value}"


def _semaphores(facts: Facts) -> Iterator[Finding]:
    has = facts["limits"]["sem"]
    text = " ".join(f"{name} {value}" for name, value in has.items())
    if not has:
        yield Finding("SysV semaphores", "unknown", _UNREADABLE)
    elif min(has["semmns"], has["semmni"]) < 2 * _LANES:
        values = f"{has['semmsl']} {max(has['semmns'], 32000)} {has['semopm']} {max(has['semmni'], 128)}"
        yield Finding("SysV semaphores", "limits", f"`sysv_shm`: {text}", f'sysctl -w kernel.sem="{values}"')
    else:
        yield Finding("SysV semaphores", "ok", text)


def _shared_memory(facts: Facts) -> Iterator[Finding]:
    shm = facts["memory"]["shm"]
    if shm is None:
        yield Finding(_SHM, "limits", "`posix_shm`, `shm_ring`: there is none", f"mount -t tmpfs tmpfs {_SHM}")
    elif shm["free"] < _LANES * _SHARED:
        yield Finding(
            _SHM,
            "limits",
            f"`posix_shm` to {shm['free'] // _SHARED} lanes: {shm['free'] // _MIB} MiB are free",
            f"mount -o remount,size=1G {_SHM}",
        )
    else:
        yield Finding(_SHM, "ok", f"{shm['free'] // _MIB} of {shm['size'] // _MIB} MiB are free")


def _open_files(facts: Facts) -> Iterator[Finding]:
    most = facts["limits"]["open_files"]["hard"]
    if most is not None and most < _OPEN_FILES:
        mend = _raise_limit("nofile", _OPEN_FILES)
        yield Finding("ulimit -n", "limits", f"clients, lanes and files: {most} descriptors a process", mend)
    else:
        yield Finding("ulimit -n", "ok", f"{most or 'any number of'} descriptors a process")


def _tcp(facts: Facts) -> Iterator[Finding]:
    tcp = facts["tcp"]
    if tcp["ports"] is None:
        yield Finding("TCP ports", "unknown", _UNREADABLE)
    else:
        first, last = tcp["ports"]
        text = f"{last - first + 1} for clients; the proxy keeps TIME_WAIT, so that none wears out"
        if last - first < _PORTS:
            mend = 'sysctl -w net.ipv4.ip_local_port_range="32768 60999"'
            yield Finding("TCP ports", "limits", f"the number of clients: {text}", mend)
        else:
            yield Finding("TCP ports", "ok", text)
    default, allowed = tcp["congestion"], tcp["congestion_allowed"]
    if default is None or allowed is None:
        yield Finding("TCP congestion", "unknown", _UNREADABLE)
    elif facts["user"] and "reno" not in allowed:
        mend = f'sysctl -w net.ipv4.tcp_allowed_congestion_control="reno {" ".join(allowed)}"'
        yield Finding("TCP congestion", "limits", "every study: the proxy may not take reno", mend)
    else:
        yield Finding("TCP congestion", "ok", f"the proxy takes reno, and {default} on `congestion: system`")


def _page_cache(facts: Facts) -> Iterator[Finding]:
    directory, kind = facts["rendezvous"]["directory"], facts["rendezvous"]["file_system"]
    if kind is None:
        yield Finding("page cache", "unknown", f"the file system of {directory} {_UNREADABLE}")
    elif kind in {"tmpfs", "ramfs"}:
        mend = "export TRANSPORT_HARNESS_DIR=/var/tmp"
        yield Finding("page cache", "limits", f"`page_cache: cold`: {directory} is in memory, {kind}", mend)
    else:
        yield Finding("page cache", "ok", f"can be dropped: {directory} is on {kind}")


def _costly_probes(_: Facts) -> Iterator[Finding]:
    for name, probe in registry.load().probes.items():
        if not probe.costly:
            continue
        if unusable := plugins.describe_probe(probe)["unusable"]:
            why, _semicolon, mend = unusable.partition("; ")
            yield Finding(f"probe {name}", "limits", f"`probes: [{name}]`: {why}", mend)
        else:
            yield Finding(f"probe {name}", "ok", "works here")


def _cpus(facts: Facts) -> Iterator[Finding]:
    cpu = facts["cpu"]
    text = f"{cpu['usable']} of {cpu['online']} CPUs, {cpu['model']}{', virtual' if cpu['virtual'] else ''}"
    if cpu["usable"] < 3:
        yield Finding("CPUs", "biases", f"placement: client, proxy and cache share {text}")
    else:
        yield Finding("CPUs", "ok", text)
    if cpu["quota"] is not None and cpu["quota"] < cpu["usable"]:
        yield Finding(
            "CPU quota",
            "biases",
            f"everything: control groups allow {cpu['quota']:g} CPUs, then stop all",
            "docker update --cpus=0 CONTAINER",
        )


def _frequency(facts: Facts) -> Iterator[Finding]:
    cpu = facts["cpu"]
    unreadable = f"{_UNREADABLE}{': the host of this virtual machine has it' if cpu['virtual'] else ''}"
    if cpu["governors"] is None:
        yield Finding("CPU governor", "unknown", unreadable)
    elif cpu["governors"] != ["performance"]:
        yield Finding(
            "CPU governor",
            "biases",
            f"short trials and idle roles: {', '.join(cpu['governors'])}",
            "cpupower frequency-set -g performance",
        )
    else:
        yield Finding("CPU governor", "ok", "performance")
    if cpu["turbo"] is None:
        yield Finding("turbo", "unknown", unreadable)
    elif cpu["turbo"]:
        yield Finding(
            "turbo",
            "biases",
            "trials by what ran before: the clock depends on heat and busy cores",
            "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo || echo 0 > /sys/devices/system/cpu/cpufreq/boost",
        )
    else:
        yield Finding("turbo", "ok", "off")
    if cpu["smt"] is None:
        yield Finding("SMT", "unknown", unreadable)
    elif cpu["smt"]:
        yield Finding(
            "SMT", "biases", "placement: two roles may share a core", "echo off > /sys/devices/system/cpu/smt/control"
        )
    else:
        yield Finding("SMT", "ok", f"off{', says the hypervisor' if cpu['virtual'] else ''}")


def _kernel(facts: Facts) -> Iterator[Finding]:
    pages = facts["kernel"]["huge_pages"]
    if pages == "always":
        yield Finding(
            "huge pages",
            "biases",
            "memory and faults: any large buffer may get them, at any time",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    else:
        yield Finding("huge pages", "ok" if pages else "unknown", pages or _UNREADABLE)
    clock = facts["kernel"]["clock_source"]
    if clock is None or clock in _QUICK_CLOCKS:
        yield Finding("clock", "ok" if clock else "unknown", clock or _UNREADABLE)
    else:
        yield Finding(
            "clock",
            "biases",
            f"latencies: reading {clock} is a system call",
            "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
        )
    mitigations = facts["cpu"]["mitigations"]
    if mitigations is None:
        yield Finding("mitigations", "unknown", _UNREADABLE)
    else:
        active = [name for name, state in mitigations.items() if (state or "").startswith("Mitigation")]
        yield Finding("mitigations", "ok", f"paid for by each system call: {', '.join(active) or 'none'}")


def _load_now(_: Facts) -> Iterator[Finding]:
    busy, stolen = machine.load(_LOOK)
    text = f"{busy:.0%} of the CPUs are busy now"
    if busy > DISTURBED:
        yield Finding("load", "biases", f"everything: {text}", "ps -eo pcpu,pid,args --sort=-pcpu | head")
    else:
        yield Finding("load", "ok", text)
    text = f"{stolen:.1%} of the CPUs' time goes to other machines now"
    if stolen > DISTURBED:
        yield Finding("steal", "biases", f"everything: {text}")
    else:
        yield Finding("steal", "ok", text)


_CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _settings,
    _queue_bytes,
    _semaphores,
    _shared_memory,
    _open_files,
    _tcp,
    _page_cache,
    _costly_probes,
    _cpus,
    _frequency,
    _kernel,
    _load_now,
)
