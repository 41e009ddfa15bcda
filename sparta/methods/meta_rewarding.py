"""Meta-Rewarding (Wu et al. 2024): Self-Rewarding, and the model also learns to judge, from its own comparisons of its judgements."""

from sparta.errors import SpartaError
from sparta.methods.base import Lengths
from sparta.methods.one_model import OneModel
from sparta.phases.single.assess import Assess, rounds_of
from sparta.phases.single.compare import Compare
from sparta.phases.single.draw import DrawPrompts
from sparta.phases.single.meta_rank import MetaRank
from sparta.phases.single.rows import COMPARISONS, JUDGEMENTS, Comparison, Judgement
from sparta.phases.single.sample import Sample
from sparta.phases.single.sample_and_assess import SampleAndAssess
from sparta.recipes.schema import Recipe


class MetaRewarding(OneModel):
    name = "meta_rewarding"
    score_name = "votes on chosen"
    more_pairs = "of judgements"

    def __init__(self) -> None:
        sample = Sample()
        assess = Assess(sample, keep_ids=True)
        super().__init__(
            (DrawPrompts(), sample, assess, Compare(assess), MetaRank(sample)),
            rows={JUDGEMENTS: Judgement, COMPARISONS: Comparison},
            pairs_per_prompt=2,
            fused=SampleAndAssess(sample, assess),
        )

    def tokens_of_prompt(self, recipe: Recipe, lengths: Lengths) -> float:
        """A second pair per prompt, of two judgements."""
        answers, judgements = lengths.prompt + lengths.answer, lengths.judge_prompt + lengths.vote
        more = 2 * (judgements - answers) * recipe.dpo.epochs
        return super().tokens_of_prompt(recipe, lengths) + more

    def judged(self, recipe: Recipe, lengths: Lengths) -> float:
        """Votes on all candidates, and comparisons of all pairs of votes on one candidate in both orders."""
        rounds, vote = rounds_of(recipe), lengths.judge_prompt + lengths.vote
        return recipe.baseline.candidates * rounds * vote + rounds * (rounds - 1) * (vote + 2 * lengths.vote)

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if recipe.judging.mode == "expected":
            raise SpartaError(
                "judging.mode is expected, but the method meta_rewarding compares the texts of judgements: set it to text"
            )
        if rounds_of(recipe) < 2:
            raise SpartaError(
                "the method meta_rewarding compares several judgements of one candidate, but there is only one: set baseline.rounds to at least 2, and "
                "judging.temperature above 0"
            )


METHOD = MetaRewarding()
