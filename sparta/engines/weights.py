"""The weights in an engine's memory: one base at a time, with adapters of the pool on it."""

import gc
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from sparta.engines.adapter_check import check_adapter
from sparta.engines.adapter_load import put_adapter, refill_adapter
from sparta.engines.base import ModelRef
from sparta.engines.load_options import load_options
from sparta.engines.quantised import check_loadable
from sparta.engines.stopwatch import WEIGHTS, doing
from sparta.engines.tokenizers import check_base
from sparta.errors import SpartaError, first_line
from sparta.recipes import engine as recipe_engine


class Weights:
    """One base in memory and, through PEFT, any number of adapters on it.

    loads, load_seconds: bases loaded so far, and the time that took. base: the one in memory. device: where the base is; set by the first
    `hold`. ends: its end-of-sequence token ids.
    """

    def __init__(self, settings: recipe_engine.EngineSettings, trust_remote_code: bool) -> None:
        self.settings = settings
        self.trust_remote_code = trust_remote_code
        self.loads = 0
        self.load_seconds = 0.0
        self.base: str | None = None
        self.device: Any = None
        self.ends: tuple[int, ...] = ()
        self._bare: Any = None
        self._peft: Any = None
        self._adapters: dict[str, str] = {}
        self._slots: dict[str, str] = {}
        self._loaded = 0
        self._full: str | None = None

    @property
    def config(self) -> Any:
        """The text part of the base's configuration."""
        return self._bare.config.get_text_config()

    def hold(self, model: ModelRef) -> None:
        """Make sure that `model` is in memory: load its base and its adapter unless they already are.

        Drops the same model's adapter of another version, unless another model uses it too. Raises SpartaError if files are missing or do
        not fit together.
        """
        if model.adapter is None:
            if self.base == model.base and self._full not in (None, model.version):
                self.free()
            self._hold_base(model.base)
            self._full = model.version
            return
        self._hold_base(model.base)
        name = adapter_name(model)
        old = self._adapters.get(model.name)
        if old == name:
            return
        # The slot of a version that no other model uses is written over: much cheaper than another slot and its removal.
        alone = old is not None and list(self._adapters.values()).count(old) == 1
        spare = self._slots[old] if old is not None and alone else None
        if name not in self._slots:
            self._slots[name] = self._loaded_adapter(model, spare)
        self._adapters[model.name] = name
        if spare is None or old is None:
            return
        del self._slots[old]
        if self._slots[name] != spare:
            self._peft.set_adapter(self._slots[name], inference_mode=True)
            self._peft.delete_adapter(spare)

    @contextmanager
    def active(self, model: ModelRef) -> Iterator[Any]:
        """The module, with the adapter of `model` active inside the context. Requires `hold(model)` first."""
        if model.adapter is not None:
            self._peft.set_adapter(self._slots[adapter_name(model)], inference_mode=True)
            yield self._peft
        elif self._peft is not None:
            with self._peft.disable_adapter():
                yield self._peft
        else:
            yield self._bare

    def forward_takes(self, argument: str) -> bool:
        """Whether the base's `forward` has this argument."""
        import inspect

        return argument in inspect.signature(self._bare.forward).parameters

    def free(self) -> None:
        """Drop the base and its adapters, and release their memory."""
        if self._bare is None:
            return
        import torch

        self._bare = self._peft = self.base = self._full = None
        self._adapters, self._slots, self.ends = {}, {}, ()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _hold_base(self, base: str) -> None:
        if self.base == base:
            return
        check_base(base)
        self.free()
        with doing(WEIGHTS):
            self._load_base(base)

    def _load_base(self, base: str) -> None:
        began = perf_counter()
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        quiet_transformers()
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        gpu = torch.cuda.is_available()
        self.device = torch.device(
            ("cuda" if gpu else "cpu") if self.settings.device == "auto" else self.settings.device
        )
        if self.device.type == "cuda" and not gpu:
            raise SpartaError(
                "engine.device asks for a GPU, but there is none here: set engine.device to auto or cpu"
            )
        automatic = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        dtype = automatic if self.settings.dtype == "auto" else getattr(torch, self.settings.dtype)
        check_loadable(Path(base))
        options = load_options(self.settings.quantize, self.settings.attention, dtype)
        try:
            bare: Any = AutoModelForCausalLM.from_pretrained(
                base,
                **options,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
                device_map=None if self.device.type == "cpu" else {"": self.device},
            )
        except torch.cuda.OutOfMemoryError as error:
            raise SpartaError(
                f"base {base} does not fit in the memory of {self.device}: use a larger GPU"
            ) from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise SpartaError(f"base {base} cannot be loaded: {first_line(error)}") from error
        ends = bare.generation_config.eos_token_id
        self.ends = tuple(ends) if isinstance(ends, list | tuple) else () if ends is None else (ends,)
        # A base may ship sampling defaults, such as a repetition penalty; only the recipe decides how to decode.
        bare.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        self._bare = bare.eval()
        self.base = base
        self.loads += 1
        self.load_seconds += perf_counter() - began

    def _loaded_adapter(self, model: ModelRef, spare: str | None) -> str:
        """The name that PEFT has for the adapter of `model`, now in memory. spare: of an adapter that it may take the place of."""
        assert model.adapter is not None
        check_adapter(model.adapter, Path(model.base))
        self._loaded += 1
        slot = f"a{self._loaded}"
        try:
            if spare is not None and refill_adapter(self._peft, model.adapter, spare):
                return spare
            self._peft = put_adapter(self._peft or self._bare, model.adapter, slot, model.base)
        except (SpartaError, OSError, ValueError, KeyError, RuntimeError) as error:
            # PEFT changes the base in place, so after a failure it must not be used.
            self.free()
            if isinstance(error, SpartaError):
                raise SpartaError(f"model {model.name}: {error}") from error
            raise SpartaError(
                f"adapter {model.adapter} of {model.name} cannot be loaded on base {model.base}: {first_line(error)}"
            ) from error
        return slot


def check_model(model: ModelRef) -> None:
    """Raises SpartaError, naming the model, if its files are missing or do not fit together. Reads only headers."""
    try:
        check_base(model.base)
        if model.adapter is not None:
            check_adapter(model.adapter, Path(model.base))
    except SpartaError as error:
        raise SpartaError(f"model {model.name}: {error}") from error


def adapter_name(model: ModelRef) -> str:
    """The name of the adapter of `model` inside an engine: a hash of its weights, so it is the same for all members that share them."""
    return "a" + hashlib.sha256("\0".join(map(str, model.weights)).encode()).hexdigest()[:16]


def quiet_transformers() -> None:
    """Silence the libraries' progress bars and warnings while loading; errors are still logged."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("peft").setLevel(logging.ERROR)
