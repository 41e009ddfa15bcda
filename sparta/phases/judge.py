"""Judge: every model that is not a contestant scores each of the two responses separately, from 1 to 10 (Algorithm 1, lines 7 to 9)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from sparta import rng
from sparta.arena.votes import expected_score, parse_score
from sparta.chat.judge_prompts import REASONING_PATTERN, judging_instruction, judging_pattern
from sparta.chat.renderer import Prompt
from sparta.chat.template import Message
from sparta.engines.base import Completion, Engine, Label, ModelRef, Request, Sampling
from sparta.engines.label_tokens import labels_of
from sparta.errors import SpartaError
from sparta.phases import token_costs
from sparta.phases.base import Expected, RowPhase, Sink, WorkItem
from sparta.phases.generate import Generate
from sparta.phases.judge_dialog import JudgeDialog, Pending, Question, R, Reading, verdict_fields
from sparta.phases.undecidable import answer_of, undecidable
from sparta.pool.members import engine_for, references
from sparta.recipes.schema import Judging
from sparta.store.records import Combat, Response, Vote, response_key, vote_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards


@dataclass(frozen=True)
class Ballot:
    """A vote to cast, with the judge's inputs."""

    combat_id: str
    contestant: str
    judge: ModelRef
    messages: tuple[Message, ...]
    response: str

    @property
    def key(self) -> str:
        return vote_key(self.combat_id, self.contestant, self.judge.name)


class Scored(Question, Protocol):
    """A question about a response that is answered with a score, such as a ballot."""

    @property
    def judge(self) -> ModelRef: ...

    @property
    def messages(self) -> tuple[Message, ...]: ...

    @property
    def response(self) -> str: ...


S = TypeVar("S", bound=Scored)


class ScoreRequests(JudgeDialog[S, R]):
    """Turns questions about responses into requests, and completions into scores or follow-up requests.

    stream: prefix of the names of the random streams; every try of every vote has its own stream.
    """

    def __init__(self, engine: Engine, judging: Judging, stream: tuple[int | str, ...]) -> None:
        # Without sampling, a retry would give the same.
        sampled = judging.temperature > 0 and (judging.mode == "text" or judging.working)
        super().__init__(engine, tries=1 + judging.retries if sampled else 1)
        self._judging = judging
        self._stream = stream
        self._labels: dict[str, tuple[Label, ...]] = {}
        self._instruction = judging_instruction(judging.mode, judging.working, judging.labels)

    def _judge(self, question: S) -> ModelRef:
        return question.judge

    def _prompt(self, question: S) -> Prompt:
        return self._engine.renderer(question.judge).judging(
            question.messages,
            question.response,
            instruction=self._instruction,
            max_new_tokens=self._judging.max_new_tokens,
        )

    def _read(self, pending: Pending[S], done: Completion) -> Reading | Pending[S]:
        judging = self._judging
        if judging.mode == "expected":
            return self._labelled(pending, done)
        pattern = judging_pattern(judging.working) if judging.constrained else ""
        cut = done.finish_reason == "length"
        return self._reading(pending, done, pattern, partial(parse_score, bare=not judging.working, cut=cut))

    def _labelled(self, pending: Pending[S], done: Completion) -> Reading | Pending[S]:
        """The parsed reply in `expected` mode: reasoning, or the labels' probabilities."""
        if self._asks_reasoning(pending):
            if not done.text.endswith("\n"):
                return Reading(None, done.text)
            return replace(pending, before=self._before(pending) + done.token_ids, working=done.text)
        score = expected_score(done.label_probs) if any(done.label_probs) else None
        return Reading(score, pending.working or "")

    def _asks_reasoning(self, pending: Pending[S]) -> bool:
        """Whether the next request is for the reasoning alone, in `expected` mode."""
        return self._judging.mode == "expected" and self._judging.working and pending.working is None

    def _before(self, pending: Pending[S]) -> tuple[int, ...]:
        """Token ids that the judge continues from. In `expected` mode it must not think, so an empty thought is inserted."""
        if self._judging.mode == "expected" and pending.working is None:
            return self._engine.renderer(pending.question.judge).thought("", pending.prompt.state)
        return pending.before

    def _request(self, pending: Pending[S]) -> Request:
        ballot, judging = pending.question, self._judging
        reasoning = self._asks_reasoning(pending)
        labels = judging.mode == "expected" and not reasoning
        thinks = judging.mode == "text" and self._thinks(pending)
        # Leave room for a label after the reasoning.
        limit = max(1, judging.max_new_tokens - 1) if reasoning else judging.max_new_tokens
        if thinks:
            limit = self._engine.renderer(ballot.judge).limit(pending.prompt, limit)
        pattern = REASONING_PATTERN if reasoning else judging_pattern(judging.working)
        # Continuing after thinking must not repeat the random numbers of the first request.
        again = ("answer",) if pending.thought else ()
        return Request(
            key=ballot.key,
            model=ballot.judge,
            prompt=pending.prompt,
            sampling=Sampling(
                judging.temperature, judging.top_p, judging.top_k, limit, stop=("\n",) if reasoning else ()
            ),
            seed=rng.seed_of(*self._stream, pending.tries - 1, ballot.key, *again),
            labels=self._labels_of(ballot.judge) if labels else (),
            prefix=self._before(pending),
            pattern=pattern if judging.constrained and not labels and not thinks else "",
        )

    def _labels_of(self, judge: ModelRef) -> tuple[Label, ...]:
        if judge.base not in self._labels:
            self._labels[judge.base] = labels_of(self._engine.renderer(judge), self._judging)
        return self._labels[judge.base]


class VoteRequests(ScoreRequests[Ballot, Vote]):
    """Requests for the votes on combats."""

    def _row(self, pending: Pending[Ballot], verdict: Reading, prompt_tokens: int) -> Vote:
        ballot = pending.question
        return Vote(
            combat_id=ballot.combat_id,
            contestant=ballot.contestant,
            judge=ballot.judge.name,
            **verdict_fields(pending, verdict, prompt_tokens),
        )


class Judge(RowPhase):
    name = "judge"
    rows = Vote
    alternatives = ("combat",)

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).votes

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """Votes on all combats, except undecidable ones (see sparta/phases/undecidable.py)."""
        bases, skipped = run.bases, undecidable(run, t)
        return [
            WorkItem(
                vote_key(combat.combat_id, model, judge),
                cost=1.0,
                group=judge,
                base=base,
                bundle=f"{combat.combat_id}/{judge}",
            )
            for combat in run.plan(t)
            if combat.combat_id not in skipped
            for judge, base in bases.items()
            if judge not in combat.models
            for model in combat.models
        ]

    def final(self, run: Run, t: int) -> bool:
        return run.recipe.judging.equal == "judge" or not Generate().missing(run, t)

    def expected(self, run: Run, t: int) -> Expected:
        """Two votes from every judge of a combat, each of the maximum length; each reads a prompt and a response of half the maximum length."""
        recipe = run.recipe
        votes = 2 * recipe.combats * (len(run.models) - 2)
        silent = recipe.judging.mode == "expected" and not recipe.judging.working
        written = 0 if silent else recipe.judging.max_new_tokens
        reading = token_costs.expected_reading(run, recipe.generation.max_new_tokens / 2, judging=True)
        return Expected(
            f"{'up to ' * (recipe.judging.equal == 'skip')}{votes:,} votes",
            bundles=votes // 2,
            # A judge that writes nothing still counts one token, its label.
            cost=votes * (max(written, 1) + reading),
            tokens=votes * written,
        )

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        return token_costs.of_votes(run, t, items)

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        members = references(run, t - 1)
        engine = engine_for(run, self.engine(run.recipe), members.values())
        vote_requests(run, t, engine).ask_all(_ballots(run, t, items, members), sink.write)


def vote_requests(run: Run, t: int, engine: Engine) -> VoteRequests:
    """The VoteRequests of iteration t."""
    return VoteRequests(engine, run.recipe.judging, (run.recipe.seed, t, "judge"))


def ballots_on(
    combat: Combat, judge: ModelRef, texts: Mapping[str, str], requested: Collection[str]
) -> Iterator[Ballot]:
    """The ballots of `judge` on the two responses of `combat`, if their vote keys are in `requested`. texts: by response key."""
    for model in combat.models:
        if vote_key(combat.combat_id, model, judge.name) in requested:
            text = texts[response_key(combat.combat_id, model)]
            yield Ballot(combat.combat_id, model, judge, combat.messages, text)


def _ballots(
    run: Run, t: int, items: Sequence[WorkItem], members: Mapping[str, ModelRef]
) -> Iterator[Ballot]:
    """The ballots of `items`, grouped by base, judge and combat."""
    requested = {item.key for item in items}
    texts = _texts(run, t, requested)
    for judge in sorted(members.values(), key=lambda member: member.base):
        for combat in run.plan(t):
            yield from ballots_on(combat, judge, texts, requested)


def _texts(run: Run, t: int, requested: Collection[str]) -> dict[str, str]:
    """The texts to judge for the votes `requested`, by response key. Raises SpartaError if a response is missing."""
    folder = run.iteration(t).responses
    judged = {
        response_key(combat.combat_id, model)
        for combat in run.plan(t)
        for model in combat.models
        if any(vote_key(combat.combat_id, model, judge) in requested for judge in run.models)
    }
    texts = {row.key: answer_of(row) for row in iter_shards(folder, Response) if row.key in judged}
    if missing := judged - texts.keys():
        raise SpartaError(
            f"{folder} has no response {min(missing)}: generation is not complete, launch the run again to continue it"
        )
    return texts
