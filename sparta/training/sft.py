"""Supervised training of one expert (C.3 of the paper): a new adapter learns the answers of a data set, turn by turn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import fmean
from typing import Any

from sparta.errors import SpartaError
from sparta.training.adapter_folder import StartingAdapter, check_trainable
from sparta.training.job import Progress, SftExample, SftJob, SftReport, silent, usable_rows
from sparta.training.loading import BaseInMemory, padding_id, put_adapter
from sparta.training.packing import is_packed
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

_LOGGED = {"mean_token_accuracy": "token_accuracy"}
_IGNORED = -100
"""The label that the loss passes over."""


def train_sft(job: SftJob, progress: Progress = silent, base: BaseInMemory | None = None) -> SftReport:
    """Does `job`, resuming it where `job.work` holds a checkpoint of it, and makes `job.out`. base: kept from one job to the next.

    The loss of an update is -log p(token | all before it in its row), the mean over the target tokens of all rows of the update, however
    they are spread over steps. The dropout is the adapter's own (lora_dropout); the base has none. Rows that cannot be used whole are left
    out and counted. Raises SpartaError, `job.out` absent, where no row can be used, the base or the starting adapter cannot, memory does not
    suffice, the loss is not finite, or `job.out` is already there.
    """
    adapter = begin(job)
    rows = usable_rows(job)
    make = partial(make_trainer, base=base or BaseInMemory())
    outcome = run(job, adapter, rows, make, _LOGGED, progress)
    losses = [record["loss"] for record in outcome.log]
    report = SftReport(
        used=len(rows),
        dropped=len(job.examples) - len(rows),
        steps=len(losses),
        first_loss=losses[0],
        mean_loss=fmean(losses),
        last_loss=losses[-1],
        tokens=job.epochs * sum(row.length for row in rows),
        taught=job.epochs * sum(row.targets for row in rows),
        seconds=outcome.seconds,
    )
    return end(job, adapter, outcome.weights, outcome.log, report)


def make_trainer(
    job: SftJob,
    adapter: StartingAdapter,
    rows: Sequence[SftExample],
    device: str,
    dtype: str,
    progress: Progress,
    base: BaseInMemory,
) -> Any:
    """The trainer of `job` before its first update: model loaded, rows in the order of training."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

    check_trainable(job.model, job.adapter)
    model = put_adapter(base.of(job, device, dtype), job, adapter, "default")
    check_vocabulary(job, rows, model)
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise SpartaError(
            f"The adapter of {job.model} in {job.adapter} adapts the output layer of its base, which supervised training leaves out: "
            "name other modules in pool.lora.targets."
        )
    pad_id = padding_id(model.config)
    order = training_order(len(rows), job.epochs, job.seed, job.method)
    collator = DataCollatorForLanguageModeling(pad_id, padding_free=is_packed(job, rows, order, model))
    columns = {"input_ids": [list(row.token_ids) for row in rows], "labels": [_labels(row) for row in rows]}
    with _in_single_precision(model):
        trainer = trainer_class(SFTTrainer)(
            job=job,
            adapter=adapter,
            progress=progress,
            model=model,
            args=arguments(SFTConfig, job, len(order), device, dtype, max_length=None),
            train_dataset=dataset_in_order(columns, order),
            data_collator=collator,
            processing_class=placeholder_tokenizer(pad_id),
        )
    # The trainer divides by the target tokens of the whole update if it gets their number, which it does if this is set.
    trainer.model_accepts_loss_kwargs = True
    return trainer


@contextmanager
def _in_single_precision(model: Any) -> Iterator[None]:
    """In this block no trainer turns the adapter into bfloat16, which TRL's do where they see that the base is in 4 bits."""
    base = model.get_base_model()
    in_4_bits = getattr(base, "is_loaded_in_4bit", False)
    if not in_4_bits:
        yield
        return
    base.is_loaded_in_4bit = False
    try:
        yield
    finally:
        base.is_loaded_in_4bit = True


def _labels(row: SftExample) -> list[int]:
    """The labels of the row's tokens; the first has nothing to be predicted from."""
    pairs = zip(row.token_ids[1:], row.is_target[1:], strict=True)
    return [_IGNORED, *(token if is_target else _IGNORED for token, is_target in pairs)]
