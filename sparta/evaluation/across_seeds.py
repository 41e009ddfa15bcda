"""Comparisons of two configurations that ran with several seeds each: paired differences with an interval, and Holm's correction.

The items of all seeds are the same, so their draw counts once, however many seeds there are: seeds and items are crossed.

Everything is deterministic for a seed. Units are those of the metric.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, TypeVar

from sparta.errors import SpartaError

if TYPE_CHECKING:
    from numpy import float64
    from numpy.random import Generator
    from numpy.typing import NDArray

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

    Two intervals, of which the wider counts, and p is the larger of theirs:
    - the percentile interval of a bootstrap that draws seeds and, once for all of them, item ids. A drawn id counts in the seeds that have it. p is twice
      the smaller share of resamples on either side of zero. Its spread over few seeds is too small.
    - for two seeds or more, the t interval of the seeds' means with one degree of freedom fewer than seeds, where they differ. It knows nothing of items.
    With one seed, only items are drawn. Raises SpartaError where there is no seed, or one without a common item.
    """
    import numpy as np

    if not a or len(a) != len(b):
        raise SpartaError(
            "two configurations without a common seed cannot be compared: run both with the same seeds"
        )
    differences = [
        {item: ours[item] - theirs[item] for item in sorted(ours.keys() & theirs.keys())}
        for ours, theirs in zip(a, b, strict=True)
    ]
    if not all(differences):
        raise SpartaError(
            "two cells of one seed have no scored item in common, so they cannot be compared: score both on the same items"
        )
    of_seeds = [fmean(each.values()) for each in differences]
    mean, count, items = fmean(of_seeds), len(of_seeds), sum(map(len, differences))
    if not any(value for each in differences for value in each.values()):
        return SeededDifference(mean, 0.0, 0.0, 1.0, count, items)
    means = _resampled(differences, np.random.default_rng(seed))
    # Sums of the same numbers in another order differ in the last digit.
    tiny = 1e-12 * max(1.0, float(np.abs(means).max()))
    low, high = (float(end) for end in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
    below, above = (int((means <= tiny).sum()), int((means >= -tiny).sum()))
    p = min(1.0, 2 * (1 + min(below, above)) / (len(means) + 1))
    error = stdev(of_seeds) / math.sqrt(count) if count > 1 else 0.0
    if error > tiny:
        from scipy.stats import t

        half = error * float(t.ppf((1 + level) / 2, count - 1))
        if 2 * half > high - low:
            low, high = mean - half, mean + half
        p = max(p, 2 * float(t.sf(abs(mean) / error, count - 1)))
    return SeededDifference(mean, low, high, p, count, items)


def _resampled(differences: Sequence[Mapping[str, float]], dice: "Generator") -> "NDArray[float64]":
    """The difference in each resample: the mean over drawn seeds of the mean over drawn items that the seed has.

    A drawn seed that has none of the drawn items counts as not drawn; a resample without any is left out.
    """
    import numpy as np

    ids = sorted({item for each in differences for item in each})
    known = np.array([[item in each for item in ids] for each in differences], dtype=float)
    values = np.array([[each.get(item, 0.0) for item in ids] for each in differences])
    count, size = values.shape
    made, step = [], max(1, _BATCH_VALUES // size)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        items, seeds = (_times_drawn(rows, of, dice) for of in (size, count))
        there = items @ known.T
        of_seeds = np.divide(items @ values.T, there, out=np.zeros_like(there), where=there > 0)
        weight = np.where(there > 0, seeds, 0.0)
        total = weight.sum(axis=1)
        usable = total > 0
        made.append((of_seeds * weight).sum(axis=1)[usable] / total[usable])
    return np.concatenate(made)


def _times_drawn(rows: int, of: int, dice: "Generator") -> "NDArray[float64]":
    """[rows, of]: how often each of `of` things comes in as many draws with replacement."""
    import numpy as np

    drawn = dice.integers(of, size=(rows, of)) + of * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * of).reshape(rows, of).astype(float)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p values adjusted for all comparisons of the family together (Holm 1979): the chance of any false finding stays below the level."""
    adjusted, before = dict[Key, float](), 0.0
    ordered = sorted(p_values, key=lambda key: p_values[key])
    for place, key in enumerate(ordered):
        before = max(before, min(1.0, (len(ordered) - place) * p_values[key]))
        adjusted[key] = before
    return {key: adjusted[key] for key in p_values}
