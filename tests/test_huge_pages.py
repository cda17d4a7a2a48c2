"""Huge pages for a lane of shared memory. Each test mounts a /dev/shm of its own, which only it sees: unshare(1) -m."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(os.getuid() != 0, reason="only root mounts a file system: unshare -m"),
    pytest.mark.skipif(
        not Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").exists(), reason="no huge pages in this kernel"
    ),
]

SCRIPT = """
import os, sys, tempfile
from harness import registry, rendezvous
from harness.protocol import wire

def huge():
    # KiB of memory of /dev/shm that is mapped by huge pages, proc(5)
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps") if line.startswith("ShmemPmdMapped:"))

with tempfile.TemporaryDirectory() as os.environ["TRANSPORT_HARNESS_DIR"]:
    home = rendezvous.Home("tests", "owner")
    scope = home.scope("lane", 1.0)
    transport = registry.data_transport("posix_shm:" + sys.argv[1])
    try:
        with transport.provision(scope):
            receiver = transport.receiver(scope)
            print(huge())
            sender = transport.sender(scope)
            print(huge())
            sender.loan()[: wire.HEAD_BYTES] = wire.encode_head(1, wire.STATUS_NOT_FOUND, 0)
            sender.publish(wire.HEAD_BYTES)
            with receiver.take() as piece:
                print(len(piece))
            sender.close()
            receiver.close()
            print(huge())
    except OSError as error:
        print(error)
    finally:
        rendezvous.remove_scope(scope)
        print(home.close())
"""


def lines(mount_options, option):
    """What a process prints that makes a lane where /dev/shm is mounted with these options."""
    mount = f"mount -t tmpfs -o {mount_options} tmpfs /dev/shm"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no /dev/shm of its own: {tried.stderr.strip()}")
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", SCRIPT, option]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


@pytest.mark.parametrize(("depth", "kib"), [(4, 2048), (9, 4096)])
def test_both_ends_have_all_of_a_lane_in_huge_pages_and_leave_none(depth, kib):
    said = lines("huge=advise", f"pages=huge,depth={depth}")
    if "in pieces" in said[0]:
        pytest.skip(said[0])
    assert said == [str(kib), str(2 * kib), "64", "0", "[]"]


def test_where_shared_memory_is_mounted_without_huge_pages_the_lane_is_refused_with_the_command_that_mends_it():
    said = lines("huge=never", "pages=huge")
    assert "as root: mount -o remount,huge=advise /dev/shm" in said[0]
    assert said[1:] == ["[]"]


def test_a_lane_is_not_in_huge_pages_unless_asked_for():
    assert lines("huge=advise", "pages=system") == ["0", "0", "64", "0", "[]"]


def test_memory_that_has_no_room_for_whole_huge_pages_is_refused_and_kills_no_process():
    said = lines("huge=advise,size=1536k", "pages=huge")  # enough for four slots in small pages
    assert "No space left on device" in said[0]
    assert said[1:] == ["[]"]
