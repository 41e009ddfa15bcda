"""M^0 of some experts of the embedded pool, for tests that score real answers."""

from collections.abc import Sequence
from pathlib import Path

from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run
from support.openings import begin_or_continue


def begin_with_experts(folder: Path, names: Sequence[str], **evaluation: int) -> Run:
    """A run in folder/state whose initial pool is committed. evaluation: keys of that section."""
    recipe = Recipe.model_validate(
        {
            "name": "experts",
            "pool": {
                "base": "embedded:base",
                "models": [{"name": name, "adapter": f"embedded:{name}"} for name in names],
            },
            "data": {"task": "toy", "size": 10},
            "engine": {"kind": "hf", "device": "cpu", "threads": 1, "context_length": 256},
            "cluster": {"kind": "inline"},
            "evaluation": evaluation,
        }
    )
    return begin_or_continue(StateDir(folder / "state"), recipe)
