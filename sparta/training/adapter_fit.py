"""Whether an adapter meets the modules of its base, checked by PEFT itself before a weight of either is read."""

import warnings
from pathlib import Path
from typing import Any

from sparta.engines.adapter_load import misfit, require_whole
from sparta.engines.weight_files import tensors_in
from sparta.errors import SpartaError, first_line
from sparta.training.adapter_folder import WEIGHTS
from sparta.training.new_adapter import empty_model


def check_fit(folder: Path, base: str, trust_remote_code: bool = False) -> None:
    """Raises SpartaError unless PEFT finds a place for every tensor of the adapter in `folder` on the base, and a tensor for every place.

    Neither's weights are read: PEFT puts tensors without content on a model without content.
    """
    import torch
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    model, name = empty_model(base, trust_remote_code), "checked"
    shapes = {key: tensor.shape for key, tensor in tensors_in(folder / WEIGHTS).items()}
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            config: Any = PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            # Some ways of starting an adapter look at the base's weights.
            config.init_lora_weights = False
            adapted = get_peft_model(model, config, adapter_name=name, low_cpu_mem_usage=True)
            result = set_peft_model_state_dict(
                adapted,
                {key: torch.empty(shape) for key, shape in shapes.items()},
                adapter_name=name,
                low_cpu_mem_usage=True,
            )
    except KeyError as error:
        raise misfit(folder, base, [str(error.args[0])], []) from error
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise SpartaError(
            f"adapter {folder} cannot be put on base {base} ({_reason(error)}): name the base that it was made for"
        ) from error
    require_whole(folder, base, name, result)


def _reason(error: BaseException) -> str:
    """What PEFT or torch say: of sizes that differ, the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("size mismatch")), first_line(error)).rstrip(".:")
