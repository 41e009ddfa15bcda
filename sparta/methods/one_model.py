"""The common part of methods that align one model: the baselines of the paper (section 3, C.4)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from sparta.errors import SpartaError
from sparta.methods.base import IterationSummary, Lengths, Method, notes_on
from sparta.phases.base import Phase
from sparta.phases.commit import Commit
from sparta.phases.single.learner import learner_of, only_learner
from sparta.phases.single.rows import CANDIDATES, RANKINGS, Candidate, Ranking
from sparta.phases.train import Train
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.records import Pair, Row, Trained
from sparta.store.run import Run
from sparta.store.run_budget import spent
from sparta.store.stats import IterationStats, not_used

FILES = ("plan.jsonl", RANKINGS, "preferences.jsonl", "standing.json")
ROWS: Mapping[str, type[Row]] = {CANDIDATES: Candidate, "training": Trained}
"""The files and shard folders that every such method commits, see `Commit`."""


class OneModel(Method):
    """The model that `learner_of` names learns from its own answers; all others are carried over unchanged.

    phases: those up to the preference pairs. rows: further row types, by folder. pairs_per_prompt: the most pairs from one prompt. fused: a phase that
    replaces its alternatives if `Recipe.fused` is true. square_loss: train by SPPO's loss instead of DPO's.
    """

    fewest_members = 1
    unit = "prompts"
    has_reputations = False
    more_pairs: ClassVar[str] = ""
    """Describes the pairs that are not of the prompts' candidates."""
    score_name: ClassVar[str]
    """Column title of the mean score of chosen candidates in the table after an iteration; "" if candidates have no score."""

    def __init__(
        self,
        phases: Sequence[Phase],
        rows: Mapping[str, type[Row]] | None = None,
        pairs_per_prompt: int = 1,
        fused: Phase | None = None,
        square_loss: bool = False,
    ) -> None:
        self.pairs_per_prompt, self._fused = pairs_per_prompt, fused
        self._phases = (
            *phases,
            Train(only_learner, pairs_per_prompt, square_loss),
            Commit(only_learner, FILES, {**ROWS, **(rows or {})}),
        )

    def iteration(self, recipe: Recipe) -> tuple[Phase, ...]:
        fused = self._fused
        if fused is None or not recipe.fused:
            return self._phases
        found = [fused if phase.name in fused.alternatives else phase for phase in self._phases]
        return tuple(dict.fromkeys(found))

    @property
    def all_phases(self) -> Iterable[Phase]:
        return self._phases if self._fused is None else (*self._phases, self._fused)

    def learners(self, run: Run, t: int) -> Sequence[str]:
        return only_learner(run, t)

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        learner_of(recipe)
        self.check_candidates(recipe)

    def check_candidates(self, recipe: Recipe) -> None:
        """Raises SpartaError if the candidates cannot make a pair."""
        if recipe.baseline.candidates < 2:
            raise SpartaError(
                f"baseline.candidates is {recipe.baseline.candidates}, but the method {self.name} pairs the best with the worst of several candidates: "
                "set it to at least 2"
            )

    def tokens_of_prompt(self, recipe: Recipe, lengths: Lengths) -> float:
        """Candidates, their comparison, and the pairs."""
        answer = lengths.prompt + lengths.answer
        pair = 2 * answer * recipe.dpo.epochs
        return (
            self.candidates_per_prompt(recipe) * answer
            + self.judged(recipe, lengths)
            + self.pairs_per_prompt * pair
        )

    def candidates_per_prompt(self, recipe: Recipe) -> int:
        return recipe.baseline.candidates

    def judged(self, recipe: Recipe, lengths: Lengths) -> float:
        """Tokens generated and read to compare the candidates of a prompt."""
        return 0.0

    def summary(self, run: Run, t: int) -> IterationSummary:
        """Pairs, mean scores, missing votes and comparisons, and loss of the model."""
        iteration, name = run.iteration(t), learner_of(run.recipe)
        stats = files.read_json(iteration.stats, IterationStats)
        rankings = list(files.read_rows(iteration.root / RANKINGS, Ranking))
        judge, loss = stats.judges.get(name), stats.mean_losses.get(name)
        cells = {"model": name, "pairs": f"{stats.pairs:,}"}
        if self.score_name:
            cells[self.score_name] = _mean_of(rankings, [ranking.chosen for ranking in rankings])
            cells["of rejected"] = _mean_of(rankings, [ranking.rejected for ranking in rankings])
        if judge is not None:
            cells["missing votes"] = f"{judge.missing}/{judge.votes}"
        if stats.comparisons is not None:
            cells["missing comparisons"] = f"{stats.comparisons.missing}/{stats.comparisons.votes}"
        cells["loss"] = "" if loss is None else f"{loss:.3f}"
        more = len(list(files.read_rows(iteration.preferences, Pair))) - stats.pairs
        return IterationSummary(
            f"iteration {t} of {run.recipe.iterations}",
            tuple(cells),
            (tuple(cells.values()),),
            (
                *notes_on(stats, "candidate"),
                *self._notes_on_more_pairs(more, stats),
                *_notes_on_budget(run, t),
            ),
        )

    def _notes_on_more_pairs(self, more: int, stats: IterationStats) -> Iterable[str]:
        if prompts := sum(stats.judgement_reasons.values()):
            yield f"  {more:,} more pairs: {self.more_pairs}, from {prompts:,} prompts whose votes differ{not_used(stats.judgement_reasons)}"
        elif more:
            yield f"  {more:,} more pairs: {self.more_pairs}"


def _notes_on_budget(run: Run, t: int) -> Iterable[str]:
    """What the iterations so far have spent of their budget of tokens, if they have one."""
    budget = run.recipe.baseline.budget
    if budget is not None and budget.tokens is not None:
        used, planned = spent(run, t).total, budget.tokens * t
        share = f"{used / planned:.1%}".replace("%", " %")
        yield f"  budget: {used:,} of {planned:,} tokens spent so far ({share})"


def _mean_of(rankings: Sequence[Ranking], numbers: Sequence[int | None]) -> str:
    """The mean score of the candidates with these numbers, one per ranking."""
    scores = [
        score
        for ranking, number in zip(rankings, numbers, strict=True)
        if number is not None and (score := ranking.scores[number]) is not None
    ]
    return f"{sum(scores) / len(scores):.2f}" if scores else ""
