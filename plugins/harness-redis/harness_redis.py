"""Redis lists over a Unix socket, redis-server(1): RPUSH appends, BLPOP takes the oldest or waits for one.

Each scope has a redis-server of its own, which keeps everything in memory and nothing on disk. A message goes from the
sender write(2) -> Unix socket -> read(2) to the server, and write(2) -> Unix socket -> read(2) on to the receiver that
has waited the longest. The server is one thread; each message wakes it twice.

Commands: a script on the server appends a record if fewer than `most` are waiting. A sender that finds no room looks
again a millisecond later.

Content: a piece is an element of a list, a second list holds the credit. BLPOP takes one credit before each RPUSH, and
the receiver gives it back when it is done with the piece. So a piece costs four round trips to the server. preadv(2) ->
buffer of the cache -> server -> bytes object -> the client.

Limits: a process and 3 MB of memory for each lane. redis-server must be installed (Debian: redis-server, or valkey).

Killed peers: noticed by the timeout; a killed owner takes its server with it (PR_SET_PDEATHSIG of prctl(2)), and then
calls fail at once. A record that a killed receiver had been sent is lost.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import redis

from harness.api import (
    HEAD_BYTES,
    CommandReceiver,
    CommandSender,
    CommandTransport,
    DataTransport,
    Receiver,
    Scope,
    Sender,
    check_least,
    connected_socket,
    hookimpl,
    socket_name,
)

LATE = {"a call ends within the timeout": "where the server hangs it takes up to twice the timeout and half a second"}
START = 10.0  # seconds in which the server must listen: it takes 20 ms
_PATH = "redis"
_MESSAGES, _CREDIT = "messages", "credit"  # keys
_APPEND = "return redis.call('LLEN', KEYS[1]) < tonumber(ARGV[2]) and redis.call('RPUSH', KEYS[1], ARGV[1])"


@contextmanager
def server(scope: Scope) -> Iterator[None]:
    """A server that lives as long as the context, and no longer than the thread that enters it."""
    path, log = scope.path(_PATH), scope.path("log")
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise FileNotFoundError("there is no redis-server here: apt-get install redis-server")
    if os.path.exists(path):
        raise FileExistsError(f"{path} is there already")
    settings = ["--port", "0", "--unixsocket", path, "--unixsocketperm", "600", "--dir", scope.directory]
    settings += ["--appendonly", "no", "--save", ""]
    with socket_name(path), open(log, "w") as output:
        command = ["setpriv", "--pdeathsig", "KILL", program, *settings]
        # A process group of its own: Ctrl-C is for the owner, who may still have replies under way.
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
        ) as process:
            try:
                _await(process, path, log)
                yield
            finally:
                process.kill()  # it has nothing to save


def _await(process: subprocess.Popen[bytes], path: str, log: str) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            return connected_socket(socket.SOCK_STREAM, path, START).close()
        except (FileNotFoundError, ConnectionRefusedError):
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log) as output:
                    raise OSError(f"redis-server does not start: {output.read().strip()[-300:]}") from None
            time.sleep(0.001)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raises OSError in place of the client's own errors, which are not derived from it."""
    try:
        yield
    except redis.TimeoutError as error:
        raise TimeoutError(f"Redis: {error}") from None
    except redis.RedisError as error:
        raise OSError(f"Redis: {error}") from None


class RedisEnd:
    """A connection of its own, which does not try again: a lane that failed is not used any more."""

    @plain_errors()
    def __init__(self, scope: Scope) -> None:
        self._timeout = scope.timeout
        path = scope.path(_PATH)
        os.stat(path)  # the client's error would not say that it is missing
        self._redis = redis.Redis(
            unix_socket_path=path,
            socket_timeout=scope.timeout + 0.5,  # the server's own timeouts come first, unless it hangs
            socket_read_size=1 << 18,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
            single_connection_client=True,
        )

    def _taken(self, key: str) -> bytes:
        """The oldest element of a list."""
        found = self._redis.blpop([key], self._timeout)
        if found is None:
            raise TimeoutError(f"Redis had nothing for {self._timeout} s")
        element: bytes = found[1]
        return element

    def close(self) -> None:
        self._redis.close()


@dataclass(frozen=True)
class RedisCommands(CommandTransport):
    """most: records that may wait."""

    name = "redis"
    not_kept: ClassVar[dict[str, str]] = LATE
    most: int = 64

    def __post_init__(self) -> None:
        check_least(self, most=1)

    def provision(self, scope: Scope) -> AbstractContextManager[None]:
        return server(scope)

    def receiver(self, scope: Scope) -> CommandReceiver:
        return RedisCommandReceiver(scope)

    def sender(self, scope: Scope) -> CommandSender:
        return RedisCommandSender(scope, self.most)


class RedisCommandSender(RedisEnd, CommandSender):
    def __init__(self, scope: Scope, most: int) -> None:
        super().__init__(scope)
        self._most = most
        self._append = self._redis.register_script(_APPEND)

    @plain_errors()
    def send(self, record: bytes) -> None:
        deadline = time.monotonic() + self._timeout
        while not self._append([_MESSAGES], [record, self._most]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._most} records waited for {self._timeout} s")
            time.sleep(0.001)


class RedisCommandReceiver(RedisEnd, CommandReceiver):
    @plain_errors()
    def receive(self) -> bytes:
        return self._taken(_MESSAGES)


@dataclass(frozen=True)
class RedisData(DataTransport):
    """chunk: bytes of a piece. depth: pieces under way, not given back yet."""

    name = "redis"
    not_kept: ClassVar[dict[str, str]] = LATE
    chunk: int = 128 << 10
    depth: int = 4

    def __post_init__(self) -> None:
        check_least(self, chunk=HEAD_BYTES + 1, depth=1)

    @contextmanager
    def provision(self, scope: Scope) -> Iterator[None]:
        with server(scope):
            end = RedisEnd(scope)
            with plain_errors():
                end._redis.rpush(_CREDIT, *[b""] * self.depth)
            end.close()
            yield

    def receiver(self, scope: Scope) -> Receiver:
        return RedisReceiver(scope)

    def sender(self, scope: Scope) -> Sender:
        return RedisSender(scope, self.chunk)


class RedisSender(RedisEnd, Sender):
    def __init__(self, scope: Scope, chunk: int) -> None:
        super().__init__(scope)
        self._buffer = memoryview(bytearray(chunk))

    def loan(self) -> memoryview:
        return self._buffer

    @plain_errors()
    def publish(self, count: int) -> None:
        self._taken(_CREDIT)
        self._redis.rpush(_MESSAGES, self._buffer[:count])  # an empty element says that no more will come


class RedisReceiver(RedisEnd, Receiver):
    @plain_errors()
    def take(self) -> memoryview:
        piece = self._taken(_MESSAGES)
        if not piece:
            raise EOFError("the sender gave up")
        return memoryview(piece)

    @plain_errors()
    def give_back(self) -> None:
        self._redis.rpush(_CREDIT, b"")


@hookimpl
def command_transports() -> list[type[CommandTransport]]:
    return [RedisCommands]


@hookimpl
def data_transports() -> list[type[DataTransport]]:
    return [RedisData]
