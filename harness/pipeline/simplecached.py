"""`harness simplecached`: the cache. Its worker threads take commands from the channel, and answer each over its lane.

A command names the lane for its reply. Which data transport a lane is over, its proxy has noted beside it, so the cache
has no option for that. With --origin it fetches files that it does not have (http_store.py): the request waits for the
download, and so do other requests for the same file.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from harness import console, registry, rendezvous, supervisor
from harness.api import CommandReceiver, CommandTransport, FileSender, Scope, Sender
from harness.pipeline import stages, transfer
from harness.pipeline.cache_link import CACHE, CHANNEL, COMMANDS, LANE, proxies
from harness.pipeline.catalogue import COLD, Catalogue, open_source
from harness.protocol import wire

DEFAULT_COMMAND = "posix_mq"
_QUIET = 0.1  # seconds: when no command has come for so long, no other is on its way


class CacheWorkers:
    """The worker threads of one cache process, from construction to stop()."""

    def __init__(
        self,
        catalogue: Catalogue,
        transport: CommandTransport,
        scope: Scope,
        rendezvous_name: str,
        threads: int,
        delay: float,
    ) -> None:
        self._find = catalogue.find
        self._caller_closes = catalogue.caller_closes
        self._delay = delay
        self._rendezvous = rendezvous_name
        self._lanes = LaneEnds(rendezvous_name)
        self._stopping = False
        self._last = 0.0  # when the latest command came; kept only once the cache is stopping
        self._busy = [False] * threads
        receivers = [transport.receiver(scope) for _ in range(threads)]
        for index, receiver in enumerate(receivers):
            threading.Thread(target=self._work, args=(index, receiver), daemon=True).start()

    def stop(self, grace: float) -> None:
        """Refuse what still comes; return when no command has come for a moment, or after `grace` seconds.

        The proxies know by now that this cache has ended, but a command of theirs may still be on its way. So may a
        reply of ours, where a transport has threads of its own: closing an end waits for them.
        """
        self._stopping = True
        quiet = _QUIET if proxies(self._rendezvous) else 0.0
        now = time.monotonic()
        deadline, self._last = now + grace, now
        while now < deadline and (any(self._busy) or now < self._last + quiet):
            time.sleep(0.01)
            now = time.monotonic()
        closing = threading.Thread(target=self._lanes.close, daemon=True)
        closing.start()
        closing.join(max(0.0, deadline - time.monotonic()))

    def _work(self, index: int, receiver: CommandReceiver) -> None:
        while True:
            try:
                record = receiver.receive()
            except TimeoutError:
                continue
            except Exception as error:  # noqa: BLE001  a plugin may raise anything: this cache does not serve any more
                try:
                    console.say(f"the command channel failed: {type(error).__name__}: {error}")
                finally:
                    os._exit(1)
            self._busy[index] = True
            if self._stopping:
                self._last = time.monotonic()
            try:
                self._answer(record)
            except Exception as error:  # noqa: BLE001  a defect costs its request, not the worker
                console.say(f"request failed: {type(error).__name__}: {error}")
            self._busy[index] = False

    def _answer(self, record: bytes) -> None:
        request_id, number, path = wire.decode_command(record)
        idle = self._lanes.idle
        lane = idle.pop(number, None) or self._lanes.spare(number) or self._lanes.open(wire.lane_name(record))
        find, answer = self._find, lane.answer  # not called as attributes: see transports/common/ring.py
        status, fd, length = wire.STATUS_ERROR, -1, 0
        try:
            if not self._stopping:
                if self._delay:
                    time.sleep(self._delay)
                found = find(path)
                if found is None:
                    status = wire.STATUS_NOT_FOUND
                else:
                    # Not fstat(2), whose 19 fields cost ten times as much. Files are read by position only.
                    status, fd, length = wire.STATUS_OK, found, os.lseek(found, 0, os.SEEK_END)
        except Exception as error:  # noqa: BLE001  a defect costs its request, not the lane
            console.say(f"{os.fsdecode(path)}: {error}")
        try:
            answer(request_id, status, fd, length)
        except BaseException:
            lane.close()
            raise
        finally:
            if self._caller_closes and fd >= 0:
                os.close(fd)
        # The proxy may have sent its next command meanwhile: then another thread has opened a second end.
        if idle.setdefault(number, lane) is not lane:
            self._lanes.keep(number, lane)


class LaneEnd:
    """This process's end of one lane. answer: see transfer.answerer_over."""

    def __init__(self, scope: Scope, sender: Sender | FileSender) -> None:
        self.directory = scope.directory
        self.answer = transfer.answerer_over(sender)
        self.close = sender.close


class LaneEnds:
    """This process's ends of lanes. Each is opened at its lane's first command, and kept while no thread uses it. So is
    a second one, for a command that comes before the first end was put back: to open one can take milliseconds.

    idle: the ends that no thread is using, by the numbers of their lanes. Who takes one out is its only user.
    """

    def __init__(self, rendezvous_name: str) -> None:
        self._rendezvous = rendezvous_name
        self.idle: dict[int, LaneEnd] = {}
        self._spare: dict[int, LaneEnd] = {}
        self._looked = 0.0  # when retired lanes were last looked for; time.monotonic()

    def close(self) -> None:
        """Close the ends that no thread is using."""
        _close_all(self._taken(lambda _: True))

    def spare(self, number: int) -> LaneEnd | None:
        """A second end of a lane, if one was kept."""
        return self._spare.pop(number, None)

    def keep(self, number: int, lane: LaneEnd) -> None:
        """Keep an end of a lane that has one idle."""
        if self._spare.setdefault(number, lane) is not lane:
            lane.close()

    def open(self, name: bytes) -> LaneEnd:
        """Open this process's end of the lane of that name. Raises OSError or ValueError."""
        self._close_retired()
        home, _, part = os.fsdecode(name).partition("/")
        scope = rendezvous.foreign_scope(self._rendezvous, home, part, 0)
        timeout, text = rendezvous.read_note(f"{scope.directory}/{LANE}")
        scope = replace(scope, timeout=timeout)
        return LaneEnd(scope, registry.data_transport(text).sender(scope))

    def _close_retired(self) -> None:
        """Close the ends of lanes whose names are gone: their proxy has retired them, or has ended.

        A thread does it: to close an end may take its timeout, and the request of another proxy waits here.
        """
        if (now := time.monotonic()) < self._looked + 1:
            return
        self._looked = now
        if retired := self._taken(lambda lane: not os.path.exists(lane.directory)):
            threading.Thread(target=_close_all, args=(retired,), daemon=True).start()

    def _taken(self, wanted: Callable[[LaneEnd], bool]) -> list[LaneEnd]:
        """The ends that are wanted, taken out: no other thread has them."""
        return [
            taken
            for ends in (self.idle, self._spare)
            for number, lane in ends.copy().items()
            if wanted(lane) and (taken := ends.pop(number, None)) is not None
        ]


def _close_all(lanes: Iterable[LaneEnd]) -> None:
    for lane in lanes:
        try:
            lane.close()
        except Exception as error:  # noqa: BLE001  a plugin may raise anything: the others are closed all the same
            console.say(f"an end was not closed: {type(error).__name__}: {error}")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness simplecached",
        description="Serve files to web proxies: commands come over one channel, content goes back over their lanes.",
        epilog="Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 misused, 3 refused by "
        "the transport or this machine.",
    )
    add = parser.add_argument
    add(
        "-c",
        dest="source",
        default=None,
        metavar="SOURCE",
        help="a directory, of whose files at most half of `ulimit -n` stay open, or a file of lines `/key path` (paths "
        "from the working directory)",
    )
    add(
        "--origin",
        default=None,
        metavar="URL",
        help="fetch what is not in SOURCE from this HTTP origin, /path from URL/path, and keep it (off)",
    )
    add(
        "--store",
        default=None,
        metavar="DIR",
        help="keep fetched files there, also for the next run (default: for this run)",
    )
    add(
        "--store-size",
        type=console.size,
        default=1 << 30,
        metavar="BYTES",
        help="bytes of fetched files to keep at most (1GiB)",
    )
    add("-t", dest="threads", type=console.positive, default=4, help="worker threads a process (%(default)s)")
    add("--processes", type=console.positive, default=1, help="worker processes (%(default)s)")
    add("--command", default=DEFAULT_COMMAND, metavar="NAME[:opt=val,...]", help="command transport (%(default)s)")
    add(
        "-d",
        dest="delay",
        type=console.count,
        default=0,
        metavar="MICROSECONDS",
        help="wait so long before each lookup (0)",
    )
    add("--cold", action="store_true", help=COLD)
    console.add_common(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """`harness simplecached`: run until a signal asks to end. Returns the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if args.source is None and args.origin is None:
        parser.error("one of these is required: -c, --origin")
    return console.main("simplecached", lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    stages.begin()
    transport = registry.command_transport(args.command)
    catalogue = own = None if args.source is None else open_source(args.source, args.cold)
    with ExitStack() as undo:
        home = supervisor.open_home(undo, args.name, CACHE)
        if args.origin is not None:
            from harness.pipeline import http_session, http_store  # noqa: PLC0415  libcurl costs a sixth of the start

            where = args.store or f"{home.directory}/store"
            kept = http_store.HttpStore(
                http_session.parse_url(args.origin, args.timeout),
                where,
                args.store_size,
                args.timeout,
                durable=args.store is not None,
            )
            catalogue = http_store.Fetching(own, kept)
        assert catalogue is not None
        serving = home.hold(rendezvous.SERVING)
        scope = home.scope(COMMANDS, args.timeout)
        try:
            undo.enter_context(transport.provision(scope))
        except OSError as error:
            raise console.Refused(f"{transport.name}: {error}") from None

        def serve(_: int) -> CacheWorkers:
            return CacheWorkers(catalogue, transport, scope, args.name, args.threads, args.delay / 1e6)

        def ready() -> None:
            rendezvous.write_note(f"{home.directory}/{CHANNEL}", args.timeout, registry.describe(transport))
            origin_too = f", and from {kept.origin.url}" if args.origin is not None else ""
            text = f"ready at rendezvous {args.name!r} over {registry.describe(transport)}{origin_too}"
            console.greet(args.json, text)

        supervisor.run(args.processes, serve, ready, lambda: rendezvous.unhold(serving), args.until_eof)
