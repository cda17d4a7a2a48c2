import pytest

from harness.api import Scope
from harness.testkit import CommandContract, DataContract

pytestmark = pytest.mark.processes
harness_zmq = pytest.importorskip("harness_zmq", reason="pip install -e plugins/harness-zmq")


class TestZmqCommands(CommandContract):
    transport = harness_zmq.ZmqCommands()


class TestZmqData(DataContract):
    transport = harness_zmq.ZmqData()


def test_a_name_that_cannot_be_bound_is_an_error_and_not_a_wait(tmp_path):
    scope = Scope(str(tmp_path / ("x" * 100)), "label", 1.0)
    with pytest.raises(OSError, match="is longer than"), harness_zmq.ZmqCommands().provision(scope):
        pass
    with pytest.raises(OSError, match="is longer than"):
        harness_zmq.ZmqData().receiver(scope)
