"""Judge-aware Bradley-Terry against an independent optimisation, simulated judges, plain Bradley-Terry, and crowd-kit."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize

from analysis.judge_aware import labels, preferences_in, strengths

NAN = math.nan


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def simulated(
    n: int, m: int, gamma: list[float], seed: int
) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray]:
    """Preferences of judges with discrimination `gamma` on combats with gaps of their own: [n, m], the contestants, the gaps."""
    dice = np.random.default_rng(seed)
    pairs = [tuple(dice.choice(m, 2, replace=False)) for _ in range(n)]
    gaps = dice.normal(size=n)
    chance = 1 / (1 + np.exp(-np.outer(gaps, gamma)))
    preferred = (dice.random((n, m)) < chance).astype(float)
    for row, pair in enumerate(pairs):
        preferred[row, list(pair)] = NAN
    return preferred, pairs, gaps


def test_preferences_follow_the_higher_score_and_leave_out_contestants() -> None:
    votes = np.array([[[9, 9, 2, 5, NAN], [1, 1, 7, 5, 3]]], dtype=float)
    found = preferences_in(votes, [(0, 1)])
    assert found[0, 2:4].tolist() == [0.0, 0.5]
    assert np.isnan(found[0, [0, 1, 4]]).all()


def test_the_fit_maximises_the_marginal_likelihood_computed_another_way() -> None:
    """Adaptive integration and a search without derivatives find the same discriminations and the same gaps."""
    preferred = np.array([[1, 1, 0.0], [0, 0, 0.5], [1, 0, 1], [1, 1, NAN], [0, 1, 0]], dtype=float)

    def likelihood(row: np.ndarray, gamma: np.ndarray, delta: float) -> float:
        made = math.exp(-(delta**2) / 2) / math.sqrt(2 * math.pi)
        for share, pull in zip(row, gamma * delta, strict=True):
            if not math.isnan(share):
                made *= sigmoid(pull) ** share * sigmoid(-pull) ** (1 - share)
        return made

    def moment(power: int, row: np.ndarray, gamma: np.ndarray) -> float:
        return float(quad(lambda delta: delta**power * likelihood(row, gamma, delta), -8, 8)[0])

    def loss(gamma: np.ndarray) -> float:
        prior = sum((each - 1) ** 2 / 8 for each in gamma)
        return prior - sum(math.log(moment(0, row, gamma)) for row in preferred)

    found = labels(preferred)
    best = minimize(loss, np.ones(3), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    assert found.discriminations == pytest.approx(best.x, abs=2e-3)
    for gap, deviation, row in zip(found.gaps, found.deviations, preferred, strict=True):
        mean, square = (moment(power, row, best.x) / moment(0, row, best.x) for power in (1, 2))
        assert gap == pytest.approx(mean, abs=2e-3)
        assert deviation == pytest.approx(math.sqrt(square - mean**2), abs=2e-3)


def test_discriminations_of_simulated_judges_are_recovered() -> None:
    gamma = [3.0, 2.0, 1.0, 0.0, -1.0, 2.0, 2.0]
    preferred, _, gaps = simulated(4000, 7, gamma, seed=1)
    found = labels(preferred)
    assert found.discriminations == pytest.approx(gamma, abs=0.3)
    aware = np.mean(np.sign(found.gaps) == np.sign(gaps))
    majority = np.mean(np.sign(np.nansum(preferred - 0.5, axis=1)) == np.sign(gaps))
    assert aware > majority + 0.03


def test_a_combat_that_nobody_voted_on_has_no_gap() -> None:
    found = labels(np.array([[NAN, NAN, NAN], [1, 1, 0.0]]))
    assert found.gaps[0] == 0 and found.deviations[0] == pytest.approx(1, abs=1e-6)
    assert found.gaps[1] > 0


def test_swapping_the_responses_turns_the_gaps_around() -> None:
    preferred, pairs, _ = simulated(60, 5, [2, 1, 1, 0.5, 3], seed=2)
    one, other = labels(preferred), labels(1 - preferred)
    assert one.gaps == pytest.approx(-other.gaps, abs=1e-4)
    swapped = strengths(1 - preferred, [(j, i) for i, j in pairs])
    assert strengths(preferred, pairs).strengths == pytest.approx(swapped.strengths, abs=1e-4)


def by_models(
    n: int, theta: list[float], gamma: list[float], seed: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    dice, m = np.random.default_rng(seed), len(theta)
    pairs = [tuple(int(each) for each in dice.choice(m, 2, replace=False)) for _ in range(n)]
    gaps = np.array([theta[i] - theta[j] for i, j in pairs])
    preferred = (dice.random((n, m)) < 1 / (1 + np.exp(-np.outer(gaps, gamma)))).astype(float)
    for row, pair in enumerate(pairs):
        preferred[row, list(pair)] = NAN
    return preferred, pairs


def test_strengths_of_simulated_models_are_recovered() -> None:
    theta, gamma = [1.0, 0.5, 0.0, -0.5, -1.0], [2.0, 1.0, 0.2, 1.5, 1.0]
    found = strengths(*by_models(6000, theta, gamma, seed=3))
    scale = found.strengths @ theta / np.dot(theta, theta)
    # Only their product can be known: the priors choose the scale.
    assert found.strengths / scale == pytest.approx(theta, abs=0.12)
    assert found.discriminations * scale == pytest.approx(gamma, abs=0.2)
    assert found.strengths.mean() == pytest.approx(0, abs=1e-9)


def test_with_equal_judges_the_order_is_that_of_plain_bradley_terry() -> None:
    """Hunter's MM algorithm (2004) on the same preferences."""
    preferred, pairs = by_models(3000, [0.9, 0.3, 0.0, -0.4, -0.8], [1.5] * 5, seed=4)
    wins = np.zeros((5, 5))
    for row, (i, j) in zip(preferred, pairs, strict=True):
        wins[i, j] += np.nansum(row)
        wins[j, i] += np.nansum(1 - row)
    power = np.ones(5)
    for _ in range(500):
        met = (wins + wins.T) / (power[:, None] + power[None, :])
        power = wins.sum(axis=1) / met.sum(axis=1)
        power /= np.exp(np.log(power).mean())
    plain = np.log(power)
    found = strengths(preferred, pairs).strengths
    assert np.corrcoef(found, plain)[0, 1] > 0.999


@pytest.mark.long
def test_crowd_kits_noisy_bradley_terry_ranks_models_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its judges guess with some probability, which is another formula for the same idea; their skills are not discriminations."""
    apart = Path(sys.prefix) / "embeddings"
    assert apart.is_dir(), f"{apart} is missing: make long puts crowd-kit there"
    monkeypatch.syspath_prepend(str(apart))
    import pandas
    from crowdkit import aggregation

    preferred, pairs = by_models(200, [1.2, 0.6, 0.0, -0.6, -1.2], [4.0, 2.0, 0.3, 1.0, 3.0], seed=5)
    rows = [
        {"worker": judge, "left": i, "right": j, "label": i if share else j}
        for row, (i, j) in zip(preferred, pairs, strict=True)
        for judge, share in enumerate(row)
        if not math.isnan(share)
    ]
    theirs = aggregation.NoisyBradleyTerry(n_iter=60).fit_predict(pandas.DataFrame(rows))
    ours = strengths(preferred, pairs).strengths
    assert theirs.sort_index().argsort().tolist() == np.argsort(ours).tolist()
