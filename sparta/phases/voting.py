"""Votes in the making: what is asked of a judge, and what its answers come to (ALGORITHM, Votes)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from sparta import rng
from sparta.arena.votes import expected_score, parse_score
from sparta.engines.base import Completion, Engine, Label, ModelRef, Request, Sampling
from sparta.engines.labels import labels_of
from sparta.prompts import (
    WORKING_PATTERN,
    Message,
    Prompt,
    PromptTooLong,
    judging_instruction,
    judging_pattern,
)
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


@dataclass(frozen=True)
class _Pending:
    """A ballot that a judge is at. tries: begun so far. working: what the judge wrote before it is asked for labels.

    new_tokens, seconds: what all that it has written so far came to.
    """

    ballot: Ballot
    prompt: Prompt
    tries: int = 1
    working: Completion | None = None
    new_tokens: int = 0
    seconds: float = 0.0


class Jury:
    """Turns ballots into requests and completions into votes, or into the next request on the way to one.

    stream: names the random streams of the iteration's votes; every try of every vote has its own.
    """

    def __init__(self, engine: Engine, judging: Judging, stream: tuple[int | str, ...]) -> None:
        self._engine = engine
        self._judging = judging
        self._stream = stream
        self._pending: dict[str, _Pending] = {}
        self._labels: dict[str, tuple[Label, ...]] = {}
        # Where nothing is drawn at random, asking again gives the same.
        drawn = judging.temperature > 0 and (judging.mode == "text" or judging.working)
        self._tries = 1 + judging.retries if drawn else 1
        self._instruction = judging_instruction(judging.mode, judging.working, judging.labels)

    def requests(self, ballots: Iterable[Ballot], write: Callable[[Vote], None]) -> Iterator[Request]:
        """The first request for each ballot. One whose prompt leaves no room is no request, but a missing vote at once: it is written."""
        for ballot in ballots:
            asked = self.ask(ballot)
            if isinstance(asked, Vote):
                write(asked)
            else:
                yield asked

    def ask(self, ballot: Ballot) -> Request | Vote:
        """The first request for `ballot`, or a missing vote where its prompt leaves no room."""
        try:
            prompt = self._engine.renderer(ballot.judge).judging(
                ballot.messages,
                ballot.response,
                instruction=self._instruction,
                max_new_tokens=self._judging.max_new_tokens,
            )
        except PromptTooLong:
            return _vote(_Pending(ballot, Prompt((), None)), None, "", 0)
        return self._request(_Pending(ballot, prompt))

    def hear(self, done: Completion) -> Request | Vote:
        """What `done` leads to: the vote, or the request that comes next for it."""
        before = self._pending.pop(done.key)
        pending = replace(
            before,
            new_tokens=before.new_tokens + done.new_tokens,
            seconds=before.seconds + done.seconds,
        )
        judging, working = self._judging, pending.working
        if judging.mode == "text":
            score = parse_score(done.text, bare=not judging.working)
            return self._settled(pending, score, done.text, done)
        if judging.working and working is None:
            if done.text.endswith("\n"):
                return self._request(replace(pending, working=done))
            return self._settled(pending, None, done.text, done)
        score = expected_score(done.label_probs) if any(done.label_probs) else None
        return self._settled(pending, score, working.text if working else "", done)

    def _settled(self, pending: _Pending, score: float | None, raw: str, done: Completion) -> Request | Vote:
        """The vote; where it is missing, and another try may do better and is left, the request for that."""
        again = pending.tries < self._tries and done.finish_reason != "prompt_too_long"
        if score is None and again:
            return self._request(replace(pending, tries=pending.tries + 1, working=None))
        return _vote(pending, score, raw, done.prompt_tokens)

    def _request(self, pending: _Pending) -> Request:
        ballot, judging, working = pending.ballot, self._judging, pending.working
        self._pending[ballot.key] = pending
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


def _vote(pending: _Pending, score: float | None, raw: str, prompt_tokens: int) -> Vote:
    """The row of a vote."""
    ballot = pending.ballot
    return Vote(
        combat_id=ballot.combat_id,
        contestant=ballot.contestant,
        judge=ballot.judge.name,
        score=score,
        raw=raw,
        tries=pending.tries,
        prompt_tokens=prompt_tokens,
        new_tokens=pending.new_tokens,
        cut=pending.prompt.cut,
        seconds=pending.seconds,
    )
