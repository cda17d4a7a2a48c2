"""Reports of runs: pages, and charts for papers. Everything is read from the files of a run."""


def write(directory: str) -> str:
    """Write the report of a run into its directory, and return the path. Raises OSError, ValueError."""
    # Imported here because it loads numpy and scipy, which only an analysis needs.
    from harness.report import run_page  # noqa: PLC0415

    return run_page.write(directory)
