"""Plan: draws the prompts and matches two contestants for each. Needs only reputations, so no GPU."""

from sparta import rng
from sparta.arena.matchmaking import draw_prompts, match
from sparta.phases.base import Expected, Step
from sparta.store import files, standings
from sparta.store.disk import present
from sparta.store.records import Combat
from sparta.store.run import Run


class Plan(Step):
    name = "plan"
    light = True
    gives_plan = True
    has_column = False

    def expected(self, run: Run, t: int) -> Expected:
        return Expected(f"{run.recipe.combats:,} combats")

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).plan)

    def execute(self, run: Run, t: int) -> None:
        recipe = run.recipe
        instructions = {instruction.prompt_id: instruction for instruction in run.instructions}
        drawn = draw_prompts(list(instructions), recipe.combats, rng.stream(recipe.seed, t, "prompts"))
        reputations = {name: standing.reputation for name, standing in standings.at_start(run, t).items()}
        pairs = match(reputations, recipe.combats, recipe.match, rng.stream(recipe.seed, t, "match"))
        width = len(str(recipe.combats - 1))
        files.write_rows(
            run.iteration(t).plan,
            (
                Combat(
                    combat_id=f"{t:02d}-{index:0{width}d}",
                    prompt_id=prompt_id,
                    messages=instructions[prompt_id].messages,
                    models=pair,
                )
                for index, (prompt_id, pair) in enumerate(zip(drawn, pairs, strict=True))
            ),
        )
