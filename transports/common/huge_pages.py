"""Transparent huge pages for POSIX shared memory: tmpfs(5), madvise(2), Documentation/admin-guide/mm/transhuge.rst.

Memory that is reserved page by page, posix_fallocate(3), is moved to huge pages at once, MADV_COLLAPSE of Linux 6.1. So
a full /dev/shm is still an error and no SIGBUS, and it does not depend on when the kernel gets round to it.
"""

import errno
import mmap
import os

_SIZE = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
_MOUNTS = "/proc/self/mounts"
_SHM = "/dev/shm"  # noqa: S108
_MADV_COLLAPSE = 25  # madvise(2); Python has no name for it


def huge_page_size() -> int:
    """Bytes of a huge page. Raises OSError if memory in /dev/shm cannot have any, with the remedy."""
    try:
        with open(_SIZE) as size:
            count = int(size.read())
    except FileNotFoundError:
        raise OSError(f"pages=huge: this kernel has no transparent huge pages: there is no {_SIZE}") from None
    with open(_MOUNTS) as mounts:
        options = [line.split()[3].split(",") for line in mounts if line.split()[1] == _SHM]
    if not options or not {"huge=advise", "huge=always", "huge=within_size"} & set(options[-1]):
        raise OSError(
            f"pages=huge: {_SHM} is mounted without huge pages; as root: mount -o remount,huge=advise {_SHM}, tmpfs(5)"
        )
    return count


def collapse(memory: mmap.mmap) -> None:
    """Move memory to huge pages; all of it is reserved, and as large as whole ones. Raises OSError if it cannot."""
    memory.madvise(mmap.MADV_HUGEPAGE)
    try:
        memory.madvise(_MADV_COLLAPSE)
    except OSError as error:
        remedy = {
            errno.EINVAL: "MADV_COLLAPSE needs Linux 6.1, and shmem_enabled must not be deny",
            errno.EAGAIN: "memory is busy or in pieces; as root: sysctl -w vm.compact_memory=1",
            errno.ENOMEM: "memory is in pieces; as root: sysctl -w vm.compact_memory=1",
        }.get(error.errno or 0, "madvise(2)")
        raise OSError(f"pages=huge: {os.strerror(error.errno or 0)}: {remedy}") from None
