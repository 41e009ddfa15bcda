"""DPO gives what TRL's DPOTrainer gives: losses of every update and the trained adapter, in float32."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.plain_trl import plain_trl
from support.tiny_adapters import Member, random_examples, read_log, tensors

from sparta.training.dpo import train_dpo
from sparta.training.job import RatedExample, TrainingJob

CASES: dict[str, dict[str, Any]] = {
    "batch of one": {"batch_size": 1},
    "batches and accumulation, the last ones in part": {"batch_size": 3, "accumulation": 2},
    "epochs": {"epochs": 3, "batch_size": 5},
    "clipping": {"max_grad_norm": 0.05, "batch_size": 2},
    "weight decay and linear schedule": {"weight_decay": 0.1, "schedule": "linear", "warmup": 0.3},
    "constant schedule and another beta": {"schedule": "constant", "warmup": 0.2, "beta": 0.5},
    "gradient checkpointing": {"gradient_checkpointing": True},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_losses_and_weights_are_those_of_trl(
    make_job: Callable[..., TrainingJob], tmp_path: Path, settings: dict[str, Any]
) -> None:
    job = make_job(settings={"learning_rate": 1e-3, **settings}, examples=random_examples(17))
    _same_as_trl(job, tmp_path)


@pytest.mark.parametrize("eta", [2.0, 20.0])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 3, "accumulation": 2, "epochs": 2}])
def test_with_hard_rates_the_square_loss_is_trls_sppo_hard(
    make_job: Callable[..., TrainingJob], tmp_path: Path, eta: float, settings: dict[str, Any]
) -> None:
    """In every update; test_losses.py compares the two losses on the same log-ratios."""
    rated = (
        RatedExample(each.prompt_ids, each.chosen_ids, each.rejected_ids, (1.0, 0.0))
        for each in random_examples(17)
    )
    job = make_job(
        settings={"learning_rate": 1e-3, "beta": 1 / eta, **settings}, examples=tuple(rated), eta=eta
    )
    _same_as_trl(job, tmp_path, slope=4 * eta)


@pytest.mark.parametrize(
    "change",
    [
        {"use_rslora": True},
        {"rank_pattern": {}, "alpha_pattern": {"q_proj": 2}},
        {"use_dora": True},
    ],
    ids=["rank-stabilised", "pattern of alphas", "DoRA"],
)
def test_other_kinds_of_lora_are_trained_as_trl_trains_them(
    make_job: Callable[..., TrainingJob], member: Member, tmp_path: Path, change: dict[str, Any]
) -> None:
    job = make_job(settings={"learning_rate": 1e-3}, examples=random_examples(9))
    folder = tmp_path / "other"
    shutil.copytree(member.adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    if change.get("use_dora"):
        _as_dora(folder, member)
    _same_as_trl(replace(job, adapter=folder), tmp_path)


def _as_dora(folder: Path, member: Member) -> None:
    """Adds the magnitudes that leave the model as it is without them."""
    from peft import LoraConfig, get_peft_model

    config = json.loads((folder / "adapter_config.json").read_text())
    shape = {name: config[name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules", "use_dora")}
    model = get_peft_model(member.load_base(), LoraConfig(task_type="CAUSAL_LM", **shape))
    model.save_pretrained(folder)


def _same_as_trl(job: TrainingJob, folder: Path, slope: float = 1.0) -> None:
    """slope: of the loss along a log-ratio, which is rounded to float32."""
    expected = plain_trl(job, folder / "trl")
    report = train_dpo(job)
    log = read_log(job.out)
    assert report.steps == len(expected.losses)
    for name, values, within in (
        ("loss", expected.losses, 1e-6 * slope),
        ("grad_norm", expected.norms, 1e-5 * slope),
        ("reward_margin", expected.margins, 5e-6),
        ("reward_accuracy", expected.accuracies, 1e-6),
        ("learning_rate", expected.rates, 1e-9),
    ):
        assert [record[name] for record in log] == pytest.approx(values, abs=within), name
    trained, start = tensors(job.out), tensors(job.adapter)
    assert trained.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert (trained[name] - tensor).abs().max() < 1e-6, name
    assert max((trained[name] - start[name]).abs().max() for name in start) > 1e-3
