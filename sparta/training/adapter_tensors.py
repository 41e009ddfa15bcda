"""The tensors of one adapter as one flat vector of weights, which is what an optimizer changes, and by name, which is how they are saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from sparta.training.frozen_layers import is_adapted_linear, is_linear

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LoraPart:
    """Plain LoRA on the linear layer `module` of the base: the result gains scale (x A') B'. a, b: where A and B begin in the vector."""

    module: str
    rank: int
    inputs: int
    outputs: int
    scale: float
    a: int
    b: int


@dataclass(frozen=True)
class AdapterTensors:
    """Where each tensor of an adapter lies in its vector. shapes: in the order of the vector. is_plain: whether `parts` are all there is."""

    shapes: Mapping[str, tuple[int, ...]]
    parts: tuple[LoraPart, ...]
    is_plain: bool

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return sum(prod(shape) for shape in self.shapes.values())

    def flat(self, tensors: Mapping[str, "Tensor"]) -> "Tensor":
        """The vector of `tensors`, in float32."""
        import torch

        return torch.cat([tensors[name].detach().float().reshape(-1) for name in self.shapes])

    def named(self, flat: "Tensor") -> dict[str, "Tensor"]:
        """Views of the vector, by name."""
        found, offset = {}, 0
        for name, shape in self.shapes.items():
            count = prod(shape)
            found[name] = flat[offset : offset + count].view(shape)
            offset += count
        return found


def tensors_of(model: Any, adapter: str, stored: Mapping[str, tuple[int, ...]]) -> AdapterTensors:
    """Of the adapter that PEFT calls `adapter` on `model`; stored: names and shapes of its tensors as PEFT saves them."""
    from peft.tuners.lora.layer import LoraLayer

    offsets, offset = {}, 0
    for name, shape in stored.items():
        offsets[name] = offset
        offset += prod(shape)
    parts, placed = [], 0
    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A:
            continue
        plain = (
            is_adapted_linear(layer)
            and is_linear(layer.base_layer)
            and adapter not in layer.lora_variant
            and not layer.lora_bias[adapter]
        )
        names = [f"{path}.lora_{side}.weight" for side in "AB"]
        if not plain or any(name not in offsets for name in names):
            return AdapterTensors(dict(stored), (), False)
        placed += 2
        _, inputs = stored[names[0]]
        outputs, rank = stored[names[1]]
        parts.append(
            LoraPart(
                module=path.removeprefix("base_model.model."),
                rank=rank,
                inputs=inputs,
                outputs=outputs,
                scale=float(layer.scaling[adapter]),
                a=offsets[names[0]],
                b=offsets[names[1]],
            )
        )
    return AdapterTensors(dict(stored), tuple(parts), placed == len(stored))
