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
        publish(
            job.model,
            job.out,
            {CONFIG: adapter.config_bytes(), WEIGHTS: adapter.weights, LOG: encode_log([note])},
        )
        close_work(job.work)
        return TrainingReport(0, dropped, 0, None, None, 0, time.monotonic() - started)
    try:
        with _quiet():
            outcome = _trained(job, adapter, examples, progress)
    finally:
        _release_gpu()
    publish(
        job.model,
        job.out,
        {CONFIG: adapter.config_bytes(), WEIGHTS: outcome.weights, LOG: encode_log(outcome.log)},
    )
    close_work(job.work)
    return TrainingReport(
        pairs=len(examples),
        dropped=dropped,
        steps=len(outcome.log),
        first_loss=outcome.log[0]["loss"],
        last_loss=outcome.log[-1]["loss"],
        tokens=job.settings.epochs * sum(example.tokens for example in examples),
        seconds=outcome.seconds,
    )


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

    if torch.cuda.is_initialized():
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

    model = _load_model(job, adapter, device, dtype)
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


def resolve_device(device: str) -> str:
    """cpu or cuda. Raises SpartaError for a device that training cannot use."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return "cpu"
    if device not in ("cuda", "cuda:0"):
        raise SpartaError(
            f"engine.device {device} cannot be trained on: choose auto, cpu or cuda, and pick a GPU with CUDA_VISIBLE_DEVICES."
        )
    if not torch.cuda.is_available():
        raise SpartaError(f"engine.device is {device}, but PyTorch sees no GPU here: set it to auto or cpu.")
    return "cuda"


def resolve_dtype(dtype: str, device: str) -> str:
    """The base's type: what the recipe says, or bfloat16 on a GPU and float32 elsewhere."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if device == "cuda" else "float32"


def padding_id(config: Any) -> int:
    """A token id to fill batches with; masked everywhere, so any id of the vocabulary does."""
    for token in (config.pad_token_id, config.eos_token_id):
        if isinstance(token, list):
            token = token[0] if token else None
        if token is not None and token >= 0:
            return int(token)
    return 0


def _load_model(job: TrainingJob, adapter: StartingAdapter, device: str, dtype: str) -> Any:
    """The base with the starting adapter on it, trainable. Raises SpartaError where they are missing or do not fit together."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(job.base, trust_remote_code=job.trust_remote_code)
        _without_dropout(config)
        base = AutoModelForCausalLM.from_pretrained(
            job.base,
            config=config,
            dtype=getattr(torch, dtype),
            device_map={"": 0} if device == "cuda" else None,
            trust_remote_code=job.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise SpartaError(
            f"The base of {job.model}, {job.base}, could not be loaded: name a folder or a hub id of a causal language model "
            f"({_first_line(error)})."
        ) from error
    misfit = f"The adapter of {job.model} in {job.adapter} does not fit its base {job.base}"
    try:
        model = PeftModel.from_pretrained(base, job.adapter, is_trainable=True, torch_device=device)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise SpartaError(f"{misfit} ({_first_line(error)}): name the base it was made for.") from error
    with safe_open(adapter.weights, framework="pt") as file:
        stored = set(file.keys())
    loaded = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if stored != loaded:
        raise SpartaError(
            f"{misfit}: {len(stored ^ loaded)} tensors are on one side only, {min(stored ^ loaded)} among them; name the base it was "
            "made for, and an adapter without extra embeddings."
        )
    return model


def _without_dropout(config: Any) -> None:
    """Sets every dropout rate of the base to 0; TRL does so for modules, but attention takes its rate from the configuration."""
    for name, value in list(vars(config).items()):
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)


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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
