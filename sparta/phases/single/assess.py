"""Assess: the model scores each of its candidates separately, from 1 to 10, several times (Self-Rewarding, Meta-Rewarding)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from sparta.chat.judge_prompts import question_text
from sparta.chat.template import Message
from sparta.engines.base import Engine, ModelRef
from sparta.errors import SpartaError
from sparta.phases import token_costs
from sparta.phases.base import Expected, RowPhase, Sink, WorkItem
from sparta.phases.judge import ScoreRequests
from sparta.phases.judge_dialog import Pending, Reading, verdict_fields
from sparta.phases.single.learner import base_of_learner, engine_of_learner
from sparta.phases.single.rows import (
    JUDGEMENTS,
    Candidate,
    Draw,
    Judgement,
    judgement_key,
    read_candidates,
    read_draws,
)
from sparta.phases.single.sample import Sample, usual_length
from sparta.recipes.schema import Judging, Recipe
from sparta.store.run import Run
from sparta.store.shards import iter_shards


@dataclass(frozen=True)
class CandidateBallot:
    """A vote to cast on a candidate, with the judge's inputs."""

    draw_id: str
    number: int
    round: int
    judge: ModelRef
    messages: tuple[Message, ...]
    response: str

    @property
    def key(self) -> str:
        return judgement_key(self.draw_id, self.number, self.round)


class JudgementRequests(ScoreRequests[CandidateBallot, Judgement]):
    """Votes of the model on its candidates. keep_ids: keep the token ids of judgements, to train on them."""

    def __init__(
        self, engine: Engine, judging: Judging, stream: tuple[int | str, ...], keep_ids: bool = False
    ) -> None:
        super().__init__(engine, judging, stream)
        self._keep_ids = keep_ids

    def _row(self, pending: Pending[CandidateBallot], verdict: Reading, prompt_tokens: int) -> Judgement:
        ballot = pending.question
        token_ids = verdict.token_ids if self._keep_ids else ()
        return Judgement(
            draw_id=ballot.draw_id,
            number=ballot.number,
            round=ballot.round,
            judge=ballot.judge.name,
            **verdict_fields(pending, verdict, prompt_tokens),
            token_ids=token_ids,
            tokenizer=self._engine.tokenizer_fingerprint(ballot.judge) if token_ids else "",
            prompt=pending.prompt.messages[0].content if self._keep_ids and ballot.round == 0 else "",
        )


def rounds_of(recipe: Recipe) -> int:
    """Votes on each candidate: baseline.rounds, or one if the judge does not sample and all votes would be equal."""
    judging = recipe.judging
    sampled = judging.temperature > 0 and (judging.mode == "text" or judging.working)
    return recipe.baseline.rounds if sampled else 1


def to_judge(candidates: Sequence[Candidate], judging: Judging, complete: bool = True) -> list[Candidate]:
    """The candidates of one draw that are judged: the first of equal ones, and no empty ones; none at all if only one is left.

    With `judging.equal: judge`, all. complete: whether all candidates exist; before that, the result may be too long, never too short.
    """
    if judging.equal == "judge":
        return list(candidates)
    first: dict[str, Candidate] = {}
    for candidate in candidates:
        if text := candidate.answer.strip():
            first.setdefault(text, candidate)
    return list(first.values()) if len(first) > 1 or not complete else []


class Assess(RowPhase):
    """keep_ids: keep the token ids of judgements, to train on them."""

    name = "assess"
    rows = Judgement
    alternatives = ("sample_assess",)

    def __init__(self, sample: Sample, keep_ids: bool = False) -> None:
        self._sample, self.keep_ids = sample, keep_ids

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).root / JUDGEMENTS

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """Votes on all candidates, except those known to need none (see `to_judge`)."""
        base, rounds = base_of_learner(run), rounds_of(run.recipe)
        numbers = self._numbers(run, t)
        return [
            WorkItem(
                judgement_key(draw.draw_id, number, round),
                1.0,
                group="",
                base=base,
                bundle=f"{draw.draw_id}/{number}",
            )
            for draw in read_draws(run, t)
            for number in numbers[draw.draw_id]
            for round in range(rounds)
        ]

    def _numbers(self, run: Run, t: int) -> Mapping[str, Sequence[int]]:
        """The candidates of each draw that are judged, as far as is known."""
        count, judging = self._sample.count(run.recipe), run.recipe.judging
        known = read_candidates(run, t)
        numbers = {}
        for draw in read_draws(run, t):
            existing = known.get(draw.draw_id, ())
            missing = set(range(count)) - {candidate.number for candidate in existing}
            judged = to_judge(existing, judging, complete=not missing)
            numbers[draw.draw_id] = sorted(missing | {candidate.number for candidate in judged})
        return numbers

    def final(self, run: Run, t: int) -> bool:
        return run.recipe.judging.equal == "judge" or not self._sample.missing(run, t)

    def expected(self, run: Run, t: int) -> Expected:
        """Each vote has the maximum length, and reads a prompt and a response of half the maximum length."""
        recipe = run.recipe
        candidates = recipe.combats * self._sample.count(recipe)
        votes = candidates * rounds_of(recipe)
        prefill_only = recipe.judging.mode == "expected" and not recipe.judging.working
        written = 0 if prefill_only else recipe.judging.max_new_tokens
        reading = token_costs.expected_reading(run, recipe.generation.max_new_tokens / 2, judging=True)
        return Expected(
            f"{'up to ' * (recipe.judging.equal == 'skip')}{votes:,} judgements",
            bundles=candidates,
            cost=votes * (max(written, 1) + reading),
            tokens=votes * written,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        frame, usual = token_costs.wrapping(run.recipe), usual_length(run, t)
        lengths = {
            f"{draw_id}/{row.number}": float(row.new_tokens)
            for draw_id, rows in read_candidates(run, t).items()
            for row in rows
        }
        texts = {draw.draw_id: question_text(draw.messages) + frame for draw in read_draws(run, t)}
        read = {
            item.key: (texts[item.bundle.partition("/")[0]], lengths.get(item.bundle, usual))
            for item in items
        }
        return token_costs.of_grades(run, items, read, round(_usual_judgement(run, t)))

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        engine, model = engine_of_learner(run, t, self)
        requested, candidates = {item.key for item in items}, read_candidates(run, t)
        requests = judgement_requests(run, t, engine, self.keep_ids)
        ballots = [
            ballot
            for draw in read_draws(run, t)
            for ballot in ballots_on(
                draw, candidates.get(draw.draw_id, ()), model, rounds_of(run.recipe), requested
            )
        ]
        if len(ballots) < len(requested):
            raise SpartaError(
                f"{self._sample.folder(run, t)} lacks candidates: sampling is not complete, launch the run again to continue it"
            )
        requests.ask_all(ballots, sink.write)


def judgement_requests(run: Run, t: int, engine: Engine, keep_ids: bool) -> JudgementRequests:
    """The requests for judgements of iteration t."""
    return JudgementRequests(engine, run.recipe.judging, (run.recipe.seed, t, "assess"), keep_ids)


def ballots_on(
    draw: Draw, candidates: Sequence[Candidate], judge: ModelRef, rounds: int, requested: Collection[str]
) -> Iterator[CandidateBallot]:
    """The ballots on the candidates of `draw` whose keys are in `requested`."""
    for candidate in candidates:
        for round in range(rounds):
            if judgement_key(draw.draw_id, candidate.number, round) in requested:
                yield CandidateBallot(
                    draw.draw_id, candidate.number, round, judge, draw.messages, candidate.answer
                )


def read_judgements(run: Run, t: int) -> Iterator[Judgement]:
    """The judgements of iteration t so far."""
    return iter_shards(run.iteration(t).root / JUDGEMENTS, Judgement)


def _usual_judgement(run: Run, t: int) -> float:
    """Estimated tokens of a judgement: the mean of the latest iteration before t, else the maximum that the recipe allows."""
    judging = run.recipe.judging
    if judging.mode == "expected" and not judging.working:
        return 1.0
    for earlier in range(t - 1, 0, -1):
        lengths = [row.new_tokens for row in read_judgements(run, earlier)]
        if lengths:
            return fmean(lengths)
    return float(judging.max_new_tokens)
