"""How much LoRA capacity vLLM needs for the given models, computed without importing vllm."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sparta.engines.base import ModelRef
from sparta.engines.weights import adapter_name
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for max_lora_rank."""

_KEPT = 32
"""Most adapters in CPU memory: one of rank 16 on a 7B base takes 80 MB. vLLM reloads others from disk on demand."""

_UNSUPPORTED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
)


@dataclass(frozen=True)
class LoraCapacity:
    """Capacity for adapters on one base. rank: max_lora_rank; 0 for no adapters. mixed: most in one batch. kept: most in CPU memory."""

    rank: int = 0
    mixed: int = 0
    kept: int = 0

    def covers(self, other: "LoraCapacity") -> bool:
        return self.rank >= other.rank and self.mixed >= other.mixed


def lora_capacities(models: Iterable[ModelRef], settings: recipe_engine.Vllm) -> dict[str, LoraCapacity]:
    """By base, the capacity that `models` need together. Each version counts separately; members with the same weights count once.

    The adapters must have passed `check_model`. Raises SpartaError for one whose rank exceeds engine.vllm.max_rank, or of a kind that
    vLLM does not support.
    """
    adapters: dict[str, dict[str, int]] = {}
    for model in models:
        ranks = adapters.setdefault(model.base, {})
        if model.adapter is not None:
            ranks[adapter_name(model)] = _rank(model, settings.max_rank)
    return {
        base: LoraCapacity(
            _max_lora_rank(settings.max_rank or max(ranks.values())),
            min(settings.adapters_at_once, len(ranks)),
            min(_KEPT, len(ranks)),
        )
        if ranks
        else LoraCapacity()
        for base, ranks in adapters.items()
    }


def _rank(model: ModelRef, most: int | None) -> int:
    assert model.adapter is not None
    config = json.loads((model.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    unsupported = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        unsupported.append("bias")
    if unsupported:
        raise SpartaError(
            f"model {model.name}: adapter {model.adapter} was made with {unsupported[0]}, which vLLM does not support: "
            "train a plain LoRA adapter, or set engine.kind to hf"
        )
    rank = max([int(config.get("r", 8)), *map(int, (config.get("rank_pattern") or {}).values())])
    check_rank(f"model {model.name}: its adapter", rank, most)
    return rank


def check_rank(whose: str, rank: int, most: int | None) -> None:
    """Raises SpartaError if vLLM cannot load adapters of this rank. most: engine.vllm.max_rank."""
    if most is not None and rank > most:
        raise SpartaError(
            f"{whose} has rank {rank}, more than engine.vllm.max_rank, which is {most}: raise it, or set it to null"
        )
    if rank > _RANKS[-1]:
        raise SpartaError(
            f"{whose} has rank {rank}, but vLLM supports at most {_RANKS[-1]}: set engine.kind to hf"
        )


def _max_lora_rank(rank: int) -> int:
    return next((known for known in _RANKS if known >= rank), _RANKS[-1])
