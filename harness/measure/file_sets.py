"""The files that a trial asks for: made in its directory, or found in one that the experiment names."""

import os
import shutil
from typing import NamedTuple

from harness.factors import CLASSIC, DIRECTORY
from harness.protocol import getfile
from harness.units import KIB, MIB

# The ten files of the course that this project began as: from nothing to 16 MiB, 3.07 MB on average.

CLASSIC_SIZES = (0, KIB, 8 * KIB, 64 * KIB, 256 * KIB, MIB, 2 * MIB, 4 * MIB, 6 * MIB, 16 * MIB)


class FileSet(NamedTuple):
    """directory: absolute. paths: requests, in the order in which they are made. sizes: bytes of each file."""

    directory: str
    paths: list[str]
    sizes: list[int]

    @property
    def mean_size(self) -> int:
        return round(sum(self.sizes) / len(self.sizes))


def file_set(files: str, copies: int, directory: str) -> FileSet:
    """The files of the factor `files` (see factors.Spec) whose files are, or will be, below `directory`. Raises
    ValueError."""
    if files.startswith(DIRECTORY):
        return _found(files.removeprefix(DIRECTORY))
    sizes = CLASSIC_SIZES if files == CLASSIC else tuple(map(int, files.split()))
    # All sizes, then all of the next copies: neighbours in the list differ in size.
    named = [(f"/{copy}-{number}", size) for copy in range(copies) for number, size in enumerate(sizes)]
    return FileSet(directory, [path for path, _ in named], [size for _, size in named])


def _found(directory: str) -> FileSet:
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
    return FileSet(directory, paths, sizes)


def make(files: FileSet, zeros: bool, durable: bool) -> None:
    """Make the files, of random bytes or zeros. Raises OSError where they do not fit.

    durable: have them on disk on return, fsync(2): the kernel drops no page that it has yet to write.
    """
    os.makedirs(files.directory, exist_ok=True)
    free = shutil.disk_usage(files.directory).free
    if (needed := sum(files.sizes)) > free:
        raise OSError(
            f"{files.directory}: {needed} bytes of files, and room for {free}: use smaller or fewer files, or set "
            "TRANSPORT_HARNESS_DIR to a directory with more room"
        )
    for path, size in zip(files.paths, files.sizes, strict=True):
        with open(files.directory + path, "wb") as file:
            for start in range(0, size, MIB):
                count = min(MIB, size - start)
                file.write(bytes(count) if zeros else os.urandom(count))
            if durable:
                file.flush()
                os.fsync(file.fileno())


class SharedFiles:
    """The files of all cells of a block: each set made once, below one of a few roots that servers can share.

    A root has the random files, another one the zeros of transports that invent zeros, and each directory that an
    experiment names is one. A set below the first two has a directory of its own there.
    """

    def __init__(self, directory: str) -> None:
        """directory: of the block, for what is made."""
        self._directory = directory
        self._known: dict[tuple[str, str, int], tuple[int, FileSet]] = {}
        self._lists: dict[str, list[str]] = {}

    def root(self, files: str, zeros: bool) -> str:
        """The directory that a server of these `files` (see factors.Spec) serves."""
        if files.startswith(DIRECTORY):
            return files.removeprefix(DIRECTORY)
        return f"{self._directory}/{'zeros' if zeros else 'files'}"

    def add(self, files: str, copies: int, zeros: bool) -> tuple[int, FileSet]:
        """The number of a set among the workloads of its root, and the set; made where it is new. Raises OSError."""
        root = self.root(files, zeros)
        if (root, files, copies) not in self._known:
            lists = self._lists.setdefault(root, [])
            own = f"/{len(lists)}" if root.startswith(self._directory) else ""
            found = file_set(files, copies, root + own)
            if own:
                make(found, zeros, durable=False)
            found = found._replace(directory=root, paths=[own + path for path in found.paths])
            lists.append(f"{self._directory}/{os.path.basename(root)}-{len(self._known)}.txt")
            write_workload(found, lists[-1])
            self._known[root, files, copies] = len(lists) - 1, found
        return self._known[root, files, copies]

    def workloads(self, root: str) -> list[str]:
        """The files that list the paths of each set below this root."""
        return self._lists[root]


def write_workload(files: FileSet, path: str) -> None:
    """Write the list of the requests' paths, a line each."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as lines:
        lines.writelines(f"{one}\n" for one in files.paths)
