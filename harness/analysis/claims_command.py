"""`harness claims`: prints the answer to each claim of an experiment."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis import claims, for_programs, judgements, run_files
from harness.analysis.cells import StudyTrials
from harness.analysis.claims import REFUTED, SUPPORTED, UNDECIDED
from harness.analysis.fleet import claims as fleet_claims
from harness.analysis.fleet import files, study
from harness.analysis.fleet import for_programs as over_hosts
from harness.analysis.slices import Slices
from harness.analysis.verdicts import controls
from harness.results import Trial

_NO_CLAIMS = f"the experiment makes no claims: {run_files.EXPERIMENT} has no `claims:`"
# The exit code of the worst outcome, the worst one first.
_CODES = {REFUTED: 1, UNDECIDED: 3, SUPPORTED: 0}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness claims",
        description="Print whether the trials of a run support or refute each claim of its experiment, with intervals.",
        epilog="Exit codes: 0 all claims are supported, 1 some are refuted, 3 none is refuted and some are undecided, "
        "2 the experiment has no claims, or DIR has no results.",
    )
    parser.add_argument("directory", metavar="DIR", help="a directory that `harness run` or `harness fleet run` wrote")
    parser.add_argument("--json", action="store_true", help="print the answers as one JSON object, for programs")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the answers to the claims of a run. Returns the exit code."""
    args = arguments().parse_args(argv)

    def body() -> int:
        if run_files.is_fleet(args.directory):
            return _print_over_hosts(args.directory, as_json=args.json)
        return _print_answers(*run_files.load_run(args.directory), as_json=args.json)

    return run_files.exit_code("claims", body)


def _print_answers(trials: list[Trial], experiment: Mapping[str, Any], slices: Slices | None, *, as_json: bool) -> int:
    asked = claims.of_experiment(experiment)
    if not asked:
        raise ValueError(_NO_CLAIMS)
    control, off = controls(StudyTrials(trials, slices))
    answers = judgements.judge_all(asked, trials, off, slices)
    if as_json:
        print(for_programs.text(for_programs.of_claims(answers, control)))
    else:
        for answer in answers:
            print("\n".join(judgements.lines(answer)))
        print(control.line)
    return _code([answer.outcome for answer in answers])


def _print_over_hosts(directory: str, *, as_json: bool) -> int:
    found = study.analyse(files.load(directory))
    if not found.answers:
        raise ValueError(_NO_CLAIMS)
    if as_json:
        print(for_programs.text(over_hosts.of_claims(found)))
    else:
        for answer in found.answers:
            print("\n".join(fleet_claims.lines(answer)))
    return _code([answer.outcome for answer in found.answers])


def _code(outcomes: Sequence[str]) -> int:
    return next(code for outcome, code in _CODES.items() if outcome in outcomes)
