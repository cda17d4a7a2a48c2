import os
import threading

import pytest

from harness.api import Scope
from harness.testkit import DataContract, in_a_process_of_its_own

pytestmark = pytest.mark.processes
harness_nng = pytest.importorskip("harness_nng", reason="pip install -e plugins/harness-nng")


class TestNngData(DataContract):
    transport = harness_nng.NngData()


class TestSmallPieces(DataContract):
    transport = harness_nng.NngData(chunk=4096)


@in_a_process_of_its_own
def test_a_name_that_cannot_be_bound_is_an_error_and_not_a_wait(tmp_path):
    scope = Scope(str(tmp_path / ("x" * 100)), "label", 1.0)
    os.mkdir(scope.directory)
    with pytest.raises(OSError, match=":"):
        harness_nng.NngData().receiver(scope)


@in_a_process_of_its_own
def test_what_was_published_arrives_in_order_and_a_sender_that_closes_has_lost_nothing(tmp_path):
    scope = Scope(str(tmp_path), "label", 5.0)
    transport = harness_nng.NngData(chunk=1000)
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)
        got = []

        def take():
            for _ in range(20):
                got.append(bytes(receiver.take()))
                receiver.give_back()

        thread = threading.Thread(target=take)
        thread.start()
        for number in range(20):
            sender.loan()[:2] = number.to_bytes(2, "big")
            sender.publish(2)
        sender.close()
        thread.join(10)
        receiver.close()
    assert got == [number.to_bytes(2, "big") for number in range(20)]
    assert os.listdir(tmp_path) == []


@in_a_process_of_its_own
def test_where_a_piece_was_waited_for_in_vain_closing_does_not_wait_once_more(tmp_path):
    scope = Scope(str(tmp_path), "label", 0.2)
    transport = harness_nng.NngData(chunk=1000)
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)
        waits, wait = [], sender._socket.recv
        sender._socket.recv = lambda **options: (waits.append(options), wait(**options))[1]
        sender.publish(1)
        with pytest.raises(TimeoutError):
            sender.publish(1)
        before = len(waits)
        assert before
        sender.close()
        receiver.close()
        assert len(waits) == before
