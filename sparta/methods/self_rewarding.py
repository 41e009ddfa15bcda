"""Self-Rewarding (Yuan et al. 2024): the model answers each prompt several times, votes on its own answers, and learns from the best and the worst."""

from sparta.methods.base import Lengths
from sparta.methods.one_model import OneModel
from sparta.phases.single.assess import Assess, rounds_of
from sparta.phases.single.draw import DrawPrompts
from sparta.phases.single.rank import Rank
from sparta.phases.single.rows import JUDGEMENTS, Judgement
from sparta.phases.single.sample import Sample
from sparta.phases.single.sample_and_assess import SampleAndAssess
from sparta.recipes.schema import Recipe


class SelfRewarding(OneModel):
    name = "self_rewarding"
    score_name = "votes on chosen"

    def __init__(self) -> None:
        sample = Sample()
        assess = Assess(sample)
        super().__init__(
            (DrawPrompts(), sample, assess, Rank(sample)),
            rows={JUDGEMENTS: Judgement},
            fused=SampleAndAssess(sample, assess),
        )

    def judged(self, recipe: Recipe, lengths: Lengths) -> float:
        return recipe.baseline.candidates * rounds_of(recipe) * (lengths.judge_prompt + lengths.vote)


METHOD = SelfRewarding()
