"""Bases whose weights are quantised in their files, such as AWQ and GPTQ: detected, and refused where they cannot be used."""

from pathlib import Path
from typing import NamedTuple

from sparta.engines.weight_files import read_object, tensors_in, weight_files
from sparta.errors import SpartaError

_FULL = ("F64", "F32", "F16", "BF16")
_CONFIG_KEYS = ("quantization_config", "compression_config", "quantization")
_CONFIG_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_PACKED = (".qweight", ".qzeros", ".weight_packed", ".absmax", ".quant_map", ".SCB")
BITSANDBYTES = "bitsandbytes"


class Quantised(NamedTuple):
    """kind: such as awq or gptq; "" if no file names it. how: what shows it, in words."""

    kind: str
    how: str


def check_trainable_base(base: Path) -> None:
    """Raises SpartaError if the weights in the folder `base` are quantised: adapters are not trained on these."""
    if found := quantised(base):
        raise SpartaError(
            f"base {base} is quantised ({found.how}) and cannot be trained on: name the bfloat16, float16 or float32 model that it was made from, and "
            "set engine.quantize to nf4 if that is too large for the GPU"
        )


def check_loadable(base: Path) -> None:
    """Raises SpartaError if the weights in the folder `base` are quantised in a way that transformers alone cannot read."""
    found = quantised(base)
    if found and found.kind != BITSANDBYTES:
        raise SpartaError(
            f"base {base} is quantised ({found.how}), which engine hf cannot read: set its engine's kind to vllm, or name the model that "
            "it was made from"
        )


def check_quantised_once(base: Path, quantize: str | None) -> None:
    """Raises SpartaError if the weights in the folder `base` are quantised already, and an engine is to quantise them."""
    if quantize is not None and (found := quantised(base)):
        raise SpartaError(
            f"base {base} is quantised already ({found.how}): leave its engine's quantize out, or name the model that it was made from"
        )


def quantised(base: Path) -> Quantised | None:
    """How the weights in the folder `base` are quantised; None if they are not.

    Not every tool records it in config.json, so names and types of the first file's weights are checked too.
    """
    config = read_object(base / "config.json", f"base {base}")
    for part in (config, config.get("text_config"), config.get("llm_config")):
        for key in _CONFIG_KEYS:
            if isinstance(part, dict) and (settings := part.get(key)):
                method = settings.get("quant_method") if isinstance(settings, dict) else None
                return Quantised(str(method or ""), f"{method or key} in its config.json")
    for name in _CONFIG_FILES:
        if (base / name).is_file():
            return Quantised("", f"it has a {name}")
    for name, tensor in tensors_in(weight_files(base)[0]).items():
        if name.endswith(_PACKED) or (name.endswith(".weight") and tensor.dtype not in _FULL):
            return Quantised("", f"{name} is {tensor.dtype}")
    return None
