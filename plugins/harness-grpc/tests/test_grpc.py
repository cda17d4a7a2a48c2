import os
import threading

import pytest

from harness.api import Scope
from harness.testkit import DataContract, in_a_process_of_its_own

pytestmark = pytest.mark.processes
harness_grpc = pytest.importorskip("harness_grpc", reason="pip install -e plugins/harness-grpc")


class TestGrpcData(DataContract):
    transport = harness_grpc.GrpcData()


class TestSmallPieces(DataContract):
    transport = harness_grpc.GrpcData(chunk=4096)


@in_a_process_of_its_own
def test_a_name_that_cannot_be_bound_is_an_error_and_not_a_wait(tmp_path):
    scope = Scope(str(tmp_path / ("x" * 100)), "label", 1.0)
    os.mkdir(scope.directory)
    with pytest.raises(OSError, match=":"):
        harness_grpc.GrpcData().receiver(scope)


@in_a_process_of_its_own
def test_what_was_published_arrives_in_order_and_a_sender_that_closes_has_lost_nothing(tmp_path):
    scope = Scope(str(tmp_path), "label", 5.0)
    transport = harness_grpc.GrpcData(chunk=1000)
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
