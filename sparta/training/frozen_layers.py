"""The linear layers of a base that training leaves as they are: in full precision, or in 4 bits, whose matrix is made anew whenever it is needed."""

from typing import Any


def is_linear(module: Any) -> bool:
    """Whether `module` multiplies rows with one matrix, of which `matrix_of` knows the numbers, and does nothing else."""
    from torch.nn import Linear

    return type(module) is Linear or _is_in_4_bits(module)


def is_adapted_linear(layer: Any) -> bool:
    """Whether `layer` is what PEFT makes of a linear layer for plain LoRA."""
    from peft.tuners.lora.layer import Linear

    return type(layer) is Linear or (
        type(layer).__name__ == "Linear4bit" and type(layer).__module__ == "peft.tuners.lora.bnb"
    )


def quantisation_of(weight: Any) -> Any:
    """What bitsandbytes needs besides the 4 bits of the weight of a linear layer; None if it is in full precision."""
    return getattr(weight, "quant_state", None)


def matrix_of(weight: Any, quantisation: Any) -> Any:
    """The matrix [outputs, inputs] of the weight of a linear layer: the weight itself, or what its 4 bits stand for, in the base's type."""
    if quantisation is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, quantisation)


def keep_differentiable(base: Any) -> None:
    """Keeps the 4-bit layers of `base` in the layout that gradients pass through.

    On CPUs with AVX512-BF16 bitsandbytes turns a layer, at its first forward pass without gradients, into a layout that only generates.
    """
    for module in base.modules():
        if _is_in_4_bits(module):
            module.support_avx512bf16_for_cpu = False


def _is_in_4_bits(module: Any) -> bool:
    """By name: bitsandbytes is imported only where a base needs it."""
    kind = type(module)
    return kind.__name__ == "Linear4bit" and kind.__module__.startswith("bitsandbytes.")
