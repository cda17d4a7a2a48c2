import os
import shutil

import pytest

from harness.api import Scope
from harness.testkit import CommandContract, DataContract

pytestmark = pytest.mark.processes
harness_redis = pytest.importorskip("harness_redis", reason="pip install -e plugins/harness-redis")
if not (shutil.which("redis-server") or shutil.which("valkey-server")):
    pytest.skip("apt-get install redis-server", allow_module_level=True)


class TestRedisCommands(CommandContract):
    transport = harness_redis.RedisCommands()


class TestRedisData(DataContract):
    transport = harness_redis.RedisData()


def test_a_server_that_cannot_start_is_an_error_that_says_why(tmp_path):
    scope = Scope(str(tmp_path / ("x" * 100)), "label", 1.0)
    os.mkdir(scope.directory)
    with pytest.raises(OSError, match="AF_UNIX path too long"):
        harness_redis.RedisCommands().provision(scope).__enter__()


def test_where_there_is_no_server_to_start_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install redis-server"):
        harness_redis.RedisCommands().provision(Scope(str(tmp_path), "label", 1.0)).__enter__()


def test_the_server_keeps_nothing_on_disk_and_ends_with_the_scope(tmp_path):
    scope = Scope(str(tmp_path), "label", 2.0)
    transport = harness_redis.RedisCommands()
    with transport.provision(scope):
        sender, receiver = transport.sender(scope), transport.receiver(scope)
        sender.send(bytes(512))
        assert receiver.receive() == bytes(512)
        sender.close()
        receiver.close()
    assert os.listdir(tmp_path) == ["log"]
    with pytest.raises(FileNotFoundError):
        transport.sender(scope)
