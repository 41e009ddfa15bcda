"""How much GPU memory the trainings of a run take, as `sparta.training.memory` reckons: of each base once for all members that are trained alike."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from heapq import nlargest
from math import prod
from pathlib import Path

from sparta.phases.costs import FRAME_TOKENS, counter_of
from sparta.phases.pool import adapters_of, base_folder, locate
from sparta.prompts import question_text
from sparta.recipe import Recipe
from sparta.recipe_pool import Model
from sparta.store.run import Run
from sparta.training.fresh import Shapes, fresh_shapes
from sparta.training.memory import Estimate, describe, of_dpo, of_sft, shapes_of

_LONGEST = 32
"""Prompts whose tokens are counted, the longest in characters: one of them is the longest in tokens, or near it."""


def estimates(run: Run) -> list[Estimate]:
    """GPU memory of every kind of training of `run`: supervised training first, where experts are still to be made, then DPO.

    Reads configurations and heads of files alone. The scripted engine trains nothing. Raises SpartaError where the pool is not in order.
    """
    recipe = run.recipe
    if recipe.engine.kind == "scripted":
        return []
    pool, dpo, sft = recipe.pool, recipe.dpo, recipe.pool.sft
    founded = adapters_of(run)
    dtype = "bfloat16" if recipe.engine.dtype == "auto" else recipe.engine.dtype
    longest = min(dpo.max_length, recipe.engine.context_length, longest_pair(run))
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


def longest_pair(run: Run) -> int:
    """Tokens of the longest prompt and the longest completion that may come of it, about."""
    texts = [question_text(instruction.messages) for instruction in run.instructions]
    counters = {
        folder: counter_of(folder)
        for folder in (base_folder(run.recipe, model) for model in run.recipe.pool.models)
    }
    prompt = max(count(text) for text in nlargest(_LONGEST, texts, key=len) for count in counters.values())
    return int(prompt + FRAME_TOKENS) + run.recipe.generation.max_new_tokens


def adapter_bytes(recipe: Recipe, founded: Mapping[str, Path] | None = None) -> int:
    """What the adapters of M^0 would take on disk if each were there on its own: as those that exist, and in float32 those that are to be made.

    founded: the adapters of the members in the state, by name, where there are any: then adapters are read there alone.
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
