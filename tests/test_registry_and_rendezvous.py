"""Transports by name and option, and what a killed program leaves."""

import os
import re
import signal
import subprocess
import sys

import posix_ipc
import pytest
from support.transports import COMMAND, DATA

from harness import registry, rendezvous
from harness.api.scope import sysv_object


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("posix_smh", "did you mean posix_shm"),
        ("posix_shm:dept=2", "did you mean depth"),
        ("posix_shm:depth=two", "not a whole number"),
        ("posix_shm:depth=0", "depth at least 1"),
        ("posix_shm:wait=never", "must be block, spin, spin-then-block or adaptive"),
        ("posix_shm:sync=futex", "must be semaphore, fifo or eventfd"),
        ("posix_shm:sync=fifo,wait=spin", "sync=fifo has none: change one of them"),
        ("posix_shm:sync=eventfd,wait=spin", "sync=eventfd has none: change one of them"),
        ("posix_shm:sync=fifo,depth=4097", "at most 4096"),
        ("posix_shm:pages=large", "must be system or huge"),
        ("sysv_shm:depth=40000", "a semaphore counts to 32767"),
        ("posix_shm:depth", "write options as"),
    ],
)
def test_a_bad_transport_is_refused_with_what_to_write_instead(text, message):
    with pytest.raises(registry.UnknownTransport, match=message):
        registry.data_transport(text)


@pytest.mark.parametrize("name", sorted(registry.installed().data))
def test_a_transport_is_built_again_from_its_description(name):
    transport = registry.data_transport(name, chunk=8192)
    assert registry.data_transport(registry.describe(transport)) == transport


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("posix_shm", ("copy", "copy")),
        ("sendfile", ("zero-copy", "zero-copy")),
        ("handoff", ("zero-copy", "hand-off")),
    ],
)
def test_the_types_of_its_ends_say_the_shape_of_a_transport(name, shape):
    assert registry.shape(registry.data_transport(name)) == shape


def test_the_built_in_transports_say_what_they_are():
    kinds = [*COMMAND.values(), *DATA.values()]
    assert [kind.__name__ for kind in kinds if kind.floor] == ["NullCommands", "Null", "NullSendfile"]
    assert [name for name, kind in DATA.items() if not kind.moves_content] == ["null", "null_sendfile"]
    assert [name for name, kind in DATA.items() if kind.keeps_content] == ["memfd", "mmap"]


@pytest.mark.processes
def test_a_living_program_keeps_its_home_and_a_killed_one_is_swept(home):
    with pytest.raises(rendezvous.Taken):
        rendezvous.Home("tests", "owner")
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        other = rendezvous.Home("tests", "killed")
        lane = registry.data_transport("posix_shm").provision(other.scope("lane", 1.0))
        commands = registry.command_transport("posix_mq").provision(other.scope("commands", 1.0))
        lane.__enter__()
        commands.__enter__()
        os.write(tell, b"x")
        signal.pause()
    os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    assert rendezvous.sweep() == []
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(rendezvous.sweep("tests")) == 4  # memory, two semaphores, a queue
    assert rendezvous.sweep() == []
    assert os.path.isdir(home.directory)


def test_a_sweep_removes_a_killed_owners_sysv_objects_of_the_recorded_kind_and_no_others(base):
    import sysv_ipc

    pid = os.fork()
    if pid == 0:
        scope = rendezvous.Home("tests", "killed").scope("lane", 1.0)
        lane = registry.data_transport("sysv_shm").provision(scope)
        lane.__enter__()
        sysv_ipc.MessageQueue(scope.sysv_key("msg", "queue"), sysv_ipc.IPC_CREX)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    scope = rendezvous.foreign_scope("tests", "killed", "lane", 1.0)
    foreign = sysv_ipc.Semaphore(scope.sysv_key("sem", "queue"), sysv_ipc.IPC_CREX)
    found = rendezvous.sweep()
    foreign.remove()
    assert [name.rpartition(" ")[0] for name in found] == [
        "SysV semaphore",
        "SysV semaphore",
        "SysV shared memory",
        "SysV queue",
    ]


def test_a_strangers_object_that_has_our_key_is_refused_and_outlives_us(base):
    import sysv_ipc

    home = rendezvous.Home("tests", "owner")
    scope = home.scope("lane", 1.0)
    key = rendezvous.foreign_scope("tests", "owner", "lane", 1.0).sysv_key("shm", "memory")
    foreign = sysv_ipc.SharedMemory(key, sysv_ipc.IPC_CREX, size=4096)
    foreign.detach()
    try:
        with pytest.raises(OSError, match="is another program's object"):
            registry.data_transport("sysv_shm").provision(scope).__enter__()
        rendezvous.remove_scope(scope)
        assert home.close() == []
        assert sysv_object("shm", key)["id"] == foreign.id
    finally:
        foreign.remove()
    assert sysv_object("shm", key) == {}


def killed(program, transport="posix_shm"):
    """Leave what a program leaves that is killed with a lane provisioned; its scope."""
    pid = os.fork()
    if pid == 0:
        scope = rendezvous.Home("tests", program).scope("lane", 1.0)
        lane = registry.data_transport(transport).provision(scope)
        lane.__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    return rendezvous.foreign_scope("tests", program, "lane", 1.0)


def test_names_differ_from_one_start_of_a_program_to_the_next(base):
    names = []
    for _ in range(2):
        home = rendezvous.Home("tests", "owner")
        scope = home.scope("lane", 1.0)
        assert rendezvous.foreign_scope("tests", "owner", "lane", 1.0).posix_name("ring") == scope.posix_name("ring")
        names += [scope.posix_name("ring"), scope.sysv_key("sem", "ring")]
        home.close()
    assert len(set(names)) == 4


def test_any_program_that_starts_sweeps_what_dead_ones_left_at_its_rendezvous(base):
    runner = rendezvous.Home("tests", "trial", sweeps=True)
    scope = killed("proxy-1")
    rendezvous.Home("other", "owner").close()
    rendezvous.Home("tests", "owner").close()
    assert [name for name in os.listdir("/dev/shm") if scope.label in name], (
        "the runner sweeps here, so the start of another program sweeps nothing"
    )
    runner.close()
    home = rendezvous.Home("tests", "owner")
    assert not [name for name in os.listdir("/dev/shm") if scope.label in name]
    assert not os.path.exists(scope.directory)
    home.close()


@pytest.mark.processes
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_another_users_object_of_a_name_in_a_ledger_is_left_alone():
    ours = f"/th-test-{os.getpid()}"
    memory = posix_ipc.SharedMemory(ours, posix_ipc.O_CREX, size=4096)
    memory.close_fd()
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(rendezvous._remove_posix(ours) != [])
    try:
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        memory.unlink()


def test_a_home_that_cannot_be_swept_does_not_keep_the_others(base):
    sweep_home = rendezvous.sweep_home

    def fails(home):
        if home.endswith("proxy-1"):
            raise posix_ipc.PermissionsError("Permission denied")
        return sweep_home(home)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendezvous, "sweep_home", fails)
        bad, good = killed("proxy-1"), killed("proxy-2")
        rendezvous.Home("tests", "owner").close()
        assert (os.path.exists(bad.directory), os.path.exists(good.directory)) == (True, False)
        with pytest.raises(OSError, match=r"proxy-1: PermissionsError: Permission denied"):
            rendezvous.sweep()
    assert len(rendezvous.sweep()) == 3  # memory and two semaphores


PLUGIN = """
from dataclasses import dataclass
from harness.api import DataTransport, FileSender, Receiver, hookimpl

@dataclass(frozen=True)
class Mine(DataTransport):
    name = "NAME"
    OPTION
    def provision(self, scope): ...
    def receiver(self, scope) -> RECEIVER: ...
    def sender(self, scope) -> FileSender: ...

@hookimpl
def HOOK():
    return [Mine]
"""


PROBE = """
from harness.api import Probe, hookimpl

class Mine(Probe):
    name = "io"
    pass
    def begin(self, processes, directory): ...
    def end(self): ...

@hookimpl
def probes():
    return [Mine]
"""


def with_plugins(script="r = registry.installed(); print(list(r.data)); print(r.failed)"):
    """What a fresh process says of its transports."""
    script = f"import sys; from harness import registry; {script}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    return result.stdout + result.stderr


def plugin(name="mine", option="depth: int = 1", receiver="Receiver", hook="data_transports"):
    source = PLUGIN.replace("NAME", name).replace("OPTION", option)
    return source.replace("RECEIVER", receiver).replace("HOOK", hook)


def test_a_strangers_transport_is_found_beside_the_built_in_ones(plugins):
    plugins("stranger", plugin())
    assert str(sorted([*registry.installed().data, "mine"])) in with_plugins()


@pytest.mark.processes
def test_where_a_plugin_has_the_name_of_its_transport_no_other_is_loaded():
    asked = "registry.command_transport('fifo'), registry.data_transport('unix', chunk=8192)"
    loaded = with_plugins(f"print({asked}, *(name for name in sys.modules if name.startswith('transports.')))").split()
    assert {"transports.fifo", "transports.unix"} <= set(loaded)
    others = {f"transports.{name}" for name in {*COMMAND, *DATA} - {"fifo", "unix"}}
    assert others.isdisjoint(loaded)


@pytest.mark.parametrize("source", [plugin(name="other"), "1 / 0"])
def test_where_the_plugin_of_its_name_does_not_offer_a_transport_it_is_found_all_the_same(plugins, source):
    plugins("stranger", source, "mine")
    plugins("another", plugin())
    assert with_plugins("print(registry.data_transport('mine:depth=2'))") == "Mine(depth=2)\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_like_this", "No module named 'nothing_like_this'"),
        ("1 / 0", "ZeroDivisionError"),
        (plugin(option="depth: int"), "option depth needs a default"),
        (plugin(receiver="Receiver | FileSender"), "must have the return annotation Receiver or SocketReceiver"),
        (plugin(name="a:b"), "its name is 'a:b'; it must be letters"),
        (plugin(option="floor = 1"), "its floor is 1; it must be True or False"),
        (plugin(option='moves_content = "no"'), "its moves_content is 'no'; it must be True or False"),
        (plugin(option="keeps_content = None"), "its keeps_content is None; it must be True or False"),
        (
            plugin(option="floor: bool = True"),
            "floor must not be an option; write `floor = True`, without",
        ),
        (plugin(hook="data_transport"), "unknown hook 'data_transport'"),
        (plugin().replace("return [Mine]", "return 1"), "TypeError"),
        (plugin().replace("return [Mine]", "return [int]"), "is not a dataclass derived from DataTransport"),
        (PROBE.replace("(Probe)", ""), "is not a class derived from Probe"),
        (PROBE.replace("def end", "def stop"), "abstract method end"),
        (PROBE.replace("io", "i o"), "its name is 'i o'; it must be letters"),
        (PROBE.replace("pass", 'table = "trials"'), "its table cannot be 'trials'"),
    ],
)
def test_a_plugin_that_does_not_work_is_reported_and_costs_no_other_one_anything(plugins, source, reason):
    plugins("stranger", source)
    listed = with_plugins("r = registry.installed(); print(list(r.data), r.failed); registry.data_transport('mine')")
    assert str(list(registry.installed().data)) in listed  # the built-in ones
    assert "{'stranger': " in listed
    assert reason in listed
    assert "plugin stranger failed to load: " in listed.splitlines()[-1]


def test_a_program_that_needs_a_plugin_which_does_not_work_ends(plugins):
    plugins("stranger", "1 / 0")
    command = [sys.executable, "-m", "harness", "webproxy", "-p", "0", "--data", "mine"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert asked.returncode == 2
    assert "plugin stranger failed to load: " in asked.stderr


def test_two_transports_of_one_name_are_refused(plugins):
    plugins("stranger", plugin(name="fifo"))
    assert "ValueError: two plugins offer 'fifo'" in with_plugins()


def test_two_probes_of_one_name_are_refused_and_so_is_a_name_that_does_not_exist(plugins):
    with pytest.raises(registry.UnknownTransport, match="syscals: no such probe; did you mean syscalls"):
        registry.probe("syscals")
    assert registry.probe("syscalls") is not registry.probe("syscalls")
    plugins("stranger", PROBE.replace("io", "cpu"))
    assert "ValueError: two plugins offer 'cpu'" in with_plugins()


def test_memory_that_there_is_no_room_for_is_refused_before_anything_starts(home):
    transport = registry.data_transport("posix_shm:chunk=65536GiB,depth=1")
    with pytest.raises(OSError, match="1 slots of"), transport.provision(home.scope("lane", 1.0)):
        pass


TYPED = """
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.api import DataTransport, FileSender, Receiver, Scope, StreamReceiver, hookimpl, tcp_listener


@dataclass(frozen=True)
class Mine(DataTransport):
    name = "mine"
    floor = True
    chunk: int = 4096

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        yield

    def receiver(self, scope: Scope) -> Receiver:
        return StreamReceiver(tcp_listener(scope.path("port"), scope.timeout), self.chunk, scope.timeout)

    def sender(self, scope: Scope) -> FileSender:
        raise NotImplementedError


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Mine]
"""


MISTAKES = {
    "attribute": ("scope.timeout)", "scope.seconds)", '"Scope" has no attribute "seconds"'),
    "flag": ("floor = True", 'floor = "yes"', "Incompatible types in assignment"),
    "end": ("FileSender:", "int:", 'incompatible with return type "Sender | FileSender"'),
}


@pytest.mark.processes
def test_an_author_gets_the_types_of_the_contract(tmp_path):
    (tmp_path / "right.py").write_text(TYPED)
    for name, (right, wrong, _) in MISTAKES.items():
        (tmp_path / f"{name}.py").write_text(TYPED.replace(right, wrong))
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "right.py",
        *(f"{name}.py" for name in MISTAKES),
    ]
    result = subprocess.run(mypy, capture_output=True, text=True, check=False, timeout=110, cwd=tmp_path)
    assert not [line for line in result.stdout.splitlines() if line.startswith("right.py")], result.stdout
    for name, (*_, message) in MISTAKES.items():
        assert re.search(rf"^{name}\.py:.*{re.escape(message)}", result.stdout, re.M), result.stdout + result.stderr


def test_the_directory_of_all_rendezvous_is_made_with_those_above_it(base, monkeypatch):
    monkeypatch.setenv(rendezvous.BASE_VARIABLE, f"{os.path.dirname(base)}/not/there")
    home = rendezvous.Home("tests", "owner")
    assert os.stat(rendezvous.base_directory()).st_mode & 0o777 == 0o700
    home.close()
    os.rmdir(f"{os.path.dirname(base)}/not/there")
    os.rmdir(f"{os.path.dirname(base)}/not")
