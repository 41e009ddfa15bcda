"""Whether what a run trains fits the GPUs of a profile that says how much memory they have."""

from heapq import nlargest

from sparta.cluster.slurm.profile import Profile
from sparta.errors import SpartaError
from sparta.phases.costs import FRAME_TOKENS, counter_of
from sparta.phases.memory import estimates
from sparta.phases.pool import adapters_of, base_folder
from sparta.prompts import question_text
from sparta.store.run import Run

_LONGEST = 32
"""Prompts whose tokens are counted, the longest in characters: one of them is the longest in tokens, or near it."""


def check_memory(run: Run, profile: Profile) -> None:
    """Raises SpartaError for a training of `run` that is reckoned to need more memory than a GPU of `profile` has."""
    recipe, most = run.recipe, profile.gpu_memory_gib
    if most is None or recipe.engine.kind == "scripted" or recipe.engine.device == "cpu":
        return
    for estimate in estimates(recipe, longest_pair(run), adapters_of(run)):
        if estimate.gib > most:
            section = estimate.section
            raise SpartaError(
                f"{estimate.what} is reckoned to take {estimate.gib:.1f} GiB of GPU memory, and a GPU of profile {profile.name} has {most:g}: "
                f"set {section}.gradient_checkpointing to true, lower {section}.batch_size or {section}.max_length, or correct "
                "gpu_memory_gib there"
            )


def longest_pair(run: Run) -> int:
    """Tokens of the longest prompt and the longest completion that may come of it, about."""
    texts = [question_text(instruction.messages) for instruction in run.instructions]
    counters = {
        folder: counter_of(folder)
        for folder in (base_folder(run.recipe, model) for model in run.recipe.pool.models)
    }
    prompt = max(count(text) for text in nlargest(_LONGEST, texts, key=len) for count in counters.values())
    return int(prompt + FRAME_TOKENS) + run.recipe.generation.max_new_tokens
