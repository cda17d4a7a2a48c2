"""What the doctor says of this machine, and of worse ones."""

import copy
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import doctor, machine, registry
from transports import posix_mq

pytestmark = pytest.mark.processes
DOCTOR = "import sys; from harness.cli import main; sys.exit(main(['doctor', *sys.argv[1:]]))"


def ask(*arguments, before="", **environment):
    """(exit code, output) of a fresh `harness doctor`, and what it does before."""
    command = [sys.executable, "-c", f"{before}\n{DOCTOR}", *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment}
    )
    assert result.stderr == ""
    return result.returncode, result.stdout


def test_it_says_on_one_screen_what_limits_and_what_biases_and_exits_with_1_where_something_limits():
    code, text = ask()
    lines = text.splitlines()
    assert len(lines) <= 48
    for line in lines:
        assert re.match(r"(ok|will limit|will bias|unknown) +\S|  +\$ \S", line), line
    assert code == any(line.startswith("will limit") for line in lines)


def test_as_json_it_is_a_list_of_findings_with_the_same_verdicts():
    code, text = ask("--json")
    found = [doctor.Advice(**one) for one in json.loads(text)]
    assert {one.verdict for one in found} <= {"ok", "limits", "biases", "unknown"}
    assert code == any(one.verdict == "limits" for one in found)
    names = [one.name for one in found]
    assert len(names) == len(set(names))


def test_lowered_limits_are_reported_with_what_they_leave():
    lower = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_MSGQUEUE, ({doctor._COMMANDS + 3 * doctor._LANE},) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))"
    )
    code, text = ask("--json", before=lower, TRANSPORT_HARNESS_DIR="/dev/shm", PATH="/nowhere")
    found = {one["name"]: one for one in json.loads(text)}
    assert code == 1
    assert {one["verdict"] for one in map(found.get, ("ulimit -q", "ulimit -n", "page cache"))} == {"limits"}
    assert "a command channel and 3 lanes" in found["ulimit -q"]["text"]
    assert "256 descriptors" in found["ulimit -n"]["text"]
    assert "in memory, tmpfs" in found["page cache"]["text"]
    assert found["probe syscalls"]["mend"] == "apt-get install strace"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_gets_an_answer_too():
    before = "import os; from harness import doctor; doctor.machine.facts(); os.setresuid(65534, 65534, 65534)"
    code, text = ask("--json", before=before)
    found = {one["name"]: one for one in json.loads(text)}
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 1:
        assert found["probe perf"]["verdict"] == "limits"
        assert code == 1


def test_the_needs_of_transports_that_it_knows_are_their_own():
    lane, command = registry.data_transport("posix_mq"), registry.command_transport("posix_mq")
    assert lane.depth * (lane.chunk + posix_mq._OVERHEAD) == doctor._LANE
    assert command.depth * (posix_mq.COMMAND_BYTES + posix_mq._OVERHEAD) == doctor._COMMANDS
    assert doctor._NEEDS["POSIX queues"].least == {
        "msg_max": max(lane.depth, command.depth),
        "msgsize_max": lane.chunk,
        "queues_max": doctor._LANES + 1,
    }
    assert doctor._NEEDS["SysV queues"].least["msgmax"] == registry.data_transport("sysv_mq").chunk
    assert doctor._NEEDS["pipes"].least["pipe-max-size"] == registry.data_transport("fifo").pipe_size
    shared = registry.data_transport("posix_shm")
    assert shared.depth * shared.chunk == doctor._SHARED


@pytest.fixture(scope="module")
def facts():
    return machine.facts()


def changed(facts, changes):
    facts = copy.deepcopy(facts)
    for path, value in changes.items():
        *sections, name = path.split("/")
        place = facts
        for section in sections:
            place = place[section]
        place[name] = value
    return facts


@pytest.fixture(autouse=True)
def no_look_at_the_load(monkeypatch):
    monkeypatch.setattr(doctor, "_LOOK", 0.02)


BAD = {
    "POSIX queues": ("limits", {"limits/msg_max": 4}),
    "SysV queues": ("limits", {"limits/msgmnb": 8192}),
    "SysV memory": ("limits", {"limits/shmmni": 4}),
    "pipes": ("limits", {"limits/pipe-max-size": 4096, "limits/pipe-user-pages-soft": 64}),
    "ulimit -q": ("limits", {"limits/mq_bytes": {"soft": 0, "hard": 0}}),
    "SysV semaphores": ("limits", {"limits/sem": {"semmsl": 250, "semmns": 16, "semopm": 32, "semmni": 4}}),
    "/dev/shm": ("limits", {"memory/shm": {"file_system": "tmpfs", "size": 5 << 20, "free": 2 << 20}}),
    "ulimit -n": ("limits", {"limits/open_files": {"soft": 100, "hard": 100}}),
    "ptrace_scope": ("limits", {"tracing/ptrace_scope": 1}),
    "TCP ports": ("limits", {"tcp/ports": [40000, 40100]}),
    "TCP congestion": ("limits", {"tcp/congestion_allowed": ["cubic"], "user": 1000}),
    "page cache": ("limits", {"rendezvous/file_system": "ramfs"}),
    "CPUs": ("biases", {"cpu/usable": 2}),
    "CPU quota": ("biases", {"cpu/quota": 0.5}),
    "CPU governor": ("biases", {"cpu/governors": ["performance", "powersave"]}),
    "turbo": ("biases", {"cpu/turbo": True}),
    "SMT": ("biases", {"cpu/smt": True}),
    "huge pages": ("biases", {"kernel/huge_pages": "always"}),
    "clock": ("biases", {"kernel/clock_source": "hpet"}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_worse_than_here_is_reported_with_a_command_that_mends_it(facts, name):
    verdict, changes = BAD[name]
    finding = next(one for one in doctor.examine(changed(facts, changes)) if one.name == name)
    assert finding.verdict == verdict
    assert re.match(r".+: .+", finding.text)  # what suffers, and why
    if name == "CPUs":
        return  # no command makes more of them
    assert "\n" not in finding.mend
    assert subprocess.run(["bash", "-n", "-c", finding.mend], check=False, timeout=10).returncode == 0
    program, *words = finding.mend.split()
    assert program in {"sysctl", "sudo", "mount", "echo", "export", "docker", "cpupower"}
    if program == "sysctl":
        for setting in (word.partition("=")[0] for word in words if "." in word):
            path = f"/proc/sys/{setting.replace('.', '/')}"
            assert os.path.exists(path) or not os.path.exists(os.path.dirname(path)), setting  # a kernel without Yama


GOOD = {
    "tracing/ptrace_scope": None,
    "cpu/usable": 8,
    "cpu/online": 8,
    "cpu/quota": None,
    "cpu/governors": ["performance"],
    "cpu/turbo": False,
    "cpu/smt": False,
    "kernel/huge_pages": "madvise",
    "kernel/clock_source": "tsc",
    "limits/pipe-user-pages-soft": 0,
    "limits/mq_bytes": {"soft": None, "hard": None},
    "limits/open_files": {"soft": 1024, "hard": None},
    "rendezvous/file_system": "ext4",
}


def test_of_a_good_machine_it_has_nothing_to_say(facts):
    of_the_machine = {"probe perf", "probe syscalls", "load", "steal"}
    found = [one for one in doctor.examine(changed(facts, GOOD)) if one.name not in of_the_machine]
    assert [one for one in found if one.verdict != "ok" or one.mend] == []


def test_what_cannot_be_read_is_said_to_be_unknown(facts):
    hidden = dict.fromkeys(
        [f"limits/{name}" for name in facts["limits"] if name not in {"sem", "open_files", "mq_bytes"}]
        + [f"kernel/{name}" for name in facts["kernel"]]
        + [f"tcp/{name}" for name in facts["tcp"]]
        + [
            "cpu/quota",
            "cpu/virtual",
            "cpu/smt",
            "cpu/governors",
            "cpu/turbo",
            "cpu/mitigations",
            "rendezvous/file_system",
        ]
    )
    found = {one.name: one for one in doctor.examine(changed(facts, {**hidden, "limits/sem": {}}))}
    assert {name for name, one in found.items() if one.verdict == "unknown"} == {
        "POSIX queues",
        "SysV queues",
        "SysV memory",
        "pipes",
        "SysV semaphores",
        "TCP ports",
        "TCP congestion",
        "page cache",
        "CPU governor",
        "turbo",
        "SMT",
        "huge pages",
        "clock",
        "mitigations",
    }
    assert all("cannot be read here" in one.text for one in found.values() if one.verdict == "unknown")


def test_facts_are_ready_for_json_and_those_of_this_machine(facts, base):
    assert json.loads(json.dumps(facts)) == facts
    assert facts["kernel"]["release"] == platform.release()
    assert facts["cpu"]["usable"] == len(os.sched_getaffinity(0))
    assert facts["limits"]["msg_max"] == int(Path("/proc/sys/fs/mqueue/msg_max").read_text())
    soft = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[0]
    assert facts["limits"]["mq_bytes"]["soft"] == (None if soft == resource.RLIM_INFINITY else soft)
    assert facts["software"]["packages"]["pluggy"]
    assert machine.facts()["rendezvous"]["directory"] == base
    assert machine._file_system("/dev/shm/not/there/yet") == "tmpfs"
    assert machine._file_system("/proc/1") == "proc"


def test_quiet_waits_for_others_to_be_quiet_and_not_for_ever():
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        time.sleep(0.2)
        assert sum(machine.busy_and_stolen(0.2)) > 0.8  # busy, or taken away by the machine below this one
        assert 0.4 < machine.quiet(0.5, 0.6) < 3
        assert machine.quiet(1.0, 5.0) < 0.5
        assert machine.quiet(0.5, 0.0) < 0.1
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
