"""Votes in the making: what is asked of a judge, and what its answers come to (ALGORITHM, Votes)."""

from dataclasses import dataclass

from sparta import rng
from sparta.arena.votes import expected_score, parse_score
from sparta.chat_template import Message
from sparta.engines.base import Completion, Engine, Label, ModelRef, Request, Sampling
from sparta.engines.labels import labels_of
from sparta.phases.asking import Asking, Pending, Verdict
from sparta.prompts import WORKING_PATTERN, Prompt, judging_instruction, judging_pattern
from sparta.recipe import Judging
from sparta.store.records import Vote, vote_key


@dataclass(frozen=True)
class Ballot:
    """One vote to be cast, and what the judge needs for it."""

    combat_id: str
    contestant: str
    judge: ModelRef
    messages: tuple[Message, ...]
    response: str

    @property
    def key(self) -> str:
        return vote_key(self.combat_id, self.contestant, self.judge.name)


class Jury(Asking[Ballot, Vote]):
    """Turns ballots into requests and completions into votes, or into the next request on the way to one.

    stream: names the random streams of the iteration's votes; every try of every vote has its own.
    """

    def __init__(self, engine: Engine, judging: Judging, stream: tuple[int | str, ...]) -> None:
        # Where nothing is drawn at random, asking again gives the same.
        drawn = judging.temperature > 0 and (judging.mode == "text" or judging.working)
        super().__init__(engine, tries=1 + judging.retries if drawn else 1)
        self._judging = judging
        self._stream = stream
        self._labels: dict[str, tuple[Label, ...]] = {}
        self._instruction = judging_instruction(judging.mode, judging.working, judging.labels)

    def _prompt(self, question: Ballot) -> Prompt:
        return self._engine.renderer(question.judge).judging(
            question.messages,
            question.response,
            instruction=self._instruction,
            max_new_tokens=self._judging.max_new_tokens,
        )

    def _read(self, pending: Pending[Ballot], done: Completion) -> Verdict | None:
        judging, working = self._judging, pending.working
        if judging.mode == "text":
            cut = done.finish_reason == "length"
            return Verdict(parse_score(done.text, bare=not judging.working, cut=cut), done.text)
        if judging.working and working is None:
            return None if done.text.endswith("\n") else Verdict(None, done.text)
        score = expected_score(done.label_probs) if any(done.label_probs) else None
        return Verdict(score, working.text if working else "")

    def _request(self, pending: Pending[Ballot]) -> Request:
        ballot, judging, working = pending.question, self._judging, pending.working
        asks_labels = judging.mode == "expected" and (working is not None or not judging.working)
        asks_working = judging.mode == "expected" and not asks_labels
        form = WORKING_PATTERN if asks_working else judging_pattern(judging.working)
        return Request(
            key=ballot.key,
            model=ballot.judge,
            prompt=pending.prompt,
            sampling=Sampling(
                judging.temperature,
                judging.top_p,
                judging.top_k,
                # After a working there must be room for a label.
                max(1, judging.max_new_tokens - 1) if asks_working else judging.max_new_tokens,
                stop=("\n",) if asks_working else (),
            ),
            seed=rng.seed_of(*self._stream, pending.tries - 1, ballot.key),
            labels=self._labels_of(ballot.judge) if asks_labels else (),
            prefix=working.token_ids if working else (),
            pattern=form if judging.constrained and not asks_labels else "",
        )

    def _labels_of(self, judge: ModelRef) -> tuple[Label, ...]:
        if judge.base not in self._labels:
            self._labels[judge.base] = labels_of(self._engine.renderer(judge), self._judging)
        return self._labels[judge.base]

    def _row(self, pending: Pending[Ballot], verdict: Verdict, prompt_tokens: int) -> Vote:
        ballot = pending.question
        return Vote(
            combat_id=ballot.combat_id,
            contestant=ballot.contestant,
            judge=ballot.judge.name,
            score=verdict.score,
            raw=verdict.raw,
            tries=pending.tries,
            prompt_tokens=prompt_tokens,
            new_tokens=pending.new_tokens,
            cut=pending.prompt.cut,
            seconds=pending.seconds,
        )
