"""Equation 1, sigma and omega, against numbers worked by hand."""

import math
from collections import Counter
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparta.arena.reputation import Standing, deviation_after, gap_factor, initial_standing, updated
from sparta.arena.reweighting import reweight
from sparta.arena.rules import Deviation, Kappa, Reputation, Reweighting
from sparta.rng import stream

PAPER = Reputation()
positive = st.floats(0.01, 1e5)


def test_a_model_starts_with_the_initial_values_and_a_full_say() -> None:
    assert initial_standing(PAPER) == Standing(1000.0, 0.5, (), 1.0, False)
    assert initial_standing(Reputation(preset="authors")) == Standing(100.0, 0.5, (), 1.0, False)


def test_the_gap_factor_is_the_difference_of_the_two_normal_probabilities() -> None:
    # z = (1003 - 1000) / sqrt(1.5^2 + 2^2) = 3 / 2.5 = 1.2; Phi(1.2) = 0.8849303298, Phi(-1.2) = 0.1150696702; apart 0.7698606596.
    assert gap_factor(1003, 1000, 1.5, 2.0, 0.01) == pytest.approx(0.7698606596, abs=1e-9)


def test_the_gap_factor_never_falls_below_epsilon() -> None:
    assert gap_factor(1000, 1000, 0.5, 0.5, 0.01) == 0.01


@given(positive, positive, positive, positive)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_the_gap_factor_is_symmetric_and_between_epsilon_and_one(
    r_i: float, r_j: float, a: float, b: float
) -> None:
    factor = gap_factor(r_i, r_j, a, b, 0.01)
    assert factor == gap_factor(r_j, r_i, b, a, 0.01)
    assert 0.01 <= factor <= 1
    normal, z = NormalDist(), (r_i - r_j) / math.sqrt(a**2 + b**2)
    assert factor == pytest.approx(max(abs(normal.cdf(z) - normal.cdf(-z)), 0.01), abs=1e-12)


def test_equation_1_between_equals() -> None:
    # 1000 + 1 * 2 * tanh(0.5) * max(0, 0.01) = 1000 + 2 * 0.4621171573 * 0.01 = 1000.0092423431
    assert updated(1000, 1000, 0.5, 0.5, 2.0, 1.0, PAPER) == pytest.approx(1000.0092423431, abs=1e-9)


def test_equation_1_between_unequals() -> None:
    # 1003 + 0.5 * (-4) * tanh(1.5) * 0.7698606596 = 1003 - 2 * 0.9051482536 * 0.7698606596 = 1003 - 1.3936760631
    assert updated(1003, 1000, 1.5, 2.0, -4.0, 0.5, PAPER) == pytest.approx(1001.6063239369, abs=1e-9)


def test_an_upset_pays_no_more_than_the_expected_win() -> None:
    upset = updated(900, 1000, 5, 5, 3.0, 1.0, PAPER) - 900
    expected = updated(1100, 1000, 5, 5, 3.0, 1.0, PAPER) - 1100
    assert upset == pytest.approx(expected, abs=1e-9)


def test_a_reputation_stops_at_the_floor() -> None:
    assert updated(2.0, 1000.0, 5, 5, -9.0, 1.0, PAPER) == 1.0
    assert updated(12.0, 1000.0, 5, 5, -9.0, 1.0, Reputation(preset="authors")) == 10.0


@given(positive, positive, positive, positive, st.floats(-9, 9), st.floats(0.1, 100))
@settings(deadline=None, max_examples=200, derandomize=True)
def test_no_vote_takes_a_reputation_below_the_floor_or_further_than_the_gap(
    r_i: float, r_j: float, a: float, b: float, gap: float, kappa: float
) -> None:
    after = updated(max(r_i, 1.0), r_j, a, b, gap, kappa, PAPER)
    assert after >= PAPER.floor
    assert abs(after - max(r_i, 1.0)) <= abs(kappa * gap) + 1e-9


def test_kappa_decays_to_its_minimum_as_the_authors_have_it() -> None:
    kappa = Reputation(preset="authors").kappa
    assert kappa.at(1) == pytest.approx(10 * 0.9**0.1 / 20, abs=1e-12)
    assert kappa.at(10) == pytest.approx(0.45, abs=1e-12)  # 10 * 0.9 / 20
    assert kappa.at(20) == pytest.approx(0.405, abs=1e-12)  # 10 * 0.81 / 20
    assert kappa.at(1000) == 0.25  # 5 / 20
    assert Kappa().at(1000) == 1.0


def test_the_deviation_is_the_sample_standard_deviation_of_the_changes() -> None:
    # Mean 3, squares 4 + 0 + 4 = 8: sqrt(8/2) = 2 with ddof 1, sqrt(8/3) = 1.6329931619 with ddof 0.
    assert deviation_after((1.0, 3.0, 5.0), 0.5, Deviation()) == pytest.approx(2.0, abs=1e-12)
    assert deviation_after((1.0, 3.0, 5.0), 0.5, Deviation(ddof=0)) == pytest.approx(1.6329931619, abs=1e-9)


def test_the_deviation_looks_at_the_last_changes_only() -> None:
    assert deviation_after((100.0, 1.0, 3.0, 5.0), 0.5, Deviation(window=3)) == pytest.approx(2.0, abs=1e-12)


def test_the_deviation_has_a_minimum_outside_the_root() -> None:
    assert deviation_after((1.0, 1.0, 1.0), 0.5, Deviation()) == 0.1


@pytest.mark.parametrize("changes", [(), (7.0,)])
def test_with_fewer_than_two_changes_the_deviation_stays(changes: tuple[float, ...]) -> None:
    assert deviation_after(changes, 0.5, Deviation()) == 0.5
    assert deviation_after(changes, 0.03, Deviation()) == 0.03


def pool(*reputations: float) -> dict[str, Standing]:
    return {f"m{i}": Standing(r, 0.5, (1.0,), 1.0) for i, r in enumerate(reputations)}


def weights(standings: dict[str, Standing]) -> list[float]:
    return [standing.weight for standing in standings.values()]


def down(
    standings: dict[str, Standing], t: int, rules: Reweighting | None = None, seed: int = 0
) -> dict[str, Standing]:
    """`reweight` with the stream that a run of that seed has."""
    return reweight(standings, t, rules or Reweighting(), stream(seed, t, "reweighting"))


def test_each_iteration_weights_down_the_lowest_model_that_is_left() -> None:
    standings = pool(30, 10, 20)
    assert weights(down(standings, 1)) == [1, 1, 1]
    standings = down(standings, 2)
    assert weights(standings) == [1, 0, 1]
    standings = down(standings, 3)
    assert weights(standings) == pytest.approx([1, 0, 0.1])
    standings = down(standings, 8)
    assert weights(standings) == pytest.approx([0.6, 0, 0.1])
    assert down(standings, 9) == standings


def test_reweighting_leaves_reputations_deviations_and_changes_alone() -> None:
    after = down(pool(30, 10, 20), 2)
    assert [(s.reputation, s.deviation, s.changes) for s in after.values()] == [
        (30, 0.5, (1.0,)),
        (10, 0.5, (1.0,)),
        (20, 0.5, (1.0,)),
    ]


def test_a_model_has_its_turn_even_when_its_weight_stays_one() -> None:
    # gamma (t - 2) = 0.1 * 12 = 1.2, cut to 1: the model is done with, the next turn is another's.
    standings = down(pool(30, 10, 20), 14)
    assert weights(standings) == [1, 1, 1]
    assert [s.reweighted for s in standings.values()] == [False, True, False]
    standings = down(standings, 3)
    assert weights(standings) == pytest.approx([1, 1, 0.1])


def test_of_equally_low_models_the_stream_takes_one_whatever_the_order_of_the_pool() -> None:
    taken = Counter[str]()
    for seed in range(300):
        standings = pool(20, 10, 10, 10)
        [name] = [name for name, s in down(standings, 2, seed=seed).items() if s.reweighted]
        turned = dict(reversed(standings.items()))
        assert down(turned, 2, seed=seed)[name].reweighted
        taken[name] += 1
    assert set(taken) == {"m1", "m2", "m3"}
    # Of 300 fair draws among three, fewer than 70 of one happen once in ten thousand times.
    assert min(taken.values()) >= 70


def test_reweighting_can_be_off_begin_later_and_end() -> None:
    assert down(pool(3, 1, 2), 2, Reweighting(enabled=False)) == pool(3, 1, 2)
    assert down(pool(3, 1, 2), 2, Reweighting(first_iteration=3)) == pool(3, 1, 2)
    assert weights(down(pool(3, 1, 2), 3, Reweighting(first_iteration=3))) == [1, 0, 1]
    ending = Reweighting(last_iteration=8)
    assert weights(down(pool(3, 1, 2), 8, ending)) == pytest.approx([1, 0.6, 1])
    assert down(pool(3, 1, 2), 9, ending) == pool(3, 1, 2)
