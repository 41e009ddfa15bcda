"""Draw: the prompts of the iteration. The same as those that Sparta's combats would be about, with the same seed."""

from sparta import rng
from sparta.arena.matchmaking import draw_prompts
from sparta.phases.base import Expected, Step
from sparta.phases.single.rows import Draw
from sparta.store import files
from sparta.store.disk import present
from sparta.store.run import Run


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
        drawn = draw_prompts(list(instructions), recipe.combats, rng.stream(recipe.seed, t, "prompts"))
        width = len(str(recipe.combats - 1))
        files.write_rows(
            run.iteration(t).plan,
            (
                Draw(f"{t:02d}-{index:0{width}d}", prompt_id, instructions[prompt_id].messages)
                for index, prompt_id in enumerate(drawn)
            ),
        )
