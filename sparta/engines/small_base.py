"""Bases so small that a GPU costs more time than it saves."""

from collections.abc import Collection
from pathlib import Path

from sparta.engines.weight_files import weight_files
from sparta.recipes.engine import EngineSettings

SMALL_BYTES = 64 * 2**20
"""Weight files below this are small. The embedded base (4 MB) needs 68 s an iteration with `hf` on an H100, over a minute for a start of vLLM,
and 9 s on two CPU cores."""


def is_small(base: str) -> bool:
    """Whether the base in the folder `base` is small. Raises SpartaError if its weights are missing."""
    return sum(path.stat().st_size for path in weight_files(Path(base))) < SMALL_BYTES


def settled(settings: EngineSettings, bases: Collection[str]) -> EngineSettings:
    """`settings` with `hf` and `cpu` in place of `auto`, if all `bases` (folders) are small; training is where the engine is.

    Whatever the recipe names stays.
    """
    if settings.kind not in ("auto", "hf") or settings.device != "auto" or not bases:
        return settings
    if not all(is_small(base) for base in set(bases)):
        return settings
    return settings.model_copy(update={"kind": "hf", "device": "cpu"})
