"""New LoRA adapters: in the shape that a recipe gives, for a base of which no weight is loaded, and at first without effect.

Every expert that is trained from data begins with one, and every full model learns in one.
"""

import json
from collections.abc import Iterator
from typing import Any

from sparta.errors import SpartaError
from sparta.recipes.pool import Lora
from sparta.training.adapter_folder import CONFIG, WEIGHTS, encode_config

Shapes = dict[str, tuple[int, ...]]


def fresh_adapter(base: str, shape: Lora, seed: int, trust_remote_code: bool = False) -> dict[str, bytes]:
    """The files of a new adapter for the model in the folder `base`, by name; equal for equal arguments.

    As LoRA begins: A uniform within 1 / sqrt(its input width), which is PyTorch's Kaiming-uniform for a linear layer, drawn tensor by tensor in
    the order of names; B zero, so that the model is the base exactly. float32. Raises SpartaError where the base has no such layers.
    """
    import torch
    from safetensors.torch import save

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    config, shapes = _blank(empty_model(base, trust_remote_code), base, shape)
    for name, size in sorted(shapes.items()):
        tensors[name] = torch.zeros(size)
        if ".lora_A." in name:
            bound = size[1] ** -0.5
            tensors[name].uniform_(-bound, bound, generator=generator)
    return {
        CONFIG: config,
        WEIGHTS: bytes(save(tensors, metadata={"format": "pt"})),
    }


def fresh_shapes(base: str, shape: Lora, trust_remote_code: bool = False) -> Shapes:
    """Names and shapes of the tensors that `fresh_adapter` makes; raises what it raises."""
    return _blank(empty_model(base, trust_remote_code), base, shape)[1]


def check_shape(base: str, shape: Lora, trust_remote_code: bool = False) -> None:
    """Raises SpartaError where there can be no adapter of this shape for the model in the folder `base`."""
    _targets(empty_model(base, trust_remote_code), base, shape)


def decoder_layers(model: Any) -> list[Any]:
    """The layers of `model`: the list of modules that holds most of its weights. Empty where it has none."""
    from torch.nn import ModuleList

    lists: list[Any] = [module for module in model.modules() if isinstance(module, ModuleList)]
    sizes = [sum(parameter.numel() for parameter in each.parameters()) for each in lists]
    return list(lists[sizes.index(max(sizes))]) if lists else []


def empty_model(base: str, trust_remote_code: bool = False) -> Any:
    """The model in the folder `base` without its weights, as its configuration describes it. Raises SpartaError where that cannot be read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    models: Any = AutoModelForCausalLM
    try:
        config: Any = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            return models.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SpartaError(
            f"base {base} is not described by its config.json as a causal language model ({reason}): name another base, or set "
            "pool.trust_remote_code if it ships its own code and you trust it"
        ) from error


def _blank(model: Any, base: str, shape: Lora) -> tuple[bytes, Shapes]:
    """adapter_config.json of a new adapter and the shapes of its tensors."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    config: Any = LoraConfig(
        r=shape.rank,
        # vLLM takes a whole number for one.
        lora_alpha=int(shape.alpha) if shape.alpha.is_integer() else shape.alpha,  # type: ignore[arg-type]
        lora_dropout=shape.dropout,
        target_modules=_targets(model, base, shape),
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    content = json.loads(json.dumps({**config.to_dict(), "base_model_name_or_path": None}, default=sorted))
    return encode_config(content), {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _targets(model: Any, base: str, shape: Lora) -> list[str]:
    """Names of the linear modules to adapt, sorted. Raises SpartaError for one that the base does not have."""
    known = set(_linear_names(model))
    if missing := sorted(set(shape.targets) - known):
        raise SpartaError(
            f"pool.lora.targets names {missing[0]}, and base {base} has no linear module of that name (it has {', '.join(sorted(known))}): "
            "correct it, or leave the targets out to adapt all of them but the output"
        )
    output = model.get_output_embeddings()
    outputs = {name.rpartition(".")[2] for name, module in model.named_modules() if module is output}
    return sorted(shape.targets or known - outputs)


def _linear_names(model: Any) -> Iterator[str]:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    return (
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, Linear | Conv1D)
    )
