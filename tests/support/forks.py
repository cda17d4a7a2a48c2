"""Second processes of a test: forks of it that do one thing and end."""

import os
import signal


def in_a_fork(work):
    """Run `work` in a second process; returns its pid, for ended_well."""
    pid = os.fork()
    if not pid:
        signal.alarm(30)  # a failed test must not leave it waiting for ever
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return pid


def ended_well(pid):
    """Wait for the end of a process; returns whether its exit code was 0."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
