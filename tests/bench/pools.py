"""Pools for measuring: random weights in the shape of real models, ten LoRA adapters, prompts of random letters. The toy's tokenizer serves all."""

import json
import math
import random
import shutil
import string
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
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, 16, 300, 512, 4096, "bfloat16"),
}
ADAPTERS = 10


def random_pool(folder: Path, name: str, prompts: int = 2000, seed: int = 0) -> Path:
    """A recipe for the pool of that shape, made in `folder` if it is not there; ten adapters on every linear layer."""
    shape, recipe = SHAPES[name], folder / "recipe.yaml"
    if recipe.is_file():
        return recipe
    import torch

    torch.manual_seed(seed)
    _write_base(folder / "base", shape)
    for number in range(ADAPTERS):
        _write_adapter(folder / "adapters" / f"model{number}", shape)
    rng = random.Random(seed)
    with (folder / "prompts.jsonl").open("w") as file:
        for index in range(prompts):
            length = min(shape.context // 4, max(8, round(rng.lognormvariate(math.log(shape.prompt), 0.5))))
            text = "".join(rng.choices(string.ascii_lowercase + " ", k=length))
            file.write(json.dumps({"id": f"p{index}", "prompt": text}) + "\n")
    tree: dict[str, Any] = {
        "name": f"random-{name}",
        "pool": {
            "base": "./base",
            "models": [
                {"name": f"model{number}", "adapter": f"./adapters/model{number}"}
                for number in range(ADAPTERS)
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
        # Where there is a GPU it draws the weights: a CPU takes minutes for seven billion.
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.generation_config = GenerationConfig(eos_token_id=257, pad_token_id=258)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(toy.BASE / name, folder / name)


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
            tensors[f"{name}.lora_A.weight"] = (torch.randn(shape.rank, wide) * wide**-0.5).to(dtype)
            tensors[f"{name}.lora_B.weight"] = (torch.randn(out, shape.rank) * 0.01).to(dtype)
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
