"""Writes docs/transports.md: what strace(1) counts for a reply of 1 MiB and for a command, and where each file is.

    .venv/bin/python benchmarks/describe_transports.py > docs/transports.md

Counted in one worker of the cache and one of the proxy, over REQUESTS replies: all system calls but those of waiting
threads, and the bytes that reads, receives, writes and sends copied between the kernel and the process.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from harness import registry
from harness.api import CommandTransport, DataTransport

REQUESTS = 20
SIZE = 1 << 20
READING = "read pread64 readv preadv preadv2 recvfrom recvmsg mq_timedreceive msgrcv process_vm_readv".split()
WRITING = ["write", "pwrite64", "writev", "sendto", "sendmsg"]
COPYING = {*READING, *WRITING}
SIZED = re.compile(r' (?:mq_timedsend|msgsnd)\(.*[".}], (\d+), ')  # these return 0; their size is an argument
IDLE = {"futex", "rt_sigtimedwait", "getppid", "restart_syscall", "clock_nanosleep", "flock"}
HEAD = """\
# The transports

Written by `benchmarks/describe_transports.py`.

The docstring of each file says how a byte travels, what happens when a peer is killed, and which limits of the system
apply. Follow the link, or read it with `python -m pydoc transports.fifo`. `harness plugins` shows which transports work
on this machine, with their options."""
REPLY = f"""\
## One reply of 1 MiB, counted by strace over {REQUESTS} replies

System calls of a request at each end, and bytes copied between kernel and process in MiB. Commands go over
`posix_mq`, and the client's connection is the same for all: accept, read, close at the proxy. Waiting on a
semaphore is not counted (futex), nor what a queue's Python package copies within the process.

| data transport | cache: calls | cache: MiB copied | proxy: calls | proxy: MiB copied |
|---|--:|--:|--:|--:|"""
COMMAND = f"""\
## One command, counted by strace over {REQUESTS} requests for a file of a byte

As above, with data over `null`. The calls of `null` are included, and so are those for the file that the cache looks up
and for the client's connection. A command is a record of 512 bytes. `null` also reads the few records with which its
own thread ends waits in time.

| command transport | cache: calls | cache: bytes copied | proxy: calls | proxy: bytes copied |
|---|--:|--:|--:|--:|"""


def main() -> int:
    """Measure, and print the page. Returns the exit code."""
    if shutil.which("strace") is None:
        print("strace is not installed: apt-get install strace", file=sys.stderr)
        return 1
    print(f"{HEAD}\n\n{overview()}\n\n{REPLY}")
    data = [one.name for one in built_in() if isinstance(one, DataTransport)]
    for name in sorted([*data, "posix_shm:sync=eventfd", "posix_shm:sync=fifo"]):
        (cache_calls, cache_bytes), (proxy_calls, proxy_bytes) = count("posix_mq", name, SIZE)
        print(
            f"| `{name}` | {cache_calls:.1f} | {cache_bytes / SIZE:.2f} | {proxy_calls:.1f} | "
            f"{proxy_bytes / SIZE:.2f} |"
        )
    print(f"\n{COMMAND}")
    commands = [one.name for one in built_in() if isinstance(one, CommandTransport)]
    for name in sorted([*commands, "shm_ring:sync=eventfd"]):
        (cache_calls, cache_bytes), (proxy_calls, proxy_bytes) = count(name, "null", 1)
        print(f"| `{name}` | {cache_calls:.1f} | {cache_bytes:.0f} | {proxy_calls:.1f} | {proxy_bytes:.0f} |")
    return 0


def built_in() -> list[registry.AnyTransport]:
    """The transports of this package. Plugins from elsewhere have pages of their own."""
    return [one for one in registry.defaults() if type(one).__module__.startswith("transports.")]


def overview() -> str:
    """A table of the built-in transports: what each is, what its ends do, and the file whose docstring explains it."""
    kinds: dict[str, list[registry.AnyTransport]] = {}
    for one in built_in():
        kinds.setdefault(type(one).__module__, []).append(one)
    rows = ["| transport | carries | cache's end of a lane | proxy's end | mechanism |", "|---|---|---|---|---|"]
    for module, of_module in sorted(kinds.items()):
        title = (sys.modules[module].__doc__ or "").strip().partition("\n")[0]
        data = [one for one in of_module if isinstance(one, DataTransport)]
        carries = ["commands"] * (len(of_module) > len(data)) + ["content"] * len(data)
        ends = registry.shape(data[0]) if data else ("", "")
        cells = [
            f"[`{of_module[0].name}`](../{module.replace('.', '/')}.py)",
            ", ".join(carries),
            *ends,
            "; ".join([title.rstrip("."), *remarks(of_module)]),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def remarks(kinds: list[registry.AnyTransport]) -> list[str]:
    """What the transports of a file say of themselves by the class attributes of harness/api/contract.py."""
    data = [one for one in kinds if isinstance(one, DataTransport)]
    said = {
        "a floor": any(one.floor for one in kinds),
        "moves no content": any(not one.moves_content for one in data),
        "keeps content": any(one.keeps_content for one in data),
    }
    return [remark for remark, applies in said.items() if applies]


def count(command: str, data: str, size: int) -> list[tuple[float, float]]:
    """(system calls, bytes copied) a request for a file of `size` bytes, of the cache's worker and of the proxy's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, ExitStack() as undo:
        os.environ["TRANSPORT_HARNESS_DIR"] = directory
        with open(f"{directory}/file", "wb") as file:
            file.write(bytes(size))
        with open(f"{directory}/workload.txt", "w") as workload:
            workload.write("/file\n")
        cache, _ = start(undo, "simplecached", "-c", directory, "-t", "1", "--command", command)
        proxy, greeting = start(undo, "webproxy", "-p", "0", "-t", "1", "-n", "1", "--data", data)
        client = [
            "gfclient",
            "-p",
            str(greeting["port"]),
            "-w",
            f"{directory}/workload.txt",
            "-t",
            "1",
            "--discard",
            "-r",
        ]
        harness(*client, "5")
        logs = [f"{directory}/cache.log", f"{directory}/proxy.log"]
        tracers = [trace(cache, logs[0]), trace(proxy, logs[1])]
        harness(*client, str(REQUESTS))
        for tracer in tracers:
            tracer.terminate()
            tracer.communicate()
        return [counted(log) for log in logs]


def harness(*arguments: str) -> None:
    """Run a program of the harness to its end."""
    subprocess.run([sys.executable, "-m", "harness", *arguments], check=True, stdout=subprocess.DEVNULL, timeout=60)


def start(undo: ExitStack, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Start a program. Returns (pid of its one worker, what it prints with --json once it is ready)."""
    command = [sys.executable, "-m", "harness", *arguments, "--json"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    undo.callback(program.wait, 20)
    undo.callback(program.terminate)
    assert program.stdout is not None
    greeting = json.loads(program.stdout.readline())
    with open(f"/proc/{program.pid}/task/{program.pid}/children") as children:
        return int(children.read().split()[0]), greeting


def trace(pid: int, log: str) -> "subprocess.Popen[bytes]":
    """Attach strace(1) to a process; return once it traces."""
    tracer = subprocess.Popen(["strace", "-f", "-p", str(pid), "-o", log], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    tracer.stderr.readline()
    time.sleep(0.2)
    return tracer


def counted(log: str) -> tuple[float, float]:
    """(system calls, bytes copied) a request, from a log of strace."""
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
