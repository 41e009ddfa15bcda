"""Comparisons of two configurations that ran with several seeds each: paired differences with a bootstrap, and Holm's correction.

Everything is deterministic for a seed. Units are those of the metric.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from sparta.errors import SpartaError

RESAMPLES = 9999
_BATCH_VALUES = 2_000_000
"""Values drawn at a time, which bounds the memory."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class SeededDifference:
    """difference: mean over seeds of the mean over items of a - b. low, high: its 95 % interval. p: two-sided, never zero. seeds: how many; items: in all
    seeds together.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int
    items: int


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation (ddof 1) over seeds; None for fewer than two."""
    return stdev(values) if len(values) > 1 else None


def difference_over_seeds(
    a: Sequence[Mapping[str, float]], b: Sequence[Mapping[str, float]], seed: int = 0, level: float = 0.95
) -> SeededDifference:
    """The paired difference of a's and b's scores. a[i] and b[i] are scores by item id, of the same seed; items that both have are paired.

    The interval is the percentile interval of a bootstrap on two levels: seeds are drawn with replacement, and for each drawn seed its items are.
    With one seed, only items are drawn. p is twice the smaller share of resamples on either side of zero. Raises SpartaError where there is no
    seed, or one without a common item.
    """
    import numpy as np

    if not a or len(a) != len(b):
        raise SpartaError(
            "two configurations without a common seed cannot be compared: run both with the same seeds"
        )
    pairs = [sorted(ours.keys() & theirs.keys()) for ours, theirs in zip(a, b, strict=True)]
    if not all(pairs):
        raise SpartaError(
            "two cells of one seed have no scored item in common, so they cannot be compared: score both on the same items"
        )
    differences = [
        np.array([ours[item] - theirs[item] for item in items], dtype=float)
        for ours, theirs, items in zip(a, b, pairs, strict=True)
    ]
    mean, count = fmean(float(each.mean()) for each in differences), len(differences)
    items = sum(map(len, pairs))
    if not any(each.any() for each in differences):
        return SeededDifference(mean, 0.0, 0.0, 1.0, count, items)
    dice = np.random.default_rng(seed)
    total = np.zeros(RESAMPLES)
    for _ in range(count):
        drawn = dice.integers(count, size=RESAMPLES)
        for number, values in enumerate(differences):
            [rows] = np.nonzero(drawn == number)
            batch = max(1, _BATCH_VALUES // len(values))
            for first in range(0, len(rows), batch):
                part = rows[first : first + batch]
                total[part] += values[dice.integers(len(values), size=(len(part), len(values)))].mean(axis=1)
    means = total / count
    # Sums of the same numbers in another order differ in the last digit.
    tiny = 1e-12 * max(1.0, float(np.abs(means).max()))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    below, above = (int((means <= tiny).sum()), int((means >= -tiny).sum()))
    p = min(1.0, 2 * (1 + min(below, above)) / (RESAMPLES + 1))
    return SeededDifference(mean, float(low), float(high), p, count, items)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p values adjusted for all comparisons of the family together (Holm 1979): the chance of any false finding stays below the level."""
    adjusted, before = dict[Key, float](), 0.0
    ordered = sorted(p_values, key=lambda key: p_values[key])
    for place, key in enumerate(ordered):
        before = max(before, min(1.0, (len(ordered) - place) * p_values[key]))
        adjusted[key] = before
    return {key: adjusted[key] for key in p_values}
