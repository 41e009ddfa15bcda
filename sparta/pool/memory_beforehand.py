"""The GPU memory of DPO before the models are here: of a base, its config.json is enough, and of the paper's base, what is known of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sparta.errors import SpartaError
from sparta.pool.gpu_memory import estimated_dpo
from sparta.pool.hub_cache import snapshot_of
from sparta.pool.members import base_folder
from sparta.pool.memory_account import describe
from sparta.recipes.pool import HUB, on_hub
from sparta.recipes.schema import Recipe
from sparta.training.dpo_batches import filled
from sparta.training.new_adapter import fresh_shapes

CONFIG = "config.json"
KNOWN: dict[str, dict[str, object]] = {
    "Qwen/Qwen2.5-7B-Instruct": {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    }
}
"""The sizes of the paper's base, as in its config.json."""


def memory_beforehand(recipe: Recipe) -> list[str]:
    """A sentence for each base of the pool: the memory of DPO with the longest pairs that the recipe allows, and new adapters of pool.lora's shape.

    Empty where nothing trains on a GPU. No code of a model is run.
    """
    if recipe.engine.kind == "scripted" or recipe.engine.device == "cpu":
        return []
    bases = {recipe.pool.base_of(model): base_folder(recipe, model) for model in recipe.pool.models}
    return [_estimated(recipe, reference, folder) for reference, folder in bases.items()]


def _estimated(recipe: Recipe, reference: str, folder: str) -> str:
    what = f"DPO on {reference}"
    with _described(reference, Path(folder)) as described:
        if described is None:
            return f"{what}: GPU memory is not known before the base is here"
        try:
            base = describe(str(described), quantize=recipe.engine.quantize)
            shapes = fresh_shapes(str(described), recipe.pool.lora)
        except SpartaError:
            return f"{what}: GPU memory is not known before the base is here, its config.json alone does not tell"
    members = [model for model in recipe.pool.models if recipe.pool.base_of(model) == reference]
    length = filled(min(recipe.dpo.max_length, recipe.engine.context_length))
    completion = recipe.generation.max_new_tokens
    estimate = estimated_dpo(recipe, what, base, shapes, len(members), length, completion)
    return f"{estimate.total}, if pairs have {length:,} tokens (the most allowed) and adapters the rank {recipe.pool.lora.rank}"


@contextmanager
def _described(reference: str, folder: Path) -> Iterator[Path | None]:
    """A folder with the config.json of the base: its own, that in the hub's cache, or one made from KNOWN; None if there is none."""
    if (folder / CONFIG).is_file():
        yield folder
        return
    name, revision = on_hub(reference) if reference.startswith(HUB) else ("", None)
    cached = snapshot_of("model", name, revision) if name else None
    if cached is not None and (cached.folder / CONFIG).is_file():
        yield cached.folder
    elif name in KNOWN:
        with TemporaryDirectory() as made:
            (Path(made) / CONFIG).write_text(json.dumps(KNOWN[name]), encoding="utf-8")
            yield Path(made)
    else:
        yield None
