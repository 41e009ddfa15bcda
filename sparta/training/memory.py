"""How much GPU memory training takes, reckoned from a base's config.json and the shapes of an adapter, with the arithmetic.

What is counted is what PyTorch keeps for the backward pass of a decoder of the Llama and Qwen kind (two norms, attention with keys and values for
groups of heads, a gated MLP), as transformers, PEFT and TRL compute it; others come near that. Nothing is loaded.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError
from sparta.training.adapter_folder import WEIGHTS
from sparta.training.fresh import Shapes, empty_model

GIB = 2**30

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_SINGLE = 4
_TILE = (4096, 32768)
"""Tokens and vocabulary of the part of the logits that TRL has in memory at a time."""
_CONTEXT_GIB = 1.0
_SLACK = 0.05
"""Allowance: what CUDA and its libraries take by themselves, and the share that the allocator cannot use."""


@dataclass(frozen=True)
class Base:
    """A base in numbers. hidden, inner (of the MLP), queries, keys: widths; keys are those of one token in one layer, values as wide."""

    parameters: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    vocabulary: int


@dataclass(frozen=True)
class Part:
    """One thing that is in memory. how: the arithmetic."""

    what: str
    bytes: float
    how: str


@dataclass(frozen=True)
class Estimate:
    """GPU memory of one training job, at its peak. what: which job. section: of the recipe, which has its settings."""

    what: str
    section: str
    parts: tuple[Part, ...]

    @property
    def gib(self) -> float:
        return sum(part.bytes for part in self.parts) / GIB

    @property
    def total(self) -> str:
        """What it is and what it comes to."""
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
    """The model in the folder `base` in numbers. Raises SpartaError where its config.json does not tell them."""
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
            f"the config.json of base {base} does not give its shape ({error}): on SLURM set gpu_memory_gib in the profile to null, and "
            "its memory is not reckoned"
        ) from error


def _inner(config: Any) -> int:
    """Width of the MLP that one token passes: of a mixture that of all experts that it is sent to."""
    if (expert := getattr(config, "moe_intermediate_size", None)) is not None:
        shared = getattr(config, "shared_expert_intermediate_size", None) or 0
        return int(expert * config.num_experts_per_tok + shared)
    return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)


def shapes_of(adapter: Path) -> Shapes:
    """Names and shapes of the tensors of the adapter in the folder `adapter`, from the head of its file."""
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def of_dpo(
    what: str, base: Base, adapter: Shapes, pairs: int, length: int, dtype: str, checkpointing: bool
) -> Estimate:
    """DPO on `pairs` pairs a step of `length` tokens, prompt and completion: both sides are in memory together, and a frozen copy of the adapter."""
    return _estimate(what, base, adapter, 2 * pairs, length, dtype, checkpointing, reference=True)


def of_sft(
    what: str, base: Base, adapter: Shapes, rows: int, length: int, dtype: str, checkpointing: bool
) -> Estimate:
    """Supervised training on `rows` rows a step of `length` tokens."""
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
) -> Estimate:
    wide, tokens = _BYTES[dtype], rows * length
    lora = sum(map(prod, adapter.values()))
    layer, reckoned = _layer(base, adapter, wide)
    tile = min(tokens, _TILE[0]), min(base.vocabulary, _TILE[1])
    if checkpointing:
        kept = Part(
            "activations",
            tokens * (base.layers * base.hidden * wide + layer),
            f"{rows} x {length:,} tokens x ({base.layers} layers x {base.hidden:,} x {wide} bytes kept + one layer done again, {layer:,} bytes: {reckoned})",
        )
    else:
        kept = Part(
            "activations",
            tokens * base.layers * layer,
            f"{rows} x {length:,} tokens x {base.layers} layers x {layer:,} bytes ({reckoned})",
        )
    states = "weights, gradients, two moments of AdamW" + ", reference" * reference
    parts = [
        Part("weights", base.parameters * wide, f"{base.parameters:,} parameters x {wide} bytes ({dtype})"),
        Part(
            "LoRA",
            lora * _SINGLE * (4 + reference),
            f"{lora:,} parameters x {4 + reference} x {_SINGLE} bytes ({states}; float32)",
        ),
        kept,
        Part("gradients", tokens * layer, f"{rows} x {length:,} tokens x {layer:,} bytes, of one layer"),
        Part(
            "logits",
            prod(tile) * wide + tokens * base.hidden * (wide + _SINGLE),
            f"{tile[0]:,} tokens x {tile[1]:,} of a vocabulary of {base.vocabulary:,} at a time x {wide} bytes, and what they come from: "
            f"{rows} x {length:,} x {base.hidden:,} x {wide + _SINGLE} bytes",
        ),
    ]
    taken = sum(part.bytes for part in parts)
    allowance = Part(
        "allowance",
        _CONTEXT_GIB * GIB + _SLACK * taken,
        f"{_CONTEXT_GIB:g} GiB for CUDA, {_SLACK:.0%} that the allocator cannot use",
    )
    return Estimate(what, "dpo" if reference else "pool.sft", (*parts, allowance))


def _layer(base: Base, adapter: Shapes, wide: int) -> tuple[int, str]:
    """Bytes that one layer keeps of one token, and how they come about.

    Both norms keep their input in float32; attention its queries, keys, values (as many heads of these as of queries) and output; the MLP
    its gate before and after the activation, and its other half; each LoRA layer a copy of its input, and what it makes of it.
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
