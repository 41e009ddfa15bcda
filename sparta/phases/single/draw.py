"""Draw: the prompts of the iteration. The same as those that Sparta's combats would be about, with the same seed."""

from sparta import rng
from sparta.arena.matchmaking import draw_prompts
from sparta.phases.base import Expected, Step
from sparta.phases.single.rows import KINDS, Draw, read_draws
from sparta.phases.token_counts import tokens_of
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run


def prompts_of(run: Run, t: int) -> int:
    """How many prompts iteration t has: `combats`, or what its budget allows.

    Of a prompt's cost only the most is known before anything has run, so later iterations go by what prompts have cost in this run, and make up for
    what was left over or overspent. A function of committed rows: whoever draws again draws the same.
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
