"""The promises of a data transport."""

import contextlib
import os
import random
import shutil
import signal
import threading
import unittest
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

from harness.api import DataTransport, FileSender, Scope, Sender
from harness.pipeline import transfer
from harness.protocol import wire
from harness.testkit import leaks
from harness.testkit.contract import Contract
from harness.testkit.files import in_page_cache, leaves_page_cache, open_file, overwrite
from harness.testkit.lane import (
    HEADER,
    LaneUnderTest,
    answers_when_asked,
    collected,
    connection,
    files_of,
    send_one,
    with_sender,
)
from harness.testkit.processes import Child, Descriptor, at_once, opened, traced
from harness.testkit.promise import Broken, expect
from harness.testkit.waits import ends_in_time

_BIG = 3_000_001
_TRIES = 3
_LARGE = 24 << 20  # more than what pipes and sockets on the way hold (tcp_wmem: 4 MiB)


class DataContract(Contract):
    """The promises of a data transport."""

    transport: ClassVar[DataTransport]

    def _content(self, size: int) -> bytes:
        return os.urandom(size)

    def _large(self) -> bytes:
        """Content that is larger than all buffers on the way, the lane's memory included."""
        lane = getattr(self.transport, "chunk", 0) * getattr(self.transport, "depth", 1)
        size = max(_LARGE, 2 * lane)
        return (self._content(1_000_003) * (size // 1_000_003 + 1))[:size]  # no ring has it twice at the same place

    def test_bodies_of_every_awkward_size_arrive_intact(self) -> None:
        """Sizes around the head, a page and the chunk. The first loan bears the head too: its content is the loan's
        size less HEAD_BYTES. A transport that says moves_content = False delivers as many zeros, and nothing else."""
        chunk = getattr(self.transport, "chunk", 4096)
        edges = {chunk, chunk - wire.HEAD_BYTES, 2 * chunk - wire.HEAD_BYTES, 4096 - wire.HEAD_BYTES, 4096, 65536}
        sizes = {1, *(edge + offset for edge in edges for offset in (-1, 0, 1)), _BIG}
        contents = [self._content(size) for size in sorted(sizes) if size > 0]
        with self._lane() as lane:
            self._check_replies(lane, contents)
            for content in contents[::3]:  # from an end that has just been opened, too
                lane.check_reply(content)

    def test_refusals_and_empty_bodies_arrive(self) -> None:
        """A reply may be a head alone. send_file() then gets count 0, and no file."""
        with self._lane() as lane:
            for status in (wire.STATUS_NOT_FOUND, wire.STATUS_OK, wire.STATUS_ERROR, wire.STATUS_OK):
                lane.check_reply(b"", status)
            lane.check_reply(self._content(10_000))

    def test_a_slow_reader_gets_the_body_whole(self) -> None:
        """The client reads late: deliver() or the sender must wait, and change nothing of what is on its way."""
        with self._lane() as lane:
            lane.check_reply(self._content(8 << 20), reads_after=0.25)

    def test_a_client_that_is_gone_leaves_the_lane_at_rest_or_is_reported_as_a_failure(self) -> None:
        """Where the client is gone, deliver() may raise ConnectionError only if give_back() then brings the lane to
        rest, so that the next reply is right. Otherwise it must raise another OSError: the lane is then retired."""
        with self._lane() as lane:
            for size in (100, _BIG):
                content = self._content(size)
                try:
                    lane.reply_to_a_client_gone(content)
                except transfer.ClientGone:
                    lane.check_reply(self._content(5000))
                except (OSError, EOFError, ValueError):
                    return

    def test_lanes_do_not_mix(self) -> None:
        """Three lanes at once, whose proxy ends are in one process: two lanes may share nothing. What take() returned
        on one is still to be sent when it is called on the others."""
        with self._lanes(3) as lanes:
            for _ in range(3):
                contents = [self._content(70_000) for _ in lanes]
                children = [lane.start(content) for lane, content in zip(lanes, contents, strict=True)]
                for lane, content in zip(lanes, contents, strict=True):
                    lane.await_head(len(content))
                for lane, content, child in reversed(list(zip(lanes, contents, children, strict=True))):
                    lane.finish(child, content)

    def test_lanes_that_threads_use_at_the_same_time_do_not_mix(self) -> None:
        """Four threads of one proxy and four of one cache, each pair with a lane of its own, and all of them busy. What
        changes must not live in the module, in the class, in a default argument, or in a buffer that ends share."""
        with self._lanes(4) as lanes:
            for _ in self._again_and_again():
                self._use_at_once(lanes)

    def _use_at_once(self, lanes: list[LaneUnderTest]) -> None:
        """Pass 16 replies over each of the lanes, all at the same time: small ones, and of several pieces."""
        chunk = min(getattr(self.transport, "chunk", 4096), 1 << 19)
        most = [1 << random.randint(8, 16) for _ in range(10)] + [4 * chunk] * 6
        contents = [[self._content(random.randint(1, size)) for size in random.sample(most, 16)] for _ in lanes]
        asked = [lane.asks() for lane in lanes]

        def take(lane: LaneUnderTest, contents: list[bytes]) -> None:
            for number, content in enumerate(contents, 1):
                lane.finish(None, content, number)

        child = Child(self._send_at_once, [lane.scope for lane in lanes], list(map(Descriptor, asked)), contents)
        for fd in asked:
            os.close(fd)
        try:
            at_once(take, lanes, contents)
        except BaseException:
            child.kill()
            raise
        expect(child.ended() == 0, "a sender failed")

    def _send_at_once(self, scopes: list[Scope], asked: list[int], contents: list[list[bytes]]) -> None:
        def send(scope: Scope, asked: int, contents: list[bytes]) -> None:
            with contextlib.closing(self.transport.sender(scope)) as sender:
                for _ in answers_when_asked(asked, sender, files_of(contents)):
                    pass

        at_once(send, scopes, asked, contents)

    def test_the_next_reply_may_come_from_another_process(self) -> None:
        """Between replies nothing may live only in a Python object: keep positions in the shared memory. An end must
        neither send nor expect anything when it is opened or closed."""
        with self._lane() as lane:
            for size in (10, 200_000, 0, 4096, 33):
                lane.check_reply(self._content(size))

    def test_an_end_opens_in_a_fork_of_a_process_that_has_one_open(self) -> None:
        """No program of the harness opens ends before it has forked its workers, but others do. A transport over a
        library that does not survive a fork must say so: not_kept."""
        with self._lane() as lane, contextlib.closing(self.transport.sender(lane.scope)), self._nursery():
            for size in (70_000, 5):
                lane.check_reply(self._content(size))

    def test_one_sender_serves_many_replies(self) -> None:
        """A cache worker keeps its end open: the hundredth reply must be as right as the first."""
        with self._lane() as lane:
            contents = [self._content(size) for size in (0, 5, 70_000, 4032) * 10]
            self._check_replies(lane, contents)

    def test_a_reply_leaves_no_descriptor_open_at_either_end(self) -> None:
        """The receiver must close a descriptor that came with a message, SCM_RIGHTS of unix(7), and an end must close
        what it opens for one reply. Descriptors, /proc/self/fd, are counted after the first reply and later ones."""
        with self._lane() as lane:
            content, times = self._content(70_000), 5
            with open_file(content) as file:  # the same each time: an end may keep one descriptor for each file
                child = lane.start_again(file, len(content), times, may_open=False)
            counts = []
            for number in range(1, times + 1):
                lane.finish(None, content, number)
                counts.append(leaks.descriptors())
            expect(max(counts) == counts[0], f"the proxy's end has {max(counts) - counts[0]} descriptors left open")
            expect(child.ended() == 0, "the cache's end has descriptors left open, or failed")

    def test_waiting_for_a_reply_ends_in_time(self) -> None:
        """take() must raise TimeoutError after scope.timeout, not before and not much later."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            ends_in_time(receiver.take, 0.2, TimeoutError)
            receiver.close()

    def test_a_lane_that_is_not_emptied_pushes_back_in_time(self) -> None:
        """loan() or publish() must raise TimeoutError once the lane is full, and a lane must become full: memory may
        not grow with the reply. A zero-copy end that hands the file over need not wait."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            sender = self.transport.sender(scope)
            if isinstance(sender, Sender):
                ends_in_time(lambda: _fill_up(sender), 0.2, TimeoutError)
            else:
                with open_file(self._large()) as fd:
                    ends_in_time(partial(_send, sender, fd), 0.2, TimeoutError, or_well=True)
            sender.close()
            receiver.close()

    def test_a_killed_sender_is_noticed_in_time(self) -> None:
        """Where the cache dies in the middle, take() or deliver() must raise EOFError, OSError or TimeoutError: a part
        of the content must not pass for all of it. Only where the open file has come over may the reply go on."""
        self._interrupt_a_reply(signal.SIGKILL)

    def test_a_sender_that_lives_but_goes_no_further_is_noticed_in_time(self) -> None:
        """As where it dies, but no end of a connection will ever tell: each wait in the middle of a reply needs the
        scope's timeout, too. Here the cache is stopped by SIGSTOP."""
        self._interrupt_a_reply(signal.SIGSTOP)

    def _interrupt_a_reply(self, by: signal.Signals) -> None:
        """Stop or kill the sender once the first byte has come through.

        On a machine that is too busy to do that within the timeout the sender fails by itself: then once more.
        """
        stopped = any(self._interrupted(by) for _ in range(_TRIES))
        expect(stopped, f"the sender failed before it got {by.name}")

    def _interrupted(self, by: signal.Signals) -> bool:
        """Whether the signal came in time."""
        content = self._large()
        with self._lane(0.5) as lane, open_file(content) as fd:
            whole = HEADER % len(content) + lane.sent(content)

            def read() -> None:
                start = collected(lane.theirs, at_most=1)
                os.kill(child.pid, by)
                got.append(start + collected(lane.theirs))

            lane.connect()
            child = lane.fork(_send_and_end, Descriptor(fd), by)
            got: list[bytes] = []
            reader = threading.Thread(target=read)
            reader.start()
            with lane.theirs:
                try:
                    with lane.ours:
                        failures = EOFError, OSError, ValueError
                        pass_on = partial(lane.pass_on, 1, len(content), lane.ours)
                        well = ends_in_time(pass_on, 0.5, failures, or_well=True, again=False)
                finally:
                    os.kill(child.pid, signal.SIGKILL)  # where it has been given the client, that is now free
                    reader.join()
            (received,) = got
            expect(received == whole or not well, "a part of the reply, or something else, was taken for all of it")
            expect(whole.startswith(received), "the client got other bytes than the file's")
            return child.ended() == -signal.SIGKILL

    def test_a_killed_receiver_does_not_hold_up_the_sender_for_longer_than_the_timeout(self) -> None:
        """loan(), publish() and send_file() must end in time where the proxy is dead."""
        with self._home() as home, contextlib.ExitStack() as stack:
            scope = home.scope("scope", 0.3)
            stack.enter_context(self._nursery())
            child = opened(self._provision_and_wait, scope)
            sender = self.transport.sender(scope)
            child.kill()
            if isinstance(sender, Sender):
                ends_in_time(partial(_fill_up, sender), 0.3, OSError)
            else:  # it may as well notice, and return or raise another error
                with open_file(self._large()) as fd:
                    ends_in_time(partial(_send, sender, fd), 0.3, OSError, or_well=True)
            sender.close()

    def _provision_and_wait(self, say_opened: Callable[[], None], scope: Scope) -> None:
        with self.transport.provision(scope):
            end = self.transport.receiver(scope)
            say_opened()
            signal.pause()
            end.close()

    def test_a_file_that_shrinks_ends_the_reply_with_an_error(self) -> None:
        """Where content is missing the proxy's end must raise EOFError, OSError or TimeoutError. It must not deliver
        other bytes in its place."""
        self._skip_without_content()
        with self._lane(0.4) as lane:
            content = self._content(300_000)
            child = lane.start(content[:200_000], announced=300_000)
            try:
                lane.finish(child, content, announced=300_000)
            except (EOFError, OSError, ValueError):
                expect(content.startswith(lane.received), "the client got other bytes than the file's")
            else:
                raise Broken("a short reply was taken for the whole one")

    def test_a_zero_copy_end_does_not_read_the_content(self) -> None:
        """An end whose type says zero-copy must not bring content into user space: use splice(2), sendfile(2),
        SCM_RIGHTS. strace(1) counts the bytes that its read and receive calls copy."""
        self._skip_without_content()
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
                with traced(child.pid, child.go) as moved:
                    lane.finish(child, content)
                expect(sum(moved) < 1 << 19, f"the cache's end read {sum(moved)} bytes of 1 MiB into user space")
            if zero_copy_out:
                self._pass_on_traced(content)

    def _pass_on_traced(self, content: bytes) -> None:
        """Count what the proxy's end reads, in a process that has provisioned and waits to pass the reply on."""
        with self._home() as home, self._nursery(), open_file(content) as fd:
            scope = home.scope("scope", self.timeout)
            ours, theirs = connection(self.timeout * 4)
            reading, writing = os.pipe()
            receiver = opened(self._provision_and_pass_on, scope, Descriptor(reading), Descriptor(ours.fileno()))
            os.close(reading)
            reply = 1, wire.STATUS_OK, Descriptor(fd), len(content)
            sender = Child(with_sender, self.transport, scope, send_one, reply)
            with theirs, traced(receiver.pid, partial(os.close, writing)) as moved:
                ours.close()
                got = collected(theirs)
                expect(got == HEADER % len(content) + content, "the content did not arrive")
                expect((sender.ended(), receiver.ended()) == (0, 0), "an end failed")
            expect(sum(moved) < 1 << 19, f"the proxy's end read {sum(moved)} bytes of 1 MiB into user space")

    def _provision_and_pass_on(self, say_opened: Callable[[], None], scope: Scope, waits: int, sink: int) -> None:
        with self.transport.provision(scope), LaneUnderTest(self.transport, scope) as lane:
            say_opened()
            os.read(waits, 1)
            _, length = lane.relay.await_head(1)
            lane.relay.pass_on(sink, HEADER % length)

    def test_a_file_that_changed_arrives_as_it_is_now(self) -> None:
        """A transport that keeps content for later replies must say so: keeps_content = True. Here the size and the
        time of modification stay the same, so a copy that is looked up by them is out of date."""
        self._skip_unless_read_each_time()
        contents = [self._content(100_000) for _ in range(2)]
        with self._lane() as lane, open_file(contents[0]) as file:
            child = lane.start_again(file, 100_000, 2)
            for number, content in enumerate(contents, 1):
                overwrite(file, content)
                lane.finish(None, content, number)
            expect(child.ended() == 0, "the sender failed")

    def test_no_content_is_kept_unless_the_transport_says_so(self) -> None:
        """Between two replies the file's pages are dropped from the page cache. They must be gone, so an end must not
        keep them mapped. The second reply must bring them back: it is read from the file. Otherwise set keeps_content
        = True, also where a transport reads past the page cache (O_DIRECT): a cold cache is then not measured."""
        self._skip_unless_read_each_time()
        content = self._content(1 << 20)
        with self._lane() as lane, open_file(content) as file:
            if not leaves_page_cache(file):
                raise unittest.SkipTest("the file system of temporary files keeps them in memory")
            child = lane.start_again(file, len(content), 2)
            lane.finish(None, content, 1)
            expect(leaves_page_cache(file), "pages of the file stay with the transport after the reply")
            lane.finish(None, content, 2)
            expect(in_page_cache(file), "the second reply did not come from the file")
            expect(child.ended() == 0, "the sender failed")

    def _skip_without_content(self) -> None:
        if not self.transport.moves_content:
            raise unittest.SkipTest("it says that it moves no content")

    def _skip_unless_read_each_time(self) -> None:
        self._skip_without_content()
        if self.transport.keeps_content:
            raise unittest.SkipTest("it says that it keeps content")

    @contextlib.contextmanager
    def _lane(self, timeout: float | None = None) -> Iterator[LaneUnderTest]:
        with self._provisioned(timeout) as scope, LaneUnderTest(self.transport, scope) as lane:
            yield lane

    @contextlib.contextmanager
    def _lanes(self, count: int) -> Iterator[list[LaneUnderTest]]:
        with self._home() as home, contextlib.ExitStack() as stack:
            scopes = [home.scope(f"lane{number}", self.timeout) for number in range(count)]
            for scope in scopes:
                stack.enter_context(self.transport.provision(scope))
            stack.enter_context(self._nursery())
            lanes = [stack.enter_context(LaneUnderTest(self.transport, scope)) for scope in scopes]
            yield lanes

    def _check_replies(self, lane: LaneUnderTest, contents: list[bytes]) -> None:
        child = lane.start_many(contents)
        for number, content in enumerate(contents, 1):
            lane.finish(None, content, number)
        expect(child.ended() == 0, "the sender failed")


def _fill_up(sender: Sender) -> None:
    for _ in range(5000):
        room = sender.loan()
        room[: wire.HEAD_BYTES] = wire.encode_head(1, wire.STATUS_OK, 1 << 40)
        sender.publish(len(room))


def _send_and_end(sender: Sender | FileSender, fd: int, by: signal.Signals) -> None:
    _send(sender, fd)
    os.kill(os.getpid(), by)


def _send(sender: Sender | FileSender, fd: int) -> None:
    transfer.answerer_over(sender)(1, wire.STATUS_OK, fd, os.fstat(fd).st_size)
