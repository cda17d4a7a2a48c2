"""The conformance kit: what a transport promises, one check a promise, for any plugin and any test runner.

    from harness.testkit import DataContract

    class TestMine(DataContract):
        transport = Mine()

is all that pytest needs; `harness check NAME` runs the same without it. A check's name says the promise, its docstring
what to look at where it is broken. Senders of replies, and whoever is killed, are real processes.

A check that cannot work here raises unittest.SkipTest with the reason; any other exception is a failure.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import ClassVar, NamedTuple

from harness import rendezvous
from harness.api import CommandReceiver, CommandTransport, DataTransport, FileSender, Scope, Sender, limit_waits
from harness.pipeline import transfer
from harness.protocol import wire

_LIMIT = 20  # seconds that a child of a check may live
_HEADER = b"the header of %d bytes "
_BIG = 3_000_001
_LARGE = 64 << 20  # more than all buffers on the way hold
_NEARLY = 1.0  # seconds that a wait may last longer than its timeout, at its best of three
_NEVER = 5.0  # and no wait at all


class Broken(AssertionError):
    """A promise that was not kept."""


class Outcome(NamedTuple):
    """What came of one check: `problem` is empty where the promise was kept; `skipped` says why it was not checked."""

    sentence: str
    problem: str
    hint: str
    skipped: str


def run(contract: "type[DataContract] | type[CommandContract]") -> Iterator[Outcome]:
    """Run every check of a contract whose `transport` is set."""
    for name in dir(contract):
        if not name.startswith("test_"):
            continue
        check = getattr(contract(), name)
        problem = skipped = ""
        try:
            check()
        except unittest.SkipTest as reason:
            skipped = str(reason)
        except Exception as error:  # noqa: BLE001  whatever a transport under test raises
            problem = " ".join(f"{type(error).__name__}: {error}".split())
        yield Outcome(sentence(name), problem, " ".join((check.__doc__ or "").split()), skipped)


def sentence(name: str) -> str:
    """The promise that a check's name says."""
    return name.removeprefix("test_").replace("_", " ")


def contract_for(transport: CommandTransport | DataTransport) -> "type[DataContract] | type[CommandContract]":
    """The contract of a transport's kind, with `transport` set."""
    base = DataContract if isinstance(transport, DataTransport) else CommandContract
    return type(f"Test{type(transport).__name__}", (base,), {"transport": transport})


def _expect(kept: bool, otherwise: str) -> None:
    if not kept:
        raise Broken(otherwise)


class _Contract:
    """What both kinds promise. `timeout`: seconds of the scopes in checks that do not wait for it to pass."""

    transport: ClassVar[CommandTransport | DataTransport]
    timeout: ClassVar[float] = 2.0

    @contextlib.contextmanager
    def _home(self) -> Iterator[rendezvous.Home]:
        with tempfile.TemporaryDirectory(prefix="th-kit-", dir="/tmp") as base:
            before = os.environ.get(rendezvous.BASE_VARIABLE)
            os.environ[rendezvous.BASE_VARIABLE] = base
            home = rendezvous.Home(_rendezvous(), "owner")
            try:
                yield home
            finally:
                home.close()
                if before is None:
                    del os.environ[rendezvous.BASE_VARIABLE]
                else:
                    os.environ[rendezvous.BASE_VARIABLE] = before

    @contextlib.contextmanager
    def _provisioned(self, timeout: float | None = None) -> Iterator[Scope]:
        with self._home() as home:
            scope = home.scope("scope", timeout or self.timeout)
            with self.transport.provision(scope):
                yield scope

    def test_nothing_is_left_behind_when_the_scope_is_left(self) -> None:
        """provision() must remove on leaving what it created; names come from the scope, so that a sweep knows them.
        close() of an end must close its descriptors: count those of /proc/self/fd."""
        with self._home() as home:
            descriptors = _descriptors()  # the home's lock among them
            objects = _ipc_objects()
            scope = home.scope("scope", self.timeout)
            with self.transport.provision(scope):
                receiver = self.transport.receiver(scope)
                sender = self.transport.sender(scope)
                sender.close()
                receiver.close()
            left = _ipc_objects() - objects
            _expect(not left, f"left behind: {', '.join(sorted(left))}")
            rendezvous.remove_scope(scope)
            found = home.close()
            _expect(not found, f"left behind: {', '.join(found)}")
            opened = _descriptors() - (descriptors - 1)
            _expect(opened == 0, f"{opened} descriptors left open")

    def test_what_a_killed_owner_leaves_is_found_by_a_sweep(self) -> None:
        """Every name must come from scope.posix_name, scope.path or scope.sysv_key: these write it down before the
        object is made. A name of your own is never found again."""
        with self._home() as home:
            objects = _ipc_objects()
            kit = _rendezvous()

            def die_provisioned() -> None:
                other = rendezvous.Home(kit, "killed")
                scope = other.scope("scope", self.timeout)
                with self.transport.provision(scope):
                    self.transport.receiver(scope)
                    os.kill(os.getpid(), signal.SIGKILL)

            child = _Child(die_provisioned)
            _expect(child.ended() == -signal.SIGKILL, "provision() or receiver() failed in a second process")
            rendezvous.sweep(kit)
            left = _ipc_objects() - objects
            _expect(not left, f"not found by the sweep: {', '.join(sorted(left))}")
            _expect(os.path.isdir(home.directory), "the sweep removed what belongs to the living")

    def test_a_crash_while_provisioning_leaves_nothing_behind(self) -> None:
        """Where provision() raises halfway it must undo what it has made: use contextlib.ExitStack. Here the scope's
        names are taken already, by a provision() before."""
        with self._provisioned() as scope:
            objects, descriptors = _ipc_objects(), _descriptors()
            before = set(os.listdir(scope.directory))
            with contextlib.suppress(Exception), self.transport.provision(scope):
                return  # a transport whose names are made by its ends has nothing to crash on
            opened = _descriptors() - descriptors
            _expect(opened == 0, f"{opened} descriptors left open")
            _expect(_ipc_objects() <= objects, f"left behind: {', '.join(_ipc_objects() - objects)}")
            _expect(set(os.listdir(scope.directory)) <= before, "files were left behind in the scope's directory")

    def test_ends_close_twice(self) -> None:
        """close() must do nothing the second time."""
        with self._provisioned() as scope:
            receiver = self.transport.receiver(scope)
            sender = self.transport.sender(scope)
            for end in (sender, receiver, sender, receiver):
                end.close()

    def test_opening_an_end_before_anybody_provisioned_is_an_error_and_not_a_wait(self) -> None:
        """sender() must raise OSError (FileNotFoundError, ConnectionRefusedError) at once: the harness retries."""
        with self._home() as home:
            scope = home.scope("scope", self.timeout)
            begun = time.monotonic()
            try:
                self.transport.sender(scope).close()
            except OSError:
                _expect(time.monotonic() - begun < self.timeout, "it waited")
            else:
                raise Broken("sender() opened something that nobody has made")


class DataContract(_Contract):
    """The promises of a data transport."""

    transport: ClassVar[DataTransport]

    def _content(self, size: int) -> bytes:
        # The one transport that moves nothing invents zeros.
        return bytes(size) if self.transport.name == "null" else os.urandom(size)

    def _large(self) -> bytes:
        return (self._content(1_000_003) * 68)[:_LARGE]  # no ring of memory has it twice at the same place

    def test_bodies_of_every_awkward_size_arrive_intact(self) -> None:
        """Sizes around the head, a page and the chunk. The first loan bears the head too: its content is the loan's
        size less HEAD_BYTES."""
        chunk = getattr(self.transport, "chunk", 4096)
        edges = {chunk, chunk - wire.HEAD_BYTES, 2 * chunk - wire.HEAD_BYTES, 4096 - wire.HEAD_BYTES, 4096, 65536}
        sizes = {1, *(edge + offset for edge in edges for offset in (-1, 0, 1)), _BIG}
        with self._lane() as lane:
            for size in sorted(size for size in sizes if size > 0):
                lane.check_reply(self._content(size))

    def test_refusals_and_empty_bodies_arrive(self) -> None:
        """A reply may be a head alone. send_file() then gets count 0, and no file."""
        with self._lane() as lane:
            for status in (wire.STATUS_NOT_FOUND, wire.STATUS_OK, wire.STATUS_ERROR, wire.STATUS_OK):
                lane.check_reply(b"", status)
            lane.check_reply(self._content(10_000))

    def test_a_slow_reader_gets_the_body_whole(self) -> None:
        """The client reads late: deliver() or the sender must wait without spoiling what is on its way."""
        with self._lane() as lane:
            lane.check_reply(self._content(8 << 20), reads_after=self.timeout / 4)

    def test_a_body_that_nobody_wants_leaves_the_lane_at_rest_or_is_told_as_a_failure(self) -> None:
        """Where the client is gone, deliver() may raise ConnectionError only if give_back() then brings the lane to
        rest, so that the next reply is right. Otherwise it raises another OSError, and the lane is retired."""
        with self._lane() as lane:
            for size in (100, _BIG):
                content = self._content(size)
                try:
                    lane.reply_to_nobody(content)
                except transfer.ClientGone:
                    lane.check_reply(self._content(5000))
                except (OSError, EOFError, ValueError):
                    return

    def test_lanes_do_not_mix(self) -> None:
        """Two lanes at once, in one process at the proxy's end: nothing may be shared but by the scope."""
        with self._home() as home, contextlib.ExitStack() as stack:
            lanes = []
            for number in range(3):
                scope = home.scope(f"lane{number}", self.timeout)
                stack.enter_context(self.transport.provision(scope))
                lanes.append(stack.enter_context(_Lane(self.transport, scope)))
            for _ in range(3):
                contents = [self._content(70_000) for _ in lanes]
                children = [lane.start(content) for lane, content in zip(lanes, contents, strict=True)]
                for lane, content, child in reversed(list(zip(lanes, contents, children, strict=True))):
                    lane.finish(child, content)

    def test_the_next_reply_may_come_from_another_process(self) -> None:
        """Between replies nothing may live only in a Python object: positions belong into the memory, and an end must
        neither send nor expect anything when it is opened or closed."""
        with self._lane() as lane:
            for size in (10, 200_000, 0, 4096, 33):
                lane.check_reply(self._content(size))

    def test_one_sender_serves_many_replies(self) -> None:
        """A cache worker keeps its end open: the hundredth reply must be as right as the first."""
        with self._lane() as lane:
            contents = [self._content(size) for size in (0, 5, 70_000, 4032) * 10]
            child = lane.start_many(contents)
            for number, content in enumerate(contents, 1):
                lane.finish(None, content, number)
            _expect(child.ended() == 0, "the sender failed")

    def test_a_reply_leaves_no_descriptor_open_at_either_end(self) -> None:
        """A descriptor that came with a message, SCM_RIGHTS of unix(7), is the receiver's to close, as is whatever an
        end opens for one reply. Those of /proc/self/fd are counted after the first reply and after later ones."""
        with self._lane() as lane:
            contents = [self._content(70_000)] * 5  # one file: an end may keep what it has been given, of each
            child = lane.start_many(contents, keeps=True)
            counts = []
            for number, content in enumerate(contents, 1):
                lane.finish(None, content, number)
                counts.append(_descriptors())
            _expect(max(counts) == counts[0], f"the proxy's end has {max(counts) - counts[0]} descriptors left open")
            _expect(child.ended() == 0, "the cache's end has descriptors left open, or failed")

    def test_waiting_for_a_reply_ends_in_time(self) -> None:
        """take() must raise TimeoutError after scope.timeout, not before and not much later."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            _ends_in_time(receiver.take, 0.2, TimeoutError)
            receiver.close()

    def test_a_lane_that_nobody_empties_pushes_back_in_time(self) -> None:
        """loan() or publish() must raise TimeoutError once the lane is full, and a lane must become full: memory may
        not grow with the reply. A zero-copy end that hands the file over need not wait."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            sender = self.transport.sender(scope)
            if isinstance(sender, Sender):
                _ends_in_time(lambda: _fill_up(sender), 0.2, TimeoutError)
            else:
                with _file(self._large()) as fd:
                    _ends_in_time(partial(_send, sender, fd), 0.2, TimeoutError, or_well=True)
            sender.close()
            receiver.close()

    def test_a_killed_sender_is_noticed_in_time(self) -> None:
        """take() or deliver() must end with EOFError, OSError or TimeoutError, never with less content taken for
        good, where the cache dies in the middle. Only where the file itself has come over may the reply go on."""
        content = self._large()
        whole = _HEADER % _LARGE + content
        with self._lane(1.0) as lane, _file(content) as fd:

            def send_and_die(sender: Sender | FileSender) -> None:
                _send(sender, fd)
                os.kill(os.getpid(), signal.SIGKILL)

            def read() -> None:
                start = _collected(lane.theirs, at_most=1)
                os.kill(child.pid, signal.SIGKILL)
                got.append(start + _collected(lane.theirs))

            lane.connect()
            child = lane.fork(send_and_die, closes=(lane.ours, lane.theirs))
            got: list[bytes] = []
            reader = threading.Thread(target=read)
            reader.start()
            with lane.theirs:
                with lane.ours:
                    failures = EOFError, OSError, ValueError
                    pass_on = partial(lane.pass_on, 1, _LARGE, lane.ours)
                    well = _ends_in_time(pass_on, 1.0, failures, or_well=True, again=False)
                reader.join()
            (received,) = got
            _expect(received == whole or not well, "a part of the reply, or something else, was taken for all of it")
            _expect(whole.startswith(received), "the client got other bytes than the file's")
            _expect(child.ended() == -signal.SIGKILL, "the sender failed before it could be killed")

    def test_a_killed_receiver_does_not_hold_the_sender_for_longer_than_the_timeout(self) -> None:
        """loan(), publish() and send_file() must end in time where the proxy is dead."""
        with self._home() as home:
            scope = home.scope("scope", 0.3)

            def provision(opened: Callable[[], None]) -> None:
                with self.transport.provision(scope):
                    end = self.transport.receiver(scope)
                    opened()
                    signal.pause()
                    end.close()

            child = _opened(provision)
            sender = self.transport.sender(scope)
            child.kill()
            if isinstance(sender, Sender):
                _ends_in_time(partial(_fill_up, sender), 0.3, OSError)
            else:  # it may notice, and say so
                with _file(self._large()) as fd:
                    _ends_in_time(partial(_send, sender, fd), 0.3, OSError, or_well=True)
            sender.close()

    def test_a_file_that_shrinks_ends_the_reply_short_and_is_told(self) -> None:
        """Missing content must end as EOFError, OSError or TimeoutError at the proxy: never padded, never repeated."""
        if self.transport.name == "null":
            raise unittest.SkipTest("it moves no content")
        with self._lane(0.4) as lane:
            content = self._content(300_000)
            child = lane.start(content[:200_000], announced=300_000)
            try:
                lane.finish(child, content, announced=300_000)
            except (EOFError, OSError, ValueError):
                _expect(content.startswith(lane.received), "the client got other bytes than the file's")
            else:
                raise Broken("a reply that is short was taken for whole")

    def test_a_zero_copy_end_does_not_read_the_content(self) -> None:
        """An end whose type says zero-copy may not bring content into user space: use splice(2), sendfile(2),
        SCM_RIGHTS. Counted by strace(1): the bytes that its read and receive calls copy."""
        if self.transport.name == "null":
            raise unittest.SkipTest("it moves no content")
        with self._lane() as lane:
            sender = self.transport.sender(lane.scope)
            zero_copy_in, zero_copy_out = isinstance(sender, FileSender), isinstance(lane.relay, transfer.SocketRelay)
            sender.close()
            if not (zero_copy_in or zero_copy_out):
                raise unittest.SkipTest("both of its ends copy, as their types say")
            if shutil.which("strace") is None:
                raise unittest.SkipTest("strace is not installed")
            content = self._content(1 << 20)
            if zero_copy_in:
                child = lane.start(content, waits=True)
                with _traced(child) as moved:
                    lane.finish(child, content)
                _expect(sum(moved) < 1 << 19, f"the cache's end read {sum(moved)} bytes of 1 MiB into user space")
            if zero_copy_out:
                child = lane.start(content, request_id=9)
                receiver = _Child(lambda: lane.pass_on(9, len(content), lane.ours), True, (lane.theirs,))
                with lane.theirs, _traced(receiver) as moved:
                    lane.ours.close()
                    got = _collected(lane.theirs)
                    _expect(got == _HEADER % len(content) + content, "the content did not arrive")
                    _expect((child.ended(), receiver.ended()) == (0, 0), "an end failed")
                _expect(sum(moved) < 1 << 19, f"the proxy's end read {sum(moved)} bytes of 1 MiB into user space")

    @contextlib.contextmanager
    def _lane(self, timeout: float | None = None) -> "Iterator[_Lane]":
        with self._provisioned(timeout) as scope, _Lane(self.transport, scope) as lane:
            yield lane


class CommandContract(_Contract):
    """The promises of a command transport."""

    transport: ClassVar[CommandTransport]

    def test_each_record_reaches_exactly_one_of_many_receivers_whole(self) -> None:
        """Writers in several processes, receivers in several threads and processes: a record may neither be torn
        (keep it one atomic message), nor lost, nor doubled."""
        with self._provisioned(1.5) as scope:
            reading, writing = os.pipe()
            ends = [self.transport.receiver(scope) for _ in range(2)]

            def pass_on(end: CommandReceiver) -> None:
                with contextlib.suppress(TimeoutError):
                    while True:
                        os.write(writing, end.receive())

            def receive() -> None:
                pass_on(self.transport.receiver(scope))

            receivers = [_Child(receive) for _ in range(2)]
            threads = [threading.Thread(target=pass_on, args=(end,)) for end in ends]
            ranges = [range(first, first + 300) for first in (0, 1000, 2000)]
            senders = [_Child(partial(self._send, scope, numbers)) for numbers in ranges]
            got: list[bytes] = []
            collector = threading.Thread(target=_records, args=(reading, got))
            for thread in (*threads, collector):
                thread.start()
            failed = [child.ended() for child in (*senders, *receivers)]
            for thread in threads:
                thread.join()
            os.close(writing)
            collector.join()
            os.close(reading)
            for end in ends:
                end.close()
            _expect(not any(failed), "a sender or a receiver failed")
            wanted = sorted(_record(number) for numbers in ranges for number in numbers)
            _expect(len(got) == len(wanted), f"{len(got)} records arrived of {len(wanted)}")
            _expect(sorted(got) == wanted, "records were torn or doubled")

    def test_no_record_waits_for_a_receiver_that_is_busy(self) -> None:
        """receive() may fetch no record ahead, and a sender may choose no receiver: a cache worker that a client holds
        up would hold up others' commands, too, while its neighbours are idle."""
        with self._provisioned() as scope:
            busy, idle = self.transport.receiver(scope), self.transport.receiver(scope)
            child = _Child(lambda: self._send(scope, range(9)))
            for number, receiver in enumerate([busy, *[idle] * 8]):
                _expect(receiver.receive() == _record(number), f"record {number} is not the next one")
            _expect(child.ended() == 0, "the sender failed")
            busy.close()
            idle.close()

    def test_the_records_of_one_sender_keep_their_order(self) -> None:
        """One sender, one receiver: first in, first out."""
        with self._provisioned() as scope:
            receiver = self.transport.receiver(scope)
            child = _Child(lambda: self._send(scope, range(500)))
            for number in range(500):
                _expect(receiver.receive() == _record(number), f"record {number} is not the next one")
            _expect(child.ended() == 0, "the sender failed")
            receiver.close()

    def test_a_full_channel_pushes_back_in_time_and_keeps_what_it_holds(self) -> None:
        """send() must raise TimeoutError once the channel is full, and it must become full; what was taken in before
        is still delivered."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            sender = self.transport.sender(scope)
            sent = 0

            def fill() -> None:
                nonlocal sent
                for number in range(sent, 20_000):
                    sender.send(_record(number))
                    sent += 1

            _ends_in_time(fill, 0.2, TimeoutError)
            for number in range(sent):
                _expect(receiver.receive() == _record(number), f"record {number} of {sent} was lost or changed")
            sender.send(_record(7))
            _expect(receiver.receive() == _record(7), "after it was full the channel does not work")
            sender.close()
            receiver.close()

    def test_waiting_for_a_record_ends_in_time(self) -> None:
        """receive() must raise TimeoutError after scope.timeout, and leave the channel as it was."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            for _ in range(2):
                _ends_in_time(receiver.receive, 0.2, TimeoutError)
            self._send(scope, range(1))
            _expect(receiver.receive() == _record(0), "after a timeout the channel does not work")
            receiver.close()

    def test_a_killed_receiver_takes_no_other_one_with_it(self) -> None:
        """A cache worker killed while it waits may hold no lock that the others need."""
        with self._provisioned() as scope:
            receiver = self.transport.receiver(scope)

            def wait(opened: Callable[[], None]) -> None:
                end = self.transport.receiver(scope)
                opened()
                end.receive()

            child = _opened(wait)
            time.sleep(0.3)  # until it waits
            child.kill()
            sender = _Child(lambda: self._send(scope, range(3)))
            for number in range(3):
                _expect(receiver.receive() == _record(number), f"record {number} is not the next one")
            _expect(sender.ended() == 0, "the sender failed")
            receiver.close()

    def _send(self, scope: Scope, numbers: range) -> None:
        sender = self.transport.sender(scope)
        for number in numbers:
            sender.send(_record(number))
        sender.close()


def _record(number: int) -> bytes:
    return wire.encode_command(number, b"lane/%d" % number, b"/" + bytes([65 + number % 26]) * 400)


def _records(fd: int, into: list[bytes]) -> None:
    while len(record := _read_fully(fd, wire.COMMAND_BYTES)) == wire.COMMAND_BYTES:
        into.append(record)


def _read_fully(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := os.read(fd, count - len(data))):
        data += piece
    return data


class _Child:
    """A second process that runs `work` and ends; with `waits`, not before go(). It closes the sockets of `closes`."""

    def __init__(self, work: Callable[[], None], waits: bool = False, closes: Iterable[socket.socket] = ()) -> None:
        gate, self._gate = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                signal.alarm(_LIMIT)
                os.close(self._gate)
                for inherited in closes:
                    inherited.close()
                if waits:
                    os.read(gate, 1)
                work()
                code = 0
            finally:
                os._exit(code)
        os.close(gate)

    def go(self) -> None:
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.ended()

    def ended(self) -> int:
        """Wait for its end: the exit code, or less a signal."""
        self.go()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _opened(work: Callable[[Callable[[], None]], None]) -> _Child:
    """A second process that runs `work` and has called the function that this is given."""
    opened, tell = os.pipe()

    def tell_opened() -> None:
        os.write(tell, b"+")

    child = _Child(lambda: work(tell_opened))
    os.close(tell)
    told = os.read(opened, 1)
    os.close(opened)
    _expect(bool(told), "provision() or receiver() failed in a second process")
    return child


class _Lane:
    """A lane with the proxy's end open here; each reply comes from a new process, and goes over TCP to a client."""

    def __init__(self, transport: DataTransport, scope: Scope) -> None:
        self.scope, self._transport = scope, transport
        self.received = b""
        self._requests = 0
        self._sockets: tuple[socket.socket, ...] = ()
        self._ask = -1

    def __enter__(self) -> "_Lane":
        self.relay = transfer.relay_over(self._transport.receiver(self.scope))
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()
        if self._ask >= 0:
            os.close(self._ask)
        self.relay.close()

    def fork(
        self, work: Callable[[Sender | FileSender], None], waits: bool = False, closes: Iterable[socket.socket] = ()
    ) -> _Child:
        """A second process with a sender, which it closes: what that has in memory of its own may leave then only."""

        def with_sender() -> None:
            with contextlib.closing(self._transport.sender(self.scope)) as sender:
                work(sender)

        return _Child(with_sender, waits, closes)

    def start(
        self,
        content: bytes,
        status: int = wire.STATUS_OK,
        announced: int | None = None,
        request_id: int | None = None,
        waits: bool = False,
    ) -> _Child:
        """A client, and a second process that sends one reply."""
        self._requests += 1
        number = request_id or self._requests
        self.connect()
        with _file(content) as fd:

            def send(sender: Sender | FileSender) -> None:
                with contextlib.suppress(EOFError):  # of a file that is short on purpose
                    transfer.answerer_over(sender)(number, status, fd, len(content) if announced is None else announced)

            return self.fork(send, waits, (self.ours, self.theirs))

    def start_many(self, contents: list[bytes], keeps: bool = False) -> _Child:
        """A second process that sends replies 1, 2, ... each after the one before has been taken.

        keeps: all are the first one, from one file; it fails where it has more descriptors open in the end.
        """
        asked, self._ask = os.pipe()

        def send(sender: Sender | FileSender) -> None:
            answer = transfer.answerer_over(sender)
            opened = []
            with _file(contents[0]) as first:
                for number, content in enumerate(contents, 1):
                    os.read(asked, 1)
                    if keeps:
                        answer(number, wire.STATUS_OK, first, len(content))
                    else:
                        with _file(content) as fd:  # of the same number each time
                            answer(number, wire.STATUS_OK, fd, len(content))
                    opened.append(_descriptors())
            assert not keeps or opened[-1] == opened[0], opened

        child = self.fork(send)
        os.close(asked)
        return child

    def connect(self) -> None:
        """A client whose socket is given away at once, where the transport wants it before the reply."""
        self.ours, self.theirs = self._sockets = _connection(self.scope.timeout * 4)
        if isinstance(self.relay, transfer.HandOffRelay):
            self.relay.give(self.ours.fileno(), _HEADER)

    def finish(
        self,
        child: _Child | None,
        content: bytes,
        request_id: int | None = None,
        announced: int | None = None,
        status: int = wire.STATUS_OK,
        reads_after: float = 0,
        gone: bool = False,
    ) -> None:
        """Take the reply that was started and check what the client gets."""
        wanted = len(content) if announced is None else announced
        if child is None:
            self.connect()
            os.write(self._ask, b"x")
        else:
            child.go()
        got: list[bytes] = []

        def read() -> None:
            time.sleep(reads_after)
            got.append(_collected(self.theirs))

        reader = threading.Thread(target=read)
        with self.theirs:
            if not gone:
                reader.start()
            try:
                with self.ours:
                    self.pass_on(request_id or self._requests, wanted, self.ours, status)
            finally:
                if not gone:
                    reader.join()
                    self.received = got[0].removeprefix(_HEADER % wanted)
        if child is not None:
            _expect(child.ended() == 0, "the sender failed")
        _expect(got == [_HEADER % wanted + content], f"a body of {len(content)} bytes did not arrive intact")

    def pass_on(self, request_id: int, length: int, sink: socket.socket, status: int = wire.STATUS_OK) -> None:
        """Await the reply and give it to `sink`."""
        told = self.relay.await_head(request_id)
        _expect(told == (status, length), f"status and length {told} instead of {(status, length)}")
        self.relay.pass_on(sink.fileno(), _HEADER % length)

    def check_reply(self, content: bytes, status: int = wire.STATUS_OK, reads_after: float = 0) -> None:
        """One reply from a process of its own, whole and right."""
        self.finish(self.start(content, status), content, status=status, reads_after=reads_after)

    def reply_to_nobody(self, content: bytes) -> None:
        """One reply for a client that has gone. Raises what the relay does; the sender may fail."""
        child = self.start(content, waits=True)
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
        self.theirs.close()  # with a reset
        time.sleep(0.01)
        try:
            self.finish(child, content, gone=True)
        finally:
            with contextlib.suppress(ChildProcessError):
                child.ended()


def _connection(timeout: float) -> tuple[socket.socket, socket.socket]:
    """A TCP connection on the loopback: (the proxy's socket, the client's)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    limit_waits(ours, timeout)
    theirs.settimeout(_LIMIT)
    return ours, theirs


def _collected(client: socket.socket, at_most: int | None = None) -> bytes:
    received = bytearray()
    with contextlib.suppress(OSError):  # the connection was reset, or ended with a check that has failed
        while len(received) != at_most and (piece := client.recv(at_most or 1 << 16)):
            received += piece
    return bytes(received)


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.fileno()


def _fill_up(sender: Sender) -> None:
    for _ in range(5000):
        room = sender.loan()
        room[: wire.HEAD_BYTES] = wire.encode_head(1, wire.STATUS_OK, 1 << 40)
        sender.publish(len(room))


def _send(sender: Sender | FileSender, fd: int) -> None:
    transfer.answerer_over(sender)(1, wire.STATUS_OK, fd, _LARGE)


def _ends_in_time(
    call: Callable[[], object],
    timeout: float,
    how: type[BaseException] | tuple[type[BaseException], ...],
    or_well: bool = False,
    again: bool = True,
) -> bool:
    """Expect a call to raise `how` within the timeout, or nearly; not before, where that is TimeoutError alone.

    or_well: it may also end as if all were well; returns whether it did. again: it may be repeated, so that a busy
    machine is not taken for a wait that is too long.
    """
    for _ in range(3 if again else 1):
        waited, error = _timed(call, timeout)
        if error is None:
            _expect(or_well, "it ended as if all were well")
        elif not isinstance(error, how):
            raise error
        elif how is TimeoutError:
            _expect(waited > timeout * 0.8, f"it gave up after {waited:.3f} s instead of {timeout} s")
        if waited < timeout + _NEARLY:
            break
    else:
        _expect(not again, f"it took {waited:.1f} s instead of {timeout} s")
    return error is None


def _timed(call: Callable[[], object], timeout: float) -> tuple[float, BaseException | None]:
    """(seconds that a call took, what it raised). It has a thread of its own: one that never ends is told, too."""
    raised: list[BaseException | None] = []

    def attempt() -> None:
        try:
            call()
            raised.append(None)
        except BaseException as error:  # noqa: BLE001  whatever a transport under test raises
            raised.append(error)

    begun = time.monotonic()
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout + _NEVER)
    waited = time.monotonic() - begun
    _expect(bool(raised), f"it had not ended after {waited:.1f} s instead of {timeout} s")
    return waited, raised.pop()  # whose traceback has this list in it: frames, and views of a lane, would live on


def _ipc_objects() -> set[str]:
    """The System V and POSIX objects of this machine, as far as it lists them; queues where mqueue is mounted.

    Those of other harness programs, which may come and go meanwhile, are left out, and so are System V objects without
    a key, IPC_PRIVATE: a scope gives no such key out, and browsers make them all the time.
    """
    found = {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}  # noqa: S108
    found |= {f"queue /{name}" for name in (os.listdir("/dev/mqueue") if os.path.isdir("/dev/mqueue") else ())}
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sysvipc/{kind}") as table:
            objects = [line.split()[:2] for line in list(table)[1:]]
            found |= {f"SysV {kind} {key} {number}" for key, number in objects if key != "0"}
    return {name for name in found if not re.search(r"[/.]th-\d+-", name) or f"-{_rendezvous()}-" in name}


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _rendezvous() -> str:
    return f"kit{os.getpid()}"


@contextlib.contextmanager
def _traced(child: _Child) -> Iterator[list[int]]:
    """Let a waiting child go under strace(1); afterwards the list has the bytes that each of its reads has copied."""
    calls = "read,pread64,readv,preadv,preadv2,recvfrom,recvmsg"
    with tempfile.NamedTemporaryFile("r") as log:
        strace = subprocess.Popen(
            ["strace", "-f", "-p", str(child.pid), "-e", f"trace={calls}", "-o", log.name], stderr=subprocess.PIPE
        )
        try:
            assert strace.stderr is not None
            if b"attached" not in strace.stderr.readline():
                raise unittest.SkipTest("strace may not attach here")
            child.go()
            copied: list[int] = []
            yield copied
            strace.wait(_LIMIT)
            copied += [int(call[1]) for line in log if (call := re.search(r" = (\d+)", line))]
        finally:
            strace.kill()
            strace.communicate()
