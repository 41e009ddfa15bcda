"""How many members of one base a task trains at the same time: as many as the recipe says, or as fit."""

from collections.abc import Sequence
from math import prod

from sparta.errors import SpartaError
from sparta.pool.gpu_memory import GIB, describe, of_dpo, shapes_of
from sparta.recipes.schema import Recipe
from sparta.training.job import TrainingJob, usable_pairs
from sparta.training.loading import resolve_device, resolve_dtype


def members_at_once(recipe: Recipe, base: str, jobs: Sequence[TrainingJob]) -> int:
    """How many of `jobs`, all on the model in the folder `base`, this machine trains at the same time.

    All of them, or as many as the recipe says; on a GPU no more than fit what is free of its memory. Raises SpartaError where the recipe
    says more than that.
    """
    asked = recipe.cluster.train_together
    most = len(jobs) if asked == "auto" else min(asked, len(jobs))
    if most == 1 or recipe.engine.kind == "scripted" or resolve_device(recipe.engine.device) == "cpu":
        return most
    import torch

    free = torch.cuda.mem_get_info()[0] / GIB
    return members_that_fit(recipe, base, jobs, most, free)


def members_that_fit(recipe: Recipe, base: str, jobs: Sequence[TrainingJob], most: int, free: float) -> int:
    """How many of `jobs`, at most `most`, are estimated to fit `free` GiB together, at least one; see `members_at_once`."""
    numbers = describe(base, recipe.pool.trust_remote_code)
    shapes = max((shapes_of(job.adapter) for job in jobs), key=lambda shapes: sum(map(prod, shapes.values())))
    examples = [example for job in jobs for example in usable_pairs(job)]
    length = max((example.length for example in examples), default=1)
    completion = max((max(len(one.chosen_ids), len(one.rejected_ids)) for one in examples), default=1)
    dtype = resolve_dtype(recipe.engine.dtype, "cuda")

    def gib(members: int) -> float:
        settings = recipe.dpo
        checkpointing = settings.gradient_checkpointing
        return of_dpo(
            "", numbers, shapes, settings.batch_size, length, dtype, checkpointing, members, completion
        ).gib

    fitting = next((members for members in range(most, 1, -1) if gib(members) <= free), 1)
    if fitting < most and recipe.cluster.train_together != "auto":
        raise SpartaError(
            f"cluster.train_together is {recipe.cluster.train_together}: DPO of {most} members on {base} at the same time is estimated to take "
            f"{gib(most):.1f} GiB of GPU memory, and {free:.1f} are free: set it to {fitting} or to auto, or set dpo.gradient_checkpointing to true"
        )
    return fitting
