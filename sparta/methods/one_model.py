"""What methods that align one model have in common: the baselines of the paper (section 3, C.4)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from sparta.errors import SpartaError
from sparta.methods.base import Lengths, Method, Summary
from sparta.phases.base import Phase
from sparta.phases.commit import Commit
from sparta.phases.single.learner import learner_of, only_learner
from sparta.phases.single.rows import CANDIDATES, RANKINGS, Candidate, Ranking
from sparta.phases.train import Train
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.records import Pair, Row, Trained
from sparta.store.run import Run
from sparta.store.stats import IterationStats

FILES = ("plan.jsonl", RANKINGS, "preferences.jsonl", "standing.json")
ROWS: Mapping[str, type[Row]] = {CANDIDATES: Candidate, "training": Trained}
"""What an iteration of all of them consists of, see `Commit`."""


class OneModel(Method):
    """The model that `learner_of` names learns from its own answers; all others are carried over unchanged.

    made: the phases up to the preference pairs. rows: what they make beside candidates. pairs_each: how many pairs a prompt may make. fused: with
    `cluster.fused`, in place of those that it names as its alternatives.
    """

    fewest_members = 1
    has_reputations = False

    def __init__(
        self,
        made: Sequence[Phase],
        rows: Mapping[str, type[Row]] | None = None,
        pairs_each: int = 1,
        fused: Phase | None = None,
    ) -> None:
        self.pairs_each, self._fused = pairs_each, fused
        self._phases = (
            *made,
            Train(only_learner, pairs_each),
            Commit(only_learner, FILES, {**ROWS, **(rows or {})}),
        )

    def iteration(self, recipe: Recipe) -> tuple[Phase, ...]:
        fused = self._fused
        if fused is None or not recipe.cluster.fused:
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
        """Raises SpartaError where no pair can come of the candidates."""
        if recipe.baseline.candidates < 2:
            raise SpartaError(
                f"baseline.candidates is {recipe.baseline.candidates}, and the method {self.name} makes its pairs from the best and the worst of several: "
                "set it to 2 at least"
            )

    def tokens_of_prompt(self, recipe: Recipe, lengths: Lengths) -> float:
        """What is generated and read for it, and its pairs."""
        answer = lengths.prompt + lengths.answer
        pair = 2 * answer * recipe.dpo.epochs
        return self.made_of(recipe) * answer + self.judged(recipe, lengths) + self.pairs_each * pair

    def made_of(self, recipe: Recipe) -> int:
        """Candidates of a prompt."""
        return recipe.baseline.candidates

    def judged(self, recipe: Recipe, lengths: Lengths) -> float:
        """Tokens that are generated and read to compare the candidates of a prompt."""
        return 0.0

    def summary(self, run: Run, t: int) -> Summary:
        """What the model learned from."""
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
        cells["loss"] = "" if loss is None else f"{loss:.3f}"
        more = len(list(files.read_rows(iteration.preferences, Pair))) - stats.pairs
        return Summary(
            f"iteration {t} of {run.recipe.iterations}",
            tuple(cells),
            (tuple(cells.values()),),
            (*_notes(stats), *([f"  {more:,} more pairs {self.more_pairs}"] if more else ())),
        )

    more_pairs: ClassVar[str] = ""
    """Where pairs are from that are not of the prompts' candidates."""

    score_name: ClassVar[str]
    """What the table after an iteration calls the mean score of the chosen candidates; "" where they have none."""


def _mean_of(rankings: Sequence[Ranking], numbers: Sequence[int | None]) -> str:
    """The mean score of the candidates with these numbers, one a ranking."""
    scores = [
        score
        for ranking, number in zip(rankings, numbers, strict=True)
        if number is not None and (score := ranking.scores[number]) is not None
    ]
    return f"{sum(scores) / len(scores):.2f}" if scores else ""


def _notes(stats: IterationStats) -> Iterable[str]:
    """How many pairs came of the prompts, and what went another way than usual."""
    yield stats.in_words
    if stats.warning:
        yield f"warning: {stats.warning}"
    for number, what in (
        (
            sum(judge.cut for judge in stats.judges.values()),
            "votes saw a candidate whose end was cut to fit the context",
        ),
        (stats.too_long, "candidates had no room, as the prompt filled the context"),
        (
            sum(stats.dropped_pairs.values()),
            "pairs could not be trained on (longer than dpo.max_length, or without a token)",
        ),
    ):
        if number:
            yield f"  {number:,} {what}"
