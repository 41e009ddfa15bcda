"""The best and the worst of a prompt's candidates: worked examples, and every reason for having no pair."""

import pytest

from sparta.arena.rules import Preferences
from sparta.phases.single.best_and_worst import Choice, best_and_worst, with_length_control

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


def test_with_length_control_the_shortest_of_the_good_meets_the_longest_of_the_bad() -> None:
    scores = [9.0, 8.4, 5.0, 2.5, 2.0]
    answers, lengths = ["a", "b", "c", "d", "e"], [50, 10, 1, 70, 20]
    # The range is 7: within 0.7 of the best are 9.0 and 8.4, within 0.7 of the worst 2.5 and 2.0.
    assert with_length_control(answers, scores, lengths, 0.1, RULES) == Choice(1, 3, "pair")
    # Within 0.35 are the best and the worst alone.
    assert with_length_control(answers, scores, lengths, 0.05, RULES) == Choice(0, 4, "pair")


def test_without_length_control_the_length_decides_among_equals_alone() -> None:
    chosen = with_length_control(["a", "b", "c"], [7.0, 7.0, 3.0], [9, 5, 1], 0.0, RULES)
    assert chosen == Choice(1, 2, "pair")


def test_length_control_makes_no_pair_where_there_is_none_without() -> None:
    assert with_length_control(["a", "b"], [5.0, 5.0], [1, 2], 0.4, RULES).reason == "tie"
    assert with_length_control(["a", "", "b"], [5.0, None, 4.0], [9, 0, 9], 0.4, RULES) == Choice(
        0, 2, "pair"
    )
