"""The optimizers of DPO: AdamW by torch, or with its moments in 8 bits by bitsandbytes, and their state in checkpoints."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparta.engines.load_options import require_bitsandbytes

if TYPE_CHECKING:
    from torch import Tensor

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of torch's AdamW."""
TRL_NAMES = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
"""From the recipe's names to those of transformers, by which TRL's trainers know them."""


def make_optimizer(kind: str, weights: "Tensor", learning_rate: float, weight_decay: float) -> Any:
    """The optimizer of `weights` that the recipe calls `kind`. Raises SpartaError if its library is missing."""
    import torch

    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if kind == "adamw":
        return torch.optim.AdamW([weights], **settings, fused=weights.device.type == "cuda")
    require_bitsandbytes(f"dpo.optimizer is {kind}")
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    return (PagedAdamW8bit if kind == "paged_adamw_8bit" else AdamW8bit)([weights], **settings)


def saved_state(optimizer: Any, weights: "Tensor") -> "tuple[dict[str, Tensor], float]":
    """The tensors that `optimizer` has made for `weights`, by name, on the CPU; and its steps. Before its first step there are none.

    That may be after several updates: in float16, those whose gradient overflows are left out.
    """
    import torch

    state = optimizer.state.get(weights)
    if not state:
        return {}, 0.0
    # torch counts its steps in a tensor.
    names = _MOMENTS if isinstance(optimizer, torch.optim.AdamW) else state.keys() - {"step"}
    return {name: state[name].detach().cpu() for name in sorted(names)}, float(state["step"])


def restore_state(optimizer: Any, weights: "Tensor", tensors: "Mapping[str, Tensor]", steps: float) -> None:
    """Makes `optimizer`, which has not stepped yet, go on from what `saved_state` gave."""
    import torch

    if not steps:
        return
    device = weights.device
    if isinstance(optimizer, torch.optim.AdamW):
        step = torch.tensor(steps, device=device if optimizer.defaults["fused"] else "cpu")
        optimizer.state[weights] = {"step": step, **{name: tensors[name].to(device) for name in _MOMENTS}}
        return
    # Its own buffers, which may be paged, filled with what was saved.
    optimizer.init_state(optimizer.param_groups[0], weights, 0, 0)
    state = optimizer.state[weights]
    for name, tensor in tensors.items():
        state[name] = state[name].copy_(tensor) if name in state else tensor.to(device)
    state["step"] = int(steps)
