"""The base that an adapter of the state names to other programs: PEFT's AutoPeftModel, vLLM, the hub. This suite itself never reads it."""

import json
from collections.abc import Mapping
from typing import Any

from sparta.recipes.pool import EMBEDDED, HUB, on_hub
from sparta.training.adapter_folder import CONFIG, encode_config


def naming_base(contents: Mapping[str, bytes], reference: str) -> dict[str, bytes]:
    """`contents`, the files of an adapter by name, with a configuration that names the base that the recipe calls `reference`.

    A folder by its path, a model of the hub by its name and revision there, as PEFT looks for them. What is part of the code lies elsewhere for
    everybody: its name says what to put there, which is what PEFT quotes when it finds no such model. All three are what the recipe says and
    nothing of this machine, so that equal recipes make equal adapters.
    """
    config = json.loads(contents[CONFIG]) | _named(reference)
    # Without it PEFT would not know which class of transformers to load the base with.
    config["task_type"] = config.get("task_type") or "CAUSAL_LM"
    return {**contents, CONFIG: encode_config(config)}


def _named(reference: str) -> dict[str, Any]:
    if reference.startswith(HUB):
        name, revision = on_hub(reference)
        return {"base_model_name_or_path": name, "revision": revision}
    if reference.startswith(EMBEDDED):
        name = reference.removeprefix(EMBEDDED)
        remedy = (
            f"{reference}: set base_model_name_or_path to the folder sparta/toy/weights/{name} of the code"
        )
        return {"base_model_name_or_path": remedy, "revision": None}
    return {"base_model_name_or_path": reference, "revision": None}
