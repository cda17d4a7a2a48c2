"""How long the programs take to start: until a client can connect, until the greeting, and the CPU time until then.

The course's stress script gives its programs 0.25 s before the first client connects (docs/course.md). Programs are
started in turn, so that what disturbs the machine disturbs them all.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from statistics import median

_CLASSIC = ["-n", "13", "-z", "5313", "-t", "33"]  # the course's numbers


def programs(files: str, port: int) -> dict[str, list[str]]:
    """What is started, by name. Those with a `-p` are tried for a connection."""
    course = shutil.which("webproxy", path=os.path.dirname(sys.executable)) or "webproxy"
    harness = [sys.executable, "-m", "harness"]
    return {
        "simplecached": [*harness, "simplecached", "-c", files, "-t", "8"],
        "webproxy": [*harness, "webproxy", "-p", str(port), "--wait", "0"],
        "webproxy, 50 lanes": [*harness, "webproxy", "-p", str(port), "--wait", "0", "-t", "100", "-n", "50"],
        "webproxy of the course": [course, "-p", str(port), *_CLASSIC],
    }


def start(command: list[str], port: int, base: str) -> tuple[float, float, float]:
    """Start a program and end it. Returns seconds until a client could connect (the greeting, where none can), until
    the greeting, and of CPU time until then."""
    environment = {**os.environ, "TRANSPORT_HARNESS_DIR": base}
    begun = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        assert program.stdout is not None
        connected = 0.0
        while "-p" in command and not connected and program.poll() is None:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
                connected = time.monotonic() - begun
            time.sleep(0.001)
        program.stdout.readline()
        ready = time.monotonic() - begun
        with open(f"/proc/{program.pid}/stat") as file:
            ticks = file.read().rpartition(")")[2].split()[11:13]
        program.terminate()
        program.wait(30)
    return connected or ready, ready, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as base, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        found: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(args.rounds):
            for name, command in programs(base, port).items():
                found.setdefault(name, []).append(start(command, port, base))
    print(f"{'ms, median and largest':24} {'connects':>14} {'greets':>14} {'CPU time':>14}")
    for name, rows in found.items():
        columns = (f"{median(row) * 1e3:6.0f} {max(row) * 1e3:7.0f}" for row in zip(*rows, strict=True))
        print(f"{name:24} {' '.join(columns)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
