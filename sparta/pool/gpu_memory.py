"""Estimates of the GPU memory of a run's training jobs: one estimate for all members with the same base and adapter shapes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from heapq import nlargest
from math import prod
from pathlib import Path
from typing import Any

from sparta.chat.judge_prompts import question_text
from sparta.engines.token_count import FRAME_TOKENS, counter_of
from sparta.engines.tokenizers import tokens_of_thinking
from sparta.errors import SpartaError
from sparta.pool.members import adapters_of, base_folder, locate
from sparta.recipes.pool import Model
from sparta.recipes.schema import Recipe
from sparta.store.run import Run
from sparta.training.adapter_folder import WEIGHTS
from sparta.training.new_adapter import Shapes, empty_model, fresh_shapes

GIB = 2**30

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SINGLE = 4
_TILE = (4096, 32768)
"""Tokens and vocabulary entries of the tile of logits that TRL holds in memory at a time."""
_CONTEXT_GIB = 1.0
_SLACK = 0.05
"""Allowance: GiB for CUDA and its libraries, and the share of memory that the allocator cannot use."""


@dataclass(frozen=True)
class Base:
    """The size of a base. hidden, inner (of the MLP), queries, keys: widths, per token and layer; values are as wide as keys."""

    parameters: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int


@dataclass(frozen=True)
class MemoryPart:
    """One use of memory. how: the arithmetic."""

    what: str
    bytes: float
    how: str


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak GPU memory of one training job. what: which job. section: of the recipe, with the job's settings."""

    what: str
    section: str
    parts: tuple[MemoryPart, ...]

    @property
    def gib(self) -> float:
        return sum(part.bytes for part in self.parts) / GIB

    @property
    def total(self) -> str:
        """The job and its total, in one line."""
        return f"{self.what}: {self.gib:.1f} GiB"

    @property
    def lines(self) -> tuple[str, ...]:
        """`total`, then each part with its arithmetic."""
        width = max(len(part.what) for part in self.parts)
        return (
            self.total,
            *(f"  {part.what:{width}}  {part.bytes / GIB:6.2f}  {part.how}" for part in self.parts),
        )


def describe(base: str, trust_remote_code: bool = False) -> Base:
    """The size of the model in the folder `base`. Raises SpartaError if its config.json does not give it."""
    model = empty_model(base, trust_remote_code)
    config = model.config.get_text_config()
    try:
        heads = int(config.num_attention_heads)
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        return Base(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            layers=int(config.num_hidden_layers),
            hidden=int(config.hidden_size),
            inner=_inner(config),
            queries=heads * head,
            keys=(getattr(config, "num_key_value_heads", None) or heads) * head,
            vocabulary=int(config.vocab_size),
        )
    except (AttributeError, TypeError) as error:
        raise SpartaError(
            f"the config.json of base {base} does not give its shape ({error}): on SLURM, set gpu_memory_gib to null in the profile to skip the "
            "memory estimate"
        ) from error


def _inner(config: Any) -> int:
    """MLP width per token; in a mixture of experts, summed over the experts that a token is routed to."""
    if (expert := getattr(config, "moe_intermediate_size", None)) is not None:
        shared = getattr(config, "shared_expert_intermediate_size", None) or 0
        return int(expert * config.num_experts_per_tok + shared)
    return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)


def shapes_of(adapter: Path) -> Shapes:
    """Names and shapes of the tensors of the adapter in the folder `adapter`, from its file's header."""
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def of_dpo(
    what: str, base: Base, adapter: Shapes, pairs: int, length: int, dtype: str, checkpointing: bool
) -> MemoryEstimate:
    """DPO on `pairs` pairs per step, each side with `length` tokens of prompt and completion. Both sides and a frozen copy of the adapter are in memory."""
    return _estimate(what, base, adapter, 2 * pairs, length, dtype, checkpointing, reference=True)


def of_sft(
    what: str, base: Base, adapter: Shapes, rows: int, length: int, dtype: str, checkpointing: bool
) -> MemoryEstimate:
    """SFT on `rows` rows of `length` tokens per step."""
    return _estimate(what, base, adapter, rows, length, dtype, checkpointing, reference=False)


def _estimate(
    what: str,
    base: Base,
    adapter: Shapes,
    rows: int,
    length: int,
    dtype: str,
    checkpointing: bool,
    reference: bool,
) -> MemoryEstimate:
    wide, tokens = _BYTES[dtype], rows * length
    lora = sum(map(prod, adapter.values()))
    layer, arithmetic = _layer(base, adapter, wide)
    tile = min(tokens, _TILE[0]), min(base.vocabulary, _TILE[1])
    if checkpointing:
        kept = MemoryPart(
            "activations",
            tokens * (base.layers * base.hidden * wide + layer),
            f"{rows} x {length:,} tokens x ({base.layers} layers x {base.hidden:,} x {wide} bytes kept + one layer recomputed, {layer:,} bytes: {arithmetic})",
        )
    else:
        kept = MemoryPart(
            "activations",
            tokens * base.layers * layer,
            f"{rows} x {length:,} tokens x {base.layers} layers x {layer:,} bytes ({arithmetic})",
        )
    states = "weights, gradients, two moments of AdamW" + ", reference" * reference
    parts = [
        MemoryPart(
            "weights", base.parameters * wide, f"{base.parameters:,} parameters x {wide} bytes ({dtype})"
        ),
        MemoryPart(
            "LoRA",
            lora * _SINGLE * (4 + reference),
            f"{lora:,} parameters x {4 + reference} x {_SINGLE} bytes ({states}; float32)",
        ),
        kept,
        MemoryPart(
            "gradients", tokens * layer, f"{rows} x {length:,} tokens x {layer:,} bytes, of one layer"
        ),
        MemoryPart(
            "logits",
            prod(tile) * wide + tokens * base.hidden * (wide + _SINGLE),
            f"{tile[0]:,} tokens x {tile[1]:,} of a vocabulary of {base.vocabulary:,} at a time x {wide} bytes, and their inputs: "
            f"{rows} x {length:,} x {base.hidden:,} x {wide + _SINGLE} bytes",
        ),
    ]
    taken = sum(part.bytes for part in parts)
    allowance = MemoryPart(
        "allowance",
        _CONTEXT_GIB * GIB + _SLACK * taken,
        f"{_CONTEXT_GIB:g} GiB for CUDA, {_SLACK:.0%} that the allocator cannot use",
    )
    return MemoryEstimate(what, "dpo" if reference else "pool.sft", (*parts, allowance))


def _layer(base: Base, adapter: Shapes, wide: int) -> tuple[int, str]:
    """Bytes of activations that one layer keeps per token, and the arithmetic.

    Both norms keep their input in float32; attention keeps queries, keys, values (expanded to as many heads as queries) and output; the MLP keeps
    its gate before and after the activation, and its up projection; each LoRA layer keeps a copy of its input, and its product with A.
    """
    norms = 2 * _SINGLE * base.hidden
    attention = 4 * wide * base.queries
    mlp = 3 * wide * base.inner
    inputs = sum(shape[1] + shape[0] for name, shape in adapter.items() if ".lora_A." in name)
    lora = wide * inputs // base.layers
    return (
        norms + attention + mlp + lora,
        (
            f"norms 2 x {_SINGLE} x {base.hidden:,}, attention 4 x {wide} x {base.queries:,}, MLP 3 x {wide} x {base.inner:,}, "
            f"LoRA's inputs {lora:,}"
        ),
    )


def check_memory(run: Run, gib: float | None, profile: str) -> None:
    """Raises SpartaError if a training of `run` is estimated to need more than the `gib` of a GPU in this profile. None: unknown, nothing is checked."""
    if gib is None or run.recipe.engine.device == "cpu":
        return
    for estimate in estimates(run):
        if estimate.gib > gib:
            section = estimate.section
            raise SpartaError(
                f"{estimate.what} is estimated to take {estimate.gib:.1f} GiB of GPU memory, and a GPU of profile {profile} has {gib:g}: "
                f"set {section}.gradient_checkpointing to true, lower {section}.batch_size or {section}.max_length, or correct "
                "gpu_memory_gib there"
            )


_LONGEST = 32
"""How many prompts are tokenized, the longest in characters: the longest in tokens is among them, or hardly longer."""


def estimates(run: Run) -> list[MemoryEstimate]:
    """GPU memory of every kind of training of `run`: SFT first, if experts are still to be trained, then DPO.

    Reads only configurations and file headers. Empty for the scripted engine, which trains nothing. Raises SpartaError if the pool is invalid.
    """
    recipe = run.recipe
    if recipe.engine.kind == "scripted":
        return []
    pool, dpo, sft = recipe.pool, recipe.dpo, recipe.pool.sft
    adapters = adapters_of(run)
    dtype = "bfloat16" if recipe.engine.dtype == "auto" else recipe.engine.dtype
    longest = min(dpo.max_length, recipe.engine.context_length, longest_pair(run))
    found = []
    for kind, models in (("SFT", () if adapters else pool.experts), ("DPO", pool.models)):
        for base, shapes, members in _alike(recipe, models, adapters):
            what = f"{kind} of {_in_words(members)} on {pool.base_of(members[0])}"
            size = describe(base, pool.trust_remote_code)
            if kind == "SFT":
                found.append(
                    of_sft(
                        what,
                        size,
                        shapes,
                        sft.batch_size,
                        sft.max_length,
                        dtype,
                        sft.gradient_checkpointing,
                    )
                )
            else:
                found.append(
                    of_dpo(what, size, shapes, dpo.batch_size, longest, dtype, dpo.gradient_checkpointing)
                )
    return found


def longest_pair(run: Run) -> int:
    """Tokens of the longest prompt plus the longest possible completion, roughly."""
    texts = [question_text(instruction.messages) for instruction in run.instructions]
    counters = {
        folder: counter_of(folder)
        for folder in (base_folder(run.recipe, model) for model in run.recipe.pool.models)
    }
    prompt = max(count(text) for text in nlargest(_LONGEST, texts, key=len) for count in counters.values())
    thinking = max(tokens_of_thinking(folder, run.chat) for folder in counters)
    return int(prompt + FRAME_TOKENS) + run.recipe.generation.max_new_tokens + thinking


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
