"""Detects and refuses quantised bases, from their files."""

from pathlib import Path

from sparta.engines.weight_files import read_object, tensors_in, weight_files
from sparta.errors import SpartaError

_FULL = ("F64", "F32", "F16", "BF16")
_CONFIG_KEYS = ("quantization_config", "compression_config", "quantization")
_CONFIG_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
_PACKED = (".qweight", ".qzeros", ".weight_packed", ".absmax", ".quant_map", ".SCB")


def check_unquantised(base: Path) -> None:
    """Raises SpartaError if the weights in the folder `base` are quantised."""
    if how := _quantised(base):
        raise SpartaError(
            f"base {base} is quantised ({how}): adapters need full-precision weights, name the bfloat16, float16 or float32 model "
            "that it was made from"
        )


def _quantised(base: Path) -> str | None:
    """How the weights of `base` are quantised, in words; None if they are not.

    Not every tool records it in config.json, so names and types of the first file's weights are checked too.
    """
    config = read_object(base / "config.json", f"base {base}")
    for part in (config, config.get("text_config"), config.get("llm_config")):
        for key in _CONFIG_KEYS:
            if isinstance(part, dict) and (settings := part.get(key)):
                method = settings.get("quant_method") if isinstance(settings, dict) else None
                return f"{method or key} in its config.json"
    for name in _CONFIG_FILES:
        if (base / name).is_file():
            return f"it has a {name}"
    for name, tensor in tensors_in(weight_files(base)[0]).items():
        if name.endswith(_PACKED) or (name.endswith(".weight") and tensor.dtype not in _FULL):
            return f"{name} is {tensor.dtype}"
    return None
