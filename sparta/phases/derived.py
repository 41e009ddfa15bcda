"""Pools that are made from the one a recipe names, for studies of diversity and of size (sections 4 and C.7 of the paper). Pure: a recipe in, a recipe out."""

from collections.abc import Sequence
from typing import Any

from sparta.errors import SpartaError
from sparta.recipe import Recipe
from sparta.recipe_files import validated
from sparta.recipe_pool import Derived, Model, Pool
from sparta.rng import stream


def derive(recipe: Recipe, ranking: Sequence[str]) -> Recipe:
    """`recipe` with the members that its `pool.derived` comes to, each named, in place of those it names; as it is where it derives none.

    ranking: the names of all members, the best first. Members keep the order of the pool; copies, called <name>-2, <name>-3 and so on, follow
    their original. Raises SpartaError where the ranking is not of these members, the pool has copies already, or the numbers do not fit its size.
    """
    pool, derived = recipe.pool, recipe.pool.derived
    if derived is None:
        return recipe
    _require_originals(pool)
    _require_ranking(pool, ranking)
    chosen = _repeated(recipe.seed, pool, derived, ranking) if derived.repeat else _spread(derived, ranking)
    copies = len(pool.models) // len(chosen) if derived.repeat else 1
    models = [one for model in pool.models if model.name in chosen for one in _times(pool, model, copies)]
    tree = recipe.model_dump(mode="json")
    tree["pool"] |= {"models": models, "derived": None}
    return validated(Recipe, tree, f"recipe {recipe.name}, its derived pool")


def _repeated(seed: int, pool: Pool, derived: Derived, ranking: Sequence[str]) -> set[str]:
    """The best and others drawn from all the rest, whatever their rank. A draw of more contains that of fewer."""
    size, distinct = len(pool.models), derived.repeat or 0
    if size % distinct:
        fitting = ", ".join(str(count) for count in range(1, size + 1) if size % count == 0)
        raise SpartaError(
            f"pool.derived.repeat is {distinct}, of which the pool's {size} models are no multiple: set it to one of {fitting}"
        )
    best, *_ = ranking
    others = [model.name for model in pool.models if model.name != best]
    drawn = stream(seed, "pool", "repeat").sample(others, len(others))
    return {best, *drawn[: distinct - 1]}


def _spread(derived: Derived, ranking: Sequence[str]) -> set[str]:
    """The first, the last, and ranks evenly between them, rounded to the better: of ten the 1st, 5th and 10th; 1, 3, 5, 7, 10; 1, 2, 4, 5, 7, 8, 10."""
    wanted, size = derived.spread or 0, len(ranking)
    if wanted > size:
        raise SpartaError(
            f"pool.derived.spread is {wanted}, and the pool has {size} models: set it to {size} at most"
        )
    return {ranking[place * (size - 1) // (wanted - 1)] for place in range(wanted)}


def _times(pool: Pool, model: Model, count: int) -> list[dict[str, Any]]:
    """`model` and its copies, `count` in all."""
    taken = {other.name for other in pool.models}
    names = [f"{model.name}-{number}" for number in range(2, count + 1)]
    if clash := next((name for name in names if name in taken), None):
        raise SpartaError(
            f"pool.derived would call a copy of {model.name} {clash}, and the pool has a model of that name: rename that"
        )
    return [model.model_dump(mode="json"), *({"name": name, "copy_of": model.name} for name in names)]


def _require_originals(pool: Pool) -> None:
    for model in pool.models:
        if model.copy_of is not None:
            raise SpartaError(
                f"pool.derived makes copies itself, and {model.name} is a copy of {model.copy_of} already: leave pool.derived out, "
                "or name the recipe that has no copies"
            )


def _require_ranking(pool: Pool, ranking: Sequence[str]) -> None:
    names = [model.name for model in pool.models]
    if sorted(ranking) == sorted(names):
        return
    wrong = (
        ("lacks", [name for name in names if name not in ranking]),
        ("names what is no model", [name for name in dict.fromkeys(ranking) if name not in names]),
        ("names twice", [name for name in dict.fromkeys(ranking) if ranking.count(name) > 1]),
    )
    said = "; ".join(f"{what}: {', '.join(which)}" for what, which in wrong if which)
    raise SpartaError(f"pool.derived needs a ranking with each model of the pool once, and this one {said}")
