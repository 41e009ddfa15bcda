"""Metrics from the log-likelihoods of choices."""

import math

import pytest

from sparta.errors import SpartaError
from sparta.grading.likelihood import accuracy, mc1, mc2


def logs(*probabilities: float) -> dict[str, float]:
    return {label: math.log(p) for label, p in zip("ABCDE", probabilities, strict=False)}


def test_mc1_weighs_the_best_right_choice_against_the_wrong_ones_alone() -> None:
    assert mc1(logs(0.3, 0.5, 0.2), "A", {"A", "B"}) == 1.0  # B is right too, and does not compete
    assert mc1(logs(0.3, 0.5, 0.2), "A", {"A"}) == 0.0
    assert mc1(logs(0.3, 0.5, 0.2), "C", {"B", "C"}) == 0.0
    assert mc1(logs(0.4, 0.4, 0.2), "A", {"A"}) == 0.0  # a tie


def test_mc2_is_the_share_of_the_right_choices() -> None:
    assert mc2(logs(0.3, 0.5, 0.2), {"A", "C"}) == pytest.approx(0.5, abs=1e-12)
    assert mc2(logs(0.03, 0.05, 0.02), ["A", "A", "C"]) == pytest.approx(0.5, abs=1e-12)
    assert mc2(logs(0.3, 0.5, 0.2), {"A", "B", "C"}) == pytest.approx(1, abs=1e-12)


def test_sums_as_low_as_a_long_choice_s_are_safe() -> None:
    low = {"A": -5000.0, "B": -5000.0 + math.log(3), "C": -math.inf}
    assert mc2(low, {"A"}) == pytest.approx(0.25, abs=1e-12)
    assert mc2({"A": -1e6, "B": -2e6}, {"B"}) == 0.0
    assert mc1(low, "B", {"B"}) == 1.0


def test_accuracy_is_whether_a_right_choice_is_the_likeliest() -> None:
    assert accuracy(logs(0.3, 0.5, 0.2), {"B"}) == 1.0
    assert accuracy(logs(0.3, 0.5, 0.2), {"A", "B"}) == 1.0
    assert accuracy(logs(0.3, 0.5, 0.2), {"A", "C"}) == 0.0
    assert accuracy(logs(0.4, 0.4, 0.2), {"A"}) == 0.0


def test_labels_and_log_likelihoods_that_cannot_be_graded_are_refused() -> None:
    with pytest.raises(SpartaError, match="right choices of an item are D"):
        mc2(logs(0.5, 0.5), {"D"})
    with pytest.raises(SpartaError, match=r"right choices of an item are \(none\)"):
        accuracy(logs(0.5, 0.5), set())
    with pytest.raises(SpartaError, match="choice A is nan"):
        mc1({"A": math.nan, "B": -1.0}, "B", {"B"})
    with pytest.raises(SpartaError, match="probability zero"):
        mc2({"A": -math.inf, "B": -math.inf}, {"A"})
