"""Reports of result files: a page to look at, and pictures for papers. Everything is read from the files of a run."""


def write(directory: str) -> str:
    """Write the report of a run into its directory, and return the path. Raises OSError, ValueError."""
    from harness.report import run_page  # noqa: PLC0415 - numpy and scipy are only loaded where something is analysed

    return run_page.write(directory)
