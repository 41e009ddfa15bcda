"""How a task trains on its GPUs: how many members of one base at the same time, and with or without gradient checkpointing.

Both are decided together, from the lengths of the pairs at hand and the memory that is free: whatever is estimated to be fastest among what
fits. Neither changes a result beyond rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from sparta.errors import SpartaError
from sparta.pool.dpo_account import dpo_account
from sparta.pool.memory_account import CONTEXT_GIB, GIB, Base, describe, of_sft, shapes_of
from sparta.recipes.schema import Recipe
from sparta.training.dpo_batches import filled
from sparta.training.job import SftJob, TrainingJob, usable_pairs, usable_rows
from sparta.training.loading import resolve_device, resolve_dtype

_LAUNCHES = 1.1e12
"""Multiplications that a GPU could do while the kernels of one layer are launched.

Of a 7B base with 28 layers these are 4,096 tokens' worth, half of what TRL's loop needed on an H100: 0.46 s for a pair of 890 tokens, 0.62 s
for one of 4,096. Our own loop launches fewer kernels.
"""
_RECOMPUTED = 1.5
"""Time of a step with gradient checkpointing, over one without: forward, backward, and forward again. Measured: 1.3 to 1.8."""


@dataclass(frozen=True)
class Layout:
    """members: trained at the same time. checkpointing: gradient checkpointing. ranks: processes that share the base, each with a GPU."""

    members: int
    checkpointing: bool
    ranks: int = 1

    def applied(self, jobs: Sequence[TrainingJob]) -> list[TrainingJob]:
        """`jobs`, with gradient checkpointing settled."""
        settled = {"gradient_checkpointing": self.checkpointing}
        return [replace(job, settings=job.settings.model_copy(update=settled)) for job in jobs]


def layout_of(recipe: Recipe, base: str, jobs: Sequence[TrainingJob]) -> Layout:
    """How this machine trains `jobs`, all on the model in the folder `base`.

    On a CPU all at once, or as many as the recipe says, and without checkpointing if the recipe leaves that open. On a GPU what is fastest and
    fits what is free of its memory. Raises SpartaError where the recipe says more than that.
    """
    asked = recipe.cluster.train_together
    if recipe.engine.kind == "scripted" or resolve_device(jobs[0].device) == "cpu":
        most = len(jobs) if asked == "auto" else min(asked, len(jobs))
        return Layout(most, recipe.dpo.gradient_checkpointing is True, recipe.cluster.gpus_per_training)
    return layout_that_fits(recipe, base, jobs, _free_gib(recipe.cluster.gpus_per_training))


def layout_that_fits(recipe: Recipe, base: str, jobs: Sequence[TrainingJob], free: float) -> Layout:
    """`layout_of` on a GPU with `free` GiB. One member with checkpointing is tried in any case, unless the recipe rules that out."""
    numbers = describe(base, recipe.pool.trust_remote_code, recipe.engine.quantize)
    shapes = max((shapes_of(job.adapter) for job in jobs), key=lambda shapes: sum(map(prod, shapes.values())))
    examples = [example for job in jobs for example in usable_pairs(job)]
    length = filled(max((example.length for example in examples), default=1))
    completion = max((max(len(one.chosen_ids), len(one.rejected_ids)) for one in examples), default=1)
    dtype = resolve_dtype(recipe.engine.dtype, "cuda")
    of = dpo_account(recipe, "", numbers, shapes, length, completion, dtype)
    ranks = recipe.cluster.gpus_per_training

    def gib(layout: Layout) -> float:
        return of(layout.checkpointing, members=layout.members, gpus=layout.ranks).gib

    asked, checkpointing = recipe.cluster.train_together, recipe.dpo.gradient_checkpointing
    counts = range(1, len(jobs) + 1) if asked == "auto" else [min(asked, len(jobs))]
    possible = [Layout(count, choice, ranks) for count in counts for choice in _choices(checkpointing)]
    mean = sum(example.tokens for example in examples) / max(len(examples), 1) * recipe.dpo.batch_size
    fitting = [layout for layout in possible if gib(layout) <= free]
    if fitting:
        return min(fitting, key=lambda layout: (_time(layout, len(jobs), numbers, mean), layout.members))
    least = Layout(counts[0], _choices(checkpointing)[-1], ranks)
    if least.members > 1:
        raise SpartaError(_too_many(recipe, base, least, gib, free))
    return least


def _choices(asked: bool | Literal["auto"]) -> list[bool]:
    return [False, True] if asked == "auto" else [asked]


def _time(layout: Layout, jobs: int, base: Base, tokens: float) -> float:
    """Of one step of all `jobs`, relative: groups of members one after another; tokens: of one step of one member.

    A pass through the base takes the launches of its kernels, and the arithmetic of its tokens.
    """
    groups = [layout.members] * (jobs // layout.members) + [jobs % layout.members] * (
        jobs % layout.members > 0
    )
    once = sum(base.layers * _LAUNCHES + base.parameters * members * tokens for members in groups)
    return once * (_RECOMPUTED if layout.checkpointing else 1.0)


def _too_many(recipe: Recipe, base: str, least: Layout, gib: Callable[[Layout], float], free: float) -> str:
    fewer = range(least.members - 1, 1, -1)
    most = next((n for n in fewer if gib(replace(least, members=n)) <= free), 1)
    off = recipe.dpo.gradient_checkpointing is False
    return (
        f"cluster.train_together is {recipe.cluster.train_together}: DPO of {least.members} members on {base} at the same time is estimated to take "
        f"{gib(least):.1f} GiB of GPU memory, and {free:.1f} are free: set it to {most} or to auto"
        + (", or set dpo.gradient_checkpointing to auto" if off else "")
    )


def settled_sft(recipe: Recipe, job: SftJob) -> SftJob:
    """`job` with gradient checkpointing settled: off if the recipe leaves it open and the rows fit without it, always on a CPU."""
    settings, checkpointing = job.settings, job.settings.gradient_checkpointing
    if checkpointing == "auto":
        checkpointing = (
            recipe.engine.kind != "scripted"
            and resolve_device(job.device) == "cuda"
            and not sft_fits(job, _free_gib(1))
        )
    return replace(job, settings=settings.model_copy(update={"gradient_checkpointing": checkpointing}))


def sft_fits(job: SftJob, free: float) -> bool:
    """Whether the training of `job` without gradient checkpointing is estimated to fit `free` GiB of a GPU."""
    longest = max(row.length for row in usable_rows(job))
    dtype = resolve_dtype(job.dtype, "cuda")
    numbers = describe(job.base, job.trust_remote_code, job.quantize)
    size = (job.settings.batch_size, longest, dtype, False, job.settings.optimizer, job.attention)
    return of_sft("", numbers, shapes_of(job.adapter), *size).gib <= free


def _free_gib(ranks: int) -> float:
    """GiB of the GPU that a training may take, what CUDA has taken for the process that trains included, as it is in estimates."""
    import torch

    if ranks > 1:
        # Other processes train. On the GPUs after the first there is more: this process is not on them.
        return float(torch.cuda.mem_get_info()[0] / GIB)
    # What this process has reserved it gives back or goes on with: a base that is kept for the next job is in the estimate too.
    return float((torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) / GIB + CONTEXT_GIB)
