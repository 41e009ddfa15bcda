"""SPPO (Wu et al. 2024): a preference model compares the model's answers; a square loss pulls each side of a pair to its win rate."""

from collections.abc import Sequence
from itertools import islice

from sparta.errors import SpartaError
from sparta.methods.base import Lengths
from sparta.methods.one_model import OneModel
from sparta.phases.single.draw import DrawPrompts
from sparta.phases.single.gold import gather_gold, gold_text
from sparta.phases.single.prefer import Prefer, check_readable
from sparta.phases.single.rows import WIN_RATES, WinRates
from sparta.phases.single.sample import Sample
from sparta.phases.single.win_rate_rank import WinRateRank
from sparta.pool.checks import require_fetched
from sparta.recipes.schema import Recipe
from sparta.tasks.base import Item
from sparta.tasks.registry import task_named

CHECKED = 20
"""Number of instructions that the preference model must be able to tokenize before a run starts."""


class Sppo(OneModel):
    name = "sppo"
    score_name = "win rate of chosen"

    def __init__(self) -> None:
        sample = Sample(judged=False)
        super().__init__(
            (DrawPrompts(), sample, Prefer(sample), WinRateRank(sample)),
            rows={WIN_RATES: WinRates},
            square_loss=True,
        )

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        preference = recipe.baseline.preference
        if preference is None:
            raise SpartaError(
                "the method sppo needs a preference model: set baseline.preference to {kind: reward, model: FOLDER}, {kind: ranker, model: FOLDER}, or, for "
                "a task with exact answers, {kind: gold}"
            )
        if preference.model is not None:
            require_fetched(preference.model, recipe.pool.folder)
            data = recipe.data
            items = task_named(data.task or "own", data).items("train", data)
            check_readable(recipe, [item.messages for item in islice(items, CHECKED)])

    def judged(self, recipe: Recipe, lengths: Lengths) -> float:
        """Tokens that the preference model reads: all candidates (reward), or all pairs in both orders (ranker)."""
        n, preference = recipe.baseline.candidates, recipe.baseline.preference
        if preference is None or preference.kind == "gold":
            return 0.0
        if preference.kind == "reward":
            return n * (lengths.prompt + lengths.answer)
        return n * (n - 1) * (lengths.prompt + 2 * lengths.answer)

    def gold(self, recipe: Recipe) -> Sequence[Item]:
        preference = recipe.baseline.preference
        if preference is None or preference.kind != "gold":
            return ()
        return gather_gold(
            recipe,
            lambda task, item: task.metrics[0].name in task.grade(item, gold_text(item)),
            "answers that a program can grade (baseline.preference.kind is gold)",
        )


METHOD = Sppo()
