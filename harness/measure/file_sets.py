"""The files that a trial asks for: made in its directory, or found in one that the experiment names."""

import os
import shutil
from typing import NamedTuple

from harness.factors import CLASSIC, DIRECTORY
from harness.protocol import getfile

# The ten files of the course that this project began as: from nothing to 16 MiB, 3.07 MB on average.
_KIB, _MIB = 1 << 10, 1 << 20
CLASSIC_SIZES = (0, _KIB, 8 * _KIB, 64 * _KIB, 256 * _KIB, _MIB, 2 * _MIB, 4 * _MIB, 6 * _MIB, 16 * _MIB)


class Workload(NamedTuple):
    """directory: absolute. paths: requests, in the order in which they are made. sizes: bytes of each file."""

    directory: str
    paths: list[str]
    sizes: list[int]

    @property
    def mean_size(self) -> int:
        return round(sum(self.sizes) / len(self.sizes))


def describe(files: str, copies: int, directory: str) -> Workload:
    """The workload of a file set (see factors.Spec) whose files are, or will be, below `directory`. Raises
    ValueError."""
    if files.startswith(DIRECTORY):
        return _found(files.removeprefix(DIRECTORY))
    sizes = CLASSIC_SIZES if files == CLASSIC else tuple(map(int, files.split()))
    # All sizes, then all of the next copies: neighbours in the workload differ in size.
    named = [(f"/{copy}-{number}", size) for copy in range(copies) for number, size in enumerate(sizes)]
    return Workload(directory, [path for path, _ in named], [size for _, size in named])


def _found(directory: str) -> Workload:
    paths, sizes = [], []
    for root, names, files in os.walk(directory):
        names.sort()
        for name in sorted(files):
            path = os.path.join(root, name)
            if os.path.isfile(path) and not os.path.islink(path):
                paths.append(path.removeprefix(directory.rstrip("/")))
                sizes.append(os.path.getsize(path))
                try:
                    getfile.encode_request(paths[-1])
                except getfile.Malformed as error:
                    raise ValueError(f"{path!r}: no request can ask for it, {error}: move it away") from None
    if not paths:
        raise ValueError(f"{directory}: no files in it")
    return Workload(directory, paths, sizes)


def make(workload: Workload, zeros: bool, durable: bool) -> None:
    """Make the files, of random bytes or zeros. Raises OSError where they do not fit.

    durable: have them on disk on return, fsync(2): the kernel drops no page that it has yet to write.
    """
    os.makedirs(workload.directory, exist_ok=True)
    free = shutil.disk_usage(workload.directory).free
    if (needed := sum(workload.sizes)) > free:
        raise OSError(
            f"{workload.directory}: {needed} bytes of files, and room for {free}: use smaller or fewer files, or set "
            "TRANSPORT_HARNESS_DIR to a directory with more room"
        )
    for path, size in zip(workload.paths, workload.sizes, strict=True):
        with open(workload.directory + path, "wb") as file:
            for start in range(0, size, _MIB):
                count = min(_MIB, size - start)
                file.write(bytes(count) if zeros else os.urandom(count))
            if durable:
                file.flush()
                os.fsync(file.fileno())
