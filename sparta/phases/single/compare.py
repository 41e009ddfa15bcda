"""Compare: the model decides which of two of its judgements is better, in both orders (Meta-Rewarding).

For each prompt, the judgements of one candidate are compared: the one whose votes vary most.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import pvariance

from sparta import rng
from sparta.chat.judge_prompts import COMPARING, COMPARING_PATTERN, question_text
from sparta.chat.renderer import Prompt, PromptTooLong
from sparta.chat.sanitize import neutralise
from sparta.chat.template import Message
from sparta.engines.base import Completion, Engine, ModelRef, Request, Sampling
from sparta.phases import token_costs
from sparta.phases.base import Expected, RowPhase, Sink, WorkItem
from sparta.phases.judge_dialog import JudgeDialog, Pending, Reading, reply_fields
from sparta.phases.single.assess import Assess, read_judgements
from sparta.phases.single.learner import base_of_learner, engine_of_learner
from sparta.phases.single.rows import (
    COMPARISONS,
    Candidate,
    Comparison,
    Draw,
    Judgement,
    comparison_key,
    read_candidates,
    read_draws,
)
from sparta.recipes.schema import Judging
from sparta.store.run import Run

INTRODUCTION = "Two judges scored the answer. Which judgement is better?"
DELIMITERS = ("first", "second")
_BETTER = re.compile(r"""["']better["']\s*:\s*["']?([12])\b""")


@dataclass(frozen=True)
class JudgementPair:
    """Two judgements of one candidate in the order in which the judge sees them, with the judge's inputs."""

    draw: Draw
    candidate: Candidate
    first: Judgement
    second: Judgement
    judge: ModelRef

    @property
    def key(self) -> str:
        return comparison_key(self.draw.draw_id, self.first.round, self.second.round)


def parse_better(text: str) -> float | None:
    """1 or 2, from the last `"better": n` in `text`; None if there is none."""
    found = _BETTER.findall(text)
    return float(found[-1]) if found else None


def both(first: str, second: str, special_tokens: Sequence[str] = ()) -> str:
    """Two judgements, each inside delimiters that its text cannot close."""
    texts = (neutralise(text, special_tokens, DELIMITERS) for text in (first, second))
    return "\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in zip(DELIMITERS, texts, strict=True))


class ComparisonRequests(JudgeDialog[JudgementPair, Comparison]):
    """Turns pairs of judgements into requests, and completions into comparisons. stream: prefix of the names of the random streams."""

    def __init__(self, engine: Engine, judging: Judging, stream: tuple[int | str, ...]) -> None:
        super().__init__(engine, tries=1 + judging.retries if judging.temperature > 0 else 1)
        self._judging, self._stream = judging, stream

    def _judge(self, question: JudgementPair) -> ModelRef:
        return question.judge

    def _prompt(self, question: JudgementPair) -> Prompt:
        renderer = self._engine.renderer(question.judge)
        conversation = (*question.draw.messages, Message("assistant", question.candidate.answer))
        judgements = both(question.first.raw, question.second.raw, renderer.special_tokens)
        prompt = renderer.grading(
            INTRODUCTION, conversation, None, judgements, COMPARING, self._judging.max_new_tokens
        )
        if prompt.cut:
            raise PromptTooLong("the second judgement would be cut, but not the first")
        return prompt

    def _read(self, pending: Pending[JudgementPair], done: Completion) -> Reading | Pending[JudgementPair]:
        pattern = COMPARING_PATTERN if self._judging.constrained else ""
        return self._reading(pending, done, pattern, parse_better)

    def _request(self, pending: Pending[JudgementPair]) -> Request:
        judging, thinks = self._judging, self._thinks(pending)
        limit = judging.max_new_tokens
        if thinks:
            limit = self._engine.renderer(pending.question.judge).limit(pending.prompt, limit)
        # Continuing after thinking must not repeat the random numbers of the first request.
        again = ("answer",) if pending.thought else ()
        return Request(
            key=pending.question.key,
            model=pending.question.judge,
            prompt=pending.prompt,
            sampling=Sampling(judging.temperature, judging.top_p, judging.top_k, limit),
            seed=rng.seed_of(*self._stream, pending.tries - 1, pending.question.key, *again),
            prefix=pending.before,
            pattern=COMPARING_PATTERN if judging.constrained and not thinks else "",
        )

    def _row(self, pending: Pending[JudgementPair], verdict: Reading, prompt_tokens: int) -> Comparison:
        question = pending.question
        return Comparison(
            draw_id=question.draw.draw_id,
            number=question.candidate.number,
            first=question.first.round,
            second=question.second.round,
            judge=question.judge.name,
            better=None if verdict.score is None else "first" if verdict.score == 1 else "second",
            **reply_fields(pending, verdict, prompt_tokens),
        )


def in_doubt(judgements: Sequence[Judgement]) -> Sequence[Judgement]:
    """The judgements of one prompt that are compared, by round: the readable ones of the candidate whose scores vary most, without duplicates.

    Of several such candidates the first counts. Empty if no scores differ.
    """
    by_candidate: dict[int, list[Judgement]] = {}
    for row in sorted(judgements, key=lambda row: (row.number, row.round)):
        if row.score is not None:
            by_candidate.setdefault(row.number, []).append(row)
    spread = {number: pvariance([row.score or 0.0 for row in rows]) for number, rows in by_candidate.items()}
    if not spread or max(spread.values()) <= 0:
        return ()
    number = min(spread, key=lambda number: (-spread[number], number))
    first: dict[str, Judgement] = {}
    for row in by_candidate[number]:
        first.setdefault(row.raw.strip(), row)
    return tuple(first.values())


def compared(run: Run, t: int) -> Mapping[str, Sequence[Judgement]]:
    """By draw, the judgements that are compared, once all judgements of iteration t exist."""
    by_draw: dict[str, list[Judgement]] = {}
    for row in read_judgements(run, t):
        by_draw.setdefault(row.draw_id, []).append(row)
    return {draw_id: in_doubt(rows) for draw_id, rows in by_draw.items()}


class Compare(RowPhase):
    name = "compare"
    rows = Comparison

    def __init__(self, assess: Assess) -> None:
        self._assess = assess

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).root / COMPARISONS

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """Until all judgements exist: all ordered pairs of rounds for each prompt, since any may be compared."""
        base, rounds = base_of_learner(run), range(run.recipe.baseline.rounds)
        known = compared(run, t) if self.final(run, t) else None
        return [
            WorkItem(comparison_key(draw.draw_id, *pair), 1.0, group="", base=base, bundle=draw.draw_id)
            for draw in read_draws(run, t)
            for pair in permutations(
                rounds if known is None else [row.round for row in known.get(draw.draw_id, ())], 2
            )
        ]

    def final(self, run: Run, t: int) -> bool:
        return self._assess.final(run, t) and not self._assess.missing(run, t)

    def expected(self, run: Run, t: int) -> Expected:
        """All ordered pairs of the judgements of one candidate per prompt; each comparison has the maximum length."""
        recipe = run.recipe
        rounds, written = recipe.baseline.rounds, recipe.judging.max_new_tokens
        count = recipe.combats * rounds * (rounds - 1)
        read = recipe.generation.max_new_tokens / 2 + 2 * written
        reading = token_costs.expected_reading(run, read, judging=True)
        return Expected(
            f"up to {count:,} comparisons of judgements",
            bundles=recipe.combats,
            cost=count * (written + reading),
            tokens=count * written,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        frame = f"{INTRODUCTION}\n{COMPARING}\n"
        texts = {draw.draw_id: frame + question_text(draw.messages) for draw in read_draws(run, t)}
        lengths = {
            draw_id: float(max(row.new_tokens for row in rows))
            for draw_id, rows in read_candidates(run, t).items()
        }
        written = run.recipe.judging.max_new_tokens
        read = {item.key: (texts[item.bundle], lengths.get(item.bundle, 0.0) + 2 * written) for item in items}
        return token_costs.of_grades(run, items, read, written)

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        engine, model = engine_of_learner(run, t, self)
        requested = {item.key for item in items}
        requests = ComparisonRequests(engine, run.recipe.judging, (run.recipe.seed, t, "compare"))
        pairs = (pair for pair in _pairs(run, t, model) if pair.key in requested)
        requests.ask_all(pairs, sink.write)


def _pairs(run: Run, t: int, judge: ModelRef) -> Iterator[JudgementPair]:
    candidates, known = read_candidates(run, t), compared(run, t)
    for draw in read_draws(run, t):
        for first, second in permutations(known.get(draw.draw_id, ()), 2):
            candidate = candidates[draw.draw_id][first.number]
            yield JudgementPair(draw, candidate, first, second, judge)
