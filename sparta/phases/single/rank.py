"""Rank: each prompt's best and worst candidate by the model's own votes make a preference pair (Self-Rewarding). Needs no model."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from sparta.errors import SpartaError
from sparta.phases.base import Step
from sparta.phases.merge import pair_of
from sparta.phases.single.assess import read_judgements, rounds_of, to_judge
from sparta.phases.single.best_and_worst import Choice, best_and_worst
from sparta.phases.single.learner import learner_of
from sparta.phases.single.rows import (
    JUDGEMENTS,
    RANKINGS,
    Candidate,
    Draw,
    Judgement,
    Ranking,
    read_candidates,
    read_draws,
)
from sparta.phases.single.sample import Sample
from sparta.phases.unreadable import excerpt, refuse_unreadable
from sparta.store import files, standings
from sparta.store.disk import present
from sparta.store.records import Pair
from sparta.store.run import Run
from sparta.store.stats import IterationStats, JudgeStats


def complete_candidates(run: Run, t: int, sample: Sample) -> Mapping[str, Sequence[Candidate]]:
    """The candidates of iteration t by draw. Raises SpartaError if one is missing, or belongs to no draw."""
    found, draws = read_candidates(run, t), {draw.draw_id for draw in read_draws(run, t)}
    folder, count = sample.folder(run, t), sample.count(run.recipe)
    if strange := found.keys() - draws:
        raise SpartaError(
            f"{folder} has a row of {min(strange)}, which is not in the plan: delete that line and launch the run again"
        )
    for draw_id in sorted(draws):
        if [row.number for row in found.get(draw_id, ())] != list(range(count)):
            raise SpartaError(
                f"{folder} does not have the {count} candidates of {draw_id}: sampling is not complete, launch the run again to continue it"
            )
    return found


@dataclass
class Votes:
    """The judgements of one candidate."""

    all: list[Judgement] = field(default_factory=list)

    @property
    def scores(self) -> list[float]:
        return [row.score for row in self.all if row.score is not None]

    @property
    def mean(self) -> float | None:
        """The candidate's score; None if no judgement could be read."""
        return fmean(self.scores) if self.scores else None


def votes_by_candidate(
    run: Run, t: int, candidates: Mapping[str, Sequence[Candidate]]
) -> dict[str, list[Votes]]:
    """By draw, the votes on each of its candidates. Equal candidates share their votes; a candidate that needed no judging has none.

    Raises SpartaError if a judgement is missing.
    """
    folder, rounds = run.iteration(t).root / JUDGEMENTS, rounds_of(run.recipe)
    judged = {
        draw_id: {row.number: Votes() for row in to_judge(rows, run.recipe.judging)}
        for draw_id, rows in candidates.items()
    }
    for judgement in read_judgements(run, t):
        if judgement.number in judged.get(judgement.draw_id, ()):
            judged[judgement.draw_id][judgement.number].all.append(judgement)
    found = {}
    for draw_id, votes in judged.items():
        for number, cast in votes.items():
            if len(cast.all) != rounds:
                raise SpartaError(
                    f"{folder} has {len(cast.all)} of {rounds} judgements of candidate {number} of {draw_id}: judging is not complete, launch the run "
                    "again to continue it"
                )
            cast.all.sort(key=lambda row: row.round)
        rows = candidates[draw_id]
        of_text = {row.answer.strip(): votes[row.number] for row in rows if row.number in votes}
        found[draw_id] = [votes.get(row.number) or of_text.get(row.answer.strip()) or Votes() for row in rows]
    return found


def judge_stats(votes: Iterable[Sequence[Votes]]) -> JudgeStats:
    """Statistics of the model's votes; shared votes of equal candidates count once."""
    cast = {row.key: row for found in votes for each in found for row in each.all}.values()
    return JudgeStats(
        votes=len(cast),
        missing=sum(row.score is None for row in cast),
        retried=sum(row.tries > 1 for row in cast),
        cut=sum(row.cut > 0 for row in cast),
        sum=sum(row.score or 0.0 for row in cast),
        prompt_tokens=sum(row.prompt_tokens for row in cast),
        new_tokens=sum(row.new_tokens for row in cast),
        unanswered=sum(not row.answered for row in cast),
    )


def checked_stats(run: Run, t: int, votes: Collection[Sequence[Votes]]) -> JudgeStats:
    """Statistics of the model's votes. Raises SpartaError if too many are unreadable."""
    stats = judge_stats(votes)
    missing = [row for found in votes for each in found for row in each.all if row.score is None]
    texts = (excerpt(row.raw, row.thinking) for row in missing)
    no_room = len({row.key for row in missing if not row.prompt_tokens})
    refuse_unreadable(
        run, t, f"judgements of {learner_of(run.recipe)} could not be read", stats, texts, no_room
    )
    return stats


class Rank(Step):
    """Writes rankings.jsonl, preferences.jsonl, stats.json and standing.json. With one model, reputations do not change."""

    name = "rank"

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def done(self, run: Run, t: int) -> bool:
        return present(run.iteration(t).standing)

    def execute(self, run: Run, t: int) -> None:
        candidates = complete_candidates(run, t, self._sample)
        votes = votes_by_candidate(run, t, candidates)
        stats = checked_stats(run, t, votes.values())
        rankings: list[Ranking] = []
        pairs: list[Pair] = []
        for draw in read_draws(run, t):
            rows = candidates[draw.draw_id]
            scores = [found.mean for found in votes[draw.draw_id]]
            counted = [len(found.scores) for found in votes[draw.draw_id]]
            choice = best_and_worst([row.answer for row in rows], scores, run.recipe.preferences)
            ranking, pair = ranked(draw, rows, scores, counted, choice)
            rankings.append(ranking)
            pairs += pair
        write_outcome(run, t, candidates, rankings, pairs, Counts(stats))


def ranked(
    draw: Draw,
    rows: Sequence[Candidate],
    scores: Sequence[float | None],
    counted: Sequence[int],
    choice: Choice,
) -> tuple[Ranking, list[Pair]]:
    """The ranking of the candidates of `draw`, and its pair if there is one. counted: how many votes or comparisons each score is made of."""
    ranking = Ranking(
        draw.draw_id, tuple(scores), tuple(counted), choice.chosen, choice.rejected, choice.reason
    )
    if choice.chosen is None or choice.rejected is None:
        return ranking, []
    best, worst = scores[choice.chosen], scores[choice.rejected]
    assert best is not None and worst is not None
    chosen, rejected = rows[choice.chosen], rows[choice.rejected]
    models = (chosen.model, rejected.model)
    return ranking, [pair_of(draw.draw_id, draw.messages, (chosen, rejected), models, (best, worst))]


@dataclass(frozen=True)
class Counts:
    """Counted beside the results of prompts. votes: of the model on its candidates; the others as in IterationStats. None: the method has none."""

    votes: JudgeStats | None = None
    comparisons: JudgeStats | None = None
    judgement_reasons: Mapping[str, int] = field(default_factory=dict)


NONE_COUNTED = Counts()


def write_outcome(
    run: Run,
    t: int,
    candidates: Mapping[str, Sequence[Candidate]],
    rankings: Sequence[Ranking],
    pairs: Sequence[Pair],
    counts: Counts = NONE_COUNTED,
) -> None:
    """Write the files of an iteration's result; the standing comes last and marks them complete."""
    iteration, name = run.iteration(t), learner_of(run.recipe)
    rows = [row for found in candidates.values() for row in found]
    reasons: dict[str, int] = {}
    for ranking in rankings:
        reasons[ranking.reason] = reasons.get(ranking.reason, 0) + 1
    files.write_rows(iteration.root / RANKINGS, rankings)
    files.write_rows(iteration.preferences, pairs)
    files.write_json(
        iteration.stats,
        IterationStats(
            combats=len(rankings),
            unit="prompts",
            reasons=reasons,
            uniform_juries=0,
            wins={},
            losses={},
            judges={} if counts.votes is None else {name: counts.votes},
            response_tokens=sum(row.new_tokens for row in rows),
            cut_responses=sum(row.finish_reason == "length" for row in rows),
            too_long=sum(row.finish_reason == "prompt_too_long" for row in rows),
            unanswered=sum(not row.answered for row in rows),
            comparisons=counts.comparisons,
            judgement_reasons=dict(counts.judgement_reasons),
        ),
    )
    files.write_json(iteration.standing, standings.at_end(run, t - 1))
