"""Writes docs/transports.md: what each transport says of itself, and what strace(1) counts for a reply of 1 MiB, and
for a command.

    .venv/bin/python benchmarks/describe_transports.py > docs/transports.md

Counted in one worker of the cache and one of the proxy, over REQUESTS replies: all system calls but those of waiting
threads, and the bytes that reads, receives, writes and sends copied between the kernel and the process.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from harness import registry
from harness.api import CommandTransport, DataTransport

REQUESTS = 20
SIZE = 1 << 20
COPYING = {
    "read",
    "pread64",
    "readv",
    "preadv",
    "preadv2",
    "recvfrom",
    "recvmsg",
    "write",
    "pwrite64",
    "writev",
    "sendto",
    "sendmsg",
    "mq_timedreceive",
    "msgrcv",
}
SIZED = re.compile(r' (?:mq_timedsend|msgsnd)\(.*[".}], (\d+), ')  # these return 0, and say their size before
IDLE = {"futex", "rt_sigtimedwait", "getppid", "restart_syscall", "clock_nanosleep", "flock"}


def main() -> int:
    if shutil.which("strace") is None:
        print("strace is not installed: apt-get install strace", file=sys.stderr)
        return 1
    # Strangers' have pages of their own.
    ours = [one for one in registry.defaults() if type(one).__module__.startswith("transports.")]
    print("# The transports\n\nWritten by `benchmarks/describe_transports.py`. `harness plugins`: what works here.\n")
    print("What each says of itself follows: the path of a byte, what becomes of killed peers, and the limits.\n")
    print(f"## One reply of 1 MiB, counted by strace over {REQUESTS} replies\n")
    print("System calls of a request at each end, and bytes copied between kernel and process in MiB. Commands go over")
    print("`posix_mq`, and the client's connection is the same for all: accept, read, close at the proxy. Waiting on a")
    print("semaphore is not counted (futex), nor what a queue's Python package copies within the process.\n")
    print("| data transport | cache: calls | cache: MiB copied | proxy: calls | proxy: MiB copied |")
    print("|---|--:|--:|--:|--:|")
    for name in sorted([*(one.name for one in ours if isinstance(one, DataTransport)), "posix_shm:sync=fifo"]):
        (cache_calls, cache_bytes), (proxy_calls, proxy_bytes) = count("posix_mq", name, SIZE)
        print(
            f"| `{name}` | {cache_calls:.1f} | {cache_bytes / SIZE:.2f} | {proxy_calls:.1f} | "
            f"{proxy_bytes / SIZE:.2f} |"
        )
    print(f"\n## One command, counted by strace over {REQUESTS} requests for a file of a byte\n")
    print("As above, with data over `null`, whose part is in it, as are the file that the cache looks up and the")
    print("client's connection. A command is a record of 512 bytes.\n")
    print("| command transport | cache: calls | cache: bytes copied | proxy: calls | proxy: bytes copied |")
    print("|---|--:|--:|--:|--:|")
    for name in sorted(one.name for one in ours if isinstance(one, CommandTransport)):
        (cache_calls, cache_bytes), (proxy_calls, proxy_bytes) = count(name, "null", 1)
        print(f"| `{name}` | {cache_calls:.1f} | {cache_bytes:.0f} | {proxy_calls:.1f} | {proxy_bytes:.0f} |")
    modules = {type(one).__module__: sys.modules[type(one).__module__] for one in ours}
    for module in modules.values():
        title, _, rest = (module.__doc__ or "").strip().partition("\n")
        print(f"\n## {module.__name__.removeprefix('transports.')}\n\n{title}\n{rest}")
    return 0


def count(command: str, data: str, size: int) -> list[tuple[float, float]]:
    """(system calls, bytes copied) a request for a file of `size` bytes, of the cache's worker and of the proxy's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, ExitStack() as undo:
        os.environ["TRANSPORT_HARNESS_DIR"] = directory
        with open(f"{directory}/file", "wb") as file:
            file.write(bytes(size))
        with open(f"{directory}/workload.txt", "w") as workload:
            workload.write("/file\n")
        cache, _ = start(undo, "simplecached", "-c", directory, "-t", "1", "--command", command)
        proxy, told = start(undo, "webproxy", "-p", "0", "-t", "1", "-n", "1", "--data", data)
        ask = [
            "gfclient",
            "-p",
            told.split()[3].rstrip(",").rpartition(":")[2],
            "-w",
            f"{directory}/workload.txt",
            "-t",
            "1",
            "--discard",
            "-r",
        ]
        harness(*ask, "5")
        logs = [f"{directory}/cache.log", f"{directory}/proxy.log"]
        tracers = [trace(cache, logs[0]), trace(proxy, logs[1])]
        harness(*ask, str(REQUESTS))
        for tracer in tracers:
            tracer.terminate()
            tracer.communicate()
        return [counted(log) for log in logs]


def harness(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "harness", *arguments], check=True, stdout=subprocess.DEVNULL, timeout=60)


def start(undo: ExitStack, *arguments: str) -> tuple[int, str]:
    """Start a program: (pid of its one worker, the line that says that it is ready)."""
    program = subprocess.Popen([sys.executable, "-m", "harness", *arguments], stdout=subprocess.PIPE, text=True)
    undo.callback(program.wait, 20)
    undo.callback(program.terminate)
    assert program.stdout is not None
    line = program.stdout.readline()
    with open(f"/proc/{program.pid}/task/{program.pid}/children") as children:
        return int(children.read().split()[0]), line


def trace(pid: int, log: str) -> "subprocess.Popen[bytes]":
    tracer = subprocess.Popen(["strace", "-f", "-p", str(pid), "-o", log], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    tracer.stderr.readline()
    time.sleep(0.2)
    return tracer


def counted(log: str) -> tuple[float, float]:
    calls = copied = 0
    with open(log, errors="replace") as lines:
        for line in lines:
            if not (call := re.search(r"^\d+ +(?:<\.\.\. )?(\w+)[( ].* = (\d+)", line)) or call[1] in IDLE:
                continue
            calls += 1
            copied += int(call[2]) if call[1] in COPYING else 0
            copied += int(sized[1]) if (sized := SIZED.search(line)) else 0
    return calls / REQUESTS, copied / REQUESTS


if __name__ == "__main__":
    sys.exit(main())
