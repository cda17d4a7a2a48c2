"""The promises of a command transport."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from typing import ClassVar

from harness.api import CommandReceiver, CommandTransport, Scope
from harness.protocol import wire
from harness.testkit.contract import Contract
from harness.testkit.processes import Child, Descriptor, at_once, opened
from harness.testkit.promise import expect
from harness.testkit.waits import ends_in_time


class CommandContract(Contract):
    """The promises of a command transport."""

    transport: ClassVar[CommandTransport]

    def test_each_record_reaches_exactly_one_of_many_receivers_whole(self) -> None:
        """Senders and receivers are in several threads of several processes. No record may be torn (keep it one atomic
        message), lost or doubled, and ends may share no memory that changes."""
        with self._provisioned(1.5) as scope:
            for _ in self._again_and_again():
                self._pass_records(scope)

    def _pass_records(self, scope: Scope) -> None:
        """Send 900 records, and receive them all."""
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as sent:  # has a byte once all is sent
            flag = Descriptor(sent.fileno())
            receivers = [Child(self._pass_on_from_one, scope, Descriptor(writing), flag) for _ in range(2)]
            ends = [self.transport.receiver(scope) for _ in range(2)]
            threads = [threading.Thread(target=_pass_on, args=(end, writing, sent.fileno())) for end in ends]
            ranges = [range(first, first + 300) for first in (0, 1000, 2000)]
            senders = [Child(self._send_from_three, scope, numbers) for numbers in ranges]
            got: list[bytes] = []
            collector = threading.Thread(target=_records, args=(reading, got))
            for thread in (*threads, collector):
                thread.start()
            failed = [child.ended() for child in senders]
            os.write(sent.fileno(), b"+")
            failed += [child.ended() for child in receivers]
            for thread in threads:
                thread.join()
        os.close(writing)
        collector.join()
        os.close(reading)
        for end in ends:
            end.close()
        expect(not any(failed), "a sender or a receiver failed")
        wanted = sorted(_record(number) for numbers in ranges for number in numbers)
        expect(len(got) == len(wanted), f"{len(got)} records arrived of {len(wanted)}")
        expect(sorted(got) == wanted, "records were torn or doubled")

    def _pass_on_from_one(self, scope: Scope, writing: int, sent: int) -> None:
        _pass_on(self.transport.receiver(scope), writing, sent)

    def _send_from_three(self, scope: Scope, numbers: range) -> None:
        at_once(self._send, [scope] * 3, [numbers[start::3] for start in range(3)])

    def test_no_record_waits_for_a_receiver_that_is_busy(self) -> None:
        """receive() must not fetch a record ahead, and a sender must not choose a receiver. Otherwise other clients'
        commands would wait for a cache worker that serves a slow client, while its neighbours are idle."""
        with self._provisioned() as scope:
            busy, idle = self.transport.receiver(scope), self.transport.receiver(scope)
            child = Child(self._send, scope, range(9))
            for number, receiver in enumerate([busy, *[idle] * 8]):
                expect(receiver.receive() == _record(number), f"record {number} is not the next one")
            expect(child.ended() == 0, "the sender failed")
            busy.close()
            idle.close()

    def test_the_records_of_one_sender_keep_their_order(self) -> None:
        """One sender, one receiver: first in, first out."""
        with self._provisioned() as scope:
            receiver = self.transport.receiver(scope)
            child = Child(self._send, scope, range(500))
            for number in range(500):
                expect(receiver.receive() == _record(number), f"record {number} is not the next one")
            expect(child.ended() == 0, "the sender failed")
            receiver.close()

    def test_a_full_channel_pushes_back_in_time_and_keeps_what_it_holds(self) -> None:
        """send() must raise TimeoutError once the channel is full, and the channel must become full. The records that
        it holds must still be delivered."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            sender = self.transport.sender(scope)
            sent = 0

            def fill() -> None:
                nonlocal sent
                for number in range(sent, 20_000):
                    sender.send(_record(number))
                    sent += 1

            ends_in_time(fill, 0.2, TimeoutError)
            for number in range(sent):
                expect(receiver.receive() == _record(number), f"record {number} of {sent} was lost or changed")
            sender.send(_record(7))
            expect(receiver.receive() == _record(7), "after it was full the channel does not work")
            sender.close()
            receiver.close()

    def test_waiting_for_a_record_ends_in_time(self) -> None:
        """receive() must raise TimeoutError after scope.timeout, and leave the channel as it was."""
        with self._provisioned(0.2) as scope:
            receiver = self.transport.receiver(scope)
            for _ in range(2):
                ends_in_time(receiver.receive, 0.2, TimeoutError)
            self._send(scope, range(1))
            expect(receiver.receive() == _record(0), "after a timeout the channel does not work")
            receiver.close()

    def test_a_killed_receiver_does_not_stop_the_others(self) -> None:
        """A cache worker that is killed while it waits must not hold a lock that the others need."""
        with self._provisioned() as scope:
            receiver = self.transport.receiver(scope)
            child = self._that_waits(scope)
            child.kill()
            sender = Child(self._send, scope, range(3))
            for number in range(3):
                expect(receiver.receive() == _record(number), f"record {number} is not the next one")
            expect(sender.ended() == 0, "the sender failed")
            receiver.close()

    def test_a_stopped_receiver_holds_up_no_more_than_one_record(self) -> None:
        """A cache worker that is stopped (SIGSTOP) while it waits may have got a record, which then waits with it. All
        others must reach those that go on: it must not wait with a lock that they need."""
        with self._provisioned() as scope:
            receiver = self.transport.receiver(scope)
            child = self._that_waits(scope)
            os.kill(child.pid, signal.SIGSTOP)
            sender = Child(self._send, scope, range(3))
            try:
                got = [receiver.receive() for _ in range(2)]
            finally:
                child.kill()
            kept = [_record(number) for number in range(3)]
            expect(got in (kept[:2], kept[1:], [kept[0], kept[2]]), "other records arrived than those that were sent")
            expect(sender.ended() == 0, "the sender failed")
            receiver.close()

    def _that_waits(self, scope: Scope) -> Child:
        """A second process that waits for a record."""
        child = opened(self._wait, scope)
        time.sleep(0.2)  # until it waits
        return child

    def _wait(self, say_opened: Callable[[], None], scope: Scope) -> None:
        end = self.transport.receiver(scope)
        say_opened()
        end.receive()

    def test_an_end_opens_in_a_fork_of_a_process_that_has_one_open(self) -> None:
        """No program of the harness opens ends before it has forked its workers, but others do. A transport over a
        library that does not survive a fork must say so: not_kept."""
        with self._provisioned() as scope:
            receiver, sender = self.transport.receiver(scope), self.transport.sender(scope)
            sender.send(_record(0))
            expect(receiver.receive() == _record(0), "record 0 is not the next one")
            with self._nursery():
                child = Child(self._send, scope, range(1, 4))
                for number in range(1, 4):
                    expect(receiver.receive() == _record(number), f"record {number} is not the next one")
                expect(child.ended() == 0, "the sender failed")
            sender.close()
            receiver.close()

    def _send(self, scope: Scope, numbers: range) -> None:
        sender = self.transport.sender(scope)
        for number in numbers:
            sender.send(_record(number))
        sender.close()


def _record(number: int) -> bytes:
    return wire.encode_command(number, number, b"/" + bytes([65 + number % 26]) * 400, b"lane/%d" % number)


def _pass_on(end: CommandReceiver, writing: int, sent: int) -> None:
    """Write the records that come into a pipe until the file `sent` has a byte and none is left."""
    nothing_left = False
    while not nothing_left:
        before = os.pread(sent, 1, 0)  # where it is set before a wait, a wait in vain shows that nothing is left
        try:
            os.write(writing, end.receive())
        except TimeoutError:
            nothing_left = bool(before)


def _records(fd: int, into: list[bytes]) -> None:
    while len(record := _read_fully(fd, wire.COMMAND_BYTES)) == wire.COMMAND_BYTES:
        into.append(record)


def _read_fully(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := os.read(fd, count - len(data))):
        data += piece
    return data
