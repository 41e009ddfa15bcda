"""The GPU memory of a run's trainings: one estimate for all members with the same base and adapter shapes, and the check against a GPU's."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from heapq import nlargest
from math import prod
from pathlib import Path
from typing import Literal

from sparta.chat.judge_prompts import question_text
from sparta.engines.small_base import settled
from sparta.engines.token_count import FRAME_TOKENS, counter_of
from sparta.engines.tokenizers import tokens_of_thinking
from sparta.errors import SpartaError
from sparta.pool.dpo_account import dpo_account, members_together
from sparta.pool.members import adapters_of, base_folder, locate
from sparta.pool.memory_account import Base, MemoryEstimate, describe, of_sft, shapes_of
from sparta.recipes.pool import Model
from sparta.recipes.schema import Recipe
from sparta.store.run import Run
from sparta.training.dpo_batches import filled
from sparta.training.new_adapter import Shapes, fresh_shapes


def check_memory(run: Run, gib: float | None, profile: str) -> None:
    """Raises SpartaError if a training of `run` is estimated to need more than the `gib` of a GPU in this profile. None: unknown, nothing is checked."""
    if gib is None:
        return
    for estimate in estimates(run, gib):
        if estimate.gib > gib:
            section, recipe = estimate.section, run.recipe
            together = recipe.cluster.train_together
            settings = recipe.dpo if section == "dpo" else recipe.pool.sft
            # One or the other: a base in 4 bits is not divided over GPUs.
            smaller = [
                *(["engine.quantize to nf4 in a new run"] if recipe.engine.quantize is None and recipe.cluster.gpus_per_training == 1 else []),
                *([f"cluster.gpus_per_training to {estimate.fits_gpus}"] if estimate.fits_gpus else []),
            ]  # fmt: skip
            remedies = [
                *([f"set cluster.train_together to auto (it is {together})"] if together != "auto" and section == "dpo" else []),
                *([f"set {section}.gradient_checkpointing to auto"] if settings.gradient_checkpointing is False else []),
                *(["bring adapters of these members, because supervised training is not divided over GPUs"] if section != "dpo" and recipe.cluster.gpus_per_training > 1 else []),
                f"lower {section}.batch_size or {section}.max_length",
                *(["set engine.attention to auto (it is eager)"] if recipe.engine.attention == "eager" else []),
                *([f"set {' or '.join(smaller)}"] if smaller else []),
            ]  # fmt: skip
            raise SpartaError(
                f"{estimate.what} is estimated to take {estimate.gib:.1f} GiB of GPU memory, and a GPU of profile {profile} has {gib:g}: "
                f"{', '.join(remedies)}, or correct gpu_memory_gib there"
            )


_MORE_GPUS = (2, 4, 8)
"""How many GPUs of a node may be proposed for one training."""
_LONGEST = 32
"""How many prompts are tokenized, the longest in characters: the longest in tokens is among them, or hardly longer."""


def estimates(run: Run, gib: float | None = None) -> list[MemoryEstimate]:
    """GPU memory of every kind of training of `run`: SFT first, if experts are still to be trained, then DPO.

    gib: of a GPU; gradient checkpointing that the recipe leaves open is then on if it is needed. Reads only configurations and file headers.
    Empty where training takes no GPU. Raises SpartaError if the pool is invalid.
    """
    recipe = run.recipe
    pool, dpo, sft = recipe.pool, recipe.dpo, recipe.pool.sft
    bases = {base_folder(recipe, model) for model in pool.models}
    if recipe.engine.kind == "scripted" or settled(recipe.engine, bases).device == "cpu":
        return []
    adapters = adapters_of(run)
    dtype = _dtype(recipe)
    longest = filled(min(dpo.max_length, recipe.engine.context_length, longest_pair(run)))
    completion = recipe.generation.max_new_tokens + _thinking(run)
    found = []
    for kind, models in (("SFT", () if adapters else pool.experts), ("DPO", pool.models)):
        for base, shapes, members in _alike(recipe, models, adapters):
            what = f"{kind} of {_in_words(members)} on {pool.base_of(members[0])}"
            size = describe(base, pool.trust_remote_code, recipe.engine.quantize)
            if kind == "SFT":
                rows = (sft.batch_size, sft.max_length, dtype)
                attention = recipe.engine.attention
                of = partial(of_sft, what, size, shapes, *rows, optimizer=sft.optimizer, attention=attention)
                found.append(_with_checkpointing(sft.gradient_checkpointing, of, gib))
            else:
                found.append(
                    estimated_dpo(recipe, what, size, shapes, len(members), longest, completion, gib)
                )
    return found


def estimated_dpo(
    recipe: Recipe,
    what: str,
    base: Base,
    adapter: Shapes,
    members: int,
    length: int,
    completion: int,
    gib: float | None = None,
) -> MemoryEstimate:
    """DPO of `members` on `base` with pairs of `length` tokens, of each side `completion` scored, as `recipe` trains on GPUs with `gib`."""
    of = dpo_account(recipe, what, base, adapter, length, completion, _dtype(recipe))
    return _on_gpus(recipe, partial(of, members=members_together(recipe, members)), gib)


def _dtype(recipe: Recipe) -> str:
    return "bfloat16" if recipe.engine.dtype == "auto" else recipe.engine.dtype


def _on_gpus(recipe: Recipe, of: Callable[..., MemoryEstimate], gib: float | None) -> MemoryEstimate:
    """The estimate `of` a DPO on each of the GPUs that the recipe gives it; if it does not fit, with the number that it would fit.

    A base in 4 bits is not divided.
    """

    def on(gpus: int) -> MemoryEstimate:
        return _with_checkpointing(recipe.dpo.gradient_checkpointing, partial(of, gpus=gpus), gib)

    asked = recipe.cluster.gpus_per_training
    estimate = on(asked)
    if asked > 1:
        estimate = replace(estimate, note=f" on each of {asked} GPUs{estimate.note}")
    if gib is None or estimate.gib <= gib or recipe.engine.quantize is not None:
        return estimate
    fitting = (more for more in _MORE_GPUS if more > asked and on(more).gib <= gib)
    return replace(estimate, fits_gpus=next(fitting, None))


def _with_checkpointing(
    asked: bool | Literal["auto"], of: Callable[[bool], MemoryEstimate], gib: float | None
) -> MemoryEstimate:
    """The estimate `of` a training as the recipe wants it, or if it leaves that open, as a GPU with `gib` needs it."""
    if asked != "auto":
        return of(asked)
    off, on = of(False), of(True)
    if gib is None or off.gib <= gib:
        return replace(off, note=f" without gradient checkpointing, {on.gib:.1f} with it (auto)")
    return replace(on, note=f" with gradient checkpointing, {off.gib:.1f} without it (auto)")


def longest_pair(run: Run) -> int:
    """Tokens of the longest prompt plus the longest possible completion, roughly."""
    texts = [question_text(instruction.messages) for instruction in run.instructions]
    counters = {
        folder: counter_of(folder)
        for folder in (base_folder(run.recipe, model) for model in run.recipe.pool.models)
    }
    prompt = max(count(text) for text in nlargest(_LONGEST, texts, key=len) for count in counters.values())
    return int(prompt + FRAME_TOKENS) + run.recipe.generation.max_new_tokens + _thinking(run)


def _thinking(run: Run) -> int:
    """Tokens of the marks around the thinking of a completion, at most."""
    folders = {base_folder(run.recipe, model) for model in run.recipe.pool.models}
    return max(tokens_of_thinking(folder, run.chat) for folder in folders)


def adapter_bytes(recipe: Recipe, adapters: Mapping[str, Path] | None = None) -> int:
    """Bytes of the pool's adapters on disk in float32, counting one for each member.

    adapters: the members' adapters in the state, by name, if there are any; then only these are read.
    """
    shapes = _shapes(recipe, adapters)
    return sum(4 * sum(map(prod, shapes(model).values())) for model in recipe.pool.models)


def _alike(
    recipe: Recipe, models: Iterable[Model], adapters: Mapping[str, Path] | None
) -> list[tuple[str, Shapes, list[Model]]]:
    """Members grouped by base and adapter shapes."""
    shapes = _shapes(recipe, adapters)
    groups = defaultdict[tuple[str, frozenset[tuple[str, tuple[int, ...]]]], list[Model]](list)
    for model in models:
        groups[base_folder(recipe, model), frozenset(shapes(model).items())].append(model)
    return [(base, dict(key), members) for (base, key), members in groups.items()]


def _shapes(recipe: Recipe, adapters: Mapping[str, Path] | None = None) -> Callable[[Model], Shapes]:
    """From a member to its adapter's shapes, whether the adapter is in the state, elsewhere or not created yet."""
    pool = recipe.pool

    @cache
    def new(base: str) -> Shapes:
        return fresh_shapes(base, pool.lora, pool.trust_remote_code)

    def of(model: Model) -> Shapes:
        if adapters:
            return shapes_of(adapters[model.name])
        original = pool.original(model)
        if original.adapter is not None:
            return shapes_of(Path(locate(original.adapter, pool.folder)))
        return new(base_folder(recipe, model))

    return of


def _in_words(members: list[Model]) -> str:
    names = [model.name for model in members]
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"
