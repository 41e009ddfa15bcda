"""The process's one engine. It outlives a phase, because loading weights takes minutes on a GPU."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sparta.chat.options import UNDATED, ChatOptions
from sparta.engines.base import Engine, ModelRef
from sparta.engines.label_tokens import check_labels
from sparta.engines.vllm.lora_capacity import lora_capacities
from sparta.recipes import engine as recipe_engine
from sparta.recipes import schema as recipe


class Loads(NamedTuple):
    """Bases loaded, and how many seconds that took."""

    bases: int
    seconds: float


_loads_of_closed = Loads(0, 0.0)
_Arguments = tuple[recipe_engine.EngineSettings, bool, Path | None, str, ChatOptions, Path | None]
_current: tuple[_Arguments, Engine] | None = None


def open_engine(
    settings: recipe_engine.EngineSettings,
    trust_remote_code: bool = False,
    calls: Path | None = None,
    key: str = "engine",
    chat: ChatOptions = UNDATED,
    compiled: Path | None = None,
) -> Engine:
    """The engine for `settings`: the open one if it has the same arguments, else a new one that replaces it.

    calls: the folder that caches an endpoint's answers; None caches nothing. key: where the recipe has `settings`. chat: options of the run.
    compiled: the folder for what vLLM compiles; None: vLLM's own, in the home directory.
    """
    global _current
    arguments = (settings, trust_remote_code, calls, key, chat, compiled)
    if _current is not None and _current[0] == arguments:
        return _current[1]
    close_engine()
    engine = _create(kind_of(settings), *arguments)
    _current = (arguments, engine)
    return engine


def check_engine(
    settings: recipe_engine.EngineSettings,
    models: Sequence[ModelRef],
    judging: recipe.Judging,
    trust_remote_code: bool,
    chat: ChatOptions,
) -> None:
    """Raises SpartaError if an engine could not serve `models`, as far as that is known without a GPU or an endpoint."""
    kind = "hf" if settings.kind == "auto" else settings.kind
    engine = _create(kind, settings, trust_remote_code, None, "engine", chat)
    try:
        engine.expect(models)
        if settings.kind == "auto":
            # On a GPU the engine would be vLLM.
            lora_capacities(models, settings.vllm)
        check_labels(engine, models, judging, trust_remote_code, chat)
    finally:
        engine.close()


def close_engine() -> None:
    """Close the open engine, if there is one."""
    global _current, _loads_of_closed
    if _current is not None:
        _loads_of_closed = loads_so_far()
        engine, _current = _current[1], None
        engine.close()


def close_engine_on_gpu() -> None:
    """Close an engine that holds GPU memory, which training needs; on a CPU it stays open."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        close_engine()


def loads_so_far() -> Loads:
    """Bases that this process has loaded."""
    if _current is None:
        return _loads_of_closed
    engine, before = _current[1], _loads_of_closed
    return Loads(before.bases + engine.loads, before.seconds + engine.load_seconds)


def count_load(seconds: float) -> None:
    """Note a base that this process has loaded without an engine, for training, in so many seconds."""
    global _loads_of_closed
    _loads_of_closed = Loads(_loads_of_closed.bases + 1, _loads_of_closed.seconds + seconds)


def kind_of(settings: recipe_engine.EngineSettings) -> str:
    """The kind of engine for `settings` on this machine: auto means vllm if there is a GPU and `settings.device` allows it, else hf."""
    if settings.kind != "auto":
        return settings.kind
    import torch

    return "vllm" if settings.device != "cpu" and torch.cuda.is_available() else "hf"


def _create(
    kind: str,
    settings: recipe_engine.EngineSettings,
    trust_remote_code: bool,
    calls: Path | None,
    key: str,
    chat: ChatOptions,
    compiled: Path | None = None,
) -> Engine:
    if kind == "scripted":
        from sparta.engines.scripted import ScriptedEngine

        return ScriptedEngine(settings, chat)
    if kind == "api":
        from sparta.engines.api.engine import ApiEngine

        return ApiEngine(settings, calls, key, chat, trust_remote_code)
    if kind == "vllm":
        from sparta.engines.vllm.engine import VllmEngine

        return VllmEngine(settings, trust_remote_code, chat, compiled)
    from sparta.engines.hf.engine import HfEngine

    return HfEngine(settings, trust_remote_code, chat)
