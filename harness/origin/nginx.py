"""nginx as the origin, where it is installed: the server that many people have in front of their files.

nginx inherits our listening socket, so the port is known and no other program can take it. It finds the socket by
$NGINX, as a new nginx finds the sockets of the one it replaces (nginx.org, "Upgrading Executable on the Fly").
setpriv(1) makes it end when this process is killed, PR_SET_PDEATHSIG of prctl(2). Until it has ended, it holds the lock
of our home.

nginx cannot delay responses, and its limit_rate sends the bytes of a whole second at once: for an origin with a latency
or a bandwidth take our own server (server.py). Unlike that one, nginx follows symbolic links out of its directory.
"""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from harness import rendezvous
from harness.console import Failure

_START = 10.0  # seconds for nginx to answer
_END = 1.5  # seconds for nginx to end after SIGTERM
_PLACES = ":/usr/local/sbin:/usr/sbin"  # where nginx is; the PATH of an ordinary user lacks these
_OLDEST = 1, 19, 5  # the first that knows -e
_PACKAGES = {"nginx": "nginx-light", "setpriv": "util-linux"}
_NAME = re.compile(r'[^"\\$\0-\x1f]*')  # a name that needs no escapes between quotes
_MAKES = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # directories that nginx makes, needed or not
_CONFIGURATION = """\
daemon off;
{user}
worker_processes {processes};
pid "{home}/nginx.pid";
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=10000 inactive=1h;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    {makes}
    server {{
        listen {address};
        root "{root}";
    }}
}}
"""


def unable(source: str, slow: bool) -> str:
    """Why nginx cannot serve `source` here; empty if it can. slow: whether a latency or a bandwidth is asked for."""
    if slow:
        return "nginx has no latency, and no bandwidth within a second: use the server `own`"
    for directory in (source, rendezvous.base_directory()):
        if not _NAME.fullmatch(os.path.abspath(directory)):
            return f"nginx takes no quotes, backslashes or $ in the names of directories: {directory!r}"
    if not os.path.isdir(source):
        return f"nginx serves directories, and {source!r} is none"
    if lacking := [name for name in _PACKAGES if not _find(name)]:
        packages = " ".join(_PACKAGES[name] for name in lacking)
        return f"no {' and no '.join(lacking)} here: apt-get install {packages}, or use the server `own`"
    version = re.match(r"nginx version: nginx/(\d+)\.(\d+)\.(\d+)", _about())
    if version is None or tuple(map(int, version.groups())) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return f"{_find('nginx')} is no nginx of {oldest} or later: {_about().partition(chr(10))[0] or 'it fails'}"
    return ""


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + _PLACES)


@cache
def _about() -> str:
    """The output of `nginx -V`: the version, and how it was built. Empty if that fails."""
    try:
        command = [_find("nginx") or "nginx", "-V"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_START).stderr
    except (OSError, subprocess.SubprocessError):
        return ""


def serve(
    listener: socket.socket,
    root: str,
    processes: int,
    home: rendezvous.Home,
    ready: Callable[[str], None],
    until_eof: bool,
) -> None:
    """Serve the files below `root` on `listener`, with configuration and logs in `home`, until KeyboardInterrupt.

    Only call this if unable() returned nothing. ready: called with nginx's version once it answers. until_eof: return
    also when standard input ends. Raises Failure if nginx does not answer, or ends by itself.
    """
    place, about = home.directory, _about()
    makes = [f'{kind}_temp_path "{place}/{kind}";' for kind in _MAKES if f"--without-http_{kind}_module" not in about]
    with open(f"{place}/nginx.conf", "w") as configuration:
        configuration.write(
            _CONFIGURATION.format(
                home=place,
                processes=processes,
                user="user root;" * (not os.getuid()),
                makes="\n    ".join(makes),
                address="{}:{}".format(*listener.getsockname()),
                root=os.path.abspath(root),
            )
        )
    master = subprocess.Popen(
        [
            _find("setpriv") or "setpriv",
            "--pdeathsig",
            "TERM",
            _find("nginx") or "nginx",
            "-p",
            place,
            "-e",
            f"{place}/start.log",
            "-c",
            f"{place}/nginx.conf",
        ],
        env={**os.environ, "NGINX": f"{listener.fileno()};"},
        pass_fds=[listener.fileno(), home.lock],
        stdin=subprocess.DEVNULL,
        process_group=0,
    )
    ended = os.pidfd_open(master.pid)
    try:
        with socket.create_connection(listener.getsockname(), _START) as client:
            client.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            answered = client.fileno()
            if select.select([answered, ended], [], [], _START)[0] != [answered]:
                raise Failure(f"nginx does not answer within {_START:g} s")
        ready(about.removeprefix("nginx version: ").split()[0])
        while select.select([ended, *([0] if until_eof else [])], [], [])[0] == [0]:
            if not os.read(0, 4096):
                return
        raise Failure("nginx ended by itself")
    finally:
        master.terminate()
        select.select([ended], [], [], _END)
        with suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)  # its workers if nginx was killed, nginx itself if it did not end
        master.wait()
        os.close(ended)
