"""`harness report`: writes the page of a run, of two runs, or of all runs in a directory, and charts as files."""

import argparse
import os
from collections.abc import Sequence

from harness import results
from harness.analysis import run_files
from harness.report import comparison_page, export, fleet_page, index_page, run_page


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness report",
        description="Write the report of a run from its files: DIR/report.html, one page that needs no network.",
        epilog="Exit codes: 0 written, 2 DIR has no results, or an option is wrong. With DIR_B the page compares the "
        "two runs: the ratio of DIR_B to DIR.",
    )
    parser.add_argument(
        "directory", metavar="DIR", help="a directory that `harness run` wrote, or one of such directories"
    )
    parser.add_argument("other", metavar="DIR_B", nargs="?", help="the directory of a second run, to compare with DIR")
    parser.add_argument(
        "--all", action="store_true", help="DIR holds runs: write the reports of all, and an index of them"
    )
    parser.add_argument(
        "--figures",
        metavar="FORMATS",
        default="",
        help="also write the charts as files: svg, pdf, png, or several of them: svg,pdf",
    )
    parser.add_argument(
        "--only", metavar="NAMES", default="", help="of the charts write only these, for example ratios,cpu"
    )
    parser.add_argument("--metric", default="requests_per_s", help="the metric to compare two runs in (%(default)s)")
    parser.add_argument("-o", dest="output", metavar="FILE", help="where to write the page")
    return parser


def _holds_runs(directory: str) -> bool:
    """Whether it is no run itself, and has runs in it."""
    own = (results.TRIALS, run_files.EXPERIMENT, run_files.FLEET)
    if not os.path.isdir(directory) or any(os.path.exists(f"{directory}/{file}") for file in own):
        return False
    return bool(index_page.runs(directory))


def main(argv: Sequence[str]) -> int:
    """Write the report of a run. Returns the exit code."""
    args = arguments().parse_args(argv)

    def body() -> int:
        if args.all or (not args.other and _holds_runs(args.directory)):
            written = [index_page.write(args.directory, args.output)]
        elif args.other and any(map(run_files.is_fleet, (args.directory, args.other))):
            raise ValueError("there is no page that compares fleets; `harness compare` prints it")
        elif args.other:
            written = [comparison_page.write(args.directory, args.other, args.metric, args.output)]
        else:
            of_kind = fleet_page if run_files.is_fleet(args.directory) else run_page
            written = [of_kind.write(args.directory, args.output)]
            if formats := [one for one in args.figures.split(",") if one]:
                written += export.write(of_kind.charts_of(args.directory), args.directory, formats, args.only)
        print("\n".join(written))
        return 0

    return run_files.exit_code("report", body)
