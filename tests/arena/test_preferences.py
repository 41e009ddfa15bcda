"""Which combats become pairs, and why the others do not."""

import pytest

from sparta.arena.preferences import REASONS, label, unusable
from sparta.arena.rules import Preferences


def test_the_reasons_are_those_of_the_records() -> None:
    assert REASONS == ("pair", "empty", "equal", "void", "tie", "margin")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("yes", "no", None),
        ("", "no", "empty"),
        ("yes", " \n\t", "empty"),
        ("", "", "empty"),
        ("yes", "yes", "equal"),
        (" yes\n", "yes", "equal"),
        ("yes", "Yes", None),
    ],
)
def test_responses_that_can_be_no_pair(first: str, second: str, reason: str | None) -> None:
    assert unusable(first, second) == reason


@pytest.mark.parametrize(
    ("scores", "texts", "winner", "reason"),
    [
        ((7.0, 5.0), None, 0, "pair"),
        ((5.0, 7.0), None, 1, "pair"),
        ((5.0, 5.0), None, None, "tie"),
        ((5.0, 5.0 + 5e-10), None, None, "tie"),
        ((5.0, 5.0 + 2e-9), None, 1, "pair"),
        ((7.0, 5.0), "empty", None, "empty"),
        ((7.0, 5.0), "equal", None, "equal"),
        ((5.0, 5.0), "equal", None, "equal"),
        (None, None, None, "void"),
        (None, "empty", None, "empty"),
    ],
)
def test_the_higher_score_wins_and_a_tie_is_nobodys(
    scores: tuple[float, float] | None, texts: str | None, winner: int | None, reason: str
) -> None:
    assert label(scores, texts, Preferences()) == (winner, reason)  # type: ignore[arg-type]


def test_a_gap_below_the_margin_makes_no_pair() -> None:
    rules = Preferences(min_margin=0.5)
    assert label((5.0, 5.25), None, rules) == (None, "margin")
    assert label((5.0, 5.5), None, rules) == (1, "pair")
    assert label((5.0, 5.0), None, rules) == (None, "tie")
