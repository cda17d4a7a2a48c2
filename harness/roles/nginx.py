"""nginx as the origin, where it is installed: what many people have in front of their files.

It inherits a listening socket, so the port is known and nobody else can have taken it: it finds that by $NGINX, as a
new nginx finds the sockets of the one it replaces (nginx.org, "Upgrading Executable on the Fly"). setpriv(1) has it end
when this process is killed.

It knows no latency, and its limit_rate lets the bytes of a whole second pass at once: an origin that is to be slow has
to be the other one (httpd.py). Unlike that one it follows symbolic links out of its directory.
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

from harness.roles.program import Failure

_START = 10.0  # seconds until it answers
_END = 2.0  # seconds to end after SIGTERM
_PACKAGES = {"nginx": "nginx-light", "setpriv": "util-linux"}
_NAME = re.compile(r'[^"\\$\0-\x1f]*')  # that stands for itself between quotes
_MAKES = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # directories, whether it needs them or not
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
    """Why it cannot serve `source` here; empty where it can. slow: whether a latency or a bandwidth is asked for."""
    if slow:
        return "nginx knows no latency, and no bandwidth within a second: take the server `own`"
    if not os.path.isdir(source) or not _NAME.fullmatch(os.path.abspath(source)):
        return f"nginx serves directories, without quotes, backslashes or $ in their names: {source!r} is none"
    if lacking := [name for name in _PACKAGES if not shutil.which(name)]:
        packages = " ".join(_PACKAGES[name] for name in lacking)
        return f"no {' and no '.join(lacking)} here: apt-get install {packages}, or take the server `own`"
    return ""


def serve(
    listener: socket.socket, root: str, processes: int, home: str, ready: Callable[[str], None], until_eof: bool
) -> None:
    """Serve the files below `root` on `listener`, with configuration and logs in `home`, until KeyboardInterrupt or,
    where that is to be heeded, the end of standard input. ready: called with the server's version once it answers.
    Raises Failure where it does not, or ends by itself."""
    told = subprocess.run(["nginx", "-V"], capture_output=True, text=True, timeout=_START, check=True).stderr
    makes = [f'{kind}_temp_path "{home}/{kind}";' for kind in _MAKES if f"--without-http_{kind}_module" not in told]
    with open(f"{home}/nginx.conf", "w") as configuration:
        configuration.write(
            _CONFIGURATION.format(
                home=home, processes=processes, user="user root;" * (not os.getuid()), makes="\n    ".join(makes),
                address="{}:{}".format(*listener.getsockname()), root=os.path.abspath(root),
            )
        )  # fmt: skip
    master = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "nginx", "-p", home, "-e", f"{home}/start.log", "-c", f"{home}/nginx.conf"],
        env={**os.environ, "NGINX": f"{listener.fileno()};"},
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        ended = os.pidfd_open(master.pid)
        with socket.create_connection(listener.getsockname(), _START) as client:
            client.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            answered = client.fileno()
            if select.select([answered, ended], [], [], _START)[0] != [answered]:
                raise Failure("nginx does not answer")
        ready(told.removeprefix("nginx version: ").split()[0])
        while select.select([ended, *([0] if until_eof else [])], [], [])[0] == [0]:
            if not os.read(0, 4096):
                return
        raise Failure("nginx ended by itself")
    finally:
        master.terminate()
        with suppress(subprocess.TimeoutExpired):
            master.wait(_END)
        with suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)  # its workers, where it was killed or does not end
        master.wait()
