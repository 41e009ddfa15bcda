"""Elo over judgements: by hand, against the likelihood that it maximises, and the correction of position bias."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparta.phases.single.elo import Win, position_weights, ratings

HALF = (0.5, 0.5)


def test_one_that_wins_in_both_orders_by_hand() -> None:
    # One win (twice a half). With p the winner's strength and 1/p the loser's, 1.5 / p = 1 / (p + 1/p) + 1 / (p + 1),
    # which is p^3 - p^2 - p - 3 = 0: p = 2.130395.
    p = 2.130395435
    assert p**3 - p**2 - p - 3 == pytest.approx(0, abs=1e-6)
    won, lost = ratings(2, [Win(0, 1, True), Win(0, 1, False)], HALF)
    assert won == pytest.approx(400 * math.log10(p), abs=1e-4)
    assert lost == pytest.approx(-won, abs=1e-6)


def test_one_that_wins_in_one_order_only_is_no_better() -> None:
    assert ratings(2, [Win(0, 1, True), Win(1, 0, True)], HALF) == pytest.approx([0, 0], abs=1e-9)


def test_what_was_never_compared_is_rated_0() -> None:
    assert ratings(3, [], HALF) == [0.0, 0.0, 0.0]


def test_three_in_a_row() -> None:
    wins = [Win(*pair, first) for pair in ((0, 1), (1, 2), (0, 2)) for first in (True, False)]
    best, middle, worst = ratings(3, wins, HALF)
    assert best > middle > worst and middle == pytest.approx(0, abs=1e-6) and best == pytest.approx(-worst)


def test_the_weights_of_positions_by_hand() -> None:
    wins = [Win(0, 1, True)] * 3 + [Win(0, 1, False)]
    # The first won three of four: a win in the second position counts three times as much.
    assert position_weights(wins) == (0.25, 0.75)
    assert position_weights([Win(0, 1, True)] * 5) == (0.0, 1.0)
    assert position_weights([]) == (0.0, 0.0)


def test_a_judge_that_always_prefers_the_first_changes_no_rating() -> None:
    wins = [Win(0, 1, True), Win(1, 0, True), Win(0, 2, True), Win(2, 0, True)]
    assert ratings(3, wins, position_weights(wins)) == pytest.approx([0, 0, 0], abs=1e-9)


pairs = st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()).filter(lambda win: win[0] != win[1])


@given(st.lists(pairs, max_size=12))
def test_the_ratings_are_where_the_likelihood_is_highest(drawn: list[tuple[int, int, bool]]) -> None:
    wins = [Win(*win) for win in drawn]
    weights = (0.4, 0.6)
    strengths = [rating * math.log(10) / 400 for rating in ratings(4, wins, weights)]

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for i in range(4):
        # The derivative of the log-likelihood in the log-strength of i, including the draw against the virtual one.
        slope = 0.5 - sigmoid(strengths[i])
        for win in wins:
            weight = weights[0] if win.shown_first else weights[1]
            gap = strengths[win.winner] - strengths[win.loser]
            slope += weight * (1 - sigmoid(gap)) * ((win.winner == i) - (win.loser == i))
        assert slope == pytest.approx(0, abs=1e-6)
