"""Jobs that train a tiny random member of the pool."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny_adapters import EOS, PAD, VOCABULARY, Member, random_examples, random_rows
from transformers import Qwen2Config, Qwen2ForCausalLM

from sparta.recipes.pool import Sft
from sparta.recipes.schema import Dpo
from sparta.training.job import SftJob, TrainingJob


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def member(tmp_path_factory: pytest.TempPathFactory) -> Member:
    root = tmp_path_factory.mktemp("member")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        attention_dropout=0.2,
        pad_token_id=PAD,
        eos_token_id=EOS,
        tie_word_embeddings=True,
    )
    base = Qwen2ForCausalLM(config)
    base.save_pretrained(root / "base")
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.2,
        target_modules=["q_proj", "v_proj", "up_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(root / "adapter")
    config_file = root / "adapter" / "adapter_config.json"
    saved = json.loads(config_file.read_text()) | {"base_model_name_or_path": "../../base"}
    config_file.write_text(json.dumps(saved))
    return Member(root / "base", root / "adapter")


@pytest.fixture
def make_job(member: Member, tmp_path: Path) -> Callable[..., TrainingJob]:
    """Jobs on the tiny model; keywords replace fields, those of `settings` come as a dictionary."""

    def make(name: str = "a", settings: dict[str, Any] | None = None, **fields: Any) -> TrainingJob:
        job = TrainingJob(
            model="tiny",
            base=str(member.base),
            adapter=member.adapter,
            examples=random_examples(16),
            out=tmp_path / "adapters" / name,
            work=tmp_path / "work" / name,
            settings=Dpo(**{"learning_rate": 1e-2, "batch_size": 2, **(settings or {})}),
            dtype="auto",
            device="cpu",
            seed=11,
        )
        return replace(job, **fields)

    return make


@pytest.fixture
def make_expert(member: Member, tmp_path: Path) -> Callable[..., SftJob]:
    """Supervised training on the tiny model, from an adapter that has dropout; keywords as of `make_job`."""

    def make(name: str = "a", settings: dict[str, Any] | None = None, **fields: Any) -> SftJob:
        job = SftJob(
            model="tiny",
            base=str(member.base),
            adapter=member.adapter,
            examples=random_rows(16),
            out=tmp_path / "experts" / name,
            work=tmp_path / "expert work" / name,
            settings=Sft(**{"learning_rate": 1e-2, "batch_size": 2, "accumulation": 1, **(settings or {})}),
            epochs=1,
            dtype="auto",
            device="cpu",
            seed=11,
        )
        return replace(job, **fields)

    return make


@pytest.fixture(scope="session")
def without_dropout(member: Member) -> Path:
    """The adapter of `member` with its dropout off."""
    folder = member.adapter.with_name("without_dropout")
    shutil.copytree(member.adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.0}))
    return folder
