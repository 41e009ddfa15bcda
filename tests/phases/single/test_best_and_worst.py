"""The best and the worst of a prompt's candidates: worked examples, and every reason why there is no pair."""

import pytest

from sparta.arena.rules import Preferences
from sparta.phases.single.best_and_worst import Choice, best_and_worst

RULES = Preferences()


def test_the_highest_score_against_the_lowest() -> None:
    assert best_and_worst(["a", "b", "c"], [5.0, 8.5, 3.0], RULES) == Choice(1, 2, "pair")


def test_of_equal_scores_the_first_candidate_counts() -> None:
    assert best_and_worst(["a", "b", "c", "d"], [7.0, 2.0, 7.0, 2.0], RULES) == Choice(0, 1, "pair")


def test_a_candidate_without_a_score_is_neither_best_nor_worst() -> None:
    assert best_and_worst(["a", "b", "c"], [None, 4.0, 6.0], RULES) == Choice(2, 1, "pair")


def test_an_empty_candidate_takes_no_part_even_with_a_score() -> None:
    assert best_and_worst(["a", " ", "c"], [4.0, 1.0, 6.0], RULES) == Choice(2, 0, "pair")


@pytest.mark.parametrize(
    ("answers", "scores", "reason"),
    [
        (["a", "", " "], [5.0, None, None], "empty"),
        (["", ""], [None, None], "empty"),
        (["a", "a ", "\na"], [5.0, 5.0, 5.0], "equal"),
        (["a", "a", ""], [5.0, 5.0, None], "equal"),
        (["a", "b"], [5.0, None], "void"),
        (["a", "b", "a"], [5.0, None, 5.0], "void"),
        (["a", "b"], [5.0, 5.0], "tie"),
        (["a", "b"], [5.0, 5.0 + 1e-10], "tie"),
        (["a", "a", "b"], [9.0, 1.0, 5.0], "equal"),
    ],
)
def test_why_there_is_no_pair(answers: list[str], scores: list[float | None], reason: str) -> None:
    found = best_and_worst(answers, scores, RULES)
    assert (found.chosen, found.rejected, found.reason) == (None, None, reason)


def test_a_gap_below_the_margin_makes_no_pair() -> None:
    rules = Preferences(min_margin=2.0)
    assert best_and_worst(["a", "b"], [5.0, 6.5], rules).reason == "margin"
    assert best_and_worst(["a", "b"], [5.0, 7.0], rules).reason == "pair"
