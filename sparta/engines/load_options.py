"""How transformers loads a base: in 4 bits, and with which attention. The same for generation and training, which have to be of one model."""

from importlib.util import find_spec
from typing import Any

from sparta.errors import SpartaError
from sparta.names import installed_by


def load_options(quantize: str | None, attention: str, dtype: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained`, for a base that computes in `dtype` (of torch). quantize, attention: as in the recipe's engine section.

    Raises SpartaError if a library that they need is missing.
    """
    options: dict[str, Any] = {}
    if attention != "auto":
        if attention == "flash_attention_2":
            require_flash_attention()
        options["attn_implementation"] = attention
    if quantize is not None:
        from transformers import BitsAndBytesConfig

        require_bitsandbytes("engine.quantize is nf4")
        # As vLLM quantises: its scales are quantised as well.
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type=quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return options


def require_bitsandbytes(why: str) -> None:
    """Raises SpartaError if bitsandbytes is not installed here. why: the setting that needs it, as a clause."""
    if find_spec("bitsandbytes") is None:
        raise SpartaError(
            f"{why}, which needs bitsandbytes, and that is not installed here: {installed_by('gpu')}"
        )


def require_flash_attention(key: str = "engine.attention") -> None:
    """Raises SpartaError if flash-attn is not installed here; transformers would look for it on the hub. key: the setting in the recipe."""
    if find_spec("flash_attn") is None:
        raise SpartaError(
            f"{key} is flash_attention_2, which needs the package flash-attn, and that is not installed here: install the build for this "
            f"torch and CUDA, or set {key} to sdpa"
        )


def require_liger() -> None:
    """Raises SpartaError if liger-kernel is not installed here."""
    if find_spec("liger_kernel") is None:
        raise SpartaError(
            f"dpo.liger is true, which needs liger-kernel, and that is not installed here: {installed_by('gpu')}, or set it to false"
        )
