"""The uncertainty of scores."""

import random
import statistics

import pytest

from sparta.errors import SpartaError
from sparta.evaluation.statistics import interval, paired


def test_an_interval_is_about_as_wide_as_theory_says() -> None:
    stream = random.Random(1)
    values = [stream.gauss(5, 2) for _ in range(400)]
    low, high = interval(values)
    half = 1.96 * statistics.stdev(values) / 20
    assert low == pytest.approx(statistics.mean(values) - half, abs=0.03)
    assert high == pytest.approx(statistics.mean(values) + half, abs=0.03)
    narrow = interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_an_interval_repeats_for_its_seed_and_stays_within_the_values() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert interval(values, seed=3) == interval(values, seed=3)
    assert all(0 <= end <= 1 for end in interval(values))


def test_constant_values_and_one_value_have_no_width() -> None:
    assert interval([0.1] * 7) == (0.1, 0.1)
    assert interval([3]) == (3, 3)


def test_no_values_are_refused() -> None:
    with pytest.raises(SpartaError, match="no scores"):
        interval([])


def items(values: list[float]) -> dict[str, float]:
    return {f"q{index}": value for index, value in enumerate(values)}


def test_a_clear_difference_is_found_and_its_sign_is_a_minus_b() -> None:
    better, worse = items([1.0] * 30 + [0.0] * 30), items([1.0] * 10 + [0.0] * 50)
    found = paired(better, worse)
    assert found.difference == pytest.approx(1 / 3, abs=1e-12)
    assert found.n == 60
    assert found.p < 0.001
    back = paired(worse, better)
    assert back.difference == pytest.approx(-found.difference, abs=1e-12)
    assert back.p == pytest.approx(found.p, abs=1e-3)


def test_few_items_are_tested_exactly() -> None:
    # Of 2^3 = 8 ways to give signs to three equal differences, two are as extreme.
    assert paired(items([1, 1, 1]), items([0, 0, 0])).p == 0.25
    # Differences 1, 1, -1: only the ways with two plus and one minus or reverse, and the extreme ones: all eight.
    assert paired(items([1, 1, 0]), items([0, 0, 1])).p == 1.0
    assert paired(items([1]), items([0])).p == 1.0


def test_only_common_items_count() -> None:
    found = paired({"a": 1.0, "b": 0.0, "x": 9.0}, {"b": 0.0, "a": 0.0, "y": -9.0})
    assert (found.n, found.difference) == (2, 0.5)
    with pytest.raises(SpartaError, match="no scored item in common"):
        paired({"a": 1.0}, {"b": 1.0})


def test_equal_scores_do_not_differ() -> None:
    found = paired(items([0.1, 0.7, 1.0]), items([0.1, 0.7, 1.0]))
    assert (found.difference, found.p, found.n) == (0.0, 1.0, 3)


def test_under_the_null_p_is_about_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparta.evaluation.statistics.RESAMPLES", 499)
    stream = random.Random(5)
    found = []
    for _ in range(300):
        a, b = ([stream.gauss(0, 1) for _ in range(25)] for _ in range(2))
        found.append(paired(items(a), items(b), seed=7).p)
    # 300 draws: a share of p has a standard error of at most 0.029.
    for level in (0.05, 0.25, 0.5, 0.75):
        assert sum(p <= level for p in found) / 300 == pytest.approx(level, abs=0.09)


def test_a_test_repeats_for_its_seed() -> None:
    stream = random.Random(2)
    a, b = (items([stream.random() for _ in range(40)]) for _ in range(2))
    assert paired(a, b, seed=1) == paired(a, b, seed=1)
