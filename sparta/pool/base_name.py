"""The base name in the state's adapters, for other programs: PEFT's AutoPeftModel, vLLM, the hub. This suite never reads it."""

import json
from collections.abc import Mapping
from typing import Any

from sparta.recipes.pool import EMBEDDED, HUB, on_hub
from sparta.training.adapter_folder import CONFIG, encode_config


def naming_base(contents: Mapping[str, bytes], reference: str) -> dict[str, bytes]:
    """`contents`, the files of an adapter by name, with a configuration that names the base that the recipe calls `reference`.

    A folder is named by its path, a hub model by its name and revision, as PEFT expects. An embedded model has no fixed path, so its name is an
    instruction, which PEFT quotes when it finds no such model. All three depend only on the recipe, so equal recipes make equal adapters.
    """
    config = json.loads(contents[CONFIG]) | _named(reference)
    # PEFT needs it to choose the class of transformers that loads the base.
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
