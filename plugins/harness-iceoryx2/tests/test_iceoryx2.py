import glob
import os
import sys

import pytest

from harness.api import Scope
from harness.testkit import DataContract

pytestmark = pytest.mark.processes
harness_iceoryx2 = pytest.importorskip("harness_iceoryx2", reason="pip install -e plugins/harness-iceoryx2")


class TestIceoryx2Data(DataContract):
    transport = harness_iceoryx2.Iceoryx2Data()


def test_all_its_shared_memory_is_in_the_ledger_and_goes_with_the_scope(tmp_path):
    scope = Scope(str(tmp_path), f"th-{os.getuid()}-test-{os.getpid()}", 2.0, ledger=True)
    transport = harness_iceoryx2.Iceoryx2Data()
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)
        names = {f"posix /{os.path.basename(path)}" for path in glob.glob(f"/dev/shm/{scope.label}-*")}
        assert len(names) >= 3
        assert names == set((tmp_path / "names").read_text().splitlines())
        sender.close()
        receiver.close()
    assert glob.glob(f"/dev/shm/{scope.label}-*") == []


def test_what_is_taken_is_the_memory_that_was_lent(tmp_path):
    scope = Scope(str(tmp_path), f"th-{os.getuid()}-test-{os.getpid()}", 2.0)
    transport = harness_iceoryx2.Iceoryx2Data(chunk=4096, depth=2)
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)
        for number in range(5):
            room = sender.loan()
            assert len(room) == 4096
            room[:1000] = bytes([number]) * 1000
            sender.publish(1000)
            piece = receiver.take()
            assert piece == bytes([number]) * 1000
            room[0] = 255  # not what a sender may do: it shows that nothing was copied
            assert piece[0] == 255
            piece.release()
            receiver.give_back()
        sender.close()
        receiver.close()


@pytest.mark.parametrize(("record", "sends", "says"), [(100, False, "there is none"), (5000, True, "4096")])
def test_a_record_that_no_sample_stands_behind_is_an_error(tmp_path, record, sends, says):
    scope = Scope(str(tmp_path), f"th-{os.getuid()}-test-{os.getpid()}", 2.0)
    transport = harness_iceoryx2.Iceoryx2Data(chunk=4096)
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)
        if sends:
            sender.loan()
            sender.publish(record)
        else:
            os.write(sender._wake, record.to_bytes(8, sys.byteorder))
        with pytest.raises(ConnectionError, match=says):
            receiver.take()
        if sends:
            receiver.give_back()
        sender.close()
        receiver.close()
