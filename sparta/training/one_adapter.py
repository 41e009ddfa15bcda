"""One adapter on a base as PEFT itself puts it there: for adapters that are more than plain LoRA, and bases whose layers get parts of a batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparta.training.adapter_tensors import AdapterTensors

if TYPE_CHECKING:
    from torch import Tensor


class OneAdapter:
    """The adapter named `adapter` of `model`, a PeftModel that has no other; see `sparta.training.dpo_batches.Adapters`."""

    def __init__(self, model: Any, adapter: str, tensors: AdapterTensors) -> None:
        from peft import get_peft_model_state_dict
        from torch.nn import Dropout

        for module in model.modules():
            if isinstance(module, Dropout):
                module.p = 0.0
        saved = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
        known = {
            parameter.data_ptr(): parameter for parameter in model.parameters() if parameter.requires_grad
        }
        self._model = model
        self._parameters = [known[saved[name].data_ptr()] for name in tensors.shapes]
        self._picking = model.get_output_embeddings().register_forward_pre_hook(self._pick)
        self._positions: Any = None

    def put(self, member: int, weights: "Tensor") -> None:
        offset = 0
        for parameter in self._parameters:
            values = weights[offset : offset + parameter.numel()]
            parameter.data.copy_(values.view_as(parameter))
            offset += parameter.numel()

    def add_gradient(self, member: int, gradient: "Tensor") -> None:
        import torch

        parts = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self._parameters
        ]
        gradient += torch.cat([part.reshape(-1).to(gradient.dtype) for part in parts])

    def clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @contextmanager
    def batch(
        self, members: Sequence[int], picked: Sequence[int], positions: "tuple[Tensor, Tensor]"
    ) -> Iterator[None]:
        self._positions = positions
        try:
            yield
        finally:
            self._positions = None

    def remove(self) -> None:
        self._picking.remove()
        self._model.unload()

    def _pick(self, module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][self._positions], *inputs[1:])
