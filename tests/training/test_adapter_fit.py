"""PEFT's account of an adapter on its base: all that PEFT itself saves is whole, whatever its form, and whatever is not whole is refused."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import tiny_models
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from sparta import toy
from sparta.engines.adapter_check import check_adapter
from sparta.engines.adapter_load import put_adapter
from sparta.errors import SpartaError
from sparta.training.adapter_fit import check_fit

_SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
BASES: Mapping[str, Callable[[], PretrainedConfig]] = {
    "tied": lambda: Qwen2Config(**_SHAPE, tie_word_embeddings=True),
    "untied": lambda: LlamaConfig(**_SHAPE, tie_word_embeddings=False),
    "headless": lambda: LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "experts": lambda: MixtralConfig(**_SHAPE, num_local_experts=4),
    "gpt2": lambda: GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=1),
}
SOME = ["q_proj", "v_proj", "down_proj"]
FORMS: Mapping[str, dict[str, Any]] = {
    "plain": {"target_modules": SOME},
    "rank-stabilised": {"target_modules": SOME, "use_rslora": True},
    "rank and alpha patterns": {
        "target_modules": SOME,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {"v_proj": 3},
    },
    "a regular expression": {"target_modules": r".*layers\.[02]\.self_attn\.(q|k)_proj"},
    "all linear": {"target_modules": "all-linear"},
    "some layers": {"target_modules": SOME, "layers_to_transform": [1]},
    "excluded modules": {"target_modules": SOME, "exclude_modules": ["layers.0.mlp.down_proj"]},
    "saved modules": {"target_modules": SOME, "modules_to_save": ["lm_head", "embed_tokens"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "embeddings alone": {"target_modules": ["embed_tokens"]},
    "the output": {"target_modules": ["lm_head", "q_proj"]},
    "magnitudes": {"target_modules": SOME, "use_dora": True},
    "biases": {"target_modules": SOME, "bias": "lora_only"},
    "tokens": {"target_modules": SOME, "trainable_token_indices": [1, 2]},
    "principal components": {"target_modules": SOME, "init_lora_weights": "pissa"},
}
_OF_EXPERTS = {
    "plain": {"target_modules": ["q_proj", "v_proj"]},
    "parameters": {
        "target_modules": ["q_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    },
}
_OF_GPT2 = {
    "plain": {"target_modules": ["c_attn"], "fan_in_fan_out": True},
    "some layers": {"target_modules": ["c_attn"], "fan_in_fan_out": True, "layers_to_transform": [0, 2]},
}
CASES = [
    *((base, form, settings) for base in ("tied", "untied", "headless") for form, settings in FORMS.items()),
    *(("experts", form, settings) for form, settings in _OF_EXPERTS.items()),
    *(("gpt2", form, settings) for form, settings in _OF_GPT2.items()),
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random bases; `headless` is saved without its head, as some are: its names lack the `model.` that its modules' begin with."""
    made = {}
    for name, config_of in BASES.items():
        folder, config = tmp_path_factory.mktemp(name), config_of()
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        (model.base_model if name == "headless" else model).save_pretrained(folder)
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        made[name] = folder
    return made


def saved(folder: Path, base: Path, settings: Mapping[str, Any]) -> Path:
    """An adapter as PEFT saves it, on another machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        config = LoraConfig(r=4, task_type="CAUSAL_LM", **settings)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(str(folder))
    told = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(told | {"base_model_name_or_path": "/elsewhere/base"})
    )
    return folder


@pytest.mark.parametrize(
    ("base", "form", "settings"), CASES, ids=[f"{base}-{form}" for base, form, _ in CASES]
)
def test_whatever_peft_saves_is_whole(
    base: str, form: str, settings: Mapping[str, Any], bases: Mapping[str, Path], tmp_path: Path
) -> None:
    adapter = saved(tmp_path / "adapter", bases[base], settings)
    check_adapter(adapter, bases[base])
    check_fit(adapter, str(bases[base]))
    put_adapter(AutoModelForCausalLM.from_pretrained(bases[base]), adapter, "a1", str(bases[base]))


SPOILED: Mapping[str, tuple[Callable[[str], str | None], str]] = {
    "one more prefix": (lambda name: f"base_model.model.{name}", "56 of its tensors have no module"),
    "one module under another name": (
        lambda name: name.replace("layers.0.mlp.up_proj", "layers.0.up_proj"),
        r"2 of its tensors have no module there \(base_model.model.model.layers.0.up_proj",
    ),
    "one module left out": (
        lambda name: None if "layers.1.mlp.up_proj" in name else name,
        r"2 that its adapter_config.json asks for are not in its file \(base_model.model.model.layers.1.mlp.up_proj.lora_A.weight\)",
    ),
}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("load", [True, False])
def test_what_is_not_whole_is_refused_with_a_name(how: str, load: bool, tmp_path: Path) -> None:
    rename, words = SPOILED[how]
    spoiled = tiny_models.renamed_adapter(tmp_path / "spoiled", toy.ADAPTERS["adder"], rename)
    with pytest.raises(SpartaError, match=words) as caught:
        if load:
            put_adapter(AutoModelForCausalLM.from_pretrained(toy.BASE), spoiled, "a1", str(toy.BASE))
        else:
            check_fit(spoiled, str(toy.BASE))
    assert str(caught.value).startswith(f"adapter {spoiled} does not fit base {toy.BASE}")
    assert "\n" not in str(caught.value)


def test_a_second_adapter_is_looked_at_as_well(tmp_path: Path) -> None:
    spoiled = tiny_models.renamed_adapter(
        tmp_path / "spoiled", toy.ADAPTERS["adder"], SPOILED["one module left out"][0]
    )
    model = put_adapter(
        AutoModelForCausalLM.from_pretrained(toy.BASE), toy.ADAPTERS["mirror"], "a1", str(toy.BASE)
    )
    with pytest.raises(SpartaError, match="2 that its adapter_config"):
        put_adapter(model, spoiled, "a2", str(toy.BASE))


def test_a_module_that_is_to_be_replaced_and_is_not_there_is_missing(
    bases: Mapping[str, Path], tmp_path: Path
) -> None:
    whole = saved(tmp_path / "whole", bases["untied"], FORMS["saved modules"])
    without = tiny_models.renamed_adapter(
        tmp_path / "without", whole, lambda name: None if "lm_head" in name else name
    )
    with pytest.raises(SpartaError, match=r"not in its file \(base_model.model.lm_head.weight\)"):
        check_fit(without, str(bases["untied"]))


def test_other_shapes_are_named(bases: Mapping[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide = AutoModelForCausalLM.from_config(LlamaConfig(**(_SHAPE | {"intermediate_size": 96})))
    wide.save_pretrained(tmp_path / "wide")
    adapter = saved(tmp_path / "adapter", tmp_path / "wide", FORMS["plain"])
    with pytest.raises(SpartaError, match=r"cannot be put on base .*size mismatch for .*down_proj") as caught:
        check_fit(adapter, str(bases["untied"]))
    assert "\n" not in str(caught.value)
