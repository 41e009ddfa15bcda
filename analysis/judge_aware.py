"""Bradley-Terry with judges of different discrimination, on the votes of combats. Pure: arrays in, arrays out.

    P(judge k prefers the first of two) = sigmoid(gamma_k (theta_first - theta_second))

gamma_k is the discrimination of judge k: 0 for one that guesses, negative for one that prefers what the others reject (Xu, Tan, Wu and Zhou 2026, "A
Judge-Aware Ranking Framework for Evaluating Large Language Models without Ground Truth", arXiv 2601.21817). Fitted twice:

- by model (`strengths`): theta is a model's strength. For standings.
- by combat (`labels`): every combat has a gap delta = theta_first - theta_second of its own, delta ~ N(0, 1), as items have a difficulty in the
  two-parameter model of item response theory (Birnbaum 1968). gamma maximises the marginal likelihood (Bock and Aitkin 1981). For labels.

A judge prefers the response that it scored higher; an equal score is half a preference for each. gamma_k ~ N(1, 2^2) and theta ~ N(0, 1) keep everything finite, and say
that more judges are right than wrong: without it, all signs could be flipped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PRIOR_MEAN, PRIOR_DEVIATION = 1.0, 2.0
"""Of the judges' discrimination."""
NODES = 41
"""Of the quadrature over delta."""


@dataclass(frozen=True)
class Strengths:
    """strengths: [m], theta, their mean is 0. discriminations: [m], gamma."""

    strengths: "Floats"
    discriminations: "Floats"


@dataclass(frozen=True)
class CombatGaps:
    """gaps: [n], the posterior mean of delta, positive where the first response is better, 0 without a vote. deviations: [n]. discriminations: [m]."""

    gaps: "Floats"
    deviations: "Floats"
    discriminations: "Floats"


def preferences_in(votes: "Floats", contestants: Sequence[tuple[int, int]]) -> "Floats":
    """[n, m]: 1 where the judge scored the first response higher, 0 the second, 0.5 equal, NaN where a vote is missing or it is a contestant.

    votes: [n, 2, m], score points, NaN where missing.
    """
    import numpy as np

    gap = votes[:, 0, :] - votes[:, 1, :]
    preferred = np.where(np.isnan(gap), np.nan, (np.sign(gap) + 1) / 2)
    for n, pair in enumerate(contestants):
        preferred[n, list(pair)] = np.nan
    return preferred


def labels(preferred: "Floats") -> CombatGaps:
    """The gap of every combat. preferred: [n, m], see `preferences_in`."""
    import numpy as np
    from scipy.optimize import minimize

    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    log_weights = np.log(weights / weights.sum())
    judged = ~np.isnan(preferred)
    first = np.where(judged, preferred, 0.0)

    def posterior(gamma: "Floats") -> tuple["Floats", "Floats"]:
        """[n] log of the marginal likelihood, [n, nodes] the posterior of delta."""
        pulls = gamma[:, None] * nodes
        logs = log_weights + first @ _log_sigmoid(pulls) + (judged - first) @ _log_sigmoid(-pulls)
        most = logs.max(axis=1, keepdims=True)
        shares = np.exp(logs - most)
        total = shares.sum(axis=1, keepdims=True)
        return (most + np.log(total))[:, 0], shares / total

    def loss(gamma: "Floats") -> tuple[float, "Floats"]:
        marginal, shares = posterior(gamma)
        expected = _sigmoid(gamma[:, None] * nodes)
        slope = ((first.T @ shares) * nodes - (judged.T @ shares) * nodes * expected).sum(axis=1)
        away = (gamma - PRIOR_MEAN) / PRIOR_DEVIATION**2
        return float((gamma - PRIOR_MEAN) @ away / 2 - marginal.sum()), away - slope

    start = np.full(preferred.shape[1], PRIOR_MEAN)
    gamma = np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)
    shares = posterior(gamma)[1]
    gaps = np.where(judged.any(axis=1), shares @ nodes, 0.0)
    deviations = np.sqrt(np.maximum(shares @ nodes**2 - gaps**2, 0.0))
    return CombatGaps(gaps, deviations, gamma)


def strengths(preferred: "Floats", contestants: Sequence[tuple[int, int]]) -> Strengths:
    """The strength of every model. preferred: [n, m], see `preferences_in`; contestants: [n], as indices of models, who are the judges too."""
    import numpy as np
    from scipy.optimize import minimize

    m = preferred.shape[1]
    pairs = np.asarray(contestants, dtype=int).reshape(-1, 2)
    combats, judges = np.nonzero(~np.isnan(preferred))
    one, other = pairs[combats, 0], pairs[combats, 1]
    share = preferred[combats, judges]

    def loss(found: "Floats") -> tuple[float, "Floats"]:
        theta, gamma = found[:m], found[m:]
        gap = theta[one] - theta[other]
        pull = gamma[judges] * gap
        likelihood = share * _log_sigmoid(pull) + (1 - share) * _log_sigmoid(-pull)
        miss = share - _sigmoid(pull)
        step = np.bincount(one, miss * gamma[judges], m) - np.bincount(other, miss * gamma[judges], m)
        away = (gamma - PRIOR_MEAN) / PRIOR_DEVIATION**2
        value = theta @ theta / 2 + (gamma - PRIOR_MEAN) @ away / 2 - likelihood.sum()
        return float(value), np.concatenate([theta - step, away - np.bincount(judges, miss * gap, m)])

    start = np.concatenate([np.zeros(m), np.full(m, PRIOR_MEAN)])
    found = np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)
    return Strengths(found[:m] - found[:m].mean(), found[m:])


def _log_sigmoid(x: "Floats") -> "Floats":
    import numpy as np

    return np.asarray(-np.logaddexp(0.0, -x))


def _sigmoid(x: "Floats") -> "Floats":
    import numpy as np

    return np.exp(_log_sigmoid(x))
