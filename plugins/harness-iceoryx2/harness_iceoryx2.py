"""iceoryx2: loaned samples of a publish-subscribe service in shared memory, and FIFOs, fifo(7), to wait with.

The cache fills the sample that the publisher lends, preadv(2) -> shared memory, and the client is sent to from the same
memory. Of a sample only its place passes through a lock-free queue in shared memory: no system call, no copy.

iceoryx2 does not wait for samples. Its own events do (sendto(2) and recvfrom(2) on a Unix socket), but the name of that
socket adds 90 bytes to the scope's directory, and a Unix socket has room for 107, unix(7). So a record in a FIFO stands
for each sample under way, and one in a second FIFO for each that may be sent: two times write(2), poll(2), read(2). A
sample always has the size that was lent, so the record says how many of its bytes count.

All that iceoryx2 keeps in files is in the scope's directory. The names of its shared memory begin with the scope's
label, but it makes them up as it goes. Each end writes them into the ledger once it has made them: an owner that is
killed in the milliseconds between leaves memory that no sweep finds.

Limits: each sender has `depth` + 2 samples of memory of its own. An end has about 10 descriptors, a lane at most 128
senders.

Killed peers: a sender notices a killed receiver at once by its FIFO, a receiver a killed sender by the timeout.
"""

import ctypes
import fcntl
import glob
import os
import select
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import iceoryx2 as iox2

from harness.api import HEAD_BYTES, DataTransport, Receiver, Scope, Sender, check_least, hookimpl

_SENT, _FREE = "sent", "free"  # FIFOs
_COUNT = struct.Struct("@Q")  # bytes of a sample, 0 where the sender gave up
_MOST = 128  # senders of a lane
iox2.set_log_level(iox2.LogLevel.Error)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises OSError in place of the library's own errors, which are not derived from it."""
    try:
        yield
    except (OSError, EOFError):
        raise
    except Exception as error:  # noqa: BLE001  they have no class in common
        raise OSError(f"iceoryx2: {type(error).__name__}: {error}") from None


class End:
    """A node of its own, in a world of iceoryx2 that has this scope alone."""

    @plain_errors()
    def __init__(self, scope: Scope, waits_for: str, wakes_by: str) -> None:
        self._scope, self._undo = scope, ExitStack()
        # Both ways, a receiver keeps the FIFOs open, and bytes in them; a sender only uses them.
        ways = (os.O_RDONLY, os.O_WRONLY) if isinstance(self, Sender) else (os.O_RDWR, os.O_RDWR)
        with ExitStack() as undo:
            self._wait, self._wake = (self._open(undo, *one) for one in zip((waits_for, wakes_by), ways, strict=True))
            self._poll = select.poll()
            self._poll.register(self._wait, select.POLLIN)
            config = iox2.config.default()
            config.global_cfg.root_path = iox2.Path.new(scope.directory)
            config.global_cfg.prefix = iox2.FileName.new(f"{scope.label}-")
            node = iox2.NodeBuilder.new().config(config).create(iox2.ServiceType.Ipc)
            service = node.service_builder(iox2.ServiceName.new("lane"))
            self._port = self._opened(service.publish_subscribe(iox2.Slice[ctypes.c_uint8]))
            undo.callback(self._port.delete)
            for path in memory_of(scope):
                replace(scope, ledger=True).posix_name(path.partition(f"{scope.label}-")[2])
            self._undo = undo.pop_all()

    def _open(self, undo: ExitStack, part: str, way: int) -> int:
        fd = os.open(self._scope.path(part), way | os.O_NONBLOCK)  # ENXIO where there is no receiver
        undo.callback(os.close, fd)
        return fd

    def _opened(self, service: Any) -> Any:
        raise NotImplementedError

    def _waited(self) -> int:
        """The count in the record that says to go on."""
        if not self._poll.poll(self._scope.timeout * 1000):
            raise TimeoutError(f"nothing moved for {self._scope.timeout} s")
        if not (record := os.read(self._wait, _COUNT.size)):
            raise ConnectionResetError("the receiver is gone")
        count: int = _COUNT.unpack(record)[0]
        return count

    def close(self) -> None:
        self._undo.close()


def memory_of(scope: Scope) -> list[str]:
    """The files behind iceoryx2's shared memory, shm_overview(7)."""
    return glob.glob(f"/dev/shm/{glob.escape(scope.label)}-*")  # noqa: S108


def content_of(sample: Any) -> memoryview:
    """The memory of a sample, valid as long as the sample is."""
    view: memoryview = sample.payload().as_memory_view()
    return view.cast("B")


@dataclass(frozen=True)
class Iceoryx2Data(DataTransport):
    """chunk: bytes of a sample. depth: samples under way, not given back yet."""

    name = "iceoryx2"
    not_kept: ClassVar[dict[str, str]] = {
        "names are in the ledger before they are used": "iceoryx2 makes up names of shared memory, and an end writes "
        "them down once it has made them; an owner killed in the milliseconds between leaves memory that no sweep finds"
    }
    chunk: int = 256 << 10
    depth: int = 4

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1, depth=1)

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with ExitStack() as undo:
            for part in (_SENT, _FREE):
                os.mkfifo(scope.path(part), 0o600)
                undo.callback(os.unlink, scope.path(part))
            try:
                yield
            finally:
                for path in memory_of(scope):  # what iceoryx2 never removes, and what was a killed sender's
                    with suppress(FileNotFoundError):
                        os.unlink(path)

    def receiver(self, scope: Scope) -> Receiver:
        return Iceoryx2Receiver(scope, self)

    def sender(self, scope: Scope) -> Sender:
        return Iceoryx2Sender(scope, self)


class Iceoryx2Receiver(End, Receiver):
    def __init__(self, scope: Scope, options: Iceoryx2Data) -> None:
        self._options = options
        super().__init__(scope, _SENT, _FREE)
        os.write(self._wake, _COUNT.pack(0) * options.depth)

    def _opened(self, service: Any) -> Any:
        service = service.enable_safe_overflow(False).max_publishers(_MOST).max_subscribers(1).max_nodes(_MOST + 1)
        service = service.subscriber_max_buffer_size(self._options.depth).subscriber_max_borrowed_samples(1)
        return service.create().subscriber_builder().create()

    @plain_errors()
    def take(self) -> memoryview:
        count = self._waited()
        if not count:
            raise EOFError("the sender gave up")
        self._sample = self._port.receive()
        if self._sample is None:
            raise ConnectionError("a record says that a sample was sent, but there is none")
        content = content_of(self._sample)
        if count > len(content):
            raise ConnectionError(f"a record says {count} bytes of a sample that has {len(content)}")
        return content[:count]

    @plain_errors()
    def give_back(self) -> None:
        self._sample.delete()
        os.write(self._wake, _COUNT.pack(0))


class Iceoryx2Sender(End, Sender):
    _under_way = False  # whether a sample was sent

    def __init__(self, scope: Scope, options: Iceoryx2Data) -> None:
        self._options = options
        super().__init__(scope, _FREE, _SENT)

    def _opened(self, service: Any) -> Any:
        publisher = service.open().publisher_builder().initial_max_slice_len(self._options.chunk)
        return publisher.max_loaned_samples(1).backpressure_strategy(iox2.BackpressureStrategy.DiscardData).create()

    @plain_errors()
    def loan(self) -> memoryview:
        self._waited()
        self._sample = self._port.loan_slice_uninit(self._options.chunk)
        return content_of(self._sample)

    @plain_errors()
    def publish(self, count: int) -> None:
        if count:
            self._sample.assume_init().send()
        os.write(self._wake, _COUNT.pack(count))
        self._under_way = True

    def close(self) -> None:
        """Once all samples have come back: they are in this publisher's memory, which goes with it."""
        deadline = time.monotonic() + self._scope.timeout
        while self._under_way and time.monotonic() < deadline and not self._at_rest():
            time.sleep(0.0005)
        self._under_way = False
        super().close()

    def _at_rest(self) -> bool:
        waiting = struct.unpack("@i", fcntl.ioctl(self._wait, termios.FIONREAD, bytes(4)))[0]
        gone = any(event & select.POLLHUP for _, event in self._poll.poll(0))
        return gone or waiting == self._options.depth * _COUNT.size


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [Iceoryx2Data]
