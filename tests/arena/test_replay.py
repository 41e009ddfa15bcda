"""Playing an iteration over, against a second derivation written from ALGORITHM.md and numbers worked by hand."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparta.arena.preferences import REASONS, Reason
from sparta.arena.replay import Replay, replay
from sparta.arena.reputation import Standing, initial_standing
from sparta.arena.reweighting import reweight
from sparta.arena.rules import Preferences, Reputation, Reweighting, filled_elsewhere
from sparta.errors import SpartaError
from sparta.rng import stream

NAN = math.nan
PHI = NormalDist().cdf
PAPER, AUTHORS = Reputation(), Reputation(preset="authors")
SWITCHES = [
    PAPER,
    AUTHORS,
    Reputation.model_validate({"update": "sequential"}),
    Reputation.model_validate({"labels": "final"}),
    Reputation.model_validate({"omega": "contestants"}),
    Reputation.model_validate({"deviation": {"unit": "combat"}}),
    Reputation.model_validate({"deviation": {"keep_window": False}}),
    Reputation.model_validate({"frozen": True}),
    Reputation.model_validate({"preset": "authors", "labels": "live"}),
    Reputation.model_validate({"preset": "authors", "update": "simultaneous"}),
    Reputation.model_validate({"preset": "authors", "deviation": {"unit": "iteration"}}),
    Reputation.model_validate({"preset": "authors", "deviation": {"window": 2, "keep_window": True}}),
    Reputation.model_validate({"preset": "authors", "frozen": True}),
]


class Game:
    """A pool, its standings, and an iteration's combats and votes, drawn from a seed."""

    def __init__(
        self, seed: int, m: int = 4, n: int = 30, start: float = 1000.0, spread: float = 2.0
    ) -> None:
        draw = np.random.default_rng(seed)
        self.models = [f"m{k}" for k in range(m)]
        self.standings = {
            name: Standing(
                reputation=start + spread * draw.normal(),
                deviation=float(draw.uniform(0.1, 3)),
                changes=tuple(draw.normal(size=draw.integers(0, 11)).tolist()),
                weight=float(draw.choice([0.0, 0.3, 1.0])),
            )
            for name in self.models
        }
        self.combats = [tuple(draw.choice(m, size=2, replace=False).tolist()) for _ in range(n)]
        self.votes = draw.integers(1, 11, size=(n, 2, m)).astype(float)
        self.votes[draw.random((n, 2, m)) < 0.3] = NAN
        self.unusable: list[Reason | None] = [
            random.Random(f"{seed} {at}").choice([None, None, None, "empty", "equal"]) for at in range(n)
        ]

    def play(self, rules: Reputation = PAPER, preferences: Preferences | None = None) -> Replay:
        return replay(
            self.models,
            self.standings,
            self.combats,
            self.votes,
            self.unusable,
            reputation=rules,
            preferences=preferences or Preferences(),
        )


def derived(game: Game, rules: Reputation) -> tuple[list[tuple[Any, ...]], dict[str, Standing]]:
    """The specification once more, a line at a time, sharing no code with what is tested."""
    R = {name: s.reputation for name, s in game.standings.items()}
    start = dict(R)
    sigma = {name: s.deviation for name, s in game.standings.items()}
    omega = {name: s.weight for name, s in game.standings.items()}
    moved = {name: list(s.changes) for name, s in game.standings.items()}
    d, k = rules.deviation, rules.kappa
    if not d.keep_window and not rules.frozen:
        moved = {name: [] for name in game.models}

    def votes_at(at: int) -> dict[str, tuple[float, float]]:
        return {
            name: (game.votes[at][0][x], game.votes[at][1][x])
            for x, name in enumerate(game.models)
            if x not in game.combats[at]
            and not math.isnan(game.votes[at][0][x])
            and not math.isnan(game.votes[at][1][x])
        }

    def mean(votes: dict[str, tuple[float, float]], weight: dict[str, float]) -> tuple[float, float]:
        total = sum(weight[name] for name in votes)
        if total <= 0:
            weight, total = dict.fromkeys(votes, 1.0), len(votes)
        return (
            sum(weight[name] * v[0] for name, v in votes.items()) / total,
            sum(weight[name] * v[1] for name, v in votes.items()) / total,
        )

    def note(name: str, change: float) -> None:
        moved[name] = [*moved[name], change][-d.window :]
        if len(moved[name]) >= 2:
            std = statistics.stdev(moved[name]) if d.ddof else statistics.pstdev(moved[name])
            sigma[name] = max(std, d.minimum)

    rows: list[tuple[Any, ...]] = []
    for at, (x, y) in enumerate(game.combats):
        i, j = game.models[x], game.models[y]
        votes = votes_at(at)
        before = (R[i], R[j])
        scores = None
        if votes:
            judging = {name: R[name] * (omega[name] if rules.omega == "judges" else 1) for name in R}
            scores = mean(votes, judging)
            if rules.omega == "judges":
                gap = scores[0] - scores[1]
            else:
                total = sum(R[name] for name in votes)
                gap = sum(R[n] * (omega[i] * v[0] - omega[j] * v[1]) for n, v in votes.items()) / total
            if not rules.frozen:
                kappa = max(k.minimum, k.start * k.decay ** ((at + 1) / k.decay_combats)) / k.divisor
                root = math.sqrt(sigma[i] ** 2 + sigma[j] ** 2)

                def step(me: str, r: float, other: float, gap: float, kappa: float, root: float) -> float:
                    z = (r - other) / root
                    factor = max(abs(PHI(z) - PHI(-z)), rules.epsilon)
                    return max(rules.floor, r + kappa * gap * math.tanh(sigma[me]) * factor)

                new_i = step(i, R[i], R[j], gap, kappa, root)
                new_j = step(j, R[j], new_i if rules.update == "sequential" else R[i], -gap, kappa, root)
                changes = (new_i - R[i], new_j - R[j])
                R[i], R[j] = new_i, new_j
                if d.unit == "combat":
                    note(i, changes[0])
                    note(j, changes[1])
        rows.append((scores, len(votes), before, (R[i], R[j])))
    if rules.labels == "final":
        rows = [(mean(votes_at(at), R) if votes_at(at) else None, *row[1:]) for at, row in enumerate(rows)]
    if d.unit == "iteration" and not rules.frozen:
        for name in game.models:
            note(name, R[name] - start[name])
    return rows, {
        name: Standing(R[name], sigma[name], tuple(moved[name]), omega[name]) for name in game.models
    }


def assert_same(standings: dict[str, Standing], expected: dict[str, Standing], abs: float = 1e-9) -> None:
    assert list(standings) == list(expected)
    for name, standing in standings.items():
        other = expected[name]
        assert standing.reputation == pytest.approx(other.reputation, abs=abs)
        assert standing.deviation == pytest.approx(other.deviation, abs=abs)
        assert standing.changes == pytest.approx(other.changes, abs=abs)
        assert standing.weight == other.weight


@pytest.mark.parametrize("rules", SWITCHES, ids=lambda rules: str(rules.model_dump(exclude_defaults=True)))
@pytest.mark.parametrize("seed", range(4))
def test_every_switch_gives_what_the_specification_derives(rules: Reputation, seed: int) -> None:
    game = Game(seed, m=3 + seed, n=60, start=rules.initial)
    result = game.play(rules)
    rows, standings = derived(game, rules)
    assert_same(result.standings, standings)
    for outcome, (scores, jury, before, after), texts in zip(
        result.outcomes, rows, game.unusable, strict=True
    ):
        assert outcome.scores == (None if scores is None else pytest.approx(scores, abs=1e-9))
        assert outcome.jury == jury
        assert (*outcome.before, *outcome.after) == pytest.approx((*before, *after), abs=1e-9)
        if texts is not None:
            assert (outcome.winner, outcome.reason) == (None, texts)
        elif scores is None:
            assert (outcome.winner, outcome.reason) == (None, "void")
        elif abs(scores[0] - scores[1]) > 1e-6:
            assert (outcome.winner, outcome.reason) == (int(scores[1] > scores[0]), "pair")


def test_near_the_floor_the_derivation_and_the_replay_agree_too() -> None:
    game = Game(5, m=5, n=200, start=12.0, spread=20.0)
    game.standings = {n: replace(s, reputation=max(10.0, s.reputation)) for n, s in game.standings.items()}
    result = game.play(AUTHORS)
    assert_same(result.standings, derived(game, AUTHORS)[1])
    assert 10.0 in {r for outcome in result.outcomes for r in outcome.after}


@pytest.mark.parametrize("preset", ["paper", "authors"])
def test_twelve_iterations_of_a_preset_give_what_the_specification_derives(preset: str) -> None:
    rules = Reputation.model_validate({"preset": preset})
    reweighting = Reweighting.model_validate(filled_elsewhere({"preset": preset}).get("reweighting", {}))
    first = {"paper": 2, "authors": 3}[preset]
    models = [f"m{k}" for k in range(10)]
    here = {name: initial_standing(rules) for name in models}
    there, silenced = dict(here), list[str]()
    for t in range(1, 13):
        # C.1 once more: gamma 0.1; under `authors` none after the eighth iteration, their score type being static then.
        if t >= first and (preset == "paper" or t <= 8):
            waiting = [name for name in models if name not in silenced]
            lowest = min(waiting, key=lambda name: there[name].reputation) if waiting else None
            if lowest is not None:
                silenced.append(lowest)
                there[lowest] = replace(there[lowest], weight=min(1.0, 0.1 * (t - first)), reweighted=True)
        here = reweight(here, t, reweighting, stream(0, t, "reweighting"))
        assert_same(here, there, abs=1e-6)
        game = Game(t, m=10, n=60)
        game.standings = here
        played = game.play(rules)
        game.standings = there
        rows, after = derived(game, rules)
        there = {name: replace(after[name], reweighted=name in silenced) for name in models}
        here = played.standings
        assert_same(here, there, abs=1e-6)
        assert [outcome.scores for outcome in played.outcomes] == [
            None if row[0] is None else pytest.approx(row[0], abs=1e-6) for row in rows
        ]
    assert len(silenced) == {"paper": 10, "authors": 6}[preset]
    assert [name for name in models if here[name].reweighted] == sorted(silenced, key=models.index)


def by_hand(
    rules: Reputation, votes: Sequence[Any], combats: Sequence[tuple[int, int]], **weights: float
) -> Replay:
    """Three models a, b, c with initial standings."""
    standings = {name: replace(initial_standing(rules), weight=weights.get(name, 1.0)) for name in "abc"}
    return replay(
        ["a", "b", "c"],
        standings,
        combats,
        np.array(votes, dtype=float),
        [None] * len(combats),
        reputation=rules,
        preferences=Preferences(),
    )


TWO_COMBATS = [[[NAN, NAN, 8], [NAN, NAN, 5]], [[NAN, 4, NAN], [NAN, 6, NAN]]]


def test_the_paper_preset_by_hand() -> None:
    result = by_hand(PAPER, TWO_COMBATS, [(0, 1), (0, 2)])
    # Combat 1, a against b, judge c: gap 8 - 5 = 3, equals so the factor is 0.01: 3 * tanh(0.5) * 0.01
    #   = 3 * 0.4621171573 * 0.01 = 0.0138635147. a 1000.0138635147, b 999.9861364853.
    # Combat 2, a against c, judge b: gap 4 - 6 = -2; z = 0.0138635147 / sqrt(0.5) = 0.0196059705;
    #   2 Phi(z) - 1 = 2 z / sqrt(2 pi) (1 - z^2/6) = 0.0156422990; -2 * 0.4621171573 * 0.0156422990 = -0.0144571495.
    #   a 999.9994063652, c 1000.0144571495.
    first, second = result.outcomes
    assert (first.scores, first.winner, first.reason, first.jury) == ((8.0, 5.0), 0, "pair", 1)
    assert (second.scores, second.winner, second.reason, second.jury) == ((4.0, 6.0), 1, "pair", 1)
    assert first.after == pytest.approx((1000.0138635147, 999.9861364853), abs=1e-9)
    assert second.after == pytest.approx((999.9994063652, 1000.0144571495), abs=1e-9)
    # One change a model in the iteration: sigma stays at its initial value.
    assert [s.deviation for s in result.standings.values()] == [0.5, 0.5, 0.5]
    assert result.standings["b"].changes == pytest.approx((-0.0138635147,), abs=1e-9)


def test_the_authors_preset_by_hand() -> None:
    result = by_hand(AUTHORS, TWO_COMBATS, [(0, 1), (0, 2)])
    # kappa(1) = 10 * 0.9^0.1 / 20 = 0.4947596291. a: 0.4947596291 * 3 * 0.4621171573 * 0.01 = 0.0068591074.
    # b sees the new a: z = -0.0068591074 / sqrt(0.5) = -0.0097002427, 2 Phi - 1 = 0.0077395526 < 0.01: epsilon. b -0.0068591074.
    first = result.outcomes[0]
    kappa = 0.9**0.1 / 2
    assert kappa == pytest.approx(0.4947596291, abs=1e-9)
    assert first.after == pytest.approx((100.0068591074, 99.9931408926), abs=1e-9)
    # Combat 2: a has one change, so sigma is 0.5 still; z = 0.0097002427, the factor is epsilon again.
    # kappa(2) = 0.9^0.2 / 2 = 0.4895741812: a moves by -2 * 0.4895741812 * 0.4621171573 * 0.01 = -0.0045248126. c sees a at
    # 100.0023342948 and moves by the same, up.
    assert result.outcomes[1].after == pytest.approx((100.0023342948, 100.0045248126), abs=1e-9)
    # a's two changes 0.0068591 and -0.0045248 have a population deviation of 0.0056920: below sigma_min.
    assert [s.deviation for s in result.standings.values()] == [0.1, 0.5, 0.5]
    assert result.standings["a"].changes == pytest.approx((0.0068591074, -0.0045248126), abs=1e-9)


def test_omega_weighs_the_judges_under_the_paper_and_the_contestants_under_the_authors() -> None:
    votes = [[[NAN, NAN, 8], [NAN, NAN, 5]]]
    # Paper: c is the only judge, at weight 0: uniform, counted, gap 3 as before.
    paper = by_hand(PAPER, votes, [(0, 1)], c=0.0)
    assert paper.counts["uniform_jury"] == 1
    assert paper.outcomes[0].after[0] == pytest.approx(1000.0138635147, abs=1e-9)
    # Authors: a's own score counts half in the update, 0.5 * 8 - 5 = -1, but the label is still 8 against 5.
    authors = by_hand(AUTHORS, votes, [(0, 1)], a=0.5)
    assert authors.outcomes[0].winner == 0
    # -1 * 0.4947596291 * 0.4621171573 * 0.01 = -0.0022863691
    assert authors.outcomes[0].after[0] == pytest.approx(99.9977136309, abs=1e-9)
    assert authors.counts["uniform_jury"] == 0


def test_live_labels_use_the_reputations_of_that_combat_and_final_labels_those_of_the_end() -> None:
    # d is far above the others, judges combat 1 with e, then loses heavily. Live, d outvotes e; at the end it does not.
    models = list("abde")
    standings = {
        n: Standing(r, 50.0, (), 1.0) for n, r in zip(models, (100.0, 100.0, 160.0, 150.0), strict=True)
    }
    votes = np.full((21, 2, 4), NAN)
    votes[0, :, 2], votes[0, :, 3] = (9, 2), (2, 9)
    votes[1:, 0, 1], votes[1:, 1, 1] = 1, 10
    combats = [(0, 1)] + [(2, 0)] * 20

    def first_label(labels: str) -> int | None:
        rules = Reputation.model_validate({"labels": labels})
        result = replay(
            models, standings, combats, votes, [None] * 21, reputation=rules, preferences=Preferences()
        )
        assert result.standings["d"].reputation < 150
        return result.outcomes[0].winner

    assert first_label("live") == 0
    assert first_label("final") == 1


def test_a_void_combat_changes_nothing_but_counts_in_kappa() -> None:
    votes = [[[NAN, NAN, 8], [NAN, NAN, NAN]], TWO_COMBATS[0]]
    result = by_hand(AUTHORS, votes, [(0, 1), (0, 1)])
    void, second = result.outcomes
    assert (void.scores, void.winner, void.reason, void.jury) == (None, None, "void", 0)
    assert void.before == void.after == (100.0, 100.0)
    # kappa(2): 3 * 0.9^0.2 / 2 * 0.4621171573 * 0.01 = 0.0067872189
    assert second.after[0] == pytest.approx(100.0067872189, abs=1e-9)
    assert len(result.standings["a"].changes) == 1


def test_ties_and_unusable_texts_make_no_pair_but_count_for_reputations() -> None:
    game = Game(1, m=3, n=3, spread=0.0)
    game.combats = [(0, 1), (0, 1), (0, 1)]
    game.votes[:, :, 2] = [(8, 5), (8, 5), (6, 6)]
    game.unusable = ["empty", "equal", None]
    result = game.play()
    assert [outcome.reason for outcome in result.outcomes] == ["empty", "equal", "tie"]
    assert [outcome.after[0] > outcome.before[0] for outcome in result.outcomes] == [True, True, False]
    assert all(outcome.winner is None for outcome in result.outcomes)
    assert result.outcomes[2].after == result.outcomes[2].before


def test_unusable_texts_that_nobody_judged_change_nothing_and_are_counted_by_their_reason() -> None:
    game = Game(1, m=3, n=3, spread=0.0)
    game.combats = [(0, 1), (0, 1), (0, 1)]
    game.votes[:, :, 2] = [(NAN, NAN), (NAN, NAN), (8, 5)]
    game.unusable = ["empty", "equal", None]
    result = game.play()
    assert [outcome.reason for outcome in result.outcomes] == ["empty", "equal", "pair"]
    assert [outcome.scores for outcome in result.outcomes] == [None, None, (8.0, 5.0)]
    assert [outcome.before == outcome.after for outcome in result.outcomes] == [True, True, False]


def test_every_combat_is_counted_under_one_reason() -> None:
    result = Game(2, n=200).play(preferences=Preferences(min_margin=1.0))
    assert set(result.counts) == {*REASONS, "uniform_jury"}
    assert sum(result.counts[reason] for reason in REASONS) == 200
    for reason in REASONS:
        assert result.counts[reason] == sum(outcome.reason == reason for outcome in result.outcomes) > 0


def test_contestants_own_votes_are_ignored() -> None:
    game = Game(3)
    expected = game.play()
    for at, (i, j) in enumerate(game.combats):
        game.votes[at, :, [i, j]] = 10.0 if at % 2 else NAN
    untouched = game.votes.copy()
    assert game.play() == expected
    np.testing.assert_array_equal(game.votes, untouched)


def test_frozen_reputations_never_move_and_labels_are_still_made() -> None:
    game = Game(4, n=100)
    result = game.play(Reputation(frozen=True))
    assert result.standings == game.standings
    assert result.counts["pair"] > 0
    assert all(outcome.before == outcome.after for outcome in result.outcomes)


def test_the_changes_of_an_iteration_carry_over_and_move_sigma_once_at_its_end() -> None:
    # a's changes before: 1 and 4. It does not play: one more change, 0. Mean 5/3, squares 4/9 + 49/9 + 25/9 = 78/9: sqrt(78/18).
    standings = {name: Standing(1000.0, 0.5, (1.0, 4.0), 1.0) for name in "abcd"}
    votes = np.full((1, 2, 4), NAN)
    votes[0, :, 0] = (8, 5)
    result = replay(
        list("abcd"), standings, [(1, 2)], votes, [None], reputation=PAPER, preferences=Preferences()
    )
    assert result.standings["a"].changes == (1.0, 4.0, 0.0)
    assert result.standings["a"].deviation == pytest.approx(math.sqrt(78 / 18), abs=1e-12)
    assert result.standings["b"].reputation > 1000


def test_a_window_that_is_not_kept_is_emptied_and_sigma_stays() -> None:
    standings = {name: Standing(100.0, 0.7, (1.0, 4.0, 9.0), 1.0) for name in "abc"}
    votes = np.array([[[NAN, NAN, 8], [NAN, NAN, 5]]])
    result = replay(
        list("abc"), standings, [(0, 1)], votes, [None], reputation=AUTHORS, preferences=Preferences()
    )
    assert len(result.standings["a"].changes) == 1
    assert result.standings["c"].changes == ()
    assert [s.deviation for s in result.standings.values()] == [0.7, 0.7, 0.7]


def test_no_more_changes_are_kept_than_the_window_holds() -> None:
    rules = Reputation.model_validate({"deviation": {"unit": "combat", "window": 3}})
    assert {len(s.changes) for s in Game(1, n=100).play(rules).standings.values()} == {3}


@pytest.mark.parametrize("rules", [PAPER, AUTHORS], ids=["paper", "authors"])
def test_an_iteration_without_combats_is_an_iteration(rules: Reputation) -> None:
    result = by_hand(rules, np.empty((0, 2, 3)), [])
    assert result.outcomes == []
    assert [s.reputation for s in result.standings.values()] == [rules.initial] * 3
    assert set(result.counts.values()) == {0}


def test_the_reweighted_mark_is_carried_along() -> None:
    game = Game(1)
    game.standings = reweight(
        {n: replace(s, weight=1.0) for n, s in game.standings.items()},
        2,
        Reweighting(),
        stream(0, 2, "reweighting"),
    )
    result = game.play()
    for name, standing in game.standings.items():
        assert (result.standings[name].weight, result.standings[name].reweighted) == (
            standing.weight,
            standing.reweighted,
        )


def test_without_reweighting_equal_judges_give_the_plain_mean() -> None:
    game = Game(6, m=5, n=1, spread=0.0)
    game.combats = [(0, 1)]
    game.standings = {n: replace(s, weight=1.0) for n, s in game.standings.items()}
    game.votes[0, :, 2:] = [[7, 8, 3], [2, 2, 2]]
    assert game.play().outcomes[0].scores == pytest.approx((6.0, 2.0), abs=1e-12)


games = st.builds(Game, st.integers(0, 10_000), st.integers(3, 6), st.integers(0, 30))
switches = st.sampled_from(SWITCHES)


@given(games, switches)
@settings(deadline=None, max_examples=80, derandomize=True)
def test_no_reputation_falls_below_the_floor_whatever_the_votes(game: Game, rules: Reputation) -> None:
    harsh = rules.model_copy(update={"kappa": rules.kappa.model_copy(update={"divisor": 0.01})})
    result = game.play(harsh)
    assert all(s.reputation >= rules.floor for s in result.standings.values())
    assert all(s.deviation >= rules.deviation.minimum for s in result.standings.values())


@given(games, switches, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=80, derandomize=True)
def test_another_order_of_the_pool_and_other_names_change_nothing_else(
    game: Game, rules: Reputation, order: random.Random
) -> None:
    m = len(game.models)
    place = order.sample(range(m), m)  # model x of the game becomes model place[x] of the other
    other = Game(0, m, 0)
    other.models = [""] * m
    other.votes = np.empty_like(game.votes)
    for x in range(m):
        other.models[place[x]] = f"model-{9 - x}"
        other.votes[:, :, place[x]] = game.votes[:, :, x]
    other.standings = {other.models[place[x]]: game.standings[name] for x, name in enumerate(game.models)}
    other.combats = [(place[i], place[j]) for i, j in game.combats]
    other.unusable = game.unusable
    here, there = game.play(rules), other.play(rules)
    assert there.outcomes == here.outcomes
    assert there.counts == here.counts
    for x, name in enumerate(game.models):
        assert there.standings[other.models[place[x]]] == here.standings[name]


@given(games)
@settings(deadline=None, max_examples=50, derandomize=True)
def test_the_order_of_the_contestants_does_not_matter_when_both_move_at_once(game: Game) -> None:
    here = game.play()
    game.combats = [(j, i) for i, j in game.combats]
    game.votes = game.votes[:, ::-1]
    there = game.play()
    assert there.standings == here.standings
    for a, b in zip(here.outcomes, there.outcomes, strict=True):
        assert b.winner == (None if a.winner is None else 1 - a.winner)
        assert b.reason == a.reason


@given(games, switches)
@settings(deadline=None, max_examples=30, derandomize=True)
def test_only_finite_votes_are_votes(game: Game, rules: Reputation) -> None:
    expected = game.play(rules)
    game.votes[np.isnan(game.votes)] = np.inf
    assert game.play(rules) == expected


def test_three_models_play_and_two_are_refused() -> None:
    assert len(Game(1, m=3).play().outcomes) == 30
    with pytest.raises(SpartaError, match="a pool of 2 models leaves no judge"):
        Game(1, m=2).play()


def test_standings_of_another_pool_are_refused() -> None:
    game = Game(1)
    game.standings["stranger"] = game.standings.pop("m0")
    with pytest.raises(SpartaError, match=r"\(m0, stranger\)"):
        game.play()


@pytest.mark.parametrize("combat", [(0, 0), (0, 4), (-1, 0)])
def test_a_combat_that_is_not_between_two_of_the_pool_is_refused(combat: tuple[int, int]) -> None:
    game = Game(1)
    game.combats[3] = combat
    with pytest.raises(ValueError, match="a combat between"):
        game.play()


def test_votes_of_another_shape_are_refused() -> None:
    game = Game(1)
    votes: NDArray[np.float64] = game.votes
    game.votes = votes[:, :, :-1]
    with pytest.raises(ValueError, match="votes of shape"):
        game.play()
    game.votes, game.unusable = votes, game.unusable[1:]
    with pytest.raises(ValueError, match="29 entries"):
        game.play()
    game.unusable = [None, *game.unusable]
    game.models = ["m0", *game.models]
    with pytest.raises(ValueError, match="twice"):
        game.play()


@pytest.mark.parametrize("rules", [PAPER, AUTHORS], ids=["paper", "authors"])
def test_in_a_long_iteration_the_blocks_do_not_show(rules: Reputation) -> None:
    game = Game(1, m=10, n=10_000)
    result = game.play(rules)
    assert_same(result.standings, derived(game, rules)[1], abs=1e-6)
