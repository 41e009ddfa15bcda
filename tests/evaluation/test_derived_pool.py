"""Derived pools: the choice by rank and seed, names of copies, and errors."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparta.errors import SpartaError
from sparta.evaluation.derived_pool import derive
from sparta.recipes.load import load
from sparta.recipes.schema import Recipe

TEN = [f"m{number}" for number in range(10)]
RANKING = ["m7", "m2", "m9", "m0", "m4", "m5", "m1", "m8", "m3", "m6"]


def recipe(
    *, names: list[str] = TEN, seed: int = 0, copies: dict[str, str] | None = None, **derived: object
) -> Recipe:
    """A recipe that derives its pool. copies: more members, by name, each with what it is a copy of."""
    models: list[dict[str, object]] = [{"name": name, "adapter": f"/adapters/{name}"} for name in names]
    models += [{"name": name, "copy_of": original} for name, original in (copies or {}).items()]
    # What these tests call `derive` with is what counts.
    pool = {"base": "/base", "models": models, "derived": {"ranking": ["given", "apart"], **derived}}
    return Recipe.model_validate({"name": "study", "seed": seed, "pool": pool, "data": {"task": "toy"}})


def names(made: Recipe) -> list[str]:
    return [model.name for model in made.pool.models]


def originals(made: Recipe) -> list[str]:
    return [model.name for model in made.pool.models if model.copy_of is None]


@pytest.mark.parametrize(
    ("size", "ranks"),
    [(3, [1, 5, 10]), (5, [1, 3, 5, 7, 10]), (7, [1, 2, 4, 5, 7, 8, 10]), (10, list(range(1, 11)))],
)
def test_the_widest_spread_of_ten_has_the_papers_ranks_in_the_order_of_the_pool(
    size: int, ranks: list[int]
) -> None:
    made = derive(recipe(spread=size), RANKING)
    chosen = {RANKING[rank - 1] for rank in ranks}
    assert names(made) == [name for name in TEN if name in chosen]
    assert made.pool.derived is None


@given(st.integers(3, 40), st.data())
def test_a_spread_has_first_and_last_and_gaps_that_differ_by_one_at_most(
    size: int, data: st.DataObject
) -> None:
    wanted = data.draw(st.integers(3, size))
    many = [f"m{number}" for number in range(size)]
    ranks = [many.index(name) for name in names(derive(recipe(names=many, spread=wanted), many))]
    assert (len(ranks), ranks[0], ranks[-1]) == (wanted, 0, size - 1)
    gaps = [after - before for before, after in pairwise(ranks)]
    assert max(gaps) - min(gaps) <= 1 and min(gaps) >= 1


@pytest.mark.parametrize("distinct", [1, 2, 5, 10])
def test_a_repeated_pool_keeps_its_size_and_its_best(distinct: int) -> None:
    made = derive(recipe(repeat=distinct), RANKING)
    assert len(made.pool.models) == 10
    assert len(originals(made)) == distinct
    assert "m7" in originals(made)
    for name in originals(made):
        mine = [model for model in made.pool.models if name in (model.name, model.copy_of)]
        assert [model.name for model in mine] == [
            name,
            *(f"{name}-{n}" for n in range(2, 10 // distinct + 1)),
        ]
        assert all((model.adapter, model.base, model.sft) == (None, None, None) for model in mine[1:])
        assert {made.pool.base_of(model) for model in mine} == {"/base"}
    assert originals(made) == [name for name in TEN if name in originals(made)]


def test_the_best_alone_is_a_pool_of_one_under_its_own_name() -> None:
    assert names(derive(recipe(best=True), RANKING)) == [RANKING[0]]


def test_ten_different_ones_are_the_pool_itself() -> None:
    assert derive(recipe(repeat=10), RANKING).pool.models == recipe(repeat=10).pool.models


def test_others_are_sampled_by_seed_regardless_of_rank_and_larger_samples_contain_smaller_ones() -> None:
    drawn = {seed: originals(derive(recipe(repeat=2, seed=seed), RANKING)) for seed in range(60)}
    assert {name for pair in drawn.values() for name in pair} == set(TEN)
    for seed, pair in drawn.items():
        assert set(pair) < set(originals(derive(recipe(repeat=5, seed=seed), RANKING)))
        below_the_best = [RANKING[0], *reversed(RANKING[1:])]
        assert originals(derive(recipe(repeat=2, seed=seed), below_the_best)) == pair


def test_a_derived_recipe_is_the_one_that_names_the_same_members() -> None:
    made = derive(recipe(repeat=5), RANKING)
    models = [model.model_dump() for model in made.pool.models]
    named = Recipe.model_validate(
        {"name": "study", "pool": {"base": "/base", "models": models}, "data": {"task": "toy"}}
    )
    assert (made, made.hash, named.differences(made)) == (named, named.hash, [])
    assert derive(made, []) is made


def test_what_else_a_recipe_says_stays() -> None:
    toy = load("toy", ["pool.derived.spread=3", "pool.derived.ranking=[x]", "reputation.preset=authors"])
    skills = [model.name for model in toy.pool.models]
    made = derive(toy, skills)
    assert made.model_copy(update={"pool": None}) == toy.model_copy(update={"pool": None})
    assert names(made) == [skills[0], skills[4], skills[9]]


@pytest.mark.parametrize(
    ("derived", "said"),
    [
        (
            {"repeat": 3},
            r"repeat is 3, which does not divide the pool's 10 models: set it to one of 1, 2, 5, 10",
        ),
        ({"repeat": 20}, r"repeat is 20"),
        ({"spread": 11}, r"spread is 11, but the pool has 10 models: set it to 10 at most"),
        (
            {"repeat": 5, "names": ["m9-2", *TEN[1:]]},
            r"a copy of m9 m9-2, but the pool already has a model of that name",
        ),
        ({"repeat": 11, "copies": {"twin": "m1"}}, r"twin is a copy of m1 already"),
        ({"repeat": 1, "names": [*TEN[:9], "m" * 63]}, r"m{63}-2"),
    ],
)
def test_what_cannot_be_derived_is_refused(derived: dict[str, object], said: str) -> None:
    study = recipe(**derived)  # type: ignore[arg-type]
    best, *others = reversed([model.name for model in study.pool.models])
    with pytest.raises(SpartaError, match=said):
        derive(study, [best, *others])


@pytest.mark.parametrize(
    ("ranking", "said"),
    [
        (RANKING[:8], "lacks: m3, m6"),
        ([*RANKING, "mx"], "names unknown models: mx"),
        ([*RANKING[:9], "m7"], "lacks: m6; names twice: m7"),
    ],
)
def test_a_ranking_is_of_exactly_the_models_of_the_pool(ranking: list[str], said: str) -> None:
    with pytest.raises(SpartaError, match=said):
        derive(recipe(repeat=2), ranking)
