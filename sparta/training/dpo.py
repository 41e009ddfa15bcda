"""DPO of one model (ALGORITHM, step 7): the adapter of M^{t-1} is trained on, and a frozen copy of it is the reference.

TRL does the training. What is ours: examples stay the token ids they are, the adapter keeps its shape for life, a killed job is resumed to
the very weights that it would have had, and a job that fails leaves nothing that could be taken for a result.
"""

import gc
import logging as standard_logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sparta.errors import SpartaError
from sparta.rng import stream
from sparta.training.adapter_folder import (
    CONFIG,
    LOG,
    WEIGHTS,
    StartingAdapter,
    encode_log,
    publish,
    read_starting_adapter,
    refuse_existing,
)
from sparta.training.checkpoints import KEPT, close_work, job_identity, open_work
from sparta.training.job import Example, Progress, TrainingJob, TrainingReport, silent, usable
from sparta.training.loading import load_model, padding_id, resolve_device, resolve_dtype
from sparta.training.trainer import placeholder_tokenizer, trainer_class

_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
_LOGGED = {
    "step": "update",
    "loss": "loss",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "seconds": "seconds",
}


def train_dpo(job: TrainingJob, progress: Progress = silent) -> TrainingReport:
    """Does `job`, resuming it where `job.work` holds a checkpoint of it, and makes `job.out`.

    The loss is -log sigmoid(beta ((log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected)))), log-probabilities
    summed over the completion, so the first is ln 2. All dropout is off: the reference is a function. Without a usable example the adapter
    is copied. Raises SpartaError, `job.out` absent, where the base or the starting adapter cannot be used, memory does not suffice, the loss
    is not finite, or `job.out` is already there.
    """
    started = time.monotonic()
    refuse_existing(job.model, job.out)
    adapter = read_starting_adapter(job.model, job.adapter)
    examples = usable(job.examples, job.settings.max_length)
    dropped = len(job.examples) - len(examples)
    if not examples:
        note = {"update": 0, "note": "no usable pairs: the adapter is a copy", "pairs": 0, "dropped": dropped}
        report = TrainingReport(0, dropped, 0, None, None, 0, time.monotonic() - started)
        contents: dict[str, bytes | Path] = {
            CONFIG: adapter.config_bytes(),
            WEIGHTS: adapter.weights,
            LOG: encode_log([note]),
        }
        publish(job.model, job.out, contents, report)
        close_work(job.work)
        return report
    try:
        with _quiet():
            outcome = _trained(job, adapter, examples, progress)
    finally:
        _release_gpu()
    report = TrainingReport(
        pairs=len(examples),
        dropped=dropped,
        steps=len(outcome.log),
        first_loss=outcome.log[0]["loss"],
        mean_loss=fmean(record["loss"] for record in outcome.log),
        tokens=job.settings.epochs * sum(example.tokens for example in examples),
        seconds=outcome.seconds,
    )
    trained: dict[str, bytes | Path] = {
        CONFIG: adapter.config_bytes(),
        WEIGHTS: outcome.weights,
        LOG: encode_log(outcome.log),
    }
    publish(job.model, job.out, trained, report)
    close_work(job.work)
    return report


@dataclass(frozen=True)
class _Outcome:
    """What is left of a trainer that has done its work. weights: a safetensors file. log: one record an update."""

    weights: bytes
    log: list[dict[str, float]]
    seconds: float


def _trained(
    job: TrainingJob, adapter: StartingAdapter, examples: Sequence[Example], progress: Progress
) -> _Outcome:
    """Trains, from the newest checkpoint of this job if there is one. The models are gone when it returns."""
    import torch

    device = resolve_device(job.device)
    dtype = resolve_dtype(job.dtype, device)
    checkpoint = open_work(job.work, job_identity(job, examples, dtype))
    try:
        trainer = make_trainer(job, adapter, examples, device, dtype, progress)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise SpartaError(
            f"DPO of {job.model} ran out of GPU memory (dpo.batch_size {job.settings.batch_size}, longest pair "
            f"{max(example.length for example in examples)} tokens): lower dpo.batch_size and raise dpo.accumulation "
            "by the same factor, set dpo.gradient_checkpointing to true, or lower dpo.max_length."
        ) from error
    log = [
        {ours: record[theirs] for theirs, ours in _LOGGED.items() if theirs in record}
        for record in trainer.state.log_history
    ]
    return _Outcome(trainer.weights_file(), log, trainer.seconds())


def _release_gpu() -> None:
    """Gives the memory of the last model back: trainers are cyclic, and the next one may be loaded before they are collected."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def make_trainer(
    job: TrainingJob,
    adapter: StartingAdapter,
    examples: Sequence[Example],
    device: str,
    dtype: str,
    progress: Progress,
) -> Any:
    """The trainer of `job` before its first update: model and reference loaded, examples in the order of training."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    model = load_model(job, adapter, device, dtype)
    highest = max(max(e.prompt_ids + e.chosen_ids + e.rejected_ids) for e in examples)
    if highest >= (vocabulary := model.get_input_embeddings().num_embeddings):
        raise SpartaError(
            f"A preference pair for {job.model} contains token {highest}, but its base {job.base} knows {vocabulary} tokens: the pair "
            "was tokenised for another model."
        )
    pad_id = padding_id(model.config)
    order = training_order(len(examples), job.settings.epochs, job.seed)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    dataset = Dataset.from_dict({name: [list(getattr(examples[i], name)) for i in order] for name in columns})
    trainer = trainer_class()(
        model_name=job.model,
        adapter=adapter,
        progress=progress,
        model=model,
        args=_arguments(job, len(order), device, dtype),
        train_dataset=dataset,
        data_collator=DataCollatorForPreference(pad_token_id=pad_id, max_length=None),
        processing_class=placeholder_tokenizer(pad_id),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_order(n: int, epochs: int, seed: int) -> list[int]:
    """Indices of the examples as they are trained on, [n * epochs]: every epoch its own shuffle, one after the other.

    The order is fixed before training, so that a resumed job needs only to know how far it was.
    """
    order: list[int] = []
    for epoch in range(epochs):
        indices = list(range(n))
        stream(seed, "dpo order", epoch).shuffle(indices)
        order += indices
    return order


def _arguments(job: TrainingJob, pairs: int, device: str, dtype: str) -> Any:
    """TRL's configuration of `job`; everything that could print, send, evaluate or re-order is off."""
    from trl.trainer.dpo_config import DPOConfig

    settings = job.settings
    updates = -(-pairs // (settings.batch_size * settings.accumulation))
    arguments = DPOConfig(
        output_dir=str(job.work),
        beta=settings.beta,
        loss_type=["sigmoid"],
        max_length=None,
        disable_dropout=True,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        # Rounded down: the first warm-up update has rate 0, so that a job of one update would learn nothing.
        warmup_steps=int(updates * settings.warmup),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        optim="adamw_torch",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        use_cpu=device == "cpu",
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        seed=job.seed % 2**32,
        save_strategy="steps" if updates > settings.save_updates else "no",
        save_steps=settings.save_updates,
        save_total_limit=KEPT,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        eval_strategy="no",
        push_to_hub=False,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=device == "cuda",
    )
    if device == "cuda":
        # With several GPUs in sight the trainer would use them all through DataParallel, which DPOTrainer refuses.
        _ = arguments.device
        arguments._n_gpu = 1
    return arguments


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries' progress bars and advice off a job's output for the time of the block; errors still speak."""
    from transformers.utils import logging

    transformers_logging: Any = logging

    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    trl = standard_logging.getLogger("trl")
    trl_before = trl.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    trl.setLevel(standard_logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        trl.setLevel(trl_before)
        if bars:
            transformers_logging.enable_progress_bar()
