"""The account of the GPU memory of DPO as a recipe sets it: what every estimate of one run has in common, whether its pairs are at hand or not."""

from functools import partial
from typing import Protocol

from sparta.pool.memory_account import Base, MemoryEstimate, of_dpo
from sparta.recipes.schema import Recipe
from sparta.training.new_adapter import Shapes


class DpoAccount(Protocol):
    """The estimate of DPO for what is still open: checkpointing, members at the same time, GPUs that share the base."""

    def __call__(self, checkpointing: bool, *, members: int, gpus: int) -> MemoryEstimate: ...


def dpo_account(
    recipe: Recipe, what: str, base: Base, adapter: Shapes, length: int, completion: int, dtype: str
) -> DpoAccount:
    """`of_dpo` with all that `recipe` says of it."""
    dpo = recipe.dpo
    return partial(
        of_dpo,
        what,
        base,
        adapter,
        dpo.batch_size,
        length,
        dtype,
        completion=completion,
        optimizer=dpo.optimizer,
        steps=dpo.accumulation,
        attention=recipe.engine.attention,
    )


def members_together(recipe: Recipe, members: int) -> int:
    """How many of so many members on one base an estimate takes for trained at the same time: one where the task decides (auto)."""
    asked = recipe.cluster.train_together
    return 1 if asked == "auto" else min(asked, members)
