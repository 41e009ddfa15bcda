"""Draw: the prompts of the iteration. With the same seed they are those of Sparta's combats."""

from sparta import rng
from sparta.arena.matchmaking import draw_prompts
from sparta.phases.base import Expected, Step
from sparta.phases.single.rows import KINDS, Draw, read_draws
from sparta.phases.token_counts import tokens_of
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run


def prompts_of(run: Run, t: int) -> int:
    """The number of prompts in iteration t: `combats`, or what the budget allows.

    Before the first iteration only an upper bound of a prompt's cost is known. Later iterations use the mean cost of this run's prompts, and
    correct for tokens left over or overspent. Depends on committed rows only, so that drawing again gives the same prompts.
    """
    budget = run.recipe.baseline.budget
    if budget is None or budget.tokens is None or t == 1:
        return run.recipe.combats
    spent = sum(tokens_of(run.iteration(earlier), KINDS).total for earlier in range(1, t))
    prompts = sum(len(read_draws(run, earlier)) for earlier in range(1, t))
    left = budget.tokens * t - spent
    return max(1, left * prompts // max(1, spent))


class DrawPrompts(Step):
    name = "draw"
    light = True
    gives_plan = True
    has_column = False

    def expected(self, run: Run, t: int) -> Expected:
        return Expected(f"{run.recipe.combats:,} prompts")

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).plan)

    def execute(self, run: Run, t: int) -> None:
        recipe = run.recipe
        instructions = {instruction.prompt_id: instruction for instruction in run.instructions}
        count = prompts_of(run, t)
        drawn = draw_prompts(list(instructions), count, rng.stream(recipe.seed, t, "prompts"))
        width = len(str(count - 1))
        files.write_rows(
            run.iteration(t).plan,
            (
                Draw(f"{t:02d}-{index:0{width}d}", prompt_id, instructions[prompt_id].messages)
                for index, prompt_id in enumerate(drawn)
            ),
        )
