"""How long the stages of vLLM's start take. vLLM measures them, and tells nobody but its log, at a level that is off here.

The process that runs vLLM's engine, ours or its child, writes them to a file: all its workers go through a stage together.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from time import perf_counter
from typing import Any

from sparta.engines.stopwatch import START, WEIGHTS

COMPILE, GRAPHS = f"{START} compile", f"{START} graphs"
WAITING = f"{START} waiting"
"""For another task that compiles the same."""

_LOADING, _PROFILING, _WARMING_UP = "__init__", "determine_available_memory", "compile_or_warm_up_model"
"""What vLLM calls the stages: device and weights; a first pass, which compiles; kernels and graphs."""


@contextmanager
def stages_noted(report: Path) -> Iterator[None]:
    """Inside the context, an engine that starts in this process writes the seconds of its stages to `report`."""
    from vllm.v1.executor.abstract import Executor

    seconds: dict[str, float] = {}

    def timed(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def stage(executor: Any, *args: Any, **kwargs: Any) -> Any:
            began = perf_counter()
            made = original(executor, *args, **kwargs)
            seconds[name] = perf_counter() - began
            compiled = executor.vllm_config.compilation_config.compilation_time
            report.write_text(json.dumps(seconds | {"compilation": compiled}), encoding="utf-8")
            return made

        return stage

    originals = {
        name: getattr(Executor, name)
        for name in (_LOADING, _PROFILING, _WARMING_UP)
        if hasattr(Executor, name)
    }
    for name, original in originals.items():
        setattr(Executor, name, timed(name, original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(Executor, name, original)


def stages_in(report: Path) -> dict[str, float]:
    """Seconds by part of the start that wrote `report`; what is left of it (processes, imports, the KV cache) has no stage. Empty without one.

    Compilation happens in the first pass; only what is longer than that is part of the warm-up. On a CPU nothing is compiled or captured.
    """
    if not report.is_file():
        return {}
    noted = json.loads(report.read_text(encoding="utf-8"))
    compiled, warming_up = noted["compilation"], noted.get(_WARMING_UP, 0.0)
    later = max(0.0, compiled - noted.get(_PROFILING, 0.0))
    found = {
        WEIGHTS: noted.get(_LOADING, 0.0),
        COMPILE: compiled,
        GRAPHS: max(0.0, warming_up - later),
    }
    return {part: seconds for part, seconds in found.items() if seconds > 0}
