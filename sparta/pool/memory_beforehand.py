"""The GPU memory of DPO before the models are here: of a base, its config.json is enough, and of the paper's base, what is known of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sparta.errors import SpartaError
from sparta.pool.hub_cache import snapshot_of
from sparta.pool.members import base_folder
from sparta.pool.memory_account import describe, of_dpo
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
    return [
        f"DPO on {reference}: {_estimated(recipe, reference, folder)}" for reference, folder in bases.items()
    ]


def _estimated(recipe: Recipe, reference: str, folder: str) -> str:
    with _described(reference, Path(folder)) as described:
        if described is None:
            return "GPU memory is not known before the base is here"
        try:
            base, shapes = describe(str(described)), fresh_shapes(str(described), recipe.pool.lora)
        except SpartaError:
            return "GPU memory is not known before the base is here, its config.json alone does not tell"
    dpo, asked = recipe.dpo, recipe.cluster.train_together
    length = filled(min(dpo.max_length, recipe.engine.context_length))
    dtype = "bfloat16" if recipe.engine.dtype == "auto" else recipe.engine.dtype
    members = 1 if asked == "auto" else min(asked, len(recipe.pool.models))
    scored = recipe.generation.max_new_tokens
    off, on = (
        of_dpo("", base, shapes, dpo.batch_size, length, dtype, way, members=members, completion=scored).gib
        for way in (False, True)
    )
    choice = {
        True: f"{on:.1f} GiB of GPU memory with gradient checkpointing",
        False: f"{off:.1f} GiB of GPU memory without gradient checkpointing",
        "auto": f"{off:.1f} GiB of GPU memory without gradient checkpointing, {on:.1f} with it (auto)",
    }[dpo.gradient_checkpointing]
    return f"{choice}, if pairs have {length:,} tokens (the most allowed) and adapters the rank {recipe.pool.lora.rank}"


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
