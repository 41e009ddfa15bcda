"""Judge: every model that does not duel scores each of the two responses alone, on 1..10 (Algorithm 1, lines 7 to 9)."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

from sparta import rng
from sparta.arena.votes import expected_score, parse_score
from sparta.engines.base import Completion, Engine, ModelRef, Request, Sampling
from sparta.engines.factory import open_engine
from sparta.engines.labels import label_ids
from sparta.errors import SpartaError
from sparta.phases.base import RowPhase, Sink, WorkItem
from sparta.phases.generate import estimated_tokens
from sparta.phases.pool import references
from sparta.prompts import Message, Prompt, PromptTooLong, Renderer, judging_instruction
from sparta.recipe import Judging
from sparta.store.records import Response, Vote, response_key, vote_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards

CHUNK = 1000
"""Ballots that are rendered, cast and written together: what is held in memory, and what a kill may cost."""


@dataclass(frozen=True)
class Ballot:
    """One vote to be cast, and what the judge needs for it."""

    combat_id: str
    contestant: str
    judge: ModelRef
    messages: tuple[Message, ...]
    response: str
    prompt: Prompt | None = None
    tries: int = 0

    @property
    def key(self) -> str:
        return vote_key(self.combat_id, self.contestant, self.judge.name)


@dataclass(frozen=True)
class Reading:
    """What one try came to: a score or None, what the judge wrote, and tokens spent."""

    score: float | None
    raw: str
    prompt_tokens: int
    new_tokens: int
    seconds: float


class Judge(RowPhase):
    name = "judge"
    rows = Vote

    def folder(self, run: Run, t: int) -> Path:
        return run.iteration(t).votes

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        recipe = run.recipe
        tail = recipe.judging.max_new_tokens + recipe.generation.max_new_tokens / 2
        items, bases = [], run.bases
        for combat in run.plan(t):
            cost = estimated_tokens(combat.messages) + tail
            for judge, base in bases.items():
                if judge not in combat.models:
                    items += [
                        WorkItem(vote_key(combat.combat_id, model, judge), cost, judge, base)
                        for model in combat.models
                    ]
        return items

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        recipe = run.recipe
        engine = open_engine(recipe.engine, recipe.pool.trust_remote_code)
        for chunk in _chunks(_ballots(run, t, items)):
            for vote in _votes(engine, chunk, recipe.judging, (recipe.seed, t, "judge")):
                sink.write(vote)


def _chunks(ballots: Iterable[Ballot]) -> Iterator[Sequence[Ballot]]:
    """At most CHUNK ballots at a time, all for one base: a chunk is gone through more than once, and changing bases costs minutes."""
    for _, of_base in groupby(ballots, key=lambda ballot: ballot.judge.base):
        while chunk := list(islice(of_base, CHUNK)):
            yield chunk


def _ballots(run: Run, t: int, items: Sequence[WorkItem]) -> Iterator[Ballot]:
    """The ballots of `items`, those of one base and of one judge together and its two votes on a combat next to each other."""
    wanted = {item.key for item in items}
    texts = _texts(run, t, wanted)
    members = references(run, t - 1)
    for judge in sorted(run.models, key=lambda name: members[name].base):
        for combat in run.plan(t):
            for model in combat.models:
                if vote_key(combat.combat_id, model, judge) in wanted:
                    text = texts[response_key(combat.combat_id, model)]
                    yield Ballot(combat.combat_id, model, members[judge], combat.messages, text)


def _texts(run: Run, t: int, wanted: Collection[str]) -> dict[str, str]:
    """What is to be judged for the votes `wanted`, by the response's key. Raises SpartaError where a response is not there."""
    folder = run.iteration(t).responses
    judged = {
        response_key(combat.combat_id, model)
        for combat in run.plan(t)
        for model in combat.models
        if any(vote_key(combat.combat_id, model, judge) in wanted for judge in run.models)
    }
    texts = {row.key: row.text for row in iter_shards(folder, Response) if row.key in judged}
    if missing := judged - texts.keys():
        raise SpartaError(
            f"{folder} has no response {min(missing)}: generation is not complete, launch the run again to continue it"
        )
    return texts


def _votes(
    engine: Engine, ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...]
) -> Iterator[Vote]:
    """The votes of `ballots`, each as soon as it is known, with tries anew for those that could not be read."""
    pending = []
    for ballot in ballots:
        try:
            pending.append(replace(ballot, prompt=_render(engine.renderer(ballot.judge), ballot, judging)))
        except PromptTooLong:
            yield _vote(replace(ballot, tries=1), Reading(None, "", 0, 0, 0.0))
    tries = _tries(judging)
    for attempt in range(tries):
        again = []
        for ballot, reading in _cast(engine, pending, judging, (*stream, attempt)):
            ballot = replace(ballot, tries=attempt + 1)
            if reading.score is None and attempt + 1 < tries:
                again.append(ballot)
            else:
                yield _vote(ballot, reading)
        pending = sorted(again, key=lambda ballot: ballot.key)


def _tries(judging: Judging) -> int:
    """How often a vote that cannot be read is asked for; where nothing is drawn at random, asking again gives the same."""
    return 1 if judging.temperature == 0 else 1 + judging.retries


def _render(renderer: Renderer, ballot: Ballot, judging: Judging) -> Prompt:
    return renderer.judging(
        ballot.messages,
        ballot.response,
        instruction=judging_instruction(judging.mode, judging.working, judging.labels),
        max_new_tokens=judging.max_new_tokens,
    )


def _cast(
    engine: Engine, ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...]
) -> Iterator[tuple[Ballot, Reading]]:
    """One try for each ballot."""
    if judging.mode == "text":
        yield from _cast_text(engine, ballots, judging, stream)
    else:
        yield from _cast_expected(engine, ballots, judging, stream)


def _cast_text(
    engine: Engine, ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...]
) -> Iterator[tuple[Ballot, Reading]]:
    by_key = {ballot.key: ballot for ballot in ballots}
    for done in engine.run(_requests(ballots, judging, stream, stop=())):
        score = parse_score(done.text, bare=not judging.working)
        yield (
            by_key[done.key],
            Reading(score, done.text, done.prompt_tokens, len(done.token_ids), done.seconds),
        )


def _cast_expected(
    engine: Engine, ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...]
) -> Iterator[tuple[Ballot, Reading]]:
    """The mean of the next-token distribution over the labels; after one line of working where the recipe asks for it."""
    by_key = {ballot.key: ballot for ballot in ballots}
    workings: dict[str, Completion] = {}
    if judging.working:
        workings = {done.key: done for done in engine.run(_requests(ballots, judging, stream, stop=("\n",)))}
    requests = []
    labels: dict[str, tuple[int, ...]] = {}
    for ballot in ballots:
        working = workings.get(ballot.key)
        if working is not None and not working.text.endswith("\n"):
            yield (
                ballot,
                Reading(None, working.text, working.prompt_tokens, len(working.token_ids), working.seconds),
            )
            continue
        [request] = _requests([ballot], judging, stream, stop=())
        base = ballot.judge.base
        if base not in labels:
            labels[base] = label_ids(engine.renderer(ballot.judge), judging)
        requests.append(replace(request, labels=labels[base], prefix=working.token_ids if working else ()))
    for done in engine.run(requests):
        working = workings.get(done.key)
        yield (
            by_key[done.key],
            Reading(
                score=expected_score(done.label_probs),
                raw=working.text if working else "",
                prompt_tokens=done.prompt_tokens,
                new_tokens=len(working.token_ids) if working else 0,
                seconds=done.seconds + (working.seconds if working else 0.0),
            ),
        )


def _requests(
    ballots: Sequence[Ballot], judging: Judging, stream: tuple[int | str, ...], stop: tuple[str, ...]
) -> Iterator[Request]:
    sampling = Sampling(judging.temperature, judging.top_p, judging.top_k, judging.max_new_tokens, stop)
    for ballot in ballots:
        assert ballot.prompt is not None
        yield Request(ballot.key, ballot.judge, ballot.prompt, sampling, rng.seed_of(*stream, ballot.key))


def _vote(ballot: Ballot, reading: Reading) -> Vote:
    return Vote(
        combat_id=ballot.combat_id,
        contestant=ballot.contestant,
        judge=ballot.judge.name,
        score=reading.score,
        raw=reading.raw,
        tries=ballot.tries,
        prompt_tokens=reading.prompt_tokens,
        new_tokens=reading.new_tokens,
        cut=ballot.prompt.cut if ballot.prompt else 0,
        seconds=reading.seconds,
    )
