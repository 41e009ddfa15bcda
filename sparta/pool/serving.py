"""The command that serves a model of a run with vLLM, for people to type."""

import math
from pathlib import Path

from sparta.names import quoted
from sparta.recipes.pool import HUB, on_hub
from sparta.store import files
from sparta.store.disk import present
from sparta.training.adapter_folder import CONFIG

VLLM_RANK = 16
"""vLLM's default limit of the rank of adapters."""


def serve_command(base: object, model: str, adapter: Path, reference: str = "", named: object = None) -> str:
    """`vllm serve` for the adapter in the folder `adapter`, under the name `model`, on `base`.

    reference: the base as the recipe names it; a revision in it is part of the command. named: what the command calls the folder of the adapter.
    """
    revision = on_hub(reference)[1] if reference.startswith(HUB) else None
    pinned = ("--revision", revision) if revision and str(base) == on_hub(reference)[0] else ()
    modules = ("--lora-modules", f"{model}={named or adapter}")
    return quoted("vllm", "serve", base, *pinned, "--enable-lora", *_rank(adapter), *modules)


def _rank(adapter: Path) -> tuple[str, ...]:
    """The option that vLLM needs for an adapter whose rank is above its default limit."""
    path = adapter / CONFIG
    rank = files.read_json(path, dict).get("r") if present(path) else None
    if not isinstance(rank, int) or rank <= VLLM_RANK:
        return ()
    return "--max-lora-rank", str(2 ** math.ceil(math.log2(rank)))
