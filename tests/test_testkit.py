"""Every built-in transport keeps its promises, and each promise has a transport that breaks it and is caught."""

import fcntl
import functools
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import posix_ipc
import pytest
from support.transports import COMMAND, DATA
from support.users import as_an_ordinary_user

from harness import testkit
from harness.api import (
    COMMAND_BYTES,
    HEAD_BYTES,
    FileSender,
    Scope,
    StreamReceiver,
    bound_socket,
    content_length,
)
from harness.testkit import leaks, waits
from transports.fifo import FifoCommandReceiver, FifoCommands, FifoCommandSender, FifoData, FifoReceiver, FifoSender
from transports.memfd import Memfd
from transports.mmap import Mmap
from transports.null import Null, NullCommands
from transports.posix_mq import PosixMqCommands, PosixQueue
from transports.posix_shm import PosixShm
from transports.sendfile import DescriptorSender, FileReceiver, Sendfile
from transports.unix import UnixData

pytestmark = pytest.mark.processes

# An id begins with `data-unix-` or `command-unix-`, so that -k can choose the promises of one transport.
PROMISES = [
    pytest.param(
        name,
        kind,
        testkit.sentence(check),
        id=f"{kind}-{name}-{testkit.sentence(check)}",
        marks=pytest.mark.xdist_group(name),  # one process asks for both kinds of that name
    )
    for kind, transports in (("command", COMMAND), ("data", DATA))
    for name, transport in transports.items()
    for check in testkit.checks(testkit.contract_for(transport()))
]


@functools.cache
def checked(name):
    """What an ordinary user is told about the transports of that name: ({kind: a line for each promise}, all of it).

    It is another process for speed, too: this one is large, so each of its forks costs ten times as much.
    """
    done = as_an_ordinary_user(f"$HARNESS check -v {name}", 110)
    told, lines = {}, []
    for line in done.stdout.splitlines():
        if line.startswith(" "):
            lines.append(line)
        else:
            told[line.split(" ")[0]], lines = lines, []
    return told, done.stdout + done.stderr


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("name", "kind", "promise"), PROMISES)
def test_the_transport_keeps_the_promise(name, kind, promise):
    told, whole = checked(name)
    [line] = [line for line in told.get(kind, []) if line[11:].split(":")[0] == promise] or [whole]
    if line.startswith("  skipped"):
        pytest.skip(line[11:])
    assert line == f"  kept     {promise}", whole


class TestThePytestFace(testkit.DataContract):
    transport = PosixShm(chunk=4096, depth=1)


class TestTheSecondSync(testkit.DataContract):
    transport = PosixShm(chunk=4096, sync="fifo")


# ---- Broken on purpose: each names the check that must catch it, and what that check says.


@dataclass(frozen=True)
class Corrupting(FifoData):
    caught_by = "bodies of every awkward size arrive intact"
    says = "did not arrive intact"

    class Sender(FifoSender):
        def publish(self, count):
            if count > 1000:
                self._buffer[count - 1] ^= 1
            super().publish(count)

    def sender(self, scope) -> FifoSender:
        return self.Sender(scope, self)


@dataclass(frozen=True)
class DroppingHeads(FifoData):
    caught_by = "refusals and empty bodies arrive"
    says = "nothing in the FIFO"
    timeout = 0.3

    class Sender(FifoSender):
        def publish(self, count):
            if count != HEAD_BYTES:
                super().publish(count)

    def sender(self, scope) -> FifoSender:
        return self.Sender(scope, self)


@dataclass(frozen=True)
class GreetingWhenOpened(FifoData):
    caught_by = "the next reply may come from another process"
    says = "not the head of a reply"

    def sender(self, scope) -> FifoSender:
        sender = FifoSender(scope, self)
        if os.path.exists(scope.path("greeted")):
            os.write(sender._fd, b"hello again")
        with open(scope.path("greeted"), "w"):
            return sender


@dataclass(frozen=True)
class WaitingTooLong(FifoData):
    caught_by = "waiting for a reply ends in time"
    says = "it took [0-3].[0-9] s"
    nearly = 0.4
    waits = 0.7

    def receiver(self, scope) -> FifoReceiver:
        return FifoReceiver(Scope(scope.directory, scope.label, self.waits), self)


@dataclass(frozen=True)
class WaitingForEver(WaitingTooLong):
    caught_by = "waiting for a reply ends in time"
    says = "it had not ended"
    never = 0.5
    waits = 1000.0


@dataclass(frozen=True)
class PaddingForTheDead(FifoData):
    caught_by = "a killed sender is noticed in time"
    says = "other bytes than"

    class Receiver(FifoReceiver):
        _dead = False

        def take(self):
            try:
                return memoryview(bytes(1 << 16)) if self._dead else super().take()
            except TimeoutError:
                self._dead = True
                return self.take()

        def give_back(self):
            pass

    def receiver(self, scope) -> FifoReceiver:
        return self.Receiver(scope, self)


@dataclass(frozen=True)
class NeverFull(FifoData):
    caught_by = "a lane that is not emptied pushes back in time"
    says = "it had not ended|as if all were well"
    never = 0.5

    class Sender(FifoSender):
        def publish(self, count):
            try:
                super().publish(count)
            except TimeoutError:
                pass

    def sender(self, scope) -> FifoSender:
        return self.Sender(Scope(scope.directory, scope.label, 0.001), self)


@dataclass(frozen=True)
class LeakingANameOfTheScope(FifoData):
    caught_by = "nothing is left behind after provision"
    says = "left behind: .*forgotten"

    @contextmanager
    def provision(self, scope):
        posix_ipc.Semaphore(scope.posix_name("forgotten"), posix_ipc.O_CREAT).close()
        with super().provision(scope):
            yield


@dataclass(frozen=True)
class LeakingADescriptor(FifoData):
    caught_by = "nothing is left behind after provision"
    says = "1 descriptors left open"

    def sender(self, scope) -> FifoSender:
        os.open("/dev/null", os.O_RDONLY)
        return FifoSender(scope, self)


@dataclass(frozen=True)
class LeakingADescriptorAReply(Sendfile):
    caught_by = "a reply leaves no descriptor open at either end"
    says = "the proxy's end has 4 descriptors"

    class Receiver(FileReceiver):
        def give_back(self):
            self._file = -1

    def receiver(self, scope) -> FileReceiver:
        return self.Receiver(scope)


OF_MY_OWN = f"/th-of-my-own-{os.getpid()}"  # other tests may run at the same time


@dataclass(frozen=True)
class NamingByItself(FifoData):
    caught_by = "a sweep finds what a killed owner left"
    says = "not found by the sweep: .*of-my-own"

    @contextmanager
    def provision(self, scope):
        posix_ipc.Semaphore(OF_MY_OWN, posix_ipc.O_CREAT).close()
        try:
            with super().provision(scope):
                yield
        finally:
            posix_ipc.unlink_semaphore(OF_MY_OWN)


@dataclass(frozen=True)
class ClosingOnce(FifoData):
    caught_by = "ends close twice"
    says = "Bad file descriptor"

    class Sender(FifoSender):
        def close(self):
            os.close(self._fd)

    def sender(self, scope) -> FifoSender:
        return self.Sender(scope, self)


@dataclass(frozen=True)
class OpeningAnything(FifoData):
    caught_by = "opening a sender before provision fails at once"
    says = "opened something"

    class Sender(FifoSender):
        def __init__(self):
            pass

        def close(self):
            pass

    def sender(self, scope) -> FifoSender:
        return FifoSender(scope, self) if os.path.exists(scope.path("fifo")) else self.Sender()


@dataclass(frozen=True)
class LeavingHalfAfterACrash(FifoData):
    caught_by = "a failed provision leaves nothing behind"
    says = "left behind: .*half-True"

    @contextmanager
    def provision(self, scope):
        name = scope.posix_name(f"half-{os.path.exists(scope.path('fifo'))}")
        posix_ipc.Semaphore(name, posix_ipc.O_CREAT).close()
        with super().provision(scope):
            yield
        posix_ipc.unlink_semaphore(name)


@dataclass(frozen=True)
class LeakingADescriptorInACrash(FifoData):
    caught_by = "a failed provision leaves nothing behind"
    says = "1 descriptors left open"

    @contextmanager
    def provision(self, scope):
        fd = os.open("/dev/null", os.O_RDONLY)
        with super().provision(scope):
            yield
        os.close(fd)


@dataclass(frozen=True)
class SharingOneLane(FifoData):
    caught_by = "lanes do not mix"
    says = "content|head|did not arrive|nothing in the FIFO"
    timeout = 0.5

    def _shared(self, scope):
        return Scope(os.path.dirname(scope.directory), scope.label, scope.timeout)

    @contextmanager
    def provision(self, scope):
        fifo = self._shared(scope).path("fifo")
        if not os.path.exists(fifo):
            os.mkfifo(fifo)
        yield

    def receiver(self, scope) -> FifoReceiver:
        return FifoReceiver(self._shared(scope), self)

    def sender(self, scope) -> FifoSender:
        return FifoSender(self._shared(scope), self)


class OneBufferForAll:
    shared = memoryview(bytearray(1 << 18))

    def __init__(self, scope, options):
        super().__init__(scope, options)
        self._buffer = self.shared


@dataclass(frozen=True)
class SharingTheReceiveBuffer(FifoData):
    caught_by = "lanes do not mix"
    says = "did not arrive intact"
    timeout = 0.5

    class Receiver(OneBufferForAll, FifoReceiver):
        pass

    def receiver(self, scope) -> FifoReceiver:
        return self.Receiver(scope, self)


@dataclass(frozen=True)
class SharingTheSendBuffer(FifoData):
    caught_by = "lanes that threads use at the same time do not mix"
    says = "did not arrive intact|not the head|the reply is to request|announced|status and length"
    timeout = 0.5

    class Sender(OneBufferForAll, FifoSender):
        pass

    def sender(self, scope) -> FifoSender:
        return self.Sender(scope, self)


@dataclass(frozen=True)
class CountingInTheClass(FifoData):
    caught_by = "lanes that threads use at the same time do not mix"
    says = "more than was announced"
    timeout = 0.5

    class Receiver(FifoReceiver):
        left = 0  # bytes of the reply that are still to come

        def take(self):
            piece = super().take()
            kind = type(self)
            kind.left = (kind.left or HEAD_BYTES + content_length(piece)) - len(piece)
            if kind.left < 0:
                raise ValueError("more than was announced")
            return piece

    def receiver(self, scope) -> FifoReceiver:
        return self.Receiver(scope, self)


@dataclass(frozen=True)
class WaitingForTheLiving(UnixData):
    caught_by = "a sender that lives but goes no further is noticed in time"
    says = "it had not ended"
    never = 0.5

    def receiver(self, scope) -> StreamReceiver:
        listener = bound_socket(socket.SOCK_STREAM, scope.path("socket"), scope.timeout)
        return StreamReceiver(listener, self.chunk, scope.timeout, lambda: listener.accept()[0])  # without limit_waits


@dataclass(frozen=True)
class Padding(Sendfile):
    caught_by = "a file that shrinks ends the reply with an error"
    says = "did not arrive intact"

    class Sender(DescriptorSender):
        def send_file(self, head, fd, offset, count):
            if count:
                os.ftruncate(fd, count)
            super().send_file(head, fd, offset, count)

    def sender(self, scope) -> FileSender:
        return self.Sender(scope)


@dataclass(frozen=True)
class CopyingInSecret(FifoData):
    caught_by = "a zero copy end does not read the content"
    says = "read 1048576 bytes"

    class Sender(FileSender):
        def __init__(self, scope, options):
            self._end = FifoSender(scope, options)
            self._chunk = options.chunk

        def send_file(self, head, fd, offset, count):
            data = head + os.pread(fd, count, offset) if count else head
            if len(data) < HEAD_BYTES + count:
                raise EOFError
            for start in range(0, len(data), self._chunk):
                piece = data[start : start + self._chunk]
                self._end.loan()[: len(piece)] = piece
                self._end.publish(len(piece))

        def close(self):
            self._end.close()

    def sender(self, scope) -> FileSender:
        return self.Sender(scope, self)


@dataclass(frozen=True)
class Dawdling(FifoData):
    caught_by = "a lane that is not emptied pushes back in time"
    says = "it had not ended"
    never = 0.5

    class Sender(CopyingInSecret.Sender):
        def send_file(self, head, fd, offset, count):
            time.sleep(3)

    def sender(self, scope) -> FileSender:
        return self.Sender(scope, self)


@dataclass(frozen=True)
class Tearing(FifoCommands):
    caught_by = "each record reaches exactly one of many receivers whole"
    says = "records"

    class Sender(FifoCommandSender):
        def send(self, record):
            super().send(record[:200])
            time.sleep(0.0002)
            super().send(record[200:])

    def sender(self, scope) -> FifoCommandSender:
        return self.Sender(scope, "fifo0", os.O_WRONLY)


@dataclass(frozen=True)
class SharingARecord(FifoCommands):
    caught_by = "each record reaches exactly one of many receivers whole"
    says = "torn or doubled"

    class Sender(FifoCommandSender):
        shared = bytearray(COMMAND_BYTES)

        def send(self, record):
            self.shared[:] = record
            time.sleep(0)
            super().send(self.shared)

    def sender(self, scope) -> FifoCommandSender:
        return self.Sender(scope, "fifo0", os.O_WRONLY)


@dataclass(frozen=True)
class FetchingAhead(FifoCommands):
    caught_by = "no record waits for a receiver that is busy"
    says = "record 1 is not"
    timeout = 0.5

    class Receiver(FifoCommandReceiver):
        _held = ()

        def receive(self):
            self._held = self._held or [FifoCommandReceiver.receive(self) for _ in range(2)]
            return self._held.pop(0)

    def receiver(self, scope) -> FifoCommandReceiver:
        return self.Receiver(scope, self._parts())


@dataclass(frozen=True)
class LosingWhenFull(PosixMqCommands):
    caught_by = "a full channel pushes back in time and keeps what it holds"
    says = "it had not ended|as if all were well"
    never = 0.5

    class Sender(PosixQueue):
        def send(self, record):
            try:
                super().send(record)
            except TimeoutError:
                pass

    def sender(self, scope) -> PosixQueue:
        return self.Sender(Scope(scope.directory, scope.label, 0.0001))


@dataclass(frozen=True)
class Reordering(PosixMqCommands):
    caught_by = "the records of one sender keep their order"
    says = "is not the next one"

    class Sender(PosixQueue):
        def send(self, record):
            self._queue.send(record, self._timeout, priority=record[0] % 2)

    def sender(self, scope) -> PosixQueue:
        return self.Sender(scope)


@dataclass(frozen=True)
class Doubling(PosixMqCommands):
    caught_by = "each record reaches exactly one of many receivers whole"
    says = "905 records"

    class Sender(PosixQueue):
        def send(self, record):
            super().send(record)
            if record[0] == 7:
                super().send(record)

    def sender(self, scope) -> PosixQueue:
        return self.Sender(scope)


@dataclass(frozen=True)
class WaitingUnderALock(FifoCommands):
    caught_by = "a killed receiver does not stop the others"
    says = "the lock is held"
    timeout = 0.5

    class Receiver(FifoCommandReceiver):
        def __init__(self, scope, parts):
            super().__init__(scope, parts)
            self._lock = posix_ipc.Semaphore(scope.posix_name("lock"), posix_ipc.O_CREAT, initial_value=1)

        def receive(self):
            try:
                self._lock.acquire(self._timeout)
            except posix_ipc.BusyError:
                raise TimeoutError("the lock is held") from None
            try:
                return super().receive()
            finally:
                self._lock.release()

        def close(self):
            if self._lock is not None:
                self._lock.close()
                self._lock = None
            super().close()

    @contextmanager
    def provision(self, scope):
        with super().provision(scope):
            try:
                yield
            finally:
                posix_ipc.unlink_semaphore(scope.posix_name("lock"))

    def receiver(self, scope) -> FifoCommandReceiver:
        return self.Receiver(scope, self._parts())


@dataclass(frozen=True)
class WaitingUnderAFileLock(FifoCommands):
    caught_by = "a stopped receiver holds up no more than one record"
    says = "the lock is held"
    timeout = 0.5

    class Receiver(FifoCommandReceiver):
        """The kernel frees its lock where it is killed, but not where it is stopped."""

        def __init__(self, scope, parts):
            super().__init__(scope, parts)
            self._lock = os.open(scope.path("lock"), os.O_CREAT | os.O_RDWR)

        def receive(self):
            deadline = time.monotonic() + self._timeout
            while True:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError("the lock is held") from None
                    time.sleep(0.001)
            try:
                return super().receive()
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

        def close(self):
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1
            super().close()

    def receiver(self, scope) -> FifoCommandReceiver:
        return self.Receiver(scope, self._parts())


@dataclass(frozen=True)
class SayingItMovesContent(Null):
    caught_by = "bodies of every awkward size arrive intact"
    says = "did not arrive intact$"
    moves_content = True


@dataclass(frozen=True)
class SayingItMovesNone(FifoData):
    caught_by = "bodies of every awkward size arrive intact"
    says = "as so many zeros"
    moves_content = False


@dataclass(frozen=True)
class KeepingStaleContent(Sendfile):
    caught_by = "a file that changed arrives as it is now"
    says = "did not arrive intact"

    class Sender(DescriptorSender):
        def __init__(self, scope):
            super().__init__(scope)
            self._kept = {}

        def send_file(self, head, fd, offset, count):
            if count:
                fd = self._copy(fd)
            super().send_file(head, fd, offset, count)

        def _copy(self, fd):
            file = os.fstat(fd)
            key = file.st_ino, file.st_size, file.st_mtime_ns
            if key not in self._kept:
                self._kept[key] = os.memfd_create("content")
                os.write(self._kept[key], os.pread(fd, file.st_size, 0))
            return self._kept[key]

    def sender(self, scope) -> FileSender:
        return self.Sender(scope)


@dataclass(frozen=True)
class KeepingContentInSecret(Memfd):
    caught_by = "no content is kept unless the transport says so"
    says = "did not come from the file"
    keeps_content = False


@dataclass(frozen=True)
class KeepingPagesInSecret(Mmap):
    caught_by = "no content is kept unless the transport says so"
    says = "stay with the transport"
    keeps_content = False


@dataclass(frozen=True)
class BeingAFloorInWords(Null):
    caught_by = "its attributes are true or false"
    says = "floor = 'yes': must be True or False"
    floor = "yes"


@dataclass(frozen=True)
class KeepingAnUnclearAmount(Memfd):
    caught_by = "its attributes are true or false"
    says = "keeps_content = 1: must be True or False"
    keeps_content = 1


@dataclass(frozen=True)
class BeingAFloorOfCommandsInWords(NullCommands):
    caught_by = "its attributes are true or false"
    says = "floor = None: must be True or False"
    floor = None


@dataclass(frozen=True)
class DyingInForks(FifoData):
    """As a library that ends a process which was forked from one that uses it."""

    caught_by = "an end opens in a fork of a process that has one open"
    says = "the process|the sender failed|nothing in the FIFO"
    timeout = 0.3
    used: ClassVar[set[int]] = set()  # the processes in which an end was opened

    def receiver(self, scope) -> FifoReceiver:
        self.used.add(os.getpid())
        return FifoReceiver(scope, self)

    def sender(self, scope) -> FifoSender:
        if self.used - {os.getpid()}:
            os._exit(1)
        self.used.add(os.getpid())
        return FifoSender(scope, self)


@dataclass(frozen=True)
class SayingThatItCorrupts(Corrupting):
    caught_by = "its attributes are true or false"
    says = "'bodies of every awkward size arrive intact' must be kept"
    not_kept: ClassVar[dict[str, str]] = {Corrupting.caught_by: "now and then a bit is wrong"}


BROKEN = [kind for kind in list(globals().values()) if isinstance(kind, type) and "caught_by" in vars(kind)]


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_transport_that_is_broken_is_caught_by_the_check_for_it(kind, monkeypatch):
    # Where a wait is to be too long, or never to end, that is found out sooner than a busy machine would allow.
    monkeypatch.setattr(waits, "NEARLY", vars(kind).get("nearly", waits.NEARLY))
    monkeypatch.setattr(waits, "NEVER", vars(kind).get("never", waits.NEVER))
    monkeypatch.setattr(leaks, "SETTLE", 0.1)  # so that checks in other processes do not see what is left here
    contract = testkit.contract_for(kind())
    contract.timeout = vars(kind).get("timeout", contract.timeout)
    check = next(name for name in testkit.checks(contract) if testkit.sentence(name) == kind.caught_by)
    try:
        with pytest.raises(Exception, match=kind.says):
            getattr(contract(), check)()
    finally:
        ours = f"-{leaks.rendezvous_name()}-"
        for name in os.listdir("/dev/shm"):
            if name == f"sem.{OF_MY_OWN[1:]}" or (ours in name and ("half-" in name or "forgotten" in name)):
                os.unlink(f"/dev/shm/{name}")


def test_there_are_broken_transports_enough_to_trust_the_kit():
    assert len(BROKEN) >= 15
    kits = testkit.DataContract, testkit.CommandContract
    sentences = {testkit.sentence(name) for kit in kits for name in testkit.checks(kit)}
    assert {kind.caught_by for kind in BROKEN} <= sentences


def test_every_check_says_what_to_look_at():
    for kit in (testkit.DataContract, testkit.CommandContract):
        for name in testkit.checks(kit):
            assert len(getattr(kit, name).__doc__) > 30, name


@dataclass(frozen=True)
class StrangersFloor(Null):
    name = "nothing_at_all"


def test_a_floor_under_another_name_keeps_the_promises_that_null_keeps():
    outcomes = list(testkit.run(testkit.contract_for(StrangersFloor())))
    assert [one for one in outcomes if one.problem] == []
    assert [one.sentence for one in outcomes if one.skipped == "it says that it moves no content"] == [
        "a file that changed arrives as it is now",
        "a file that shrinks ends the reply with an error",
        "a zero copy end does not read the content",
        "no content is kept unless the transport says so",
    ]
    assert len(outcomes) == 25


@dataclass(frozen=True)
class NotForForks(DyingInForks):
    not_kept: ClassVar[dict[str, str]] = {
        DyingInForks.caught_by: "its library ends the process",
        "each call ends in time": "not where the moon is full",
    }


def test_a_library_that_survives_no_fork_keeps_every_other_promise_and_is_listed_with_that_one():
    outcomes = list(testkit.run(testkit.contract_for(NotForForks())))
    assert [one for one in outcomes if one.problem] == []
    assert {one.sentence: one.not_kept for one in outcomes if one.not_kept} == NotForForks.not_kept
    assert NotForForks.used == set()  # the process that runs the kit opens no end
