"""Pools for measuring: random weights in the shape of real models, LoRA adapters, prompts of common words. The toy's tokenizer serves all."""

import json
import math
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sparta import toy


@dataclass(frozen=True)
class Shape:
    """A Qwen2.5 in numbers. rank: of the adapters. prompt: median characters, which are tokens here."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    rank: int
    prompt: int
    new_tokens: int
    context: int
    dtype: str


SHAPES = {
    "small": Shape(256, 4, 4, 2, 704, 279, 16, 60, 24, 512, "float32"),
    "tiny": Shape(128, 2, 4, 2, 256, 512, 8, 60, 12, 512, "float32"),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, 16, 300, 512, 4096, "bfloat16"),
}
ADAPTERS = 10
_TEXT = """the of and to in is you that it he was for on are with as his they at be this have from or one had by word but not what all were we when
your can said there use an each which she do how their if will up other about out many then them these so some her would make like him into time has look
two more write go see number no way could people my than first water been call who oil its now find long down day did get come made may part"""
WORDS = _TEXT.split()
"""Common English words."""


def words(rng: random.Random, characters: int) -> str:
    """Words drawn at random, of about so many characters in all."""
    text: list[str] = []
    while sum(map(len, text)) + len(text) < characters:
        text.append(rng.choice(WORDS))
    return " ".join(text)


def random_pool(
    folder: Path, name: str, prompts: int = 2000, seed: int = 0, adapters: int = ADAPTERS
) -> Path:
    """A recipe for a pool of that shape, made in `folder` if it is not there; adapters on every linear layer."""
    shape, recipe = SHAPES[name], folder / "recipe.yaml"
    if recipe.is_file():
        return recipe
    import torch

    torch.manual_seed(seed)
    _write_base(folder / "base", shape)
    for number in range(adapters):
        _write_adapter(folder / "adapters" / f"model{number}", shape)
    rng = random.Random(seed)
    with (folder / "prompts.jsonl").open("w") as file:
        for index in range(prompts):
            length = min(shape.context // 4, max(8, round(rng.lognormvariate(math.log(shape.prompt), 0.5))))
            file.write(json.dumps({"id": f"p{index}", "prompt": words(rng, length)}) + "\n")
    tree: dict[str, Any] = {
        "name": f"random-{name}",
        "pool": {
            "base": "./base",
            "models": [
                {"name": f"model{number}", "adapter": f"./adapters/model{number}"}
                for number in range(adapters)
            ],
        },
        "data": {"train": "prompts.jsonl"},
        "generation": {"max_new_tokens": shape.new_tokens},
        "engine": {"context_length": shape.context},
    }
    recipe.write_text(yaml.safe_dump(tree))
    return recipe


def _write_base(folder: Path, shape: Shape) -> None:
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        tie_word_embeddings=False,
        eos_token_id=257,
        pad_token_id=258,
        dtype=shape.dtype,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, shape.dtype))
    try:
        with _drawing():
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config = GenerationConfig(eos_token_id=257, pad_token_id=258)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(toy.BASE / name, folder / name)


def _drawing() -> Any:
    """Where there is a GPU it draws the weights: a CPU takes minutes for seven billion."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _write_adapter(folder: Path, shape: Shape) -> None:
    import torch
    from safetensors.torch import save_file

    head = shape.hidden // shape.heads
    widths = {
        "self_attn.q_proj": (shape.hidden, shape.heads * head),
        "self_attn.k_proj": (shape.hidden, shape.kv_heads * head),
        "self_attn.v_proj": (shape.hidden, shape.kv_heads * head),
        "self_attn.o_proj": (shape.heads * head, shape.hidden),
        "mlp.gate_proj": (shape.hidden, shape.intermediate),
        "mlp.up_proj": (shape.hidden, shape.intermediate),
        "mlp.down_proj": (shape.intermediate, shape.hidden),
    }
    dtype = getattr(torch, shape.dtype)
    tensors = {}
    for layer in range(shape.layers):
        for module, (wide, out) in widths.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            with _drawing():
                inner, outer = torch.randn(shape.rank, wide) * wide**-0.5, torch.randn(out, shape.rank) * 0.01
            tensors[f"{name}.lora_A.weight"] = inner.to("cpu", dtype)
            tensors[f"{name}.lora_B.weight"] = outer.to("cpu", dtype)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "../../base",
        "r": shape.rank,
        "lora_alpha": 2 * shape.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(module.partition(".")[2] for module in widths),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
