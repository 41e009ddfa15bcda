"""Adapter folders: who may be trained on, and what publishing one leaves alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from support import tiny_models
from support.store_samples import left_by_the_dead
from support.tiny_adapters import Member
from transformers import AutoModelForCausalLM

from sparta.errors import SpartaError
from sparta.training.adapter_folder import check_trainable, publish
from sparta.training.job import TrainingReport

REPORT = TrainingReport(0, 0, 0, None, None, 0, 0.0)


def test_publishing_removes_what_earlier_tries_left_and_nothing_of_a_model_with_a_longer_name(
    tmp_path: Path,
) -> None:
    names = ("qwen2", "qwen2.5", "qwen2.tmp", "qwen20", "qwen")
    left = left_by_the_dead(*(tmp_path / name for name in names), kind="folders")
    publish("qwen2", tmp_path / "qwen2", {"adapter_config.json": b"{}"}, REPORT)
    assert set(tmp_path.iterdir()) == {tmp_path / "qwen2", *left[1:]}


def saved(base: Path, folder: Path, **options: Any) -> Path:
    """A LoRA adapter of `base` as PEFT saves one made with `options`."""
    config = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
    model.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_lora_on_linear_layers_can_be_trained_on(options: dict[str, Any], tmp_path: Path) -> None:
    check_trainable("ada", saved(tiny_models.make_base(tmp_path / "base"), tmp_path / "ada", **options))


@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"trainable_token_indices": [1, 2]},
    ],
)
def test_what_is_more_than_lora_on_linear_layers_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    adapter = saved(tiny_models.make_base(tmp_path / "base"), tmp_path / "ada", **options)
    with pytest.raises(SpartaError, match=r"adapter of ada .* tensors that are not LoRA on a linear layer"):
        check_trainable("ada", adapter)


@pytest.mark.parametrize(
    ("change", "words"), [({"init_lora_weights": "pissa"}, "'pissa'"), ({"peft_type": "IA3"}, "type IA3")]
)
def test_what_cannot_be_continued_as_it_is_is_refused(
    change: dict[str, str], words: str, member: Member, tmp_path: Path
) -> None:
    check_trainable("ada", member.adapter)
    config = json.loads((member.adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
    weights = (member.adapter / "adapter_model.safetensors").read_bytes()
    (tmp_path / "adapter_model.safetensors").write_bytes(weights)
    with pytest.raises(SpartaError, match=words):
        check_trainable("ada", tmp_path)


def test_a_torn_weights_file_is_named(member: Member, tmp_path: Path) -> None:
    for name, keep in (("adapter_config.json", None), ("adapter_model.safetensors", -1)):
        (tmp_path / name).write_bytes((member.adapter / name).read_bytes()[:keep])
    with pytest.raises(SpartaError, match=r"adapter_model\.safetensors is not a whole safetensors file"):
        check_trainable("ada", tmp_path)


def test_checking_is_cheap(member: Member) -> None:
    code = (
        "import sys; from pathlib import Path; from sparta.training.adapter_folder import check_trainable;"
        f"check_trainable('ada', Path({str(member.adapter)!r}));"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
