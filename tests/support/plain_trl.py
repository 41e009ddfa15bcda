"""DPO by TRL's own DPOTrainer, nothing of ours but the order of the pairs: what sparta.training.dpo is measured by."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from sparta.training.job import RatedExample, TrainingJob, usable_pairs
from sparta.training.runner import training_order
from sparta.training.trainer import placeholder_tokenizer


@dataclass(frozen=True)
class PlainResult:
    """losses, norms, margins, accuracies, rates: of every update. tensors: of the trained adapter, by name. seconds: of training alone."""

    losses: list[float]
    norms: list[float]
    margins: list[float]
    accuracies: list[float]
    rates: list[float]
    tensors: dict[str, torch.Tensor]
    seconds: float


class _AsItIs(DPOTrainer):
    """Examples stay the ids they are."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def plain_trl(job: TrainingJob, folder: Path) -> PlainResult:
    """Trains as `job` says, in float32 on a CPU, or in bfloat16 on a GPU; a job with an eta, all of whose rates are 1 and 0, by `sppo_hard`."""
    logging.disable_progress_bar()
    settings, examples = job.settings, usable_pairs(job)
    if job.eta is not None:
        assert settings.beta == 1 / job.eta
        assert all(isinstance(example, RatedExample) and example.rates == (1, 0) for example in examples)
    on_gpu = job.device == "cuda"
    config = AutoConfig.from_pretrained(job.base)
    config.attention_dropout = 0.0
    base = AutoModelForCausalLM.from_pretrained(
        job.base,
        config=config,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        device_map={"": 0} if on_gpu else None,
    )
    model = PeftModel.from_pretrained(base, job.adapter, is_trainable=True)
    order = training_order(len(examples), settings.epochs, job.seed, "DPO")
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = Dataset.from_dict({name: [list(getattr(e, name)) for e in examples] for name in columns})
    updates = -(-len(order) // (settings.batch_size * settings.accumulation))
    trainer = _AsItIs(
        model=model,
        args=DPOConfig(
            output_dir=str(folder),
            beta=settings.beta,
            loss_type="sigmoid" if job.eta is None else "sppo_hard",
            learning_rate=settings.learning_rate,
            lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
            warmup_steps=int(updates * settings.warmup),
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            optim="adamw_torch",
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            gradient_checkpointing=settings.gradient_checkpointing is True,
            use_cpu=not on_gpu,
            bf16=on_gpu,
            max_length=None,
            disable_dropout=True,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            log_level="error",
            remove_unused_columns=False,
        ),
        train_dataset=rows.select(order),
        data_collator=DataCollatorForPreference(pad_token_id=0, max_length=None),
        processing_class=placeholder_tokenizer(0),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    history = [record for record in trainer.state.log_history if "loss" in record]

    def column(name: str) -> list[float]:
        return [record[name] for record in history]

    tensors = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    return PlainResult(
        losses=column("loss"),
        norms=column("grad_norm"),
        margins=column("rewards/margins"),
        accuracies=column("rewards/accuracies"),
        rates=column("learning_rate"),
        tensors={name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
        seconds=seconds,
    )
