"""What the programs of a trial or block leave: logs to be kept where it failed, and IPC objects to be swept."""

import os
import shutil
import time
from collections.abc import Iterable

from harness import rendezvous


def keep_logs(
    directories: Iterable[str], logs: str, name: str, _: object, error: BaseException | None, __: object
) -> None:
    """Keep what the programs wrote to standard error, where the measurement failed. All of them have ended by now.

    To be pushed on an ExitStack. directories: where the programs' logs are. logs: the directory that gets them, as
    `<name>-<number of the directory>-<program>.log`, where they wrote anything; "": none.
    """
    if logs and isinstance(error, Exception):
        os.makedirs(logs, exist_ok=True)
        for number, directory in enumerate(directories):
            for log in os.listdir(directory):
                if log.endswith(".log") and os.path.getsize(f"{directory}/{log}"):
                    shutil.copyfile(f"{directory}/{log}", f"{logs}/{name}-{number}-{log}")


def sweep(name: str) -> int:
    """Sweep the rendezvous, also where killed processes have yet to end. Returns how many objects were swept."""
    found = len(rendezvous.sweep(name))
    deadline = time.monotonic() + 1
    while os.path.exists(rendezvous.rendezvous_directory(name)) and time.monotonic() < deadline:
        time.sleep(0.01)
        found += len(rendezvous.sweep(name))
    return found
