"""Copies of a small base in 4 bits, in the files that AWQ and GPTQ make: what others publish, made here without their tools."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

GROUP = 32
"""Inputs that share a scale and a zero."""
_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight columns lies in which four bits of a word."""


def make_awq(folder: Path, base: Path) -> Path:
    """`base` as AutoAWQ would save it; return `folder`."""
    config = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": GROUP,
        "version": "gemm",
        "zero_point": True,
        "modules_to_not_convert": None,
    }
    return _quantise(folder, base, config, _awq)


def make_gptq(folder: Path, base: Path) -> Path:
    """`base` as GPTQ tools save it: symmetric, in the order of the inputs; return `folder`."""
    config = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": GROUP,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "checkpoint_format": "gptq",
    }
    return _quantise(folder, base, config, _gptq)


def _quantise(
    folder: Path, base: Path, config: Mapping[str, object], pack: Callable[[Any], dict[str, Any]]
) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    tensors: dict[str, Any] = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        path, _, kind = name.rpartition(".")
        if kind == "weight" and path.rpartition(".")[2] in _LAYERS:
            tensors |= {f"{path}.{part}": value for part, value in pack(tensor.float()).items()}
        else:
            tensors[name] = tensor.half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    whole = json.loads((base / "config.json").read_text())
    whole |= {"quantization_config": dict(config), "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(whole))
    return folder


def _awq(weight: Any) -> dict[str, Any]:
    """Of a matrix [outputs, inputs]: unsigned values with a zero for each group."""
    import torch

    groups = weight.t().reshape(-1, GROUP, len(weight))
    low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scales = ((high - low) / 15).clamp(min=1e-6)
    zeros = (-low / scales).round().clamp(0, 15)
    values = (groups / scales[:, None] + zeros[:, None]).round().clamp(0, 15)
    order = torch.tensor(_AWQ_ORDER)
    return {
        "qweight": _words(values.reshape(-1, len(weight) // 8, 8)[..., order]),
        "qzeros": _words(zeros.reshape(-1, len(weight) // 8, 8)[..., order]),
        "scales": scales.half(),
    }


def _gptq(weight: Any) -> dict[str, Any]:
    """Of a matrix [outputs, inputs]: values around 8, whose zero is stored as 7."""
    import torch

    outputs, inputs = weight.shape
    groups = weight.t().reshape(-1, GROUP, outputs)
    scales = (groups.abs().amax(1) / 7).clamp(min=1e-6)
    values = ((groups / scales[:, None]).round() + 8).clamp(0, 15).reshape(inputs, outputs)
    return {
        "qweight": _words(values.reshape(-1, 8, outputs).transpose(1, 2)),
        "qzeros": _words(torch.full((inputs // GROUP, outputs // 8, 8), 7)),
        "scales": scales.half(),
        "g_idx": torch.arange(inputs, dtype=torch.int32) // GROUP,
    }


def _words(fours: Any) -> Any:
    """int32 words of eight numbers of four bits each, the first lowest, [..., 8] -> [...]."""
    import torch

    shifted = fours.to(torch.int64) << (4 * torch.arange(8))
    words = shifted.sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()
