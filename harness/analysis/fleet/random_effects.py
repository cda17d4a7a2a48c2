"""A random-effects summary of one figure that several hosts measured: its mean, its spread, and the next host's value.

Each host has a value of its own, drawn from a normal distribution with mean mu and standard deviation tau, and measures
it with an error whose variance it estimates. Values are logarithms of ratios, so tau 0.1 is about 10 %.

tau: Paule & Mandel 1982, "Consensus Values and Weighting Factors". The tau^2 at which the weighted squares of the
distances of hosts to their mean are as many as chance gives, k - 1; 0 where they are fewer already.

Mean: its interval is that of Hartung & Knapp 2001, "On tests of the overall treatment effect in meta-analysis with
normally distributed responses", Student's t with k - 1 degrees of freedom, and never narrower than with the variance
1 / sum(weights) (Knapp & Hartung 2003). It holds with few hosts, where the usual normal quantile does not (IntHout,
Ioannidis & Borm 2014). Their factor, the weighted squares over k - 1, is 1 by Paule and Mandel's equation where tau is
above 0, and below 1 where it is 0. So with that bound the standard error is just that of the weights.

Prediction: where the ratio of one more host lies, drawn like these (Higgins, Thompson & Spiegelhalter 2009, "A
re-evaluation of random-effects meta-analysis"), Student's t with k - 1 degrees of freedom as for the mean. Its variance
has the error of a typical host as well, so it is also where a run of this study on the next host ends up. Without
that, it misses too often where tau is not far above the errors: few hosts then often give a tau of 0.

Q: the weighted squares at tau = 0 (Cochran 1954). I^2: the share of the hosts' scatter that is not the error of a
typical host (Higgins & Thompson 2002, "Quantifying heterogeneity in a meta-analysis", where the typical error is).

docs/decisions/0028-fleet-analysis.md has the simulations: how often these intervals hold with 3 to 30 hosts.
"""

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from scipy.special import chdtrc, stdtrit

from harness.analysis.intervals import CONFIDENCE, Estimate

LEAST_TO_PREDICT = 3  # hosts

_Array = NDArray[Any]


@dataclass(frozen=True)
class Summary:
    """What hosts say together of a ratio. ratio: the mean over hosts like these, at the level that was asked for.
    prediction: the ratio on the next host like these, at 95 %. Both have as `n` the number of hosts.

    tau: standard deviation of the hosts' log ratios. i2: share of their scatter that is no error, 0 to 1. q: Cochran's
    Q. p: how often a Q as large or larger comes up where all hosts have the same ratio.
    """

    ratio: Estimate
    prediction: Estimate
    tau: float
    i2: float
    q: float
    p: float


def summary(logs: _Array, variances: _Array, level: float = CONFIDENCE, apart: bool = True) -> Summary | None:
    """The summary of hosts' log ratios, with the variances of these. None where there is no host. Those whose variance
    is 0 or unknown must not be among them. apart: whether each host is a machine of its own; else nothing is predicted
    of the next one."""
    k = len(logs)
    if not k:
        return None
    tau2 = paule_mandel(logs, variances)
    weights = 1 / (variances + tau2)
    mean, error = float(weights @ logs / weights.sum()), math.sqrt(1 / weights.sum())
    typical = _typical(variances)
    beyond = math.sqrt(error**2 + tau2 + typical) if apart and k >= LEAST_TO_PREDICT else math.inf
    q = squares(logs, variances, 0.0)
    return Summary(
        ratio=_ratio(mean, error if k > 1 else math.inf, k, level),
        prediction=_ratio(mean, beyond, k, CONFIDENCE),
        tau=math.sqrt(tau2),
        i2=tau2 / (tau2 + typical),
        q=q,
        p=float(chdtrc(k - 1, q)) if k > 1 else 1.0,
    )


def _ratio(mean: float, error: float, hosts: int, level: float) -> Estimate:
    if math.isinf(error):
        return Estimate(math.exp(mean), 0.0, math.inf, hosts, level)
    half = float(stdtrit(hosts - 1, (1 + level) / 2)) * error
    low, high = (math.exp(max(-700.0, min(end, 700.0))) for end in (mean - half, mean + half))
    return Estimate(math.exp(mean), low, high, hosts, level)


def _typical(variances: _Array) -> float:
    """The error of a typical host, as a variance."""
    k, weights = len(variances), 1 / variances
    if k == 1:
        return float(variances[0])
    return float((k - 1) * weights.sum() / (weights.sum() ** 2 - weights @ weights))


def squares(logs: _Array, variances: _Array, tau2: float) -> float:
    """The weighted squares of the distances of hosts to their mean."""
    weights = 1 / (variances + tau2)
    mean = weights @ logs / weights.sum()
    return float(weights @ (logs - mean) ** 2)


def paule_mandel(logs: _Array, variances: _Array) -> float:
    """tau^2. The weighted squares fall as it grows, so Newton's steps from 0 never overshoot (DerSimonian & Kacker
    2007)."""
    wanted, tau2 = len(logs) - 1, 0.0
    for _ in range(200):
        weights = 1 / (variances + tau2)
        away = logs - weights @ logs / weights.sum()
        over = float(weights @ away**2) - wanted
        if over <= 1e-9 * max(wanted, 1):
            break
        tau2 += over / float(weights**2 @ away**2)
    return tau2
