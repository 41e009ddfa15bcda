"""Loads an adapter onto its base with PEFT, and checks that all of it was loaded.

PEFT only warns, or not even that, when a tensor has no module or a module gets no tensor; the module then computes as the bare base.
"""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError

_WHERE_IT_COMES_FROM = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
}
"""Keys of an adapter's configuration that do not change what it computes."""


def put_adapter(model: Any, folder: Path, name: str, base: str) -> Any:
    """`model` with the adapter in `folder` loaded as `name`, not trainable. model: a transformers model, or a PEFT model with other adapters.

    base: for the message. Raises SpartaError if the adapter's tensors and the modules it adapts do not match; `model` must not be used after that.
    """
    from peft import PeftConfig, PeftModel, get_peft_model

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not isinstance(model, PeftModel):
                config = PeftConfig.from_pretrained(str(folder))
                config.inference_mode = True
                model = get_peft_model(model, config, adapter_name=name)
            result = model.load_adapter(str(folder), adapter_name=name)
    except KeyError as error:
        # PEFT fails like this when the file lacks a whole module that the adapter replaces.
        raise misfit(folder, base, [str(error.args[0])], []) from error
    require_whole(folder, base, name, result)
    return model.eval()


def refill_adapter(model: Any, folder: Path, name: str) -> bool:
    """Write the weights of the adapter in `folder` over those of the adapter `name` of a PEFT model. Returns False, with nothing changed, where
    the two differ in more than the values of their tensors.
    """
    import torch
    from peft import PeftConfig, get_peft_model_state_dict
    from safetensors.torch import load_file

    if _computes(PeftConfig.from_pretrained(str(folder))) != _computes(model.peft_config[name]):
        return False
    stored = load_file(folder / "adapter_model.safetensors")
    # Of the model's own memory, not copies.
    held = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    if {key: value.shape for key, value in stored.items()} != {
        key: value.shape for key, value in held.items()
    }:
        return False
    with torch.no_grad():
        for key, value in held.items():
            value.copy_(stored[key])
    return True


def _computes(config: Any) -> dict[str, Any]:
    """What an adapter computes, but for its weights."""
    return {key: value for key, value in config.to_dict().items() if key not in _WHERE_IT_COMES_FROM}


def require_whole(folder: Path, base: str, name: str, result: Any) -> None:
    """Raises SpartaError if an adapted module got no tensor, or a tensor has no module. result: PEFT's load result; its missing keys include the base's."""
    missing = [
        key.replace(f".{name}", "")
        for key in result.missing_keys
        if ".lora_" in key and name in key.split(".")
    ]
    if missing or result.unexpected_keys:
        raise misfit(folder, base, missing, result.unexpected_keys)


def misfit(folder: Path, base: str, missing: Collection[str], unexpected: Collection[str]) -> SpartaError:
    """The error for an adapter that does not match the modules of the base."""
    parts = []
    if unexpected:
        parts.append(f"{len(unexpected)} of its tensors have no module there ({min(unexpected)})")
    if missing:
        parts.append(
            f"{len(missing)} that its adapter_config.json asks for are not in its file ({min(missing)})"
        )
    return SpartaError(
        f"adapter {folder} does not fit base {base} and would be ignored, at least in part: {' and '.join(parts)}; name the base "
        "that it was made for, or save it again with PEFT's save_pretrained"
    )
