"""Claims: what an experiment expects, written before it runs.

    claims:
      - text: sendfile beats shared memory, because the proxy stops copying
        metric: requests_per_s          # any column of numbers in trials.csv
        test: {data: sendfile}          # factors, by their names in experiment files or in the CSV
        baseline: {data: posix_shm}
        where: {files: [1024, 102400]}  # optional: only these levels; each is a context of its own
        expect: higher                  # or: lower, "> 1.05", "< 0.9", "within 5%"

A claim is about the ratio of test to baseline. It is supported where the whole interval of the ratio lies within
what is expected, refuted where the whole interval lies outside, and undecided where the interval straddles the bound.

`Claim` is the only form of a claim after the YAML file: `read` makes one of a mapping, `dataclasses.asdict` makes the
mapping again, and both the plan and the judgements use it. harness.analysis.judgements answers claims.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from harness.factors import FACTORS, OFFERED
from harness.results import RENAMED_SINCE_2, Trial
from harness.suggest import unknown

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"

METRICS = [name for name, kind in get_type_hints(Trial).items() if kind in (int, float) and name not in FACTORS]
# The factors that one may name, and what schema 2 called them.
_NAMES = {**{old: new for old, new in RENAMED_SINCE_2.items() if new in FACTORS}, **{name: name for name in OFFERED}}
_ONLY_WITH_CACHE = {name for name, factor in FACTORS.items() if factor.only == {"source": "cache"}}
_NUMBER = r"(\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class Claim:
    """One claim. test, baseline: column -> value. where: column -> the values that the claim is about.

    Factors may be given by their names in experiment files, and values as YAML reads them: both are converted to what
    trials.csv has. Raises ValueError, one line, where no trials could answer the claim.
    """

    text: str
    metric: str
    test: Mapping[str, Any]
    baseline: Mapping[str, Any]
    where: Mapping[str, list[Any]] = field(default_factory=dict)
    expect: str = "higher"

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(unknown("metric", self.metric, METRICS))
        region(self.expect)
        for name in ("test", "baseline"):
            object.__setattr__(self, name, levels(name, getattr(self, name)))
        where = {}
        for factor, values in _mapping("where", self.where).items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"where: {factor}: write a list of values")
            pairs = [_level("where", factor, value) for value in values]
            where[pairs[0][0]] = [value for _, value in pairs]
        object.__setattr__(self, "where", where)
        if both := where.keys() & {*self.test, *self.baseline}:
            raise ValueError(f"where: {', '.join(sorted(both))}: is in test or baseline, too; remove one of them")
        if self.test == self.baseline:
            raise ValueError("test and baseline are the same")
        unlike = set(self.test) ^ set(self.baseline)
        # Where the sources differ, one side has no cache, and so none of the cache's factors.
        other_source = self.test.get("source") != self.baseline.get("source")
        if unlike and not (other_source and unlike <= _ONLY_WITH_CACHE | {"source"}):
            raise ValueError(f"test and baseline must name the same factors; {', '.join(sorted(unlike))}: only in one")


def read(given: Any) -> Claim:
    """The claim that a mapping describes: an item of `claims:` in an experiment, or what `dataclasses.asdict` makes of
    a claim. Raises ValueError, one line."""
    keys = [one.name for one in fields(Claim)]
    for name in _mapping("a claim", given):
        if name not in keys:
            raise ValueError(unknown("key", name, keys))
    for name in keys:
        if name != "where" and given.get(name) in (None, "", {}):
            raise ValueError(f"{name}: is missing")
    metric = given["metric"]
    if metric not in METRICS:  # one of schema 2
        metric = RENAMED_SINCE_2.get(metric, metric)
    return Claim(**{**given, "text": str(given["text"]), "metric": metric, "where": given.get("where") or {}})


def of_experiment(experiment: Mapping[str, Any]) -> list[Claim]:
    """The claims of a resolved experiment. Raises ValueError, one line."""
    return [read(one) for one in experiment.get("claims") or []]


def region(expect: str) -> tuple[float, float]:
    """The expected ratios as an open interval: `higher` is (1, infinity). Raises ValueError.

    "within 5%" is 1/1.05 to 1.05, so that it means the same for test to baseline and for baseline to test.
    """
    if expect == "higher":
        return 1.0, math.inf
    if expect == "lower":
        return 0.0, 1.0
    if found := re.fullmatch(rf"([<>])\s*{_NUMBER}", str(expect).strip()):
        bound = float(found[2])
        if bound > 0:
            return (bound, math.inf) if found[1] == ">" else (0.0, bound)
    if found := re.fullmatch(rf"within\s+{_NUMBER}\s*%", str(expect).strip()):
        bound = 1 + float(found[1]) / 100
        if bound > 1:
            return 1 / bound, bound
    raise ValueError(f'expect: {expect!r}: write higher, lower, "> 1.05", "< 0.9" or "within 5%"')


def outcome(expect: str, low: float, high: float) -> str:
    """Whether the interval low to high of the ratio supports or refutes the claim. 0 to infinity never does."""
    least, most = region(expect)
    if (low > least or least == 0) and (high < most or most == math.inf):
        return SUPPORTED
    return REFUTED if high <= least or low >= most else UNDECIDED


def levels(what: str, given: Any) -> dict[str, Any]:
    """A mapping of factors to values, converted to columns and values of trials.csv. what: the key in the experiment
    that it stands under, for the message. Raises ValueError, one line."""
    return dict(_level(what, factor, value) for factor, value in _mapping(what, given).items())


def _mapping(what: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{what}: write `name: value` lines")
    return given


def _level(what: str, name: str, value: Any) -> tuple[str, Any]:
    if name not in _NAMES:
        raise ValueError(unknown("factor", name, OFFERED))
    kind = type(FACTORS[_NAMES[name]].default)
    try:
        return _NAMES[name], _converted(kind, value)
    except ValueError:
        raise ValueError(f"{what}: {name}: {value!r} is no {_KINDS[kind]}") from None


_KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def _converted(kind: type, value: Any) -> Any:
    """A level in the type of its factor. Raises ValueError where it is not one."""
    if isinstance(value, list | dict):
        raise ValueError
    if kind is bool:
        if value not in (True, False):
            raise ValueError
        return bool(value)
    if kind is str:
        # YAML reads an unquoted null as nothing; here it can only be the transport of that name.
        return "null" if value is None else str(value)
    number = kind(str(int(value) if isinstance(value, bool) else value))
    if not math.isfinite(number):
        raise ValueError
    return number
