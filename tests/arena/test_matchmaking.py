"""Who meets whom, and on which prompts."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparta.arena.matchmaking import draw_prompts, match
from sparta.arena.rules import MatchMaking
from sparta.errors import SpartaError

reputations = st.lists(st.sampled_from([1.0, 2.0, 2.5, 4.0, 100.0]), min_size=3, max_size=7)
rules = st.builds(
    MatchMaking,
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
    k=st.integers(1, 8),
    first=st.sampled_from(["uniform", "balanced"]),
)


def named(values: list[float], prefix: str = "m") -> dict[str, float]:
    return {f"{prefix}{i}": value for i, value in enumerate(values)}


def opponents(values: list[float], of: str, n: int = 6000, **fields: object) -> Counter[str]:
    pairs = match(named(values), n, MatchMaking.model_validate(fields), random.Random(7))
    return Counter(j for i, j in pairs if i == of)


def shares(counts: Counter[str]) -> dict[str, float]:
    return {name: count / counts.total() for name, count in counts.items()}


@given(st.integers(1, 12), st.integers(0, 40), st.integers())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_no_prompt_comes_again_before_every_other_has_come(size: int, n: int, seed: int) -> None:
    ids = [f"p{i}" for i in range(size)]
    drawn = draw_prompts(ids, n, random.Random(seed))
    assert len(drawn) == n
    for start in range(0, n, size):
        one_pass = drawn[start : start + size]
        assert len(set(one_pass)) == len(one_pass)
        assert set(one_pass) <= set(ids)


def test_prompts_are_drawn_uniformly_and_in_random_order() -> None:
    stream = random.Random(1)
    draws = [tuple(draw_prompts("abc", 2, stream)) for _ in range(6000)]
    for share in Counter(draws).values():
        assert share / 6000 == pytest.approx(1 / 6, abs=0.02)  # 3 * 2 ordered pairs
    assert len(set(draws)) == 6


def test_a_whole_pass_is_shuffled() -> None:
    ids = [f"p{i}" for i in range(100)]
    first, second = (draw_prompts(ids, 200, random.Random(1))[start : start + 100] for start in (0, 100))
    assert first != ids
    assert second not in (ids, first)


def test_drawing_from_no_prompts_is_an_error_that_says_so() -> None:
    assert draw_prompts([], 0, random.Random(1)) == []
    with pytest.raises(SpartaError, match="no prompts to draw"):
        draw_prompts([], 1, random.Random(1))
    with pytest.raises(ValueError, match="-1"):
        draw_prompts(["a"], -1, random.Random(1))


@pytest.mark.parametrize("m", [0, 1, 2])
def test_a_pool_without_a_judge_is_refused(m: int) -> None:
    with pytest.raises(SpartaError, match=f"a pool of {m} models? leaves no judge"):
        match(named([1.0] * m), 1, MatchMaking(), random.Random(1))


def test_a_reputation_that_is_no_number_is_refused() -> None:
    with pytest.raises(SpartaError, match="'m1' is nan"):
        match(named([1.0, float("nan"), 2.0]), 1, MatchMaking(), random.Random(1))


@given(reputations, rules, st.integers())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_no_model_meets_itself_and_every_combat_is_planned(
    values: list[float], rules: MatchMaking, seed: int
) -> None:
    pairs = match(named(values), 50, rules, random.Random(seed))
    assert len(pairs) == 50
    assert all(i != j for i, j in pairs)


@given(reputations, rules, st.integers())
@settings(deadline=None, max_examples=50, derandomize=True)
def test_other_names_give_the_same_plan_under_other_names(
    values: list[float], rules: MatchMaking, seed: int
) -> None:
    renamed = {"z" + str(9 - i): value for i, value in enumerate(values)}
    to = dict(zip(named(values), renamed, strict=True))
    pairs = match(named(values), 50, rules, random.Random(seed))
    assert match(renamed, 50, rules, random.Random(seed)) == [(to[i], to[j]) for i, j in pairs]


@given(reputations, st.integers(1, 6), st.integers())
@settings(deadline=None, max_examples=100, derandomize=True)
def test_without_randomness_the_opponent_is_one_of_the_k_nearest(
    values: list[float], k: int, seed: int
) -> None:
    models = named(values)
    for i, j in match(models, 50, MatchMaking(alpha=0, k=k), random.Random(seed)):
        nearer = [x for x in models if x != i and abs(models[x] - models[i]) < abs(models[j] - models[i])]
        assert len(nearer) < k


def test_alpha_0_and_k_1_always_picks_the_nearest() -> None:
    # Distances from m0 = 1: m1 1, m2 8, m3 29. From m2 = 9: m1 7, m0 8, m3 21.
    assert set(opponents([1, 2, 9, 30], "m0", alpha=0, k=1)) == {"m1"}
    assert set(opponents([1, 2, 9, 30], "m2", alpha=0, k=1)) == {"m1"}
    assert set(opponents([1, 2, 9, 30], "m3", alpha=0, k=1)) == {"m2"}


def test_alpha_1_is_uniform_whatever_the_reputations() -> None:
    for share in shares(opponents([1, 2, 9, 1000], "m0", n=12_000, alpha=1, k=1)).values():
        assert share == pytest.approx(1 / 3, abs=0.03)


def test_alpha_mixes_the_two_draws() -> None:
    # The nearest to m0 is m1: alpha/3 + (1 - alpha) = 0.2 + 0.4 = 0.6; the two others alpha/3 = 0.2 each.
    got = shares(opponents([1, 2, 9, 30], "m0", n=20_000, alpha=0.6, k=1))
    assert got == pytest.approx({"m1": 0.6, "m2": 0.2, "m3": 0.2}, abs=0.03)


def test_ties_are_broken_at_random() -> None:
    # From m0: m1 at 1 is surely among the k = 2, the other place is m2's or m3's (both at 3): 1/2, 1/4, 1/4. m4 is out.
    got = shares(opponents([10, 11, 13, 7, 30], "m0", n=30_000, alpha=0, k=2))
    assert got == pytest.approx({"m1": 0.5, "m2": 0.25, "m3": 0.25}, abs=0.03)


def test_at_the_start_all_are_tied_and_the_opponent_is_uniform() -> None:
    got = shares(opponents([1000.0] * 5, "m0", n=30_000, alpha=0, k=2))
    assert got == pytest.approx(dict.fromkeys(["m1", "m2", "m3", "m4"], 0.25), abs=0.03)


@pytest.mark.parametrize("k", [3, 4, 100])
def test_k_of_all_others_or_more_is_plain_uniform(k: int) -> None:
    got = shares(opponents([1, 2, 9, 30], "m0", n=20_000, alpha=0, k=k))
    assert got == pytest.approx(dict.fromkeys(["m1", "m2", "m3"], 1 / 3), abs=0.03)


def test_the_first_contestant_is_uniform() -> None:
    pairs = match(named([1, 2, 9, 30]), 20_000, MatchMaking(), random.Random(3))
    assert shares(Counter(i for i, _ in pairs)) == pytest.approx(
        dict.fromkeys(["m0", "m1", "m2", "m3"], 0.25), abs=0.02
    )


def test_balanced_puts_every_model_first_once_per_m_combats_in_random_order() -> None:
    pairs = match(named([1, 2, 9, 30]), 402, MatchMaking(first="balanced"), random.Random(3))
    rounds = [tuple(i for i, _ in pairs[start : start + 4]) for start in range(0, 402, 4)]
    assert all(len(set(one)) == 4 for one in rounds[:-1])
    assert len(set(rounds[-1])) == 2
    assert len(set(rounds[:-1])) > 12
