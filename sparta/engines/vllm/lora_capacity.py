"""What the models asked for need of vLLM: room for adapters of their rank. Answered without importing vllm."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sparta.engines.base import ModelRef
from sparta.engines.weights import adapter_name
from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for max_lora_rank."""

_KEPT = 32
"""Most adapters in CPU memory: one of rank 16 on a 7B base takes 80 MB. vLLM reads others again when they are asked for."""

_UNKNOWN_TO_VLLM = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
)


@dataclass(frozen=True)
class LoraCapacity:
    """For adapters on one base. rank: the largest, as vLLM counts; 0 for none. mixed: in one batch. kept: in memory."""

    rank: int = 0
    mixed: int = 0
    kept: int = 0

    def holds(self, other: "LoraCapacity") -> bool:
        return self.rank >= other.rank and self.mixed >= other.mixed


def lora_capacities(models: Iterable[ModelRef], settings: recipe_engine.Vllm) -> dict[str, LoraCapacity]:
    """By base, the room that `models` need together, each version of a model being one of them, and members with the same weights one.

    The adapters have been looked at before (`check_model`). Raises SpartaError for one of a rank above
    engine.vllm.max_rank, or of a kind that vLLM does not know.
    """
    adapters: dict[str, dict[str, int]] = {}
    for model in models:
        ranks = adapters.setdefault(model.base, {})
        if model.adapter is not None:
            ranks[adapter_name(model)] = _rank(model, settings.max_rank)
    return {
        base: LoraCapacity(
            _counted(settings.max_rank or max(ranks.values())),
            min(settings.adapters_at_once, len(ranks)),
            min(_KEPT, len(ranks)),
        )
        if ranks
        else LoraCapacity()
        for base, ranks in adapters.items()
    }


def _rank(model: ModelRef, most: int | None) -> int:
    assert model.adapter is not None
    told = json.loads((model.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    unknown = [name for name in _UNKNOWN_TO_VLLM if told.get(name)]
    if told.get("bias", "none") != "none":
        unknown.append("bias")
    if unknown:
        raise SpartaError(
            f"model {model.name}: adapter {model.adapter} was made with {unknown[0]}, which vLLM does not know: "
            "train a plain LoRA adapter, or set engine.kind to hf"
        )
    rank = max([int(told.get("r", 8)), *map(int, (told.get("rank_pattern") or {}).values())])
    check_rank(f"model {model.name}: its adapter", rank, most)
    return rank


def check_rank(whose: str, rank: int, most: int | None) -> None:
    """Raises SpartaError where vLLM has no room for adapters of this rank. most: engine.vllm.max_rank."""
    if most is not None and rank > most:
        raise SpartaError(
            f"{whose} has rank {rank}, more than engine.vllm.max_rank, which is {most}: raise that, or leave it null"
        )
    if rank > _RANKS[-1]:
        raise SpartaError(f"{whose} has rank {rank}, vLLM takes at most {_RANKS[-1]}: set engine.kind to hf")


def _counted(rank: int) -> int:
    return next((known for known in _RANKS if known >= rank), _RANKS[-1])
