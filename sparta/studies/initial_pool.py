"""The runs that make and score an initial pool once, for all cells of a study that begin with it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from sparta.recipes.baseline import Baseline
from sparta.recipes.identity import identity_of
from sparta.recipes.load import thaw
from sparta.recipes.pool import Model
from sparta.recipes.schema import Recipe
from sparta.store.disk import present
from sparta.studies.layout import POOL, StudyDir

SHARED = "shared"
"""As pool.derived.scores of a cell: the scores of the cell's own initial pool, before it is derived."""
FEWEST_FOR_COMBATS = 3


@dataclass(frozen=True)
class InitialPool:
    """A run of iteration 0 alone. name: POOL and a digest of everything that M^0, its data and its scores depend on. Values that equal their default are left
    out, so that a key added by a later version does not rename it.
    """

    name: str
    recipe: Recipe


def shared_scores(recipe: Recipe) -> bool:
    """Whether the pool of `recipe` is derived from the scores of the study's own initial pool."""
    derived = recipe.pool.derived
    return derived is not None and derived.scores is not None and derived.scores.rpartition("/")[2] == SHARED


def pool_of(recipe: Recipe) -> InitialPool:
    """The initial pool that a cell with `recipe` begins with, before `pool.derived` chooses from it."""
    whole = recipe.pool.model_copy(update={"derived": None}) if shared_scores(recipe) else recipe.pool
    # A new adapter, and one trained from data, depend on the seed; adapters that exist do not.
    drawn = any(model.adapter is None and model.copy_of is None for model in whole.models)
    alone = len(whole.models) < FEWEST_FOR_COMBATS
    made = recipe.model_copy(
        update={
            "pool": whole,
            "seed": recipe.seed if drawn else 0,
            "iterations": 1,
            **({} if alone else {"method": "sparta", "baseline": Baseline()}),
        }
    )
    data = _set(made.data)
    if made.data.task is not None:
        # Prepared splits never overlap, so it does not matter which task the cell is trained on, only on which it is scored.
        data = {key: value for key, value in data.items() if key not in ("task", "size")}
    depends: dict[str, Any] = {
        "pool": identity_of(made.pool, defaults=False),
        "seed": made.seed,
        "chat": _set(made.chat),
        "engine": identity_of(made.engine, defaults=False),
        "data": data,
        "scored_on": made.scored_on,
        "evaluation": _set(made.evaluation),
        "method": made.method if alone else "",
    }
    name = f"{POOL}{hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:8]}"
    return InitialPool(name, made.model_copy(update={"name": name}))


def named_as_in(place: StudyDir, pool: InitialPool) -> InitialPool:
    """`pool` with the name that its run has in the study's folder, where an earlier version named it otherwise."""
    if present(place.recipe(pool.name)):
        return pool
    for known in sorted(place.recipe(POOL).parent.glob(f"{POOL}*.yaml")):
        if pool_of(thaw(known)).name == pool.name:
            return InitialPool(known.stem, pool.recipe.model_copy(update={"name": known.stem}))
    return pool


def _set(section: BaseModel) -> dict[str, Any]:
    """The values of `section` that differ from their defaults, as plain values."""
    return section.model_dump(mode="json", exclude_defaults=True)


def pool_recipe(recipe: Recipe, pool: InitialPool, place: StudyDir) -> Recipe:
    """`recipe` beginning with the adapters and scores of the run of `pool`: its experts are trained there, and its derived pool is ranked there."""
    state, updates = place.cell(pool.name), dict[str, Any]()
    if recipe.pool.experts:
        updates["models"] = tuple(
            model
            if model.sft is None
            else Model(name=model.name, base=model.base, adapter=str(state.iteration(0).adapter(model.name)))
            for model in recipe.pool.models
        )
    if shared_scores(recipe):
        assert recipe.pool.derived is not None
        task = recipe.pool.derived.task or recipe.data.task or "own"
        updates["derived"] = recipe.pool.derived.model_copy(update={"scores": str(state.root), "task": task})
    return recipe.model_copy(update={"pool": recipe.pool.model_copy(update=updates)}) if updates else recipe
