"""The account of the GPU memory of one training: what the loop holds at its peak, part by part, from sizes alone.

DPO is our own loop (`sparta.training.dpo`); SFT is TRL's. Counted on CPUs and measured on a GPU (tests/pool/test_memory_account.py).
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sparta.engines.weight_files import BYTES_OF_TYPE
from sparta.errors import SpartaError
from sparta.training.adapter_folder import WEIGHTS
from sparta.training.dpo_batches import REFERENCE_TOKENS, SCORED_AT_ONCE
from sparta.training.new_adapter import Shapes, decoder_layers, empty_model

GIB = 2**30

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a parameter in 4 bits: a scale of one byte for every 64, and one of four bytes for every 256 of these."""
_SINGLE = 4
_TILE = (4096, 32768)
"""Tokens and vocabulary entries of the tile of logits that TRL, which runs the SFT, holds in memory at a time."""
_LAYERS_AT_ONCE = 3
"""Layers of a divided base that are whole on a GPU at a time: the one at work, and the next one twice, as it arrives and as it is used. Not measured."""
CONTEXT_GIB = 0.8
_SLACK = 0.05
"""Allowance: GiB for CUDA and its libraries (0.7 to 0.8 on an H100), and the share of memory that the allocator cannot use (1 to 5 %)."""


@dataclass(frozen=True)
class Base:
    """The size of a base. hidden, inner (of the MLP), queries, keys: widths, per token and layer; values are as wide as keys. heads: of the queries.

    mixture: of experts; its adapters are trained as PEFT puts them on. in_4_bits: parameters held in 4 bits, those of the largest matrix `largest`.
    outside: parameters that are in no layer (embeddings, output layer).
    """

    parameters: int
    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int
    vocabulary: int
    mixture: bool = False
    in_4_bits: int = 0
    largest: int = 0
    outside: int = 0


@dataclass(frozen=True)
class MemoryPart:
    """One use of memory. how: the arithmetic."""

    what: str
    bytes: float
    how: str


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak GPU memory of one training job. what: which job. section: of the recipe, with the job's settings. note: for after the total.

    fits_gpus: for one that is too large for a GPU, how many it would fit together, if that is known.
    """

    what: str
    section: str
    parts: tuple[MemoryPart, ...]
    note: str = ""
    fits_gpus: int | None = None

    @property
    def gib(self) -> float:
        return sum(part.bytes for part in self.parts) / GIB

    @property
    def total(self) -> str:
        """The job and its total, in one line."""
        return f"{self.what}: {self.gib:.1f} GiB of GPU memory{self.note}"

    @property
    def lines(self) -> tuple[str, ...]:
        """`total`, then each part with its arithmetic."""
        width = max(len(part.what) for part in self.parts)
        return (
            self.total,
            *(f"  {part.what:{width}}  {part.bytes / GIB:6.2f}  {part.how}" for part in self.parts),
        )


def describe(base: str, trust_remote_code: bool = False, quantize: str | None = None) -> Base:
    """The size of the model in the folder `base`, held as engine.quantize says. Raises SpartaError if its config.json does not give it."""
    model = empty_model(base, trust_remote_code)
    matrices = [] if quantize is None else _matrices(model)
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
            heads=heads,
            vocabulary=int(config.vocab_size),
            mixture=getattr(config, "moe_intermediate_size", None) is not None,
            in_4_bits=sum(matrices),
            largest=max(matrices, default=0),
            outside=_outside_layers(model),
        )
    except (AttributeError, TypeError) as error:
        raise SpartaError(
            f"the config.json of base {base} does not give its shape ({error}): on SLURM, set gpu_memory_gib to null in the profile to skip the "
            "memory estimate"
        ) from error


def _matrices(model: Any) -> list[int]:
    """Parameters of each matrix that bitsandbytes holds in 4 bits: of all linear layers but the output."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    return [
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, Linear | Conv1D) and module is not output
    ]


def _outside_layers(model: Any) -> int:
    inside = {parameter for layer in decoder_layers(model) for parameter in layer.parameters()}
    return sum(int(parameter.numel()) for parameter in model.parameters() if parameter not in inside)


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
    what: str,
    base: Base,
    adapter: Shapes,
    pairs: int,
    length: int,
    dtype: str,
    checkpointing: bool,
    members: int = 1,
    completion: int | None = None,
    optimizer: str = "adamw",
    gpus: int = 1,
    steps: int = 1,
    attention: str = "auto",
) -> MemoryEstimate:
    """DPO of `members` members at the same time, each on `pairs` pairs per step of `length` tokens, `completion` of them scored (None: all).

    Both sides are in memory. Each member has its weights in float32, and a copy with gradients in the type of the base. Layers that read the
    same tensor share one copy of it, and attention has no mask, so keys and values are as wide as they are. attention: engine.attention.

    gpus: that share the base and the rows of up to so many of the `steps` of an update; the estimate is of the first, which has the optimizer.
    """
    wide, rows = BYTES_OF_TYPE[dtype], -(-2 * pairs * members * min(gpus, steps) // gpus)
    lora = sum(map(prod, adapter.values()))
    scored, tile = rows * (length if completion is None else min(completion, length)), SCORED_AT_ONCE
    single, how, what_of = _learning(optimizer)
    if gpus > 1:
        single, how, what_of = (
            single + _SINGLE,
            f"{how} + {_SINGLE}",
            f"{what_of}, gradients to be added up in float32",
        )
    states = MemoryPart(
        "LoRA",
        members * lora * (single + 2 * wide),
        f"{members} x {lora:,} parameters x ({how} + 2 x {wide}) bytes ({what_of}; weights and gradients in {dtype})",
    )
    logits = MemoryPart(
        "logits",
        scored * base.vocabulary * 2 * wide + min(scored, tile) * base.vocabulary * 2 * _SINGLE,
        f"{scored:,} tokens x {base.vocabulary:,} x 2 x {wide} bytes (logits and their gradient), {tile} of them at a time x 2 x {_SINGLE} bytes",
    )
    layer = _layer(base, adapter, wide, attention, length, is_masked=False, has_copies=base.mixture)
    # Before the first update: batches of the reference, which keep nothing but the layer and the logits at work.
    read = max(REFERENCE_TOKENS["cuda"], 2 * pairs * length if gpus == 1 else length)
    picked = read * scored // (rows * length)
    reference = MemoryPart(
        "reference",
        max(read * layer.bytes, picked * base.vocabulary * wide + tile * base.vocabulary * 2 * _SINGLE),
        f"before training, {read:,} tokens at a time: one layer x {layer.bytes:,} bytes, or logits of {picked:,} of them x {base.vocabulary:,} x "
        f"{wide} bytes",
    )
    weights = _weights(base, dtype, gpus)
    return _estimate(
        what, "dpo", base, rows, length, dtype, checkpointing, states, layer, logits, weights, reference
    )


def of_sft(
    what: str,
    base: Base,
    adapter: Shapes,
    rows: int,
    length: int,
    dtype: str,
    checkpointing: bool,
    optimizer: str = "adamw",
    attention: str = "auto",
) -> MemoryEstimate:
    """SFT on `rows` rows of `length` tokens per step; several have a mask, and every LoRA layer keeps its own copy of what it reads."""
    wide, tokens = BYTES_OF_TYPE[dtype], rows * length
    lora = sum(map(prod, adapter.values()))
    tile = min(tokens, _TILE[0]), min(base.vocabulary, _TILE[1])
    single, how, what_of = _learning(optimizer)
    states = MemoryPart("LoRA", lora * single, f"{lora:,} parameters x ({how}) bytes ({what_of})")
    logits = MemoryPart(
        "logits",
        prod(tile) * wide + tokens * base.hidden * (wide + _SINGLE),
        f"{tile[0]:,} tokens x {tile[1]:,} of a vocabulary of {base.vocabulary:,} at a time x {wide} bytes, and their inputs: "
        f"{rows} x {length:,} x {base.hidden:,} x {wide + _SINGLE} bytes",
    )
    layer = _layer(base, adapter, wide, attention, length, is_masked=rows > 1, has_copies=True)
    weights = _weights(base, dtype, 1)
    return _estimate(
        what, "pool.sft", base, rows, length, dtype, checkpointing, states, layer, logits, weights
    )


def _weights(base: Base, dtype: str, gpus: int) -> MemoryPart:
    """Of the base, on each of `gpus`: its share, and what is whole for a time (see `sparta.training.sharded`).

    Of a base in 4 bits, which is not shared, the largest matrix is there in full as well while a layer computes with it.
    """
    wide, full = BYTES_OF_TYPE[dtype], base.parameters - base.in_4_bits
    if base.in_4_bits:
        return MemoryPart(
            "weights",
            base.in_4_bits * NF4_BYTES + (full + base.largest) * wide,
            f"{base.in_4_bits:,} parameters x {NF4_BYTES:.3f} bytes (nf4), {full:,} others and {base.largest:,} of the matrix at work x {wide} bytes ({dtype})",
        )
    if gpus == 1:
        return MemoryPart("weights", full * wide, f"{full:,} parameters x {wide} bytes ({dtype})")
    layer = -(-(full - base.outside) // base.layers)
    whole = base.outside + _LAYERS_AT_ONCE * layer
    return MemoryPart(
        "weights",
        (full / gpus + whole) * wide,
        f"({full:,} parameters / {gpus} GPUs + whole at a time {base.outside:,} outside the layers and {_LAYERS_AT_ONCE} layers x {layer:,}) x {wide} bytes "
        f"({dtype})",
    )


def _learning(optimizer: str) -> tuple[float, str, str]:
    """Bytes of what learning takes for each parameter, the arithmetic, and what that is. Moments in 8 bits have a scale of four bytes for every 256.

    Those of a paged optimizer may take less.
    """
    if optimizer == "adamw":
        return 4 * _SINGLE, f"4 x {_SINGLE}", "weights, gradients, two moments of AdamW in float32"
    moments = 2 * (1 + _SINGLE / 256)
    how = f"2 x {_SINGLE} + {moments:.2f}"
    return 2 * _SINGLE + moments, how, "weights, gradients in float32, two moments of AdamW in 8 bits"


@dataclass(frozen=True)
class _Layer:
    """Bytes of activations that one layer keeps per token. how: the arithmetic."""

    bytes: int
    how: str


def _estimate(
    what: str,
    section: str,
    base: Base,
    rows: int,
    length: int,
    dtype: str,
    checkpointing: bool,
    states: MemoryPart,
    layer: _Layer,
    logits: MemoryPart,
    weights: MemoryPart,
    reference: MemoryPart | None = None,
) -> MemoryEstimate:
    wide, tokens = BYTES_OF_TYPE[dtype], rows * length
    size = f"{rows} x {length:,} tokens"
    if checkpointing:
        kept = MemoryPart(
            "activations",
            tokens * base.layers * base.hidden * wide,
            f"{size} x {base.layers} layers x {base.hidden:,} x {wide} bytes (gradient checkpointing: each layer's input)",
        )
        of_layer = MemoryPart(
            "one layer",
            2 * tokens * layer.bytes,
            f"{size} x 2 x {layer.bytes:,} bytes (one layer recomputed, and its gradients: {layer.how})",
        )
    else:
        kept = MemoryPart(
            "activations",
            tokens * base.layers * layer.bytes,
            f"{size} x {base.layers} layers x {layer.bytes:,} bytes ({layer.how})",
        )
        of_layer = MemoryPart(
            "one layer", tokens * layer.bytes, f"{size} x {layer.bytes:,} bytes (gradients of one layer)"
        )
    # Logits are gone when the backward pass reaches the layers.
    largest, other = sorted((logits, of_layer), key=lambda part: part.bytes, reverse=True)
    backward = MemoryPart(
        "backward",
        largest.bytes,
        f"{largest.what}: {largest.how}; {other.what}, at another time: {other.bytes / GIB:.2f}",
    )
    parts = [weights, states, kept, backward]
    if reference is not None and (more := reference.bytes - kept.bytes - backward.bytes) > 0:
        parts.append(MemoryPart("reference", more, f"more than these two: {reference.how}"))
    taken = sum(part.bytes for part in parts)
    allowance = MemoryPart(
        "allowance",
        CONTEXT_GIB * GIB + _SLACK * taken,
        f"{CONTEXT_GIB:g} GiB for CUDA, {_SLACK:.0%} that the allocator cannot use",
    )
    return MemoryEstimate(what, section, (*parts, allowance))


def _layer(
    base: Base, adapter: Shapes, wide: int, attention: str, length: int, is_masked: bool, has_copies: bool
) -> _Layer:
    """What one layer keeps.

    Both norms keep their input in float32; attention keeps queries, keys, values and output; the MLP keeps its gate before and after the
    activation, and its up projection; LoRA layers keep what they read, and its product with A. Attention's output is kept anyway.
    is_masked: keys and values are expanded to as many heads as queries. has_copies: of what several LoRA layers read, each keeps its own.
    Eager attention keeps its probabilities as well: for each head and each of the `length` tokens in float32, and in the type of the base.
    """
    norms = 2 * _SINGLE * base.hidden
    keys = base.queries if is_masked else base.keys
    attended = 2 * wide * (base.queries + keys)
    eager = base.heads * length * (wide + _SINGLE) if attention == "eager" else 0
    mlp = 3 * wide * base.inner
    halves = [(name, shape) for name, shape in adapter.items() if ".lora_A." in name]
    ranks = sum(shape[0] for _, shape in halves)
    if has_copies:
        inputs = sum(shape[1] for _, shape in halves)
    else:
        # Linear layers of one module that are equally wide read the same tensor.
        read = {(name.rpartition(".lora_A.")[0].rpartition(".")[0], shape[1]) for name, shape in halves}
        inputs = sum(width for _, width in read)
    lora = wide * (inputs + ranks) // base.layers
    return _Layer(
        norms + attended + eager + mlp + lora,
        f"norms 2 x {_SINGLE} x {base.hidden:,}, attention 2 x {wide} x ({base.queries:,} + {keys:,}), MLP 3 x {wide} x {base.inner:,}, "
        f"what LoRA reads {lora:,}"
        + (f", eager attention {base.heads} x {length:,} x ({wide} + {_SINGLE})" if eager else ""),
    )
