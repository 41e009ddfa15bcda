"""Checks that a folder holds a LoRA adapter for a given base, from headers and configurations, without torch.

The base name inside an adapter proves nothing (paths move, names are reused), so tensor names and shapes decide.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparta.engines.weight_files import read_object, tensors_in, weight_names
from sparta.errors import SpartaError

Shapes = Mapping[str, tuple[int, ...]]

_TENSOR = re.compile(
    r"(?:.*\.)?(?P<module>(?!base_layer\.)\w+)(?:\.base_layer)*\.lora_(?:embedding_)?(?P<side>[AB])(?:\.weight)?$"
)
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
PREFIX = "base_model.model."
"""PEFT begins every tensor name in an adapter's file with this."""


def check_adapter(folder: Path, base: Path) -> None:
    """Raises SpartaError unless `folder` holds a LoRA adapter, in safetensors, that fits the model in the folder `base`."""
    settings = _lora_settings(folder)
    shapes = _tensor_shapes(_weights_file(folder))
    config = _base_config(base)
    _check_ranks(folder, settings, shapes)
    _check_modules(folder, base, shapes)
    _check_layers(folder, base, settings, shapes, config)
    _check_widths(folder, base, shapes, config)


def adapts_output(folder: Path) -> bool:
    """Whether the adapter in `folder` changes lm_head, which turns hidden states into logits."""
    names = map(_TENSOR.match, _tensor_shapes(_weights_file(folder)))
    return any(name is not None and name["module"] == "lm_head" for name in names)


def _lora_settings(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise SpartaError(
            f"adapter {folder}: there is no such folder; correct the adapter in the recipe or put it there"
        )
    settings = read_object(folder / "adapter_config.json", f"adapter {folder}")
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise SpartaError(
            f"adapter {folder} is of type {kind}, only LORA is supported: train a LoRA adapter for this model"
        )
    return settings


def _weights_file(folder: Path) -> Path:
    path = folder / "adapter_model.safetensors"
    if path.is_file():
        return path
    pickles = [name for pattern in ("*.bin", "*.pt", "*.pth") for name in sorted(folder.glob(pattern))]
    if pickles:
        raise SpartaError(
            f"adapter {folder} has its weights in {pickles[0].name}, a pickle, which could run code "
            "when it is read: if you trust it, load it with PEFT and save it again with save_pretrained, "
            f"which writes {path.name}"
        )
    raise SpartaError(
        f"adapter {folder} has no {path.name}: the folder is incomplete, copy or save the adapter again"
    )


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors_in(path).items()}


def _base_config(base: Path) -> dict[str, Any]:
    """The text part of the base's config.json."""
    config = read_object(base / "config.json", f"base {base}")
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _check_ranks(folder: Path, settings: dict[str, Any], shapes: Shapes) -> None:
    declared = {settings.get("r"), *(settings.get("rank_pattern") or {}).values()}
    found = False
    for name, shape in shapes.items():
        match = _TENSOR.match(name)
        if not match or match["side"] != "A":
            continue
        found = True
        other = shapes.get(re.sub(r"(\.lora_(?:embedding_)?)A", r"\1B", name))
        if other is None or shape[0] != other[1]:
            raise SpartaError(
                f"adapter {folder}: {name} has no lora_B of the same rank; save the adapter again"
            )
        if shape[0] not in declared and declared != {None} and ".experts." not in name:
            raise SpartaError(
                f"adapter {folder}: {name} has rank {shape[0]}, but its adapter_config.json says {settings.get('r')}: the two files belong to "
                "different adapters, copy both again"
            )
    if not found:
        raise SpartaError(f"adapter {folder} holds no LoRA tensors: save it with PEFT's save_pretrained")


def _check_modules(folder: Path, base: Path, shapes: Shapes) -> None:
    """Raises SpartaError for a tensor whose module the base lacks or names differently, judging by the names of the base's weights.

    Module names may differ from weight names (mixtures of experts, vision-language bases); `sparta.engines.adapter_load` checks those cases.
    """
    modules = {name.rpartition(".")[0] for name in weight_names(base)}
    # With tied embeddings, lm_head has no weights of its own.
    known = {part for module in modules for part in module.split(".")} | {"lm_head"}
    placed: dict[str, str] = {}
    for module in modules:
        placed.setdefault(_in_layer(module), module)
    images = "text_config" in read_object(base / "config.json", f"base {base}")
    for name in shapes:
        match = _TENSOR.match(name)
        if match is None:
            continue
        if match["module"] not in known:
            raise SpartaError(
                f"adapter {folder} is for another base: it adapts {match['module']}, but base {base} has no module of that name"
            )
        path = name.removeprefix(PREFIX).partition(".lora_")[0].replace(".base_layer", "")
        # A base saved without its head lacks the first part of these names.
        if name.startswith(PREFIX) and (images or path in modules or path.partition(".")[2] in modules):
            continue
        there = placed.get(_in_layer(path))
        if there is not None or not name.startswith(PREFIX) or path.startswith("base_model."):
            right = f"{PREFIX}{there}.lora_" if there is not None else PREFIX
            raise SpartaError(
                f"adapter {folder} would change nothing: PEFT finds no module for {name}, because base {base} needs names that begin with {right}; "
                "rename its tensors, or save it again with PEFT's save_pretrained"
            )


def _in_layer(module: str) -> str:
    """A module's name from its layer number on; the whole name outside the layers."""
    found = _LAYER.search(f".{module}")
    return f".{module}"[found.start(1) :] if found else module


def _check_layers(
    folder: Path, base: Path, settings: dict[str, Any], shapes: Shapes, config: dict[str, Any]
) -> None:
    layers = config.get("num_hidden_layers") or config.get("n_layer")
    used = {int(match[1]) for name in shapes if (match := _LAYER.search(name))}
    if not layers or not used:
        return
    if max(used) >= layers:
        raise SpartaError(
            f"adapter {folder} is for another base: it adapts layer {max(used) + 1}, "
            f"but base {base} has {layers} layers"
        )
    # By default PEFT adapts all layers, so an adapter of the first few was made for a shallower base.
    targets = settings.get("target_modules")
    everywhere = isinstance(targets, list) and all(
        re.fullmatch(r"[A-Za-z_]+", str(target)) for target in targets
    )
    uniform = len(set(config.get("layer_types") or ["one"])) == 1
    chosen = settings.get("layers_to_transform") is not None or settings.get("exclude_modules")
    if everywhere and uniform and not chosen and used == set(range(len(used))) and len(used) < layers:
        raise SpartaError(
            f"adapter {folder} is for another base: it covers {len(used)} layers, but base {base} has {layers}"
        )


def _check_widths(folder: Path, base: Path, shapes: Shapes, config: dict[str, Any]) -> None:
    known = _module_widths(config)
    for name, shape in shapes.items():
        match = _TENSOR.match(name)
        if not match or len(shape) != 2 or ".experts." in name or ".shared_expert" in name:
            continue
        width_in, width_out = known.get(match["module"], (None, None))
        width, expected = (shape[1], width_in) if match["side"] == "A" else (shape[0], width_out)
        if expected is not None and width != expected:
            raise SpartaError(
                f"adapter {folder} is for another base: {name} is {width} wide, but base {base} needs {expected}"
            )


def _module_widths(config: dict[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    """Input and output width of the usual linear modules; None where the configuration does not determine it."""
    width = config.get("hidden_size")
    heads = config.get("num_attention_heads")
    if not isinstance(width, int) or not isinstance(heads, int) or "kv_lora_rank" in config:
        return {}
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    # In models with experts, or with layers of several kinds, modules of one name differ in width.
    mixed = any("expert" in key for key in config)
    inner = None if mixed else config.get("intermediate_size")
    attention: dict[str, tuple[int | None, int | None]] = {"q_proj": (width, None), "o_proj": (None, width)}
    if len(set(config.get("layer_types") or ["one"])) == 1 and not config.get("attn_output_gate"):
        attention = {
            "q_proj": (width, queries),
            "k_proj": (width, keys),
            "v_proj": (width, keys),
            "o_proj": (queries, width),
        }
    return {
        **attention,
        "gate_proj": (width, inner),
        "up_proj": (width, inner),
        "down_proj": (inner, width),
        "lm_head": (width, config.get("vocab_size")),
    }
