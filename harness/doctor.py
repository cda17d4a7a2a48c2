"""`harness doctor`: what this machine allows, and what will disturb a study on it.

Each check turns facts of harness/machine.py into findings, and changes nothing. A fact that cannot be read gives the
verdict `unknown`.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from harness import console, machine, plugins, registry
from harness.measure.probing import DISTURBED
from harness.units import KIB, MIB

Facts = dict[str, Any]
Verdict = Literal["ok", "limits", "biases", "unknown"]

_SHM = "/dev/shm"  # noqa: S108
_LANES = 16  # the most lanes that the kept studies have


class _Need(NamedTuple):
    """The least value of each setting of `directory` that transports need with their default options."""

    transports: str
    directory: str
    least: dict[str, int]


_NEEDS = {
    "POSIX queues": _Need("`posix_mq`", "fs.mqueue", {"msg_max": 10, "msgsize_max": 8 * KIB, "queues_max": _LANES + 1}),
    "SysV queues": _Need("`sysv_mq`", "kernel", {"msgmax": 8 * KIB, "msgmnb": 16 * KIB, "msgmni": _LANES + 1}),
    "SysV memory": _Need("`sysv_shm`", "kernel", {"shmmax": 2 * MIB, "shmall": _LANES * 512, "shmmni": _LANES}),
    "pipes": _Need("`fifo` and `splice`", "fs", {"pipe-max-size": 256 * KIB, "pipe-user-pages-soft": _LANES * 64}),
}
_COMMANDS = 10 * (512 + 96)  # bytes that a command channel takes of RLIMIT_MSGQUEUE, mq_overview(7)
_LANE = 4 * (8 * KIB + 96)  # bytes that a lane takes of it
_SHARED = 1 * MIB  # bytes of a lane in shared memory
_OPEN_FILES = 4096  # descriptors: some for each client, lane and file
_PORTS = 4096  # many more than clients, so that a free port is found at once
_QUICK_CLOCKS = {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}  # read without a system call
_LOOK = 1.0  # seconds for which the load is looked at
_UNREADABLE = "cannot be read here"


class Advice(NamedTuple):
    """One thing that was checked.

    text: what was found; with the verdicts `limits` and `biases` first what suffers from it. mend: a command that
    mends it; empty where none does.
    """

    name: str
    verdict: Verdict
    text: str
    mend: str = ""


def _ok(name: str, text: str) -> Advice:
    return Advice(name, "ok", text)


def _unknown(name: str, text: str = _UNREADABLE) -> Advice:
    return Advice(name, "unknown", text)


def _limits(name: str, what: str, text: str, mend: str) -> Advice:
    return Advice(name, "limits", f"{what}: {text}", mend)


def _biases(name: str, what: str, text: str, mend: str = "") -> Advice:
    return Advice(name, "biases", f"{what}: {text}", mend)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness doctor",
        description="Say what this machine allows, and what will disturb a study. Takes a second, to look at the load.",
        epilog="Exit codes: 0 nothing limits what can be studied, 1 something does.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON list")
    return parser


def main(argv: Sequence[str]) -> int:
    """Check this machine. Returns the exit code: 1 where something limits what can be studied."""
    args = arguments().parse_args(argv)
    return console.main("doctor", lambda: _show(args.json), stopped=130)


def _show(as_json: bool) -> int:
    found = examine(machine.facts())
    if as_json:
        print(json.dumps([one._asdict() for one in found], indent=1))
    else:
        for one in found:
            verdict = {"limits": "will limit", "biases": "will bias"}.get(one.verdict, one.verdict)
            print(f"{verdict:11}{one.name:19}{one.text}")
            if one.mend:
                print(f"{'':30}$ {one.mend}")
    return int(any(one.verdict == "limits" for one in found))


def examine(facts: Facts) -> list[Advice]:
    """All findings on harness.machine.facts()."""
    return [finding for check in _CHECKS for finding in check(facts)]


def _settings(facts: Facts) -> Iterator[Advice]:
    for name, need in _NEEDS.items():
        has = {setting: facts["limits"][setting] for setting in need.least}
        text = ", ".join(f"{setting} {_UNREADABLE if value is None else value}" for setting, value in has.items())
        lacking = [name for name, value in has.items() if value is not None and 0 < value < need.least[name]]
        if lacking:
            mend = " ".join(f"{need.directory}.{setting}={need.least[setting]}" for setting in lacking)
            yield _limits(name, f"{need.transports}, except for root", text, f"sysctl -w {mend}")
        else:
            yield _unknown(name, text) if None in has.values() else _ok(name, text)


def _queue_bytes(facts: Facts) -> Iterator[Advice]:
    name, limit = "ulimit -q", facts["limits"]["mq_bytes"]["soft"]
    if limit is None:
        yield _ok(name, "unlimited")
        return
    lanes = max(0, limit - _COMMANDS) // _LANE
    text = f"{limit} bytes of POSIX queues a user: a command channel and {lanes} lanes"
    if lanes < _LANES:
        yield _limits(name, "`posix_mq`", text, _raise_limit("msgqueue", _COMMANDS + _LANES * _LANE))
    else:
        yield _ok(name, text)


def _raise_limit(name: str, value: int) -> str:
    return f"sudo prlimit --pid $$ --{name}={value}:{value}"


def _semaphores(facts: Facts) -> Iterator[Advice]:
    name, has = "SysV semaphores", facts["limits"]["sem"]
    text = " ".join(f"{setting} {value}" for setting, value in has.items())
    if not has:
        yield _unknown(name)
    elif min(has["semmns"], has["semmni"]) < 2 * _LANES:
        values = f"{has['semmsl']} {max(has['semmns'], 32000)} {has['semopm']} {max(has['semmni'], 128)}"
        yield _limits(name, "`sysv_shm`", text, f'sysctl -w kernel.sem="{values}"')
    else:
        yield _ok(name, text)


def _shared_memory(facts: Facts) -> Iterator[Advice]:
    shm = facts["memory"]["shm"]
    if shm is None:
        yield _limits(_SHM, "`posix_shm`, `shm_ring`", "does not exist", f"mount -t tmpfs tmpfs {_SHM}")
        return
    free = f"{shm['free'] // MIB} MiB are free"
    if shm["free"] < _LANES * _SHARED:
        what = f"`posix_shm` to {shm['free'] // _SHARED} lanes"
        yield _limits(_SHM, what, free, f"mount -o remount,size=1G {_SHM}")
    else:
        yield _ok(_SHM, f"{shm['free'] // MIB} of {shm['size'] // MIB} MiB are free")


def _open_files(facts: Facts) -> Iterator[Advice]:
    name, most = "ulimit -n", facts["limits"]["open_files"]["hard"]
    if most is not None and most < _OPEN_FILES:
        text, mend = f"{most} descriptors a process", _raise_limit("nofile", _OPEN_FILES)
        yield _limits(name, "clients, lanes and files", text, mend)
    else:
        yield _ok(name, f"{most or 'any number of'} descriptors a process")


def _memory_of_others(facts: Facts) -> Iterator[Advice]:
    name, scope = "ptrace_scope", facts["tracing"]["ptrace_scope"]  # of Yama, which not every kernel has
    if scope and scope > 2:
        yield _limits(name, "`cma`", f"{scope}, so no process may read another one's memory", "restart the machine")
    elif scope:
        text = f"{scope}, so a process may not read another one's memory"
        yield _limits(name, "`cma`, except for root", text, "sysctl -w kernel.yama.ptrace_scope=0")
    else:
        yield _ok(name, "a process may read the memory of others of its user")


def _ports(facts: Facts) -> Iterator[Advice]:
    name, ports = "TCP ports", facts["tcp"]["ports"]
    if ports is None:
        yield _unknown(name)
        return
    first, last = ports
    text = f"{last - first + 1} for clients; TIME_WAIT stays at the proxy, so each is free again at once"
    if last - first < _PORTS:
        mend = 'sysctl -w net.ipv4.ip_local_port_range="32768 60999"'
        yield _limits(name, "the number of clients", text, mend)
    else:
        yield _ok(name, text)


def _congestion(facts: Facts) -> Iterator[Advice]:
    name, default, allowed = "TCP congestion", facts["tcp"]["congestion"], facts["tcp"]["congestion_allowed"]
    if default is None or allowed is None:
        yield _unknown(name)
    elif facts["user"] and "reno" not in allowed:
        mend = f'sysctl -w net.ipv4.tcp_allowed_congestion_control="reno {" ".join(allowed)}"'
        yield _limits(name, "every study", "the proxy may not use reno", mend)
    else:
        yield _ok(name, f"the proxy uses reno; with `congestion: system` it uses {default}")


def _page_cache(facts: Facts) -> Iterator[Advice]:
    name, directory, kind = "page cache", facts["rendezvous"]["directory"], facts["rendezvous"]["file_system"]
    if kind is None:
        yield _unknown(name, f"the file system of {directory} {_UNREADABLE}")
    elif kind in {"tmpfs", "ramfs"}:
        text = f"{directory} is in memory, {kind}"
        yield _limits(name, "`page_cache: cold`", text, "export TRANSPORT_HARNESS_DIR=/var/tmp")
    else:
        yield _ok(name, f"files can be dropped from it: {directory} is on {kind}")


def _costly_probes(_: Facts) -> Iterator[Advice]:
    for name, probe in registry.installed().probes.items():
        if not probe.costly:
            continue
        if unusable := plugins.describe_probe(probe)["unusable"]:
            why, _semicolon, mend = unusable.partition("; ")
            yield _limits(f"probe {name}", f"`probes: [{name}]`", why, mend)
        else:
            yield _ok(f"probe {name}", "works here")


def _cpus(facts: Facts) -> Iterator[Advice]:
    cpu = facts["cpu"]
    text = f"{cpu['usable']} of {cpu['online']} CPUs, {cpu['model']}{', virtual' if cpu['virtual'] else ''}"
    if cpu["usable"] < 3:
        yield _biases("CPUs", "placement", f"client, proxy and cache share {text}")
    else:
        yield _ok("CPUs", text)
    if cpu["quota"] is not None and cpu["quota"] < cpu["usable"]:
        text = f"control groups allow {cpu['quota']:g} CPUs, then stop all processes for a while"
        yield _biases("CPU quota", "everything", text, "docker update --cpus=0 CONTAINER")


def _frequency(facts: Facts) -> Iterator[Advice]:
    cpu = facts["cpu"]
    unreadable = f"{_UNREADABLE}{': only the host of this virtual machine knows' if cpu['virtual'] else ''}"
    if cpu["governors"] is None:
        yield _unknown("CPU governor", unreadable)
    elif cpu["governors"] != ["performance"]:
        text, mend = ", ".join(cpu["governors"]), "cpupower frequency-set -g performance"
        yield _biases("CPU governor", "short trials and idle roles", text, mend)
    else:
        yield _ok("CPU governor", "performance")
    if cpu["turbo"] is None:
        yield _unknown("turbo", unreadable)
    elif cpu["turbo"]:
        text = "the clock rate depends on heat and on how many cores are busy"
        mend = (
            "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo || echo 0 > /sys/devices/system/cpu/cpufreq/boost"
        )
        yield _biases("turbo", "each trial by the ones before", text, mend)
    else:
        yield _ok("turbo", "off")
    if cpu["smt"] is None:
        yield _unknown("SMT", unreadable)
    elif cpu["smt"]:
        mend = "echo off > /sys/devices/system/cpu/smt/control"
        yield _biases("SMT", "placement", "two roles may share a core", mend)
    else:
        yield _ok("SMT", f"off{', as the hypervisor says' if cpu['virtual'] else ''}")


def _kernel(facts: Facts) -> Iterator[Advice]:
    pages = facts["kernel"]["huge_pages"]
    if pages == "always":
        mend = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
        yield _biases("huge pages", "memory and faults", "any large buffer may get them, at any time", mend)
    else:
        yield _ok("huge pages", pages) if pages else _unknown("huge pages")
    clock = facts["kernel"]["clock_source"]
    if clock is None or clock in _QUICK_CLOCKS:
        yield _ok("clock", clock) if clock else _unknown("clock")
    else:
        mend = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
        yield _biases("clock", "latencies", f"reading {clock} is a system call", mend)
    mitigations = facts["cpu"]["mitigations"]
    if mitigations is None:
        yield _unknown("mitigations")
    else:
        active = [name for name, state in mitigations.items() if (state or "").startswith("Mitigation")]
        yield _ok("mitigations", f"each system call pays for: {', '.join(active) or 'none'}")


def _load_now(_: Facts) -> Iterator[Advice]:
    busy, stolen = machine.busy_and_stolen(_LOOK)
    text = f"{busy:.0%} of the CPUs are busy now"
    if busy > DISTURBED:
        yield _biases("load", "everything", text, "ps -eo pcpu,pid,args --sort=-pcpu | head")
    else:
        yield _ok("load", text)
    text = f"{stolen:.1%} of the CPUs' time goes to other machines now"
    yield _biases("steal", "everything", text) if stolen > DISTURBED else _ok("steal", text)


_CHECKS: tuple[Callable[[Facts], Iterator[Advice]], ...] = (
    _settings,
    _queue_bytes,
    _semaphores,
    _shared_memory,
    _open_files,
    _memory_of_others,
    _ports,
    _congestion,
    _page_cache,
    _costly_probes,
    _cpus,
    _frequency,
    _kernel,
    _load_now,
)
