"""Draw: the prompts of the iteration. With the same seed they are those of Sparta's combats."""

from collections.abc import Callable

from sparta import rng
from sparta.arena.matchmaking import draw_prompts
from sparta.phases.base import Expected, Step
from sparta.phases.single.rows import KINDS, Draw, read_draws
from sparta.phases.token_counts import tokens_of
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run

KeptTokens = Callable[[Run, int, int], int]
"""The tokens that an iteration (second argument) trained on in pairs made in another one (third argument)."""


def none_kept(run: Run, t: int, made_in: int) -> int:
    """The `KeptTokens` of methods that train on the pairs of an iteration only there."""
    return 0


def prompts_of(run: Run, t: int, kept: KeptTokens = none_kept) -> int:
    """The number of prompts in iteration t: `combats`, or what the budget allows.

    Before the first iteration only an upper bound of a prompt's cost is known. Later iterations use the measured cost of the latest prompts, because
    the cost falls as the model learns and its candidates become equal. They make up for tokens left over or overspent. Depends on committed rows
    only, so that drawing again gives the same prompts. kept: see `DrawPrompts`.
    """
    budget, enough = run.recipe.baseline.budget, run.recipe.combats
    if budget is None or budget.tokens is None or t == 1:
        return run.recipe.combats
    spent = [tokens_of(run.iteration(earlier), KINDS).total for earlier in range(1, t)]
    # Without pairs kept from the previous iteration: these do not depend on the number of prompts.
    own = [tokens - kept(run, earlier, earlier - 1) for earlier, tokens in enumerate(spent, start=1)]
    prompts = [len(read_draws(run, earlier)) for earlier in range(1, t)]
    # An iteration with few prompts, after one that spent too much, does not tell the cost of a prompt.
    latest = next((first for first in range(t - 2, 0, -1) if sum(prompts[first:]) >= enough), 0)
    left = budget.tokens * t - sum(spent) - kept(run, t - 1, t - 1)
    return max(1, left * sum(prompts[latest:]) // max(1, sum(own[latest:])))


class DrawPrompts(Step):
    """kept: of a method that trains on the pairs of the previous iteration again."""

    name = "draw"
    light = True
    gives_plan = True
    has_column = False

    def __init__(self, kept: KeptTokens = none_kept) -> None:
        self._kept = kept

    def expected(self, run: Run, t: int) -> Expected:
        return Expected(f"{run.recipe.combats:,} prompts")

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).plan)

    def execute(self, run: Run, t: int) -> None:
        recipe = run.recipe
        instructions = {instruction.prompt_id: instruction for instruction in run.instructions}
        count = prompts_of(run, t, self._kept)
        drawn = draw_prompts(list(instructions), count, rng.stream(recipe.seed, t, "prompts"))
        width = len(str(count - 1))
        files.write_rows(
            run.iteration(t).plan,
            (
                Draw(f"{t:02d}-{index:0{width}d}", prompt_id, instructions[prompt_id].messages)
                for index, prompt_id in enumerate(drawn)
            ),
        )
