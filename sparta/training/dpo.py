"""DPO of one model (ALGORITHM, step 7): the adapter of M^{t-1} is trained on, and a frozen copy of it is the reference."""

import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sparta.training.adapter_folder import StartingAdapter
from sparta.training.job import PreferenceExample, Progress, TrainingJob, TrainingReport, silent, usable_pairs
from sparta.training.loading import load_model, padding_id
from sparta.training.runner import (
    arguments,
    begin,
    check_vocabulary,
    dataset_in_order,
    end,
    run,
    training_order,
)
from sparta.training.trainer import placeholder_tokenizer, trainer_class

_LOGGED = {"rewards/margins": "reward_margin", "rewards/accuracies": "reward_accuracy"}


def train_dpo(job: TrainingJob, progress: Progress = silent) -> TrainingReport:
    """Does `job`, resuming it where `job.work` holds a checkpoint of it, and makes `job.out`.

    The loss is -log sigmoid(beta ((log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected)))), log-probabilities
    summed over the completion, so the first is ln 2. All dropout is off: the reference is a function. Without a usable example the adapter
    is copied. Raises SpartaError, `job.out` absent, where the base or the starting adapter cannot be used, memory does not suffice, the loss
    is not finite, or `job.out` is already there.
    """
    started = time.monotonic()
    adapter = begin(job)
    examples = usable_pairs(job)
    dropped = len(job.examples) - len(examples)
    if not examples:
        note = {"update": 0, "note": "no usable pairs: the adapter is a copy", "pairs": 0, "dropped": dropped}
        report = TrainingReport(0, dropped, 0, None, None, 0, time.monotonic() - started)
        return end(job, adapter, adapter.weights, [note], report)
    outcome = run(job, adapter, examples, make_trainer, _LOGGED, progress)
    report = TrainingReport(
        pairs=len(examples),
        dropped=dropped,
        steps=len(outcome.log),
        first_loss=outcome.log[0]["loss"],
        mean_loss=fmean(record["loss"] for record in outcome.log),
        tokens=job.epochs * sum(example.tokens for example in examples),
        seconds=outcome.seconds,
    )
    return end(job, adapter, outcome.weights, outcome.log, report)


def make_trainer(
    job: TrainingJob,
    adapter: StartingAdapter,
    examples: Sequence[PreferenceExample],
    device: str,
    dtype: str,
    progress: Progress,
) -> Any:
    """The trainer of `job` before its first update: model and reference loaded, examples in the order of training."""
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

    model = load_model(job, adapter, device, dtype)
    check_vocabulary(job, examples, model)
    pad_id = padding_id(model.config)
    order = training_order(len(examples), job.epochs, job.seed, job.method)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    columns = {name: [list(getattr(example, name)) for example in examples] for name in names}
    return trainer_class(DPOTrainer)(
        job=job,
        adapter=adapter,
        progress=progress,
        model=model,
        args=arguments(
            DPOConfig,
            job,
            len(order),
            device,
            dtype,
            beta=job.settings.beta,
            loss_type=["sigmoid"],
            max_length=None,
            disable_dropout=True,
        ),
        train_dataset=dataset_in_order(columns, order),
        data_collator=DataCollatorForPreference(pad_token_id=pad_id, max_length=None),
        processing_class=placeholder_tokenizer(pad_id),
    )
