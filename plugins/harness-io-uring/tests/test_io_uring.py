import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from harness.api import Scope, limit_waits
from harness.testkit import DataContract, in_a_process_of_its_own

pytestmark = pytest.mark.processes
harness_io_uring = pytest.importorskip("harness_io_uring", reason="pip install -e plugins/harness-io-uring")
try:
    harness_io_uring.check_permitted()
except OSError as refused:
    pytest.skip(f"the kernel refuses: {refused}", allow_module_level=True)


class TestIoUring(DataContract):
    transport = harness_io_uring.IoUring()


class TestSmallPieces(DataContract):
    transport = harness_io_uring.IoUring(chunk=4096)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def receiving(end, room):
    return harness_io_uring._RECV, end.fileno(), harness_io_uring.address_of(room), len(room)


def test_a_buffer_whose_wait_took_too_long_is_not_written_to_any_more(pair):
    ours, theirs = pair
    uring, room = harness_io_uring.Uring(0.1), bytearray(5)
    with pytest.raises(TimeoutError):
        uring.move(*receiving(ours, room))
    theirs.send(b"later")
    time.sleep(0.1)
    assert room == bytes(5)
    assert uring.move(*receiving(ours, room)) == 5
    assert room == b"later"
    uring.close()


def test_a_failed_operation_is_the_error_that_the_call_would_raise(pair):
    ours, theirs = pair
    theirs.close()
    uring, room = harness_io_uring.Uring(1.0), bytearray(5)
    uring.submit(harness_io_uring._SEND, ours.fileno(), harness_io_uring.address_of(room), 5)
    with pytest.raises(BrokenPipeError):
        uring.result()
    uring.close()


def test_a_write_to_a_slow_client_is_not_cut_short_by_a_ring_that_was_closed_before(pair):
    ours, theirs = pair
    limit_waits(ours, 20.0)
    uring, room = harness_io_uring.Uring(1.0), bytearray(1)
    theirs.send(b"x")
    assert uring.move(*receiving(ours, room)) == 1
    uring.close()
    content = bytes(4 << 20)

    def read():
        time.sleep(0.3)  # the notice would come by then
        left = len(content)
        while left and (piece := theirs.recv(left)):
            left -= len(piece)

    reader = threading.Thread(target=read)
    reader.start()
    assert ours.send(content) == len(content)
    reader.join()


def in_a_thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_only_a_thread_that_used_the_ring_waits_for_the_notice_that_it_was_closed(monkeypatch, pair):
    ours, theirs = pair
    rings, waits, room = [], [], bytearray(1)
    monkeypatch.setattr(harness_io_uring, "await_notice", lambda: waits.append(1))
    in_a_thread(lambda: rings.append(harness_io_uring.Uring(1.0)))
    in_a_thread(rings[0].close)
    assert waits == []

    def open_use_and_close():
        uring = harness_io_uring.Uring(1.0)
        theirs.send(b"x")
        assert uring.move(*receiving(ours, room)) == 1
        uring.close()

    in_a_thread(open_use_and_close)
    assert waits == [1]


@in_a_process_of_its_own
def test_a_buffer_that_the_kernel_still_uses_is_kept_and_all_else_is_closed(tmp_path):
    """The cancellation is lost on its way to the kernel, which goes on with what it was to end."""
    transport, scope = harness_io_uring.IoUring(chunk=4096), Scope(str(tmp_path), "label", 0.2)
    before = os.listdir("/proc/self/fd")
    with transport.provision(scope):
        receiver, sender = transport.receiver(scope), transport.sender(scope)
        uring, add = receiver._uring, receiver._uring._add
        uring._add = lambda kind, *rest: kind == harness_io_uring._ASYNC_CANCEL or add(kind, *rest)
        sender.loan()[:1] = b"x"
        sender.publish(1)
        with pytest.raises(OSError, match="the kernel still uses a buffer"):
            receiver.take()  # the rest of the head does not come
        with pytest.raises(OSError, match="the kernel still uses a buffer"):
            receiver.close()
        assert (receiver._buffer,) in harness_io_uring._held
        receiver.close()
        sender.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_fork_closes_the_rings_that_it_inherits():
    uring = harness_io_uring.Uring(1.0)
    rings = [fd for fd in os.listdir("/proc/self/fd") if "io_uring" in link(fd)]
    assert rings
    pid = os.fork()
    if not pid:
        left = [fd for fd in rings if "io_uring" in link(fd)]
        uring.close()  # which it may still do
        os._exit(len(left))
    assert os.waitpid(pid, 0)[1] == 0
    uring.close()


def link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:  # of the listing itself
        return ""


def test_where_the_setting_forbids_it_the_message_has_the_command_that_mends_it(tmp_path, monkeypatch):
    """A file stands in for the setting, as the kernel's own would concern all programs of the machine."""
    (tmp_path / "setting").write_text("2\n")
    monkeypatch.setattr(harness_io_uring, "DISABLED", str(tmp_path / "setting"))
    assert harness_io_uring.refusal(errno.EPERM).endswith("is 2; as root: sysctl -w kernel.io_uring_disabled=0")


SECCOMP = """
import ctypes, struct, sys
import harness_io_uring
from harness.api import Scope
# A filter that answers io_uring_setup(2) with EPERM, as the default profile of container engines does: seccomp(2)
load, equal, answer = 0x20, 0x15, 0x06
code = b"".join(struct.pack("HBBI", *one) for one in [
    (load, 0, 0, 0), (equal, 0, 1, 425), (answer, 0, 0, 0x00050001), (answer, 0, 0, 0x7FFF0000)])
program = ctypes.create_string_buffer(code)
filter = struct.pack("HxxxxxxQ", 4, ctypes.addressof(program))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, filter, 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
with harness_io_uring.IoUring().provision(Scope(sys.argv[1], "label", 1.0)):
    pass
"""


def test_where_a_seccomp_filter_forbids_it_the_lane_is_refused_with_the_reason(tmp_path):
    command = [sys.executable, "-c", SECCOMP, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    said = result.stderr.splitlines()[-1]
    assert said.startswith("PermissionError: [Errno 1] io_uring_setup(2): Operation not permitted"), result.stderr
    assert "seccomp" in said
    assert list(tmp_path.iterdir()) == []


def test_the_structures_are_as_large_as_the_kernels():
    assert ctypes.sizeof(harness_io_uring.Argument) == 24  # struct io_uring_getevents_arg
    assert harness_io_uring._PARAMETERS.size == 120  # struct io_uring_params
    assert harness_io_uring._ENTRY.size == 64  # struct io_uring_sqe
    assert harness_io_uring._RESULT.size == 16  # struct io_uring_cqe
