"""The process's one engine. Loading weights costs minutes on a GPU, so it outlives a phase."""

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
    """Bases loaded, and the seconds that took."""

    bases: int
    seconds: float


_loads_of_closed = Loads(0, 0.0)
_Asked = tuple[recipe_engine.EngineSettings, bool, Path | None, str, ChatOptions]
_current: tuple[_Asked, Engine] | None = None


def open_engine(
    settings: recipe_engine.EngineSettings,
    trust_remote_code: bool = False,
    calls: Path | None = None,
    key: str = "engine",
    chat: ChatOptions = UNDATED,
) -> Engine:
    """The engine for `settings`: the open one where its settings are equal, else a new one in its place.

    calls: the folder where answers of an endpoint are kept; None keeps none. key: where the recipe has `settings`. chat: of the run.
    """
    global _current
    asked = (settings, trust_remote_code, calls, key, chat)
    if _current is not None and _current[0] == asked:
        return _current[1]
    close_engine()
    engine = _made(kind_of(settings), *asked)
    _current = (asked, engine)
    return engine


def check_engine(
    settings: recipe_engine.EngineSettings,
    models: Sequence[ModelRef],
    judging: recipe.Judging,
    trust_remote_code: bool,
    chat: ChatOptions,
) -> None:
    """Raises SpartaError where an engine could not work for `models`, as far as that can be seen without a GPU or an endpoint."""
    kind = "hf" if settings.kind == "auto" else settings.kind
    engine = _made(kind, settings, trust_remote_code, None, "engine", chat)
    try:
        engine.expect(models)
        if settings.kind == "auto":
            # What a GPU would mean.
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
    """Close an engine that holds GPU memory, which training is about to need; on a CPU it may stay."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        close_engine()


def loads_so_far() -> Loads:
    """What this process has loaded."""
    if _current is None:
        return _loads_of_closed
    engine, before = _current[1], _loads_of_closed
    return Loads(before.bases + engine.loads, before.seconds + engine.load_seconds)


def count_load(seconds: float) -> None:
    """Note a base that this process has loaded without an engine, for training, in so many seconds."""
    global _loads_of_closed
    _loads_of_closed = Loads(_loads_of_closed.bases + 1, _loads_of_closed.seconds + seconds)


def kind_of(settings: recipe_engine.EngineSettings) -> str:
    """The kind of engine that `settings` come to on this machine: auto is vllm where there is a GPU that they allow, hf elsewhere."""
    if settings.kind != "auto":
        return settings.kind
    import torch

    return "vllm" if settings.device != "cpu" and torch.cuda.is_available() else "hf"


def _made(
    kind: str,
    settings: recipe_engine.EngineSettings,
    trust_remote_code: bool,
    calls: Path | None,
    key: str,
    chat: ChatOptions,
) -> Engine:
    if kind == "scripted":
        from sparta.engines.scripted import ScriptedEngine

        return ScriptedEngine(settings, chat)
    if kind == "api":
        from sparta.engines.api.engine import ApiEngine

        return ApiEngine(settings, calls, key, chat, trust_remote_code)
    if kind == "vllm":
        from sparta.engines.vllm.engine import VllmEngine

        return VllmEngine(settings, trust_remote_code, chat)
    from sparta.engines.hf.engine import HfEngine

    return HfEngine(settings, trust_remote_code, chat)
