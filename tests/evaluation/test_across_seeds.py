"""Paired differences over seeds, and Holm's correction."""

import math
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


def test_few_seeds_have_the_t_interval_of_their_means() -> None:
    # Every item of a seed differs by the same, so only seeds count. Two seeds with 3 and -1: mean 1, standard error 2, and t(0.975, 1) is 12.706.
    found = difference_over_seeds([items([3.0] * 50), items([-1.0] * 50)], [items([0.0] * 50)] * 2)
    assert (found.low, found.high) == pytest.approx((1 - 2 * 12.7062, 1 + 2 * 12.7062), rel=1e-4)
    # t with one degree of freedom is Cauchy's: P(|T| > 1/2) = 1 - 2 atan(1/2) / pi.
    assert found.p == pytest.approx(1 - 2 * math.atan(0.5) / math.pi, abs=1e-9)


def test_the_draw_of_items_is_one_for_all_seeds() -> None:
    # The seeds agree on every item, so more seeds tell nothing new: the interval is that of one seed.
    values = list(np.random.default_rng(5).normal(0.2, 1, size=100))
    zero = items([0.0] * 100)
    one = difference_over_seeds([items(values)], [zero])
    ten = difference_over_seeds([items(values)] * 10, [zero] * 10)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.05)
    assert ten.p == pytest.approx(one.p, abs=0.02)


def test_seeds_may_have_scores_of_different_items() -> None:
    stream = np.random.default_rng(6)
    values = [dict(enumerate(stream.normal(size=60))) for _ in range(5)]
    some = [
        {f"q{key}": value for key, value in each.items() if (key + n) % 6} for n, each in enumerate(values)
    ]
    found = difference_over_seeds(some, [items([0.0] * 60)] * 5)
    assert found.items == 5 * 50
    assert found.difference == pytest.approx(np.mean([np.mean(list(each.values())) for each in some]))
    assert found.low < found.difference < found.high
    # Items that no two seeds share: a resample may lack those of a seed.
    apart = difference_over_seeds([{"a": 1.0}, {"b": 3.0}], [{"a": 0.0}, {"b": 0.0}])
    assert (apart.difference, apart.items) == (2.0, 2) and apart.low <= 1 and apart.high >= 3


@pytest.mark.parametrize("of_items, of_seeds", [(1.0, 0.0), (0.0, 0.1), (1.0, 0.1)])
def test_without_any_effect_p_is_seldom_small_whether_items_or_seeds_differ(
    of_items: float, of_seeds: float
) -> None:
    stream = np.random.default_rng(8)
    zero, small = [items([0.0] * 60)] * 5, 0
    for _ in range(100):
        values = (
            of_items * stream.normal(size=60)
            + of_seeds * stream.normal(size=(5, 1))
            + 0.3 * stream.normal(size=(5, 60))
        )
        small += difference_over_seeds([items(list(each)) for each in values], zero).p < 0.05
    assert small <= 12


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
