"""A tiny pool member to train, its pairs and SFT rows, and ways to interrupt a training and inspect the result."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from sparta.recipes.pool import Lora
from sparta.training.factory import train
from sparta.training.job import PreferenceExample, Progress, SftExample, TrainingJob, TrainingReport, silent
from sparta.training.new_adapter import fresh_adapter

VOCABULARY, PAD, EOS = 48, 0, 1


@dataclass(frozen=True)
class Member:
    """A base (Qwen2, two layers, 64 wide) and its starting adapter, a LoRA that is not zero."""

    base: Path
    adapter: Path

    def load_base(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()

    def load(self, adapter: Path) -> Any:
        return PeftModel.from_pretrained(self.load_base(), adapter).eval()

    def logits(self, adapter: Path, ids: list[int]) -> torch.Tensor:
        """[tokens, vocabulary] of the model with `adapter`, dropout off."""
        with torch.no_grad():
            return self.load(adapter)(torch.tensor([ids])).logits[0]


def random_examples(n: int, seed: int = 0) -> tuple[PreferenceExample, ...]:
    """n pairs of different lengths; chosen completions end with EOS, rejected ones were cut off."""
    generator = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(generator.randrange(2, VOCABULARY) for _ in range(count))

    return tuple(PreferenceExample(ids(3 + i % 4), (*ids(2 + i % 3), EOS), ids(1 + i % 5)) for i in range(n))


def random_rows(n: int, seed: int = 0) -> tuple[SftExample, ...]:
    """n chats of different lengths, every other one of two turns; trained completions end with EOS."""
    generator = random.Random(seed)
    rows = []
    for i in range(n):
        ids: list[int] = []
        taught: list[bool] = []
        for turn in range(1 + i % 2):
            for count, is_taught in ((3 + i % 4, False), (2 + (i + turn) % 5, True)):
                ids += [generator.randrange(2, VOCABULARY) for _ in range(count)] + [EOS] * is_taught
                taught += [is_taught] * (count + is_taught)
        rows.append(SftExample(tuple(ids), tuple(taught)))
    return tuple(rows)


class Stop(Exception):
    pass


class Watch:
    """Records the updates that it is notified of, and raises `Stop` at one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        self.stop_at = stop_at
        self.updates: list[int] = []

    def __call__(self, update: int, total: int, loss: float | None) -> None:
        self.updates.append(update)
        if update == self.stop_at:
            raise Stop


def train_one(job: TrainingJob, engine_kind: str, progress: Progress = silent) -> TrainingReport:
    """`factory.train` for a single job."""
    reports: list[TrainingReport] = []
    train([job], engine_kind, 1, lambda _: progress, lambda _, report: reports.append(report))
    [report] = reports
    return report


def read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def without_seconds(out: Path) -> list[dict[str, Any]]:
    """The log without measurements."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in read_log(out)]


def fresh_folder(folder: Path, base: Path, shape: Lora, seed: int = 1) -> Path:
    """A new adapter for `base`, in `folder`."""
    folder.mkdir(exist_ok=True)
    for name, content in fresh_adapter(str(base), shape, seed).items():
        (folder / name).write_bytes(content)
    return folder


def tensors(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def same(left: Path, right: Path) -> bool:
    """Whether two adapters have the same tensors, bit for bit."""
    one, other = tensors(left), tensors(right)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def make_member(root: Path) -> Member:
    """A tiny random base with an adapter that does something, below `root`."""
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


def make_mixture(folder: Path) -> Path:
    """A tiny random mixture of experts, in `folder`."""
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    Qwen2MoeForCausalLM(config).save_pretrained(folder)
    return folder
