"""From a job's names to a model in memory: the base without dropout, the starting adapter on it, on the device and in the type asked for."""

import gc
from time import perf_counter
from typing import Any, Self

from sparta.engines.factory import count_load
from sparta.engines.load_options import load_options
from sparta.errors import SpartaError
from sparta.training.adapter_folder import StartingAdapter
from sparta.training.frozen_layers import keep_differentiable
from sparta.training.job import AnyJob, TrainingJob
from sparta.training.liger import apply_liger


def resolve_device(device: str) -> str:
    """cpu or cuda. Raises SpartaError where a GPU is asked for and there is none."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return "cpu"
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


class BaseInMemory:
    """The base of the job at work, kept for the next job of the same base while this is open (`with`); of other jobs it is loaded anew."""

    def __init__(self) -> None:
        self._kind: tuple[str | bool | None, ...] | None = None
        self._base: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base = None
        release_gpu()

    def of(self, job: AnyJob, device: str, dtype: str) -> Any:
        """What `load_base` gives."""
        kind = (job.base, device, dtype, job.trust_remote_code, job.quantize, job.attention)
        if self._base is None or self._kind != kind:
            self._base = None
            release_gpu()
            self._kind, self._base = kind, load_base(job, device, dtype)
        return self._base


def load_base(job: AnyJob, device: str, dtype: str) -> Any:
    """The base of `job`, without dropout, of which nothing learns. Raises SpartaError where it, or a library that it needs, is missing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    began = perf_counter()
    options = load_options(job.quantize, job.attention, getattr(torch, dtype))
    try:
        config = AutoConfig.from_pretrained(job.base, trust_remote_code=job.trust_remote_code)
        _without_dropout(config)
        base = AutoModelForCausalLM.from_pretrained(
            job.base,
            **options,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            device_map={"": 0} if device == "cuda" else None,
            trust_remote_code=job.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise SpartaError(
            f"The base of {job.model}, {job.base}, could not be loaded: name the folder of a causal language model "
            f"({_first_line(error)})."
        ) from error
    base.requires_grad_(False)
    if isinstance(job, TrainingJob) and job.settings.liger:
        apply_liger(base, job.base)
    if job.quantize is not None:
        keep_differentiable(base)
    count_load(perf_counter() - began)
    return base


def release_gpu() -> None:
    """Gives the memory of the last model back: trainers are cyclic, and the next one may be loaded before they are collected."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def put_adapter(base: Any, job: AnyJob, adapter: StartingAdapter, name: str) -> Any:
    """`base` with the starting adapter of `job` on it as `name`, trainable. Raises SpartaError where it does not fit."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    misfit = f"The adapter of {job.model} in {job.adapter} does not fit its base {job.base}"
    try:
        model = PeftModel.from_pretrained(
            base, job.adapter, name, is_trainable=True, torch_device=str(base.device)
        )
    except (RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise SpartaError(f"{misfit} ({_first_line(error)}): name the base it was made for.") from error
    with safe_open(adapter.weights, framework="pt") as file:
        stored = set(file.keys())
    loaded = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
