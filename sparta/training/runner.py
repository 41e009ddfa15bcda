"""How a trainer is set up, run and resumed, whatever it trains by.

TRL does the training. What is ours: examples stay the token ids they are, the adapter keeps its shape for life, a killed job is resumed to
the very weights that it would have had, and a job that fails leaves nothing that could be taken for a result.
"""

import logging as standard_logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparta.engines.load_options import require_bitsandbytes
from sparta.engines.stopwatch import TRAIN, doing
from sparta.errors import SpartaError
from sparta.rng import stream
from sparta.store import files
from sparta.training import preemption
from sparta.training.adapter_folder import (
    CONFIG,
    LOG,
    WEIGHTS,
    Report,
    StartingAdapter,
    encode_log,
    publish,
    read_starting_adapter,
    refuse_existing,
)
from sparta.training.checkpoints import KEPT, job_identity, open_work
from sparta.training.job import AnyJob, PreferenceExample, Progress, SftExample
from sparta.training.loading import release_gpu, resolve_device, resolve_dtype
from sparta.training.optimizers import TRL_NAMES


def begin(job: AnyJob) -> StartingAdapter:
    """The adapter that `job` starts from. Raises SpartaError where it cannot be continued, or where `job.out` is already there."""
    refuse_existing(job.model, job.out)
    return read_starting_adapter(job.model, job.adapter)


def end(
    job: AnyJob,
    adapter: StartingAdapter,
    weights: bytes | Path,
    log: Sequence[Mapping[str, object]],
    report: Report,
) -> Report:
    """Makes `job.out` of what the job has come to, and returns its report; the work folder, which it could be resumed from, goes last.

    adapter: what it started from. weights: a safetensors file or its content. log: the records of log.jsonl.
    """
    contents: dict[str, bytes | Path] = {CONFIG: adapter.config_bytes(), WEIGHTS: weights}
    publish(job.model, job.out, {**contents, LOG: encode_log(log)}, report)
    files.remove(job.work)
    return report


_LOGGED = {
    "step": "update",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "seconds": "seconds",
}
"""What goes into every log, from the trainer's names to ours."""
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""Of learning rates, from the recipe's names to those of transformers."""


def warmup_updates(share: float, updates: int) -> int:
    """Updates in which the learning rate rises.

    Rounded down: the first of them has rate 0, so that a job of one update would learn nothing.
    """
    return int(updates * share)


@dataclass(frozen=True)
class TrainerResult:
    """What is left of a trainer that has done its work. weights: a safetensors file. log: one record an update."""

    weights: bytes
    log: list[dict[str, float]]
    seconds: float


def run(
    job: AnyJob,
    adapter: StartingAdapter,
    examples: Sequence[PreferenceExample] | Sequence[SftExample],
    make_trainer: Callable[..., Any],
    logged: dict[str, str],
    progress: Progress,
) -> TrainerResult:
    """Trains, from the newest checkpoint of this job if there is one. The trainer is gone when it returns, and its base as it was.

    make_trainer: from (job, adapter, examples, device, dtype, progress) to a trainer of `trainer_class`. logged: what goes into the log
    besides, from the trainer's names to ours.
    """
    try:
        with quiet():
            return _run(job, adapter, examples, make_trainer, logged, progress)
    finally:
        release_gpu()


def _run(
    job: AnyJob,
    adapter: StartingAdapter,
    examples: Sequence[PreferenceExample] | Sequence[SftExample],
    make_trainer: Callable[..., Any],
    logged: dict[str, str],
    progress: Progress,
) -> TrainerResult:
    import torch

    device = resolve_device(job.device)
    dtype = resolve_dtype(job.dtype, device)
    checkpoint = open_work(job.work, job_identity(job, examples, dtype))
    try:
        trainer = make_trainer(job, adapter, examples, device, dtype, progress)
        with doing(TRAIN), preemption.postponable():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        section = job.section
        raise SpartaError(
            f"{job.method} of {job.model} ran out of GPU memory ({section}.batch_size {job.settings.batch_size}, longest {job.unit} "
            f"{max(example.length for example in examples)} tokens): lower {section}.batch_size and raise {section}.accumulation "
            f"by the same factor, set {section}.gradient_checkpointing to true, or lower {section}.max_length."
        ) from error
    weights, seconds = trainer.weights_file(), trainer.seconds()
    trainer.take_off()
    log = [
        {ours: record[theirs] for theirs, ours in (_LOGGED | logged).items() if theirs in record}
        for record in trainer.state.log_history
    ]
    return TrainerResult(weights, log, seconds)


def check_vocabulary(
    job: AnyJob, examples: Sequence[PreferenceExample] | Sequence[SftExample], model: Any
) -> None:
    """Raises SpartaError where an example has a token that the base does not know."""
    highest = max(example.highest for example in examples)
    if highest >= (vocabulary := model.get_input_embeddings().num_embeddings):
        raise SpartaError(
            f"A {job.unit} for {job.model} contains token {highest}, but its base {job.base} knows {vocabulary} tokens: the {job.unit} "
            "was tokenised for another model."
        )


def training_order(n: int, epochs: int, seed: int, method: str) -> list[int]:
    """Indices of the examples as they are trained on, [n * epochs]: every epoch its own shuffle, one after the other.

    The order is fixed before training, so that a resumed job needs only to know how far it was.
    """
    order: list[int] = []
    for epoch in range(epochs):
        indices = list(range(n))
        stream(seed, f"{method.lower()} order", epoch).shuffle(indices)
        order += indices
    return order


def dataset_in_order(columns: Mapping[str, Sequence[Sequence[int]]], order: Sequence[int]) -> Any:
    """A dataset of rows from `columns`, in this order; every row is in memory once, however often it is named."""
    from datasets import Dataset

    return Dataset.from_dict(dict(columns)).select(order)


def arguments(kind: Any, job: AnyJob, rows: int, device: str, dtype: str, **more: Any) -> Any:
    """TRL's configuration of `job`, of class `kind`; everything that could print, send, evaluate or re-order is off.

    rows: of all epochs. more: what is a matter of this kind of training alone.
    """
    settings = job.settings
    if settings.optimizer != "adamw":
        require_bitsandbytes(f"{job.section}.optimizer is {settings.optimizer}")
    updates = -(-rows // (settings.batch_size * settings.accumulation))
    made = kind(
        output_dir=str(job.work),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        warmup_steps=warmup_updates(settings.warmup, updates),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        optim=TRL_NAMES[settings.optimizer],
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing is True,
        # Otherwise the loss of a mixture of experts has a term for the balance of its experts, which is not the paper's.
        router_aux_loss_coef=0.0,
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
        **more,
    )
    if device == "cuda":
        # With several GPUs in sight the trainer would use them all through DataParallel, which TRL's trainers refuse.
        _ = made.device
        made._n_gpu = 1
    return made


@contextmanager
def quiet() -> Iterator[None]:
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
