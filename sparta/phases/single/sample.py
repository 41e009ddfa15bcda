"""Sample: the model answers each prompt several times."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from sparta.chat.judge_prompts import question_text
from sparta.engines.base import Completion, Engine, Inbox, ModelRef, Request
from sparta.engines.label_tokens import check_labels
from sparta.phases import token_costs
from sparta.phases.answering import SampledAnswers
from sparta.phases.base import Expected, RowPhase, Sink, WorkItem
from sparta.phases.single.learner import base_of_learner, engine_of_learner
from sparta.phases.single.rows import CANDIDATES, Candidate, Draw, candidate_key, read_draws
from sparta.recipes.schema import Recipe
from sparta.store.run import Run
from sparta.store.shards import iter_shards


def candidates_of(recipe: Recipe) -> int:
    """Candidates per prompt: baseline.candidates."""
    return recipe.baseline.candidates


class CandidateRequests(SampledAnswers[tuple[Draw, int]]):
    """Turns draws of iteration t into requests, and completions into candidates of `model`, M^{t-1}."""

    def __init__(self, run: Run, t: int, engine: Engine, model: ModelRef) -> None:
        super().__init__(run, t, engine, "sample")
        self._model = model

    def request(self, draw: Draw, number: int) -> Request:
        """The request for candidate `number` of `draw`."""
        key = candidate_key(draw.draw_id, number)
        return self._request(key, (draw, number), self._model, draw.messages, (draw.draw_id, number))

    def candidate(self, done: Completion) -> Candidate:
        """The row for a completion."""
        (draw, number), fields = self._answer(done)
        return Candidate(draw_id=draw.draw_id, number=number, **fields)


class Sample(RowPhase):
    """count: candidates per prompt. judged: whether the model judges them; if so, a recipe that cannot be judged fails before sampling."""

    name = "sample"
    rows = Candidate
    alternatives = ("sample_assess",)

    def __init__(self, count: Callable[[Recipe], int] = candidates_of, judged: bool = True) -> None:
        self.count, self._judged = count, judged

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).root / CANDIDATES

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        base = base_of_learner(run)
        return [
            WorkItem(candidate_key(draw.draw_id, number), 1.0, group="", base=base, bundle=draw.draw_id)
            for draw in read_draws(run, t)
            for number in range(self.count(run.recipe))
        ]

    def expected(self, run: Run, t: int) -> Expected:
        """Candidates of half the maximum length."""
        draws, longest = run.recipe.combats, run.recipe.generation.max_new_tokens
        candidates = draws * self.count(run.recipe)
        return Expected(
            f"{candidates:,} candidates",
            bundles=draws,
            cost=candidates * (longest / 2 + token_costs.expected_reading(run)),
            tokens=candidates * longest,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        texts = {draw.draw_id: question_text(draw.messages) for draw in read_draws(run, t)}
        read = {item.key: (texts[item.bundle], 0.0) for item in items}
        return token_costs.of_grades(run, items, read, round(usual_length(run, t)))

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        engine, model = engine_of_learner(run, t, self)
        if self._judged:
            check_labels(engine, [model], run.recipe.judging, run.recipe.pool.trust_remote_code, run.chat)
        sampling, requested = CandidateRequests(run, t, engine, model), {item.key for item in items}
        requests = (
            sampling.request(draw, number)
            for draw in read_draws(run, t)
            for number in range(self.count(run.recipe))
            if candidate_key(draw.draw_id, number) in requested
        )
        for done in engine.run(Inbox(requests)):
            sink.write(sampling.candidate(done))


def usual_length(run: Run, t: int) -> float:
    """Estimated tokens of a candidate: the mean of the latest iteration before t, else half the maximum that the recipe allows."""
    for earlier in range(t - 1, 0, -1):
        lengths = [row.new_tokens for row in iter_shards(run.iteration(earlier).root / CANDIDATES, Candidate)]
        if lengths:
            return fmean(lengths)
    return run.recipe.generation.max_new_tokens / 2
