"""Programs that run as another user does."""

import os
import subprocess
import sys
import tempfile


def becoming(user):
    """The start of a command that runs as the user of that number.

    With one right more than an ordinary user has: the checkout and the interpreter may lie where others cannot read.
    """
    kept = "+dac_read_search"
    rights = [f"--ambient-caps={kept}", *(f"--{kind}=-all,{kept}" for kind in ("bounding-set", "inh-caps"))]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *rights]


def as_an_ordinary_user(script, timeout, **environment):
    """Run a script with an ordinary user's rights and default limits, in a directory of its own.

    Where the tests do not run as root, it is their user.
    """
    become = []
    # Tests that run at the same time are different users: limits are for all processes of a user together.
    user = 65534 - int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    if os.getuid() == 0:
        become = becoming(user)
    with tempfile.TemporaryDirectory(prefix="th-user-") as directory:
        os.mkdir(f"{directory}/base", 0o700)
        if become:
            for place in (directory, f"{directory}/base"):
                os.chown(place, user, user)
        ours = {"HARNESS": f"{sys.executable} -m harness", "TRANSPORT_HARNESS_DIR": f"{directory}/base"}
        return subprocess.run(
            [*become, "bash", "-euc", f"ulimit -q 819200\n{script}"],
            env=os.environ | environment | ours,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
