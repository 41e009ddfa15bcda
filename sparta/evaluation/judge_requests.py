"""How the judge of an evaluation is asked, whatever it grades: single answers (grade.py) or sets of answers (grade_sets.py).

Decoding is greedy; a reply that cannot be parsed is retried with sampling. A grade that is still missing is counted as missing, never as zero.
"""

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import ClassVar, TypeVar

from sparta import rng
from sparta.engines.base import Completion, Engine, ModelRef, Request, Sampling
from sparta.phases.judge_dialog import JudgeDialog, Pending, Question, Reading
from sparta.pool.members import judge_named
from sparta.store.records import Row
from sparta.store.run import Run

Q = TypeVar("Q", bound=Question)
R = TypeVar("R", bound=Row)

RETRY_TEMPERATURE = 0.7
"""Greedy decoding would repeat the reply."""


class EvaluationJudge(JudgeDialog[Q, R]):
    """Turns questions of type Q into requests to the judge `model`, and completions into rows or follow-up requests."""

    stream: ClassVar[str]
    """Part of the names of the random streams of further tries."""

    def __init__(self, run: Run, engine: Engine, model: ModelRef) -> None:
        settings = judge_named(run.recipe)
        super().__init__(engine, tries=1 + settings.retries)
        self._model = model
        self._seed = run.recipe.seed
        self._sampling = Sampling(0.0, top_p=1.0, top_k=0, max_new_tokens=settings.max_new_tokens)

    def _judge(self, question: Q) -> ModelRef:
        return self._model

    def _request(self, pending: Pending[Q]) -> Request:
        again, thinks = pending.tries > 1, self._thinks(pending)
        limit = self._sampling.max_new_tokens
        # Continuing after thinking must not repeat the random numbers of the first request.
        suffix = ("answer",) if pending.thought else ()
        if thinks:
            limit = self._engine.renderer(self._model).limit(pending.prompt, limit)
        return Request(
            key=pending.question.key,
            model=self._model,
            prompt=pending.prompt,
            sampling=replace(
                self._sampling, temperature=RETRY_TEMPERATURE if again else 0.0, max_new_tokens=limit
            ),
            # With one seed, equal greedy requests to an endpoint are identical, so they are cached and paid for once.
            seed=rng.seed_of(self._seed, self.stream, pending.tries - 1, pending.question.key, *suffix)
            if again
            else 0,
            prefix=pending.before,
            pattern="" if thinks else self._pattern(pending.question),
        )

    def _read(self, pending: Pending[Q], done: Completion) -> Reading | Pending[Q]:
        parse = partial(self._parse, cut=done.finish_reason == "length")
        return self._reading(pending, done, self._pattern(pending.question), parse)

    @abstractmethod
    def _pattern(self, question: Q) -> str:
        """A regular expression that constrains the grade."""

    @abstractmethod
    def _parse(self, text: str, cut: bool) -> float | None:
        """The grade in `text`, or None if it is missing. cut: the text was cut at its token limit."""
