"""A run without models: the scripted engine on a small pool, for tests of files and faults, where determinism is the point."""

import json
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

from sparta.recipe import Recipe, load


def write_adapter(folder: Path, seed: int) -> Path:
    """An adapter folder that the scripted trainer continues."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    save_file({"weight": np.full(4, seed, dtype=np.float32)}, folder / "adapter_model.safetensors")
    return folder


def write_recipe(
    folder: Path, *, models: int = 4, combats: int = 12, prompts: int = 30, **changes: object
) -> Path:
    """A recipe for the scripted engine, with its adapters and instructions, below `folder`."""
    names = [f"model{index}" for index in range(models)]
    for index, name in enumerate(names):
        if not (folder / "adapters" / name).exists():
            write_adapter(folder / "adapters" / name, index)
    rows = (json.dumps({"id": f"q{index}", "prompt": f"question {index}"}) for index in range(prompts))
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    tree: dict[str, object] = {
        "name": "rehearsal",
        "combats": combats,
        "iterations": 3,
        "pool": {
            "base": "none",
            "models": [{"name": name, "adapter": f"./adapters/{name}"} for name in names],
        },
        "data": {"train": "prompts.jsonl"},
        "engine": {"kind": "scripted"},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def rehearsal(folder: Path, **options: object) -> Recipe:
    """The recipe of `write_recipe`, loaded."""
    return load(write_recipe(folder, **options))  # type: ignore[arg-type]
