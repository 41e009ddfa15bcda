"""The type that vLLM computes in, and how it reads a base in 4 bits: quantised as it is loaded, or by whoever made its files."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparta.engines.load_options import require_bitsandbytes
from sparta.engines.quantised import BITSANDBYTES, quantised
from sparta.errors import SpartaError
from sparta.names import installed_by
from sparta.recipes import engine as recipe_engine

_PLUGIN = "vllm_bnb_plugin"


def quantisation(base: str, settings: recipe_engine.EngineSettings, gpu: bool) -> dict[str, Any]:
    """What `settings` say of it for the model in the folder `base`, as arguments of EngineArgs. Raises SpartaError if a library is missing."""
    by_files = quantised(Path(base))
    if settings.quantize is None and by_files is None:
        automatic = "bfloat16" if gpu else "float32"
        return {"dtype": automatic if settings.dtype == "auto" else settings.dtype}
    # Of a base that is quantised here: vLLM cannot compute with 4 bits in float32.
    chosen = settings.quantize is not None and settings.dtype == "auto"
    arguments: dict[str, Any] = {"dtype": "bfloat16" if chosen else settings.dtype}
    if settings.quantize is not None or (by_files is not None and by_files.kind == BITSANDBYTES):
        require_bitsandbytes(f"base {base} is to be held in 4 bits")
        require_vllm_plugin(f"base {base} is to be held in 4 bits")
        arguments["quantization"] = BITSANDBYTES
    return arguments


def require_vllm_plugin(why: str) -> None:
    """Raises SpartaError if what vLLM needs for 4 bits besides bitsandbytes is not installed here. why: the setting that needs it, as a clause."""
    if find_spec(_PLUGIN) is None:
        raise SpartaError(
            f"{why}, which vLLM does through the package vllm-bnb-plugin, and that is not installed here: {installed_by('gpu')}, or set its engine's "
            "kind to hf"
        )
