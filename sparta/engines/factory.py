"""The process's one engine. Loading weights costs minutes on a GPU, so it outlives a phase."""

import sys

from sparta import recipe
from sparta.engines.base import Engine

_loads_of_closed = 0
_current: tuple[recipe.Engine, bool, Engine] | None = None


def open_engine(settings: recipe.Engine, trust_remote_code: bool = False) -> Engine:
    """The engine for `settings`: the open one where its settings are equal, else a new one in its place."""
    global _current
    if _current is not None and _current[:2] == (settings, trust_remote_code):
        return _current[2]
    close_engine()
    engine = _made(settings, trust_remote_code)
    _current = (settings, trust_remote_code, engine)
    return engine


def close_engine() -> None:
    """Close the open engine, if there is one."""
    global _current, _loads_of_closed
    if _current is not None:
        _loads_of_closed += _current[2].loads
        _current[2].close()
        _current = None


def close_engine_on_gpu() -> None:
    """Close an engine that holds GPU memory, which training is about to need; on a CPU it may stay."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        close_engine()


def loads_so_far() -> int:
    """Bases that this process has loaded."""
    return _loads_of_closed + (_current[2].loads if _current is not None else 0)


def _made(settings: recipe.Engine, trust_remote_code: bool) -> Engine:
    if settings.kind == "scripted":
        from sparta.engines.scripted import ScriptedEngine

        return ScriptedEngine(settings)
    from sparta.engines.hf import HfEngine

    return HfEngine(settings, trust_remote_code)
