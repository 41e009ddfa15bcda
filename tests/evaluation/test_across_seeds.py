"""Paired differences over seeds, and Holm's correction."""

import random
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import bootstrap

from sparta.errors import SpartaError
from sparta.evaluation.across_seeds import RESAMPLES, difference_over_seeds, holm, spread


def items(values: list[float]) -> dict[str, float]:
    return {f"q{index}": value for index, value in enumerate(values)}


def test_the_difference_is_the_mean_over_seeds_of_the_mean_over_items() -> None:
    ours = [items([1, 1, 0, 1]), items([1, 0])]
    theirs = [items([0, 1, 0, 0]), items([0, 0])]
    found = difference_over_seeds(ours, theirs)
    assert found.difference == pytest.approx((2 / 4 + 1 / 2) / 2, abs=1e-12)
    assert (found.seeds, found.items) == (2, 6)
    back = difference_over_seeds(theirs, ours)
    assert back.difference == pytest.approx(-found.difference, abs=1e-12)


def test_only_items_that_both_have_are_paired() -> None:
    found = difference_over_seeds([{"a": 1.0, "b": 0.0}], [{"a": 0.0, "c": 1.0}])
    assert (found.difference, found.items) == (1.0, 1)


def test_with_one_seed_the_interval_is_the_percentile_interval_of_the_paired_differences() -> None:
    stream = random.Random(3)
    values = [stream.gauss(0.3, 1) for _ in range(200)]
    found = difference_over_seeds([items(values)], [items([0.0] * 200)])
    theirs = bootstrap(
        (np.array(values),), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low == pytest.approx(theirs.low, abs=0.01)
    assert found.high == pytest.approx(theirs.high, abs=0.01)


def test_seeds_are_drawn_as_well_as_items() -> None:
    # Every item of a seed differs by the same, so only the draw of seeds counts: means are -1, 1 and 3 with shares 1/4, 1/2 and 1/4.
    ours = [items([3.0] * 50), items([-1.0] * 50)]
    found = difference_over_seeds(ours, [items([0.0] * 50)] * 2)
    assert (found.low, found.high) == (-1.0, 3.0)
    assert found.p == pytest.approx(2 * 0.25, abs=0.02)


def test_the_spread_of_the_resamples_has_both_parts() -> None:
    # The variance of the bootstrap mean: that of the seed means over S, and the mean of the items' variances over S n.
    stream = np.random.default_rng(5)
    differences = [stream.normal(mean, 1, size=40) for mean in (0.0, 0.5, 1.0, 1.5)]
    found = difference_over_seeds([items(list(each)) for each in differences], [items([0.0] * 40)] * 4)
    means = np.array([each.mean() for each in differences])
    variance = means.var() / 4 + np.mean([each.var() for each in differences]) / (4 * 40)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(variance**0.5, rel=0.06)


def test_p_is_never_zero_and_one_for_equal_scores() -> None:
    clear = difference_over_seeds([items([1.0] * 30)] * 3, [items([0.0] * 30)] * 3)
    assert clear.p == pytest.approx(2 / (RESAMPLES + 1), abs=1e-12)
    assert (clear.low, clear.high) == (1.0, 1.0)
    same = difference_over_seeds([items([1.0, 0.0])] * 3, [items([1.0, 0.0])] * 3)
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_without_any_effect_p_is_below_a_tenth_in_a_tenth_of_the_cases() -> None:
    stream = np.random.default_rng(7)
    found = [
        difference_over_seeds([items(list(stream.normal(size=60)))], [items([0.0] * 60)]).p
        for _ in range(200)
    ]
    assert 0.05 < sum(p < 0.1 for p in found) / 200 < 0.17


def test_the_same_call_gives_the_same_numbers() -> None:
    ours, theirs = [items([1.0, 0.0, 1.0])] * 2, [items([0.0, 0.0, 1.0])] * 2
    assert difference_over_seeds(ours, theirs) == difference_over_seeds(ours, theirs)


def test_seeds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpartaError, match="common seed"):
        difference_over_seeds([], [])
    with pytest.raises(SpartaError, match="no scored item in common"):
        difference_over_seeds([{"a": 1.0}], [{"b": 1.0}])


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04, which may not fall below the one before.
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert holm({"alone": 0.04}) == {"alone": 0.04}


def test_spread_is_the_sample_standard_deviation() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0]) == pytest.approx(float(Fraction(5, 3)) ** 0.5)
    assert spread([1.0]) is None
