"""A study as plain values, for other programs: `harness show --json` and `harness claims --json`.

docs/statistics.md has the table of the keys. A program may rely on them: keys may be added, and none is removed or gets
another meaning without a new `version`. An end that is infinite is null.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

from harness.analysis import naming
from harness.analysis.claims import Claim
from harness.analysis.intervals import Estimate
from harness.analysis.judgements import Answer
from harness.analysis.study import Cell, Context, Study
from harness.analysis.verdicts import Control

VERSION = 1


def text(given: dict[str, Any]) -> str:
    """As JSON, one object."""
    return json.dumps(given, indent=1, allow_nan=False)


def of_study(study: Study) -> dict[str, Any]:
    """The whole study."""
    return {
        "version": VERSION,
        "experiment": study.name,
        "contexts": [_context(context) for context in study.contexts],
        "comparisons": study.comparisons,
        "resolution_percent": _worst([context.resolution.largest for context in study.contexts if context.resolution]),
        "control": _control(study.control),
        "crossings": [
            {
                "levels": dict(one.levels),
                "below": one.below,
                "above": one.above,
                "bytes": {"value": one.size, "low": one.low, "high": one.high},
            }
            for one in study.crossings
        ],
        "claims": [_claim(answer) for answer in study.answers],
        "trials": {
            "all": study.counts.trials,
            "ok": study.counts.ok,
            "failed": study.counts.failed,
            "refused": study.counts.refused,
            "disturbed": study.counts.disturbed,
        },
        "missing": [{"label": label, "reason": reason} for label, reason in study.missing],
        "notes": study.notes,
    }


def of_claims(answers: Iterable[Answer], control: Control) -> dict[str, Any]:
    """The claims of a study alone."""
    return {"version": VERSION, "control": _control(control), "claims": [_claim(answer) for answer in answers]}


def _context(context: Context) -> dict[str, Any]:
    found = context.resolution
    return {
        "levels": dict(context.levels),
        "label": naming.label(context.levels),
        "metric": context.metric,
        "design": list(found.designs) if found else [],
        "resolution_percent": {"median": _number(found.median), "largest": _number(found.largest)} if found else None,
        "unbeaten": [cell.label for cell in context.leaders],
        "cells": [_cell(context, cell) for cell in context.cells],
    }


def _cell(context: Context, cell: Cell) -> dict[str, Any]:
    """The cell in the metric of its context, and then in all metrics."""
    in_metrics = {
        metric: {
            "value": measured.value.value,
            "ratio": of_estimate(measured.ratio),
            "difference_us": of_estimate(measured.difference),
            "verdict": measured.verdict,
        }
        for metric, measured in cell.measurements.items()
    }
    nothing = {"value": None, "ratio": None, "difference_us": None, "verdict": ""}
    above = cell.above_floor
    return {
        "label": cell.label,
        "levels": dict(cell.design),
        "baseline": cell.baseline,
        "floor": cell.floor,
        "trials": cell.trials,
        "disturbed": cell.disturbed,
        **in_metrics.get(context.metric, nothing),
        "above_floor": {"floor": above.floor, "difference_us": of_estimate(above.micros)} if above else None,
        "metrics": in_metrics,
    }


def _control(control: Control) -> dict[str, Any]:
    return {
        "off": control.off,
        "pairs": [{"label": label, "ratio": of_estimate(ratio)} for label, ratio in control.checks],
    }


def _claim(answer: Answer) -> dict[str, Any]:
    findings = [
        {
            "levels": dict(finding.levels),
            "label": finding.label,
            "ratio": of_estimate(finding.ratio),
            "outcome": finding.outcome,
            "reason": finding.reason,
        }
        for finding in answer.findings
    ]
    return of_answer(answer.claim, answer.outcome, answer.reason, findings)


def of_answer(claim: Claim, outcome: str, reason: str, findings: list[dict[str, Any]]) -> dict[str, Any]:
    """A claim and the answer to it. findings: as plain values."""
    return {
        "text": claim.text,
        "metric": claim.metric,
        "test": dict(claim.test),
        "baseline": dict(claim.baseline),
        "expect": claim.expect,
        "outcome": outcome,
        "reason": reason,
        "findings": findings,
    }


def of_estimate(one: Estimate | None) -> dict[str, Any] | None:
    """Ends where there is no interval are null: also the 0 that a ratio without one has."""
    if one is None:
        return None
    low, high = (one.low, one.high) if one.bounded else (None, None)
    return {"value": one.value, "low": low, "high": high, "blocks": one.n, "level": one.level}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _worst(percents: list[float]) -> float | None:
    return _number(max(percents)) if percents else None
