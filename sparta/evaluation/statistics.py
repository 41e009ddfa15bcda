"""The uncertainty of scores: an interval for a mean, and a paired test between two checkpoints. Both are deterministic for a seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparta.errors import SpartaError

RESAMPLES = 9999
_BATCH = 100
"""Resamples at a time: memory for a hundred copies of the values."""


@dataclass(frozen=True)
class Paired:
    """A paired test. difference: mean of a - b over the common items. p: two-sided. n: number of common items."""

    difference: float
    p: float
    n: int


def interval(values: Sequence[float], seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of the percentile bootstrap interval of the mean of `values`, in their unit.

    If all values are equal, both ends are that value. Raises SpartaError if there are no values.
    """
    import numpy as np
    from scipy.stats import bootstrap

    if not values:
        raise SpartaError("there are no scores to compute an interval from: score at least one item")
    if min(values) == max(values):
        return float(values[0]), float(values[0])
    done = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(done.confidence_interval.low), float(done.confidence_interval.high)


def paired(a: Mapping[str, float], b: Mapping[str, float], seed: int = 0) -> Paired:
    """The difference of a's and b's scores on their common items (by id), with a two-sided permutation test that flips signs of differences.

    With few items all sign flips are tried, else 9,999 random ones; p is never zero. Raises SpartaError if there is no common item.
    """
    import numpy as np
    from scipy.stats import permutation_test

    common = sorted(a.keys() & b.keys())
    if not common:
        raise SpartaError(
            "two checkpoints have no scored item in common, so they cannot be compared: score both on the same items"
        )
    differences = np.array([a[item] - b[item] for item in common], dtype=float)
    if len(common) == 1 or not differences.any():
        return Paired(float(differences.mean()), 1.0, len(common))
    done = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    return Paired(float(differences.mean()), float(done.pvalue), len(common))
