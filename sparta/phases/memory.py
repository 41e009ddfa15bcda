"""How much GPU memory the trainings of a recipe take, as `sparta.training.memory` reckons: of each base once for all members that are trained alike."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from math import prod
from pathlib import Path

from sparta.phases.pool import base_folder, locate
from sparta.recipe import Recipe
from sparta.recipe_pool import Model
from sparta.training.fresh import Shapes, fresh_shapes
from sparta.training.memory import Estimate, describe, of_dpo, of_sft, shapes_of


def estimates(
    recipe: Recipe, pair_tokens: int | None = None, founded: Mapping[str, Path] | None = None
) -> list[Estimate]:
    """GPU memory of every kind of training that the recipe has: supervised training first, then DPO. Reads configurations and heads of files alone.

    pair_tokens: of the longest pair that may come; None: it is not known, and dpo.max_length is taken. founded: the adapters of the members in
    the state, by name, where there are any: then no expert is to be made, and adapters are read there alone. The scripted engine trains nothing.
    Raises SpartaError where the pool is not in order.
    """
    if recipe.engine.kind == "scripted":
        return []
    pool, dpo, sft = recipe.pool, recipe.dpo, recipe.pool.sft
    dtype = "bfloat16" if recipe.engine.dtype == "auto" else recipe.engine.dtype
    longest = min(dpo.max_length, recipe.engine.context_length, pair_tokens or dpo.max_length)
    found = []
    for kind, models in (("SFT", () if founded else pool.taught), ("DPO", pool.models)):
        for base, shapes, members in _alike(recipe, models, founded):
            what = f"{kind} of {_in_words(members)} on {pool.base_of(members[0])}"
            numbers = describe(base, pool.trust_remote_code)
            if kind == "SFT":
                found.append(
                    of_sft(
                        what,
                        numbers,
                        shapes,
                        sft.batch_size,
                        sft.max_length,
                        dtype,
                        sft.gradient_checkpointing,
                    )
                )
            else:
                found.append(
                    of_dpo(what, numbers, shapes, dpo.batch_size, longest, dtype, dpo.gradient_checkpointing)
                )
    return found


def lines(recipe: Recipe) -> list[str]:
    """The estimates with their arithmetic."""
    return [line for estimate in estimates(recipe) for line in estimate.lines]


def adapter_bytes(recipe: Recipe, founded: Mapping[str, Path] | None = None) -> int:
    """What the adapters of M^0 would take on disk if each were there on its own: as those that exist, and in float32 those that are to be made.

    founded: as in `estimates`.
    """
    shapes = _shapes(recipe, founded)
    return sum(4 * sum(map(prod, shapes(model).values())) for model in recipe.pool.models)


def _alike(
    recipe: Recipe, models: Iterable[Model], founded: Mapping[str, Path] | None
) -> list[tuple[str, Shapes, list[Model]]]:
    """Members that differ neither in their base nor in the shapes of their adapters, with both."""
    shapes = _shapes(recipe, founded)
    groups = defaultdict[tuple[str, frozenset[tuple[str, tuple[int, ...]]]], list[Model]](list)
    for model in models:
        groups[base_folder(recipe, model), frozenset(shapes(model).items())].append(model)
    return [(base, dict(key), members) for (base, key), members in groups.items()]


def _shapes(recipe: Recipe, founded: Mapping[str, Path] | None = None) -> Callable[[Model], Shapes]:
    """The shapes of a member's adapter, be it in the state, elsewhere, or to be made."""
    pool = recipe.pool

    @cache
    def new(base: str) -> Shapes:
        return fresh_shapes(base, pool.lora, pool.trust_remote_code)

    def of(model: Model) -> Shapes:
        if founded:
            return shapes_of(founded[model.name])
        original = pool.original(model)
        if original.adapter is not None:
            return shapes_of(Path(locate(original.adapter, pool.folder)))
        return new(base_folder(recipe, model))

    return of


def _in_words(members: list[Model]) -> str:
    names = [model.name for model in members]
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"
