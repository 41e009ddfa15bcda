"""One score a response from a jury's votes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparta.arena.aggregation import aggregate

NAN = math.nan
score = st.one_of(st.floats(1, 10), st.just(NAN))
jury = st.lists(st.tuples(score, score, st.floats(0, 2000)), min_size=1, max_size=9)


def test_votes_count_in_proportion_to_the_judges_weights() -> None:
    verdict = aggregate([[8, 5, 2], [4, 6, 3]], [100, 300, 0])
    assert verdict is not None
    # (100*8 + 300*5 + 0*2) / 400 = 2300/400 = 5.75; (100*4 + 300*6 + 0*3) / 400 = 2200/400 = 5.5
    assert verdict.scores == pytest.approx((5.75, 5.5), abs=1e-12)
    assert (verdict.jury, verdict.uniform) == (3, False)


def test_a_judge_who_scored_only_one_response_does_not_count() -> None:
    verdict = aggregate([[8, 5, 2], [4, NAN, 3]], [100, 300, 300])
    assert verdict is not None
    # (800 + 600) / 400 = 3.5; (400 + 900) / 400 = 3.25
    assert verdict.scores == pytest.approx((3.5, 3.25), abs=1e-12)
    assert verdict.jury == 2


@pytest.mark.parametrize("scores", [[[NAN, NAN], [NAN, NAN]], [[5, NAN], [NAN, 5]], [[], []]])
def test_without_a_judge_on_both_sides_there_is_no_verdict(scores: list[list[float]]) -> None:
    assert aggregate(scores, [1.0] * len(scores[0])) is None


def test_a_jury_without_weight_counts_uniformly_and_says_so() -> None:
    verdict = aggregate([[8, 5, NAN], [4, 6, 3]], [0, 0, 700])
    assert verdict is not None
    assert verdict.scores == pytest.approx((6.5, 5.0), abs=1e-12)
    assert (verdict.jury, verdict.uniform) == (2, True)


@given(jury)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_equal_weights_are_the_plain_mean(votes: list[tuple[float, float, float]]) -> None:
    first, second, _ = zip(*votes, strict=True)
    verdict = aggregate([first, second], [1000.0] * len(votes))
    both = [(a, b) for a, b in zip(first, second, strict=True) if not math.isnan(a + b)]
    if not both:
        assert verdict is None
        return
    assert verdict is not None
    assert verdict.scores == pytest.approx(
        (sum(a for a, _ in both) / len(both), sum(b for _, b in both) / len(both)), abs=1e-9
    )


@given(jury, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_the_order_of_the_judges_changes_nothing(
    votes: list[tuple[float, float, float]], order: object
) -> None:
    def verdict_of(votes: list[tuple[float, float, float]]) -> object:
        first, second, weights = zip(*votes, strict=True)
        return aggregate([first, second], weights)

    shuffled = list(votes)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert verdict_of(shuffled) == verdict_of(votes)


def test_judges_and_weights_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        aggregate([[1.0, 2.0], [1.0, 2.0]], [1.0])
