"""An adapter put on its base by PEFT, and PEFT's own account of it: which tensors found no place, and which places got no tensor.

PEFT goes on after either, with a warning at most, and what it leaves out is the bare base.
"""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError


def put_adapter(model: Any, folder: Path, name: str, base: str) -> Any:
    """`model` with the adapter in `folder` on it, by the name `name`, not trainable. model: that of transformers, or PEFT's with other adapters.

    Raises SpartaError where not all of the adapter, or more than there are places for, was loaded; `model` is spoiled then. base: for the message.
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
        # How PEFT fails where a whole module that the adapter replaces is not in its file.
        raise misfit(folder, base, [str(error.args[0])], []) from error
    require_whole(folder, base, name, result)
    return model.eval()


def require_whole(folder: Path, base: str, name: str, result: Any) -> None:
    """Raises SpartaError where places got no tensor, or tensors found no place. result: PEFT's account, which counts all of the base as missing, too."""
    missing = [
        key.replace(f".{name}", "")
        for key in result.missing_keys
        if ".lora_" in key and name in key.split(".")
    ]
    if missing or result.unexpected_keys:
        raise misfit(folder, base, missing, result.unexpected_keys)


def misfit(folder: Path, base: str, missing: Collection[str], unexpected: Collection[str]) -> SpartaError:
    """What to say of an adapter that does not meet the modules of the base."""
    parts = []
    if unexpected:
        parts.append(f"{len(unexpected)} of its tensors found no place there ({min(unexpected)})")
    if missing:
        parts.append(
            f"{len(missing)} that its adapter_config.json asks for are not in its file ({min(missing)})"
        )
    return SpartaError(
        f"adapter {folder} does not fit base {base}, which would answer as if it were not there or in part: {' and '.join(parts)}; name the base "
        "that it was made for, or save it again with PEFT's save_pretrained"
    )
