"""SPIN (Chen et al. 2024): the model learns to tell the gold answer to a prompt from its own.

Its loss, log(1 + exp(-beta (r(gold) - r(own)))) with r the log-ratio to the previous iterate, equals the DPO loss with the previous iterate as the reference.
"""

from collections.abc import Sequence

from sparta.methods.one_model import OneModel
from sparta.phases.single.draw import DrawPrompts
from sparta.phases.single.gold import gather_gold, gold_text
from sparta.phases.single.oppose import Oppose, kept_tokens
from sparta.phases.single.sample import Sample
from sparta.recipes.schema import Recipe
from sparta.tasks.base import Item


class Spin(OneModel):
    name = "spin"
    score_name = ""
    more_pairs = "those of the previous iteration"

    def __init__(self) -> None:
        own = Sample(count=lambda recipe: 1, judged=False)
        super().__init__((DrawPrompts(kept_tokens), own, Oppose(own)), pairs_per_prompt=2)

    def check_candidates(self, recipe: Recipe) -> None:
        """baseline.candidates is ignored: a pair is one candidate and the gold answer."""

    def candidates_per_prompt(self, recipe: Recipe) -> int:
        return 1

    def gold(self, recipe: Recipe) -> Sequence[Item]:
        return gather_gold(recipe, lambda task, item: bool(gold_text(item)), "gold answers")


METHOD = Spin()
