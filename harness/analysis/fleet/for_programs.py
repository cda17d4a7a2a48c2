"""A fleet's study as plain values, for other programs: `harness show --json` and `harness claims --json` of a fleet.

docs/statistics.md has the table of the keys, and the same promise as for a single run.
"""

from typing import Any

from harness.analysis.fleet.claims import FleetAnswer
from harness.analysis.fleet.facts import Split
from harness.analysis.fleet.hosts import Host
from harness.analysis.fleet.random_effects import Summary
from harness.analysis.fleet.study import FleetCell, FleetContext, FleetStudy
from harness.analysis.for_programs import VERSION, of_answer, of_estimate
from harness.analysis.intervals import Estimate


def of_study(study: FleetStudy) -> dict[str, Any]:
    """The whole study."""
    return {
        "version": VERSION,
        "experiment": study.name,
        "fleet": study.mode,
        "hosts": [_host(host) for host in study.hosts],
        "refused": [{"host": name, "reason": reason} for name, reason in study.refused.items()],
        "common": dict(study.common),
        "contexts": [_context(context) for context in study.contexts],
        "comparisons": study.comparisons,
        "claims": [_claim(answer) for answer in study.answers],
        "notes": study.notes,
    }


def of_claims(study: FleetStudy) -> dict[str, Any]:
    """The claims of a fleet's study alone."""
    return {"version": VERSION, "fleet": study.mode, "claims": [_claim(answer) for answer in study.answers]}


def _host(host: Host) -> dict[str, Any]:
    return {
        "host": host.name,
        "facts": dict(host.facts),
        "trials": {"all": host.trials, "ok": host.ok},
        "control_off": host.off,
        "problem": host.problem,
    }


def _context(context: FleetContext) -> dict[str, Any]:
    return {
        "levels": dict(context.levels),
        "label": context.label,
        "metric": context.metric,
        "cells": [_cell(cell) for cell in context.cells],
    }


def _cell(cell: FleetCell) -> dict[str, Any]:
    return {
        "label": cell.label,
        "levels": dict(cell.levels),
        "baseline": cell.baseline,
        "floor": cell.floor,
        "outcome": cell.outcome,
        "goes_with": [_split(one) for one in cell.splits],
        "verdict": cell.verdict,
        "together": of_estimate(cell.together),
        "summary": _summary(cell.summary),
        "silent": list(cell.silent),
        "hosts": [
            {
                "host": host,
                "ratio": of_estimate(one.ratio),
                "verdict": one.verdict,
                "at_once": of_estimate((cell.at_once or {}).get(host)),
            }
            for host, one in cell.there.items()
        ],
    }


def _split(one: Split) -> dict[str, Any]:
    sides = [{"value": value, "verdicts": dict(verdicts)} for value, verdicts in one.sides.items()]
    return {"fact": one.fact, "right": one.right, "sides": sides}


def _summary(summary: Summary | None) -> dict[str, Any] | None:
    """A random-effects summary."""
    if summary is None:
        return None
    return {
        "ratio": _over_hosts(summary.ratio),
        "prediction": _over_hosts(summary.prediction),
        "tau": summary.tau,
        "i2": summary.i2,
        "q": summary.q,
        "q_p": summary.p,
    }


def _over_hosts(one: Estimate) -> dict[str, Any]:
    low, high = (one.low, one.high) if one.bounded else (None, None)
    return {"value": one.value, "low": low, "high": high, "hosts": one.n, "level": one.level}


def _claim(answer: FleetAnswer) -> dict[str, Any]:
    findings = [
        {
            "levels": dict(one.levels),
            "label": one.label,
            "outcome": one.outcome,
            "reason": one.reason,
            "together": of_estimate(one.together),
            "summary": _summary(one.summary),
            "silent": list(one.silent),
            "hosts": [{"outcome": outcome, "hosts": hosts} for outcome, hosts in one.hosts.items()],
        }
        for one in answer.findings
    ]
    return of_answer(answer.claim, answer.outcome, answer.reason, findings)
