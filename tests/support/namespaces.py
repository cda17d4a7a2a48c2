"""Hosts in network namespaces: each with a loopback and an address of its own, and an sshd that opens to a test's key.

They share the file system and the processors of this machine. network_namespaces(7), veth(4), sshd(8).
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

SSHD = "/usr/sbin/sshd"  # it insists on an absolute path


def lacking():
    """What is missing for such hosts; empty where they can be made."""
    if os.geteuid():
        return "only root makes network namespaces"
    for program in (SSHD, "ip", "ssh-keygen", "unshare"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install openssh-server iproute2"
    for module in ("distributed", "asyncssh"):
        if find_spec(module) is None:
            return f"{module} is not installed: pip install '.[fleet]'"
    return ""


class Host:
    """A host. python: a program that is Python there, with a home and a rendezvous of its own."""

    def __init__(self, name, address, link, directory):
        self.name, self.address, self.link = name, address, link
        self.namespace = f"{link}-ns"
        self.home = directory / name
        self.home.mkdir()
        self.rendezvous = tempfile.mkdtemp(prefix="th-host-", dir="/tmp")
        self.python = self.home / "python"
        self.python.write_text(
            f"#!/bin/sh\nexport HOME={self.home} TRANSPORT_HARNESS_DIR={self.rendezvous} OPENBLAS_NUM_THREADS=1\n"
            f'exec {sys.executable} "$@"\n'
        )
        self.python.chmod(0o755)

    def pids(self, *words):
        """The processes of the host whose command line has all of these words."""
        pids = map(int, subprocess.check_output(["ip", "netns", "pids", self.namespace]).split())
        return [pid for pid in pids if all(word in command_line(pid) for word in words)]

    def kill(self, *words):
        for pid in self.pids(*words):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def set_link(self, state):
        ip("link", "set", self.link, state)


class Hosts:
    """So many hosts on a bridge; remove() ends all that runs on them, and leaves nothing behind."""

    def __init__(self, count, directory):
        self._directory = directory
        self._bridge, third = f"th{secrets.token_hex(3)}", secrets.randbelow(250)
        self._servers = []
        net = f"10.213.{third}"
        self.all = [Host(f"h{n}", f"{net}.{n}", f"{self._bridge}v{n}", directory) for n in range(1, count + 1)]
        try:
            self._make(net)
        except BaseException:
            self.remove()
            raise

    def _make(self, net):
        for key in ("key", "host-key"):
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._directory / key)]
            subprocess.run(made, check=True)
        ip("link", "add", self._bridge, "type", "bridge")
        ip("addr", "add", f"{net}.254/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd has a part of itself without rights
        for host in self.all:
            ip("netns", "add", host.namespace)
            ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            ip("link", "set", host.link, "master", self._bridge, "up")
            ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", host.namespace, "link", "set", link, "up")
            self._servers.append(self._serve(host))

    def _serve(self, host):
        options = {
            "AuthorizedKeysFile": self._directory / "key.pub",
            "ListenAddress": host.address,
            "PermitRootLogin": "yes",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
        }
        sshd = [SSHD, "-D", "-e", "-f", "/dev/null", "-h", str(self._directory / "host-key")]
        sshd += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        inside = ["ip", "netns", "exec", host.namespace, "unshare", "--uts"]
        named = ["sh", "-c", 'hostname "$0"; exec "$@"', host.name, *sshd]
        with open(host.home / "sshd.log", "wb") as log:
            return subprocess.Popen([*inside, *named], stderr=log, stdin=subprocess.DEVNULL)

    def file(self):
        """The file of hosts for `harness fleet run --ssh`."""
        options = f"{{client_keys: [{self._directory}/key], known_hosts: null}}"
        lines = [
            f"- {{name: {one.name}, address: {one.address}, user: root, python: {one.python}, options: {options}}}\n"
            for one in self.all
        ]
        path = self._directory / "hosts.yaml"
        path.write_text("".join(lines))
        return path

    def remove(self):
        for server in self._servers:
            server.kill()
            server.wait()
        deadline = time.monotonic() + 20
        for host in self.all:
            while self._left(host) and time.monotonic() < deadline:  # what was under way ends first
                time.sleep(0.1)
            for pid in self._left(host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while self._left(host):
                time.sleep(0.01)
            subprocess.run(["ip", "link", "del", host.link], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(host.rendezvous)
        subprocess.run(["ip", "link", "del", self._bridge], check=False, stderr=subprocess.DEVNULL)

    def _left(self, host):
        return host.pids() if os.path.exists(f"/run/netns/{host.namespace}") else []


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
